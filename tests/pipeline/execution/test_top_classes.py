"""The two most probable classes by a network of the user's own code, through the real command: stored, committed, reported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zarr

from hdm_core.metrics.registry import chosen_metrics
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from tests.support.small_run import LOCAL, config, files, hdm, photographs

pytestmark = pytest.mark.server

FACTORY = """
import torchvision

def make(classes):
    return torchvision.models.squeezenet1_1(num_classes=classes).eval()
"""


def test_two_classes_an_image_from_the_plan_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/my_models.py").write_text(FACTORY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=":")
    source = config(
        tmp_path,
        photographs(tmp_path / "photographs", 2),
        classifier={"source": "import", "factory": "my_models:make", "arguments": {"classes": 4}, "resize": 72, "crop": 64},
        methods=["hdm", "grad_cam"],
        target={"top": 2},
        compute={**LOCAL, "shard_size": 2},
    )
    ended = hdm("run", source, "--json")
    assert ended.returncode == 0, ended.stderr
    facts, run = json.loads(ended.stdout), tmp_path / "out/small"
    store = RunStore.open(str(run))
    info = store.metadata()
    assert info["identity"]["target"] == {"top": 2}
    assert facts["passes"] == 2 * sum(info["passes_per_image"].values())

    records = store.records().to_pylist()
    assert [(r["row"], r["method"], r["rank"]) for r in records] == [
        (i, m, k) for i in range(2) for m in ("hdm", "grad_cam") for k in (0, 1)
    ]
    assert sum(r["passes"] for r in records) == facts["passes"]
    group = zarr.open_group(run / "maps.zarr", mode="r")
    assert (group["hdm"].metadata.dimension_names, group["hdm"].shape) == (("image", "rank", "y", "x"), (2, 2, 64, 64))
    assert group["hdm_stages"].metadata.dimension_names == ("image", "rank", "stage", "y", "x")
    for record in records:
        values = read_map(store.storage.zarr("maps.zarr"), record["method"], record["row"], record["rank"])
        assert values.shape == (64, 64)
        assert bool(values.any()) == (record["status"] == "ok")

    table = {(row["method"], row["metric"]): row for row in pq.read_table(run / "tables.parquet").to_pylist()}
    for method in ("hdm", "grad_cam"):
        first = [r for r in records if (r["method"], r["rank"]) == (method, 0)]
        for metric in chosen_metrics(None):
            values = [r[metric] for r in first if r[metric] is not None]
            assert table[method, metric]["n"] == len(values)
            assert not values or table[method, metric]["mean"] == pytest.approx(sum(values) / len(values))
    page = (run / "report/index.html").read_text()
    assert "the 2 most probable" in page
    assert "my_models:make" in page
    assert page.count("The next most probable classes") == 2

    commit = json.loads((run / "commits/000000.json").read_text())
    assert {"maps.zarr/hdm/c/0/0/0/0", "maps.zarr/hdm_stages/c/0/0/0/0/0"} < set(commit["sha256"])
    for name, data in files(run, "maps.zarr", "records", "curves").items():
        assert name.endswith(".json") or commit["sha256"][name] == hashlib.sha256(data).hexdigest()
