"""Changes of the environment: servers on this machine are reached without a proxy, and what was changed is restored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.environment import NO_PROXY, bypass_proxies_on_loopback, temporary_environment
from tests.support.plans import mapping, save_picture
from tests.support.s3_server import S3

SERVER = "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"NO_PROXY": ""},
        {"NO_PROXY": ".corp,10.0.0.0/8"},
        {"no_proxy": ".corp"},
        {"NO_PROXY": ".corp", "no_proxy": "other.corp"},
        {"NO_PROXY": "127.0.0.1"},
        {"no_proxy": " localhost , 127.0.0.1 "},
        {"NO_PROXY": "*"},
    ],
)
def test_programs_reach_servers_on_this_machine_without_a_proxy(given_: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NO_PROXY, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**given_, "http_proxy": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    changed = dict(os.environ)
    bypass_proxies_on_loopback(changed)
    for name in NO_PROXY:
        monkeypatch.setenv(name, changed[name])
    entries = changed["NO_PROXY"].split(",")
    assert changed["NO_PROXY"] == changed["no_proxy"]
    assert {"127.0.0.1", "localhost"} <= set(entries)
    assert len(entries) == len(set(entries))
    assert all(entry.strip() in entries for value in given_.values() for entry in value.split(",") if entry.strip())
    assert urllib.request.proxy_bypass("127.0.0.1:4200")
    client = httpx.Client()
    assert client._transport_for_url(httpx.URL(SERVER)) is client._transport
    if "*" not in entries:
        assert client._transport_for_url(httpx.URL("http://example.org")) is not client._transport


def test_grpc_has_a_list_of_its_own_which_is_extended_only_where_it_is_set() -> None:
    environment = {"no_grpc_proxy": ".corp"}
    bypass_proxies_on_loopback(environment)
    assert environment["no_grpc_proxy"] == ".corp,127.0.0.1,localhost"
    environment = {}
    bypass_proxies_on_loopback(environment)
    assert set(environment) == set(NO_PROXY)


@given(st.dictionaries(st.sampled_from(["HDM_A", "HDM_B", "HDM_C"]), st.none() | st.text("abc")))
def test_a_temporary_environment_leaves_nothing_behind(changes: dict[str, str | None]) -> None:
    os.environ["HDM_A"] = "before"
    before = dict(os.environ)

    def fail() -> None:
        with temporary_environment(changes, ("HDM_D",)):
            for name, value in changes.items():
                assert os.environ.get(name) == value
            os.environ["HDM_D"] = "set by a library"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(os.environ) == before
    del os.environ["HDM_A"]


@pytest.mark.server
@pytest.mark.slow
def test_a_run_reaches_s3_on_this_machine_behind_a_proxy_that_does_not_answer(s3: S3, tmp_path: Path) -> None:
    save_picture(tmp_path / "photographs" / "cat" / "1.png")
    settings = mapping(dataset={"kind": "folder", "root": str(tmp_path / "photographs")}, output=s3.url, storage=s3.storage)
    settings |= {"methods": ["grad_cam"], "compute": {"executor": "local"}, "classifier": {**settings["classifier"], "weights": None}}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    environment = {name: value for name, value in os.environ.items() if name not in NO_PROXY}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [Path(sys.executable).parent / "hdm", "run", tmp_path / "run.yaml", "--json"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["images"] == 1
