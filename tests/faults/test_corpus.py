"""One real run over all bad images, with planted secrets: correct rows, no side effects, no leaks."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from pipeline.runs.records import STATUSES
from tests.support import image_corpus
from tests.support.browser import chromium
from tests.support.paths import ROOT
from tests.support.processes import below, listening, variable
from tests.support.small_run import command, config, hdm

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

DOCS = ROOT / "docs" / "data.md"
METHODS = ("hdm", "grad_cam")
# Columns that may differ when other images are in the batch; an increase of the probability may depend on its last digit.
ALONE = ["row", "shard", "seconds", "device", "run", "increase_80", "increase_70"]

# Secrets in the environment of a run, which must not appear anywhere else.
PLANTED = {
    name: f"planted-{number}-{name.lower().replace('_', '-')}"
    for number, name in enumerate(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "PREFECT_API_KEY", "RAY_AUTH_TOKEN", "DB_PASSWORD")
    )
}


@dataclass(frozen=True)
class Ran:
    """A finished run of the corpus.

    Attributes:
        said: standard output and standard error.
        ray: folder of Ray's session, with its logs.
        addresses: addresses on which its processes listened.
        modes: authentication modes of the processes of Ray's head.
        arguments: command lines of its processes.
    """

    url: str
    code: int
    said: tuple[str, str]
    ray: Path
    addresses: set[str]
    modes: set[str]
    arguments: set[str]

    @property
    def store(self) -> RunStore:
        return RunStore.open(self.url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "code").mkdir()
    (folder / "code/corpus_network.py").write_text(image_corpus.NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "code"), prepend=":")
        yield folder


def settings(folder: Path, name: str) -> Path:
    return config(
        folder,
        folder / name / "images",
        name=name,
        methods=list(METHODS),
        classifier={"source": "import", "factory": "corpus_network:make", "resize": image_corpus.SIDE + 4, "crop": image_corpus.SIDE},
        hdm={"preset": "fast", "sizes": [3], "stages": 2, "steps": 3, "mix_steps": 2},
        metrics={"protocol": "rise"},
        compute={"workers": 2, "shard_size": 16, "batch_size": 4},
    )


@pytest.fixture(scope="module")
def ran(folder: Path) -> Iterator[Ran]:
    image_corpus.build(folder / "all" / "images")
    source = settings(folder, "all")
    addresses: set[str] = set()
    modes: set[str] = set()
    arguments: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="hdm") as ray, pytest.MonkeyPatch.context() as patch:  # a socket's path must be short
        for name, value in {**PLANTED, "RAY_TMPDIR": ray}.items():
            patch.setenv(name, value)
        with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
            driver = subprocess.Popen(command("run", source, "--json"), stdout=out, stderr=err)
            end = time.monotonic() + 400
            try:
                while driver.poll() is None and time.monotonic() < end:
                    family = below(driver.pid)
                    addresses |= listening(family)
                    arguments |= set(family.values())
                    heads = [process for process, line in family.items() if "gcs_server" in line.split(" ")[0]]
                    found = {process: variable(process, "RAY_AUTH_MODE") for process in heads}
                    modes |= {
                        mode for process, mode in found.items() if mode or variable(process, "PATH")
                    }  # that of one that ends is empty
                    time.sleep(1)
            finally:
                driver.kill()
                driver.wait()
        said = (folder / "out.txt").read_text(), (folder / "err.txt").read_text()
        yield Ran(str(folder / "out/all"), driver.returncode, said, Path(ray), addresses, modes, arguments)


def by_image(store: RunStore) -> dict[str, list[dict[str, Any]]]:
    """Return the records of each image, in the order of the methods."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in store.records().to_pylist():
        found.setdefault(record["image_id"], []).append(record)
    return found


def test_every_image_is_a_row_with_the_right_status_and_says_why(ran: Ran) -> None:
    assert ran.code == 3, ran.said
    records, expected = by_image(ran.store), image_corpus.expected()
    assert set(records) == set(expected)
    assert len(expected) >= 40
    for name, kind in expected.items():
        assert [record["method"] for record in records[name]] == list(METHODS)
        assert max((record["status"] for record in records[name]), key=STATUSES.index) == kind.status, (name, records[name])
        for record in records[name]:
            if kind.status == "unreadable":
                assert kind.message in record["error"], name
                assert record["error"].isprintable(), name
                assert len(record["error"]) <= 500
            else:
                assert record["error"] is None, name
    facts = json.loads(ran.said[0])
    assert facts["statuses"] == {status: sum(kind.status == status for kind in expected.values()) for status in facts["statuses"]}
    assert "Traceback" not in ran.said[1]


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record for comparison with another batch size, with which sums are rounded differently."""
    return {
        key: pytest.approx(value, rel=1e-3, abs=1e-3) if isinstance(value, float | list) else value
        for key, value in record.items()
        if key not in ALONE
    }


def test_good_images_end_as_they_do_alone(ran: Ran, folder: Path) -> None:
    good = {name for kind in image_corpus.KINDS if kind.status in {"ok", "flat"} for name in kind.files}
    image_corpus.build(folder / "good" / "images", good)
    ended = hdm("run", settings(folder, "good"))
    assert ended.returncode == 0, ended.stderr
    alone, among = RunStore.open(str(folder / "out/good")), ran.store
    here, there = by_image(alone), by_image(among)
    assert set(here) == {image_corpus.image_id(name) for name in good}
    maps = [store.storage.zarr("maps.zarr") for store in (alone, among)]
    for name, records in here.items():
        for one, other in zip(records, there[name], strict=True):
            assert {key: other[key] for key in other if key not in ALONE} == comparable(one), name
            left, right = (read_map(store, one["method"], each["row"]) for store, each in zip(maps, (one, other), strict=True))
            np.testing.assert_allclose(right, left, atol=5e-3, err_msg=name)
            assert left.any() == (one["status"] == "ok"), name


def test_turned_copied_and_linked_pictures_have_one_map(ran: Ran) -> None:
    records, maps = by_image(ran.store), ran.store.storage.zarr("maps.zarr")
    same = [f"turned-{number}.png" for number in range(2, 9)] + ["turned-99.png", "twin.png", "inside.png", "png.jpg", "tail.png"]
    for place, method in enumerate(METHODS):
        first = read_map(maps, method, records["plain.png"][place]["row"])
        for name in same:
            np.testing.assert_allclose(read_map(maps, method, records[name][place]["row"]), first, atol=1e-3, err_msg=name)


def test_the_commands_work_on_such_a_run(ran: Ran) -> None:
    for name in ("tables", "status", "verify"):
        ended = CliRunner().invoke(app, [name, ran.url, "--json"])
        assert ended.exit_code == 0, ended.output
        assert json.loads(ended.stdout)
    images = pq.read_table(Path(ran.url) / "images.parquet")
    assert set(images["image_id"].to_pylist()) == set(image_corpus.expected())


def test_no_script_runs_on_the_page_and_names_are_shown_as_they_are(ran: Ran, tmp_path: Path) -> None:
    page = Path(write_report(ran.store, limit=200))
    probe = page.with_name("probe.html")
    told = "{title: document.title, scripts: document.scripts.length, broken: [...document.images].filter(i => !i.naturalWidth).length"
    told += ", names: [...document.querySelectorAll('h3, td:first-child')].map(e => e.textContent)}"
    script = f"<script>onload = () => {{ document.title = encodeURIComponent(JSON.stringify({told})) }}</script>"
    probe.write_text(page.read_text() + script)
    found = re.search(r"<title>(.*?)</title>", chromium(tmp_path / "profile", "--dump-dom", probe.as_uri()))
    probe.unlink()
    assert found
    seen = json.loads(unquote(found[1]))
    assert seen["title"] == "all · HDM report"
    assert seen["scripts"] == 1, "the probe's own"
    assert seen["broken"] == 0
    assert {name for name in image_corpus.expected() if name not in seen["names"]} == set()


def test_no_planted_secret_is_anywhere(ran: Ran) -> None:
    """Not in the run's files, its output, Ray's logs or any command line."""
    files = [path for root in (Path(ran.url), ran.ray) for path in root.rglob("*") if path.is_file()]
    assert any(path.name.startswith("worker-") for path in files), "Ray's logs are among them"
    for name, secret in PLANTED.items():
        assert not [str(path) for path in files if secret.encode() in path.read_bytes()], name
        assert secret not in "".join((*ran.said, *ran.arguments)), name


def test_ray_listens_on_loopback_only_and_asks_for_its_token(ran: Ran) -> None:
    assert ran.addresses == {"127.0.0.1"}
    assert ran.modes == {"token"}


def test_the_table_in_the_docs_is_the_corpus() -> None:
    assert image_corpus.table() in DOCS.read_text(), f"docs/data.md should hold\n{image_corpus.table()}"
