"""Prefect server of `python -m flows`: proxies of the environment, and one line where there is no server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows.proxies import drop_unusable_proxies
from pipeline.environment import NO_PROXY, bypass_proxies_on_loopback
from tests.support.plans import save_picture

ROOT = Path(__file__).parents[2]
DEAD = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", *NO_PROXY)

# `python -m flows` up to the flow, so that the fast tests start no server.
CONNECT = """
import sys
from flows.server import ServerError, connect_server
try:
    connect_server()
except ServerError as error:
    sys.exit(f"hdm: {error}")
"""


@pytest.mark.parametrize(
    ("variables", "ignored"),
    [
        ({"http_proxy": "http://proxy:3128"}, []),
        ({"http_proxy": "proxy:3128"}, []),
        ({"all_proxy": "socks5://user:secret@proxy:1080"}, ["all_proxy"]),
        ({"ALL_PROXY": "socks5h://proxy:1080", "HTTP_PROXY": "http://proxy:3128"}, ["ALL_PROXY"]),
        ({"https_proxy": "ftp://proxy"}, ["https_proxy"]),
        ({"http_proxy": "http://proxy:port"}, ["http_proxy"]),
        ({"http_proxy": "http://proxy", "no_proxy": "[::1],.corp"}, ["[::1]"]),
        ({"http_proxy": "http://proxy", "NO_PROXY": "fe80::/10,10.0.0.0/8"}, ["fe80::/10"]),
        ({"no_proxy": "[::1],.corp"}, ["[::1]"]),  # also without a proxy
    ],
)
def test_proxy_settings_that_prefects_client_refuses_are_ignored_with_a_line(
    variables: dict[str, str], ignored: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in NO_PROXY:
        monkeypatch.setenv(name, variables.get(name, ""))
    bypass_proxies_on_loopback(os.environ)
    drop_unusable_proxies()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(ignored)
    assert all(each in line for each, line in zip(ignored, lines, strict=True))
    assert "secret" not in "".join(lines)
    for name, value in variables.items():
        assert os.environ.get(name) == value or name in ignored or name in NO_PROXY
    with httpx.Client() as client:
        assert client._transport_for_url(httpx.URL("http://127.0.0.1:4200/api")) is client._transport
    if any("[" in each or "::" in each for each in ignored):
        assert all(each not in os.environ["NO_PROXY"] for each in ignored)
        assert any(entry in os.environ["NO_PROXY"] for entry in (".corp", "10.0.0.0/8"))


def run_with(variables: dict[str, str], folder: Path, *command: str) -> tuple[int, list[str], str]:
    """Run Python with a new PREFECT_HOME; return its exit code, the lines on stderr and stdout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_") and name not in PROXIES}
    environment |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": str(ROOT),
    } | variables
    ended = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=400)
    return ended.returncode, ended.stderr.splitlines(), ended.stdout


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, ["PREFECT_API_URL http://127.0.0.1:9/api", "unset the variable"]),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api", "http_proxy": "http://127.0.0.1:10"}, ["no Prefect server is reachable"]),
        ({"PREFECT_API_URL": "nonsense"}, ["PREFECT_API_URL nonsense"]),
        ({"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}, ["set PREFECT_API_URL, or PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=true"]),
        ({"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "soon"}, ["settings"]),
    ],
)
def test_without_a_server_one_line_says_why(variables: dict[str, str], words: list[str], tmp_path: Path) -> None:
    code, lines, _ = run_with(variables, tmp_path, "-c", CONNECT)
    assert code == 1
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["corrupt", "no folder"])
def test_a_temporary_server_that_cannot_start_ends_with_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_text("this is no database, whatever its name promises\n" * 20)
    home = str(tmp_path) if kind == "corrupt" else "/dev/null/prefect"
    code, lines, _ = run_with({"PREFECT_HOME": home}, tmp_path, "-m", "flows", "demo")
    assert code == 1
    assert len(lines) == 1, lines
    assert home in lines[0]
    # Without a folder it is Prefect that fails, or first its database.
    reasons = ["file is not a database"] if kind == "corrupt" else ["Not a directory", "unable to open database file"]
    assert any(reason in lines[0] for reason in reasons), lines


@pytest.mark.server
@pytest.mark.nightly
def test_the_demos_command_works_behind_a_proxy_that_does_not_answer(tmp_path: Path) -> None:
    """Prefect's server, Ray and the files are all on this machine; its first start makes a database."""
    save_picture(tmp_path / "photographs" / "cat" / "1.png", 96, 80)
    config = tmp_path / "proxy.yaml"
    config.write_text(
        f"name: proxy\ndataset: {{kind: folder, root: {tmp_path / 'photographs'}}}\n"
        "classifier: {arch: squeezenet1_1, weights: null, resize: 32, crop: 32}\nmethods: [grad_cam]\n"
        f"compute: {{workers: 1, gpus_per_worker: 0}}\noutput: {tmp_path / 'runs'}\n"
    )
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), DEAD) | {"ALL_PROXY": "socks5://127.0.0.1:9"}
    code, lines, output = run_with(proxies, tmp_path, "-m", "flows", str(config))
    assert code == 0, (lines, output)
    assert (tmp_path / "runs" / "proxy" / "run.json").is_file()
    assert "Traceback" not in "".join(lines) + output
