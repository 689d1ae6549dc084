from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.audit.columns import manifest_columns
from pipeline.audit.energy import GRID, Energies
from pipeline.audit.groups import cluster_maps, group_findings
from pipeline.audit.settings import AuditSettings
from tests.support.drift_runs import stored_run


def test_a_group_is_described_by_the_manifest_column_that_its_images_share() -> None:
    rng = np.random.default_rng(0)
    cells = np.full((60, GRID**2), 0.001)
    corner = np.arange(60) < 20
    cells[corner, 0] = 1 + 0.05 * rng.random(20)
    cells[~corner, 27] = 1 + 0.05 * rng.random(40)
    cells += 0.01 * rng.random(cells.shape)
    data = Energies(np.arange(60), np.full(60, "square", object), cells / cells.sum(1, keepdims=True), {"square": 60}, (64, 64))
    sites = ["B" if row in (*range(19), 40) else "A" for row in range(60)]
    images = {
        row: {
            "split": "train",
            "class_name": "square",
            "path": f"all/{row:03d}.png",
            "manifest": {"site": sites[row]},
        }
        for row in range(60)
    }
    settings = AuditSettings()
    found = [each for each in group_findings(data, cluster_maps(data, settings), images, "grad_cam", settings) if "site B" in each.text]
    assert [each.place for each in found] == ["top-left corner"]
    assert found[0].text == "33% of square look at the top-left corner; 95% of them have site B, 2% of the rest"
    assert set(found[0].rows) == set(range(20))


def test_own_columns_of_a_manifest_are_read_and_those_that_all_differ_are_not(tmp_path: Path) -> None:
    manifest = tmp_path / "images.csv"
    manifest.write_text("path,image_id,site,year,serial\na.png,0,A,2001,x1\nb.png,1,A,,x2\nc.png,,B,2001,x3\n")
    store = stored_run(tmp_path, "run", dataset={"kind": "manifest", "root": str(manifest)})
    assert manifest_columns(store) == {"0": {"site": "A", "year": "2001"}, "1": {"site": "A"}, "c.png": {"site": "B", "year": "2001"}}
    manifest.unlink()
    assert manifest_columns(store) == {}
