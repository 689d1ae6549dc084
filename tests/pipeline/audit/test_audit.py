"""Audits of runs of a classifier with a planted shortcut, and of one without."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from hdm_core import Classifier
from pipeline.audit import AUDIT, audit_run, subject, write_audit
from pipeline.audit.groups import CLUSTERS
from pipeline.audit.review import HEAD, review_csv
from pipeline.cli.main import main
from pipeline.errors import InputError
from pipeline.runs import RunStore
from tests.support.drift_runs import stored_run
from tests.support.planted_shortcut import MARK, SHORTCUT, classifier, explain_manifest, write_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("shapes"), 16)


def explained(network: Classifier, manifest: Path, name: str) -> RunStore:
    return explain_manifest(name, network, manifest, manifest.parent / "runs", methods=["grad_cam"], grad_cam={"layer": "9"})


@pytest.fixture(scope="module")
def poisoned(manifest: Path) -> RunStore:
    return explained(classifier(shortcut=True), manifest, "poisoned")


@pytest.fixture(scope="module")
def clean(manifest: Path) -> RunStore:
    return explained(classifier(shortcut=False), manifest, "clean")


def use(monkeypatch: pytest.MonkeyPatch, network: Classifier) -> None:
    monkeypatch.setattr(subject, "load_classifier", lambda config, seed: network)


def test_a_mark_that_the_classifier_learnt_is_found_and_confirmed(poisoned: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, classifier(shortcut=True))
    found = audit_run(poisoned)
    assert found.findings[0].class_name == SHORTCUT
    first = next(each for each in found.findings if each.kind == "spatial")
    assert (first.class_name, first.place, first.confirmed) == (SHORTCUT, "top-left corner", True)
    assert first.box is not None
    left, top, right, bottom = first.box
    assert left <= MARK // 2
    assert top <= MARK // 2
    assert right <= 3 * MARK
    assert bottom <= 3 * MARK
    assert first.insertion is not None
    assert first.insertion > 0.2
    others = [each for each in found.findings if each.class_name != SHORTCUT and each.confirmed]
    assert not others


def test_a_classifier_without_the_shortcut_has_no_confirmed_place(clean: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, classifier(shortcut=False))
    assert not [each for each in audit_run(clean).findings if each.kind == "spatial" and each.confirmed]


def test_another_classifier_is_not_used_for_the_test(poisoned: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, classifier(shortcut=False))
    found = audit_run(poisoned)
    (place,) = (each for each in found.findings if each.kind == "spatial" and each.class_name == SHORTCUT)
    assert place.confirmed is None
    assert place.reason is not None
    assert "weights" in place.reason
    assert any("left out" in note for note in found.notes)


def test_files_and_page_are_written_and_the_run_stays_whole(poisoned: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, classifier(shortcut=True))
    page = write_audit(audit_run(poisoned))
    assert page.endswith("report/audit.html")
    text = poisoned.storage.read("report/audit.html").decode()
    assert "confirmed" in text
    assert text.count("<img") >= 4
    folder = Path(poisoned.url)
    assert pq.read_schema(folder / "audit.parquet").names == AUDIT.names
    clusters = pq.read_table(folder / "audit/clusters.parquet")
    assert clusters.schema.names == CLUSTERS.names
    assert len(clusters) == 64
    rows = pq.read_table(folder / "audit.parquet").to_pylist()
    place = next(row for row in rows if row["kind"] == "spatial")
    assert place["confirmed"] is True
    assert len(place["box"]) == 4
    review = list(csv.DictReader(io.StringIO((folder / "audit/review.csv").read_text())))
    assert tuple(review[0]) == HEAD
    assert review[0]["class"] == SHORTCUT
    assert review[0]["action"] == "remove"
    assert len({row["image_id"] for row in review}) == len(review) >= place["images"]
    scores = [float(row["score"]) for row in review]
    assert scores == sorted(scores, reverse=True)


def run_command(arguments: list[str]) -> int:
    with patch("sys.argv", ["hdm", *arguments]), pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_prints_one_object_and_fails_on_request(
    poisoned: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, classifier(shortcut=True))
    assert run_command(["audit", poisoned.url, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"class_name", "kind", "box", "confirmed", "effect", "interval", "images"}
    assert keys <= set(found["findings"][0])
    assert run_command(["audit", poisoned.url, "--fail-on", "confirmed"]) == 1
    assert SHORTCUT in capsys.readouterr().out
    assert run_command(["audit", poisoned.url, "--fail-on", "confirmd"]) == 2
    assert "did you mean confirmed?" in capsys.readouterr().err
    assert run_command(["audit", poisoned.url, "--set", "alpah=0.1"]) == 2
    assert "alpha" in capsys.readouterr().err


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    def rename(_shard: Any, arrays: Any, records: list[Any], _facts: Any) -> None:
        from dataclasses import replace

        for number, record in enumerate(records):
            records[number] = replace(record, target_name="=<script>alert(1)</script>", status="flat")

    store = stored_run(tmp_path, "hostile", rename, images=8)
    write_audit(audit_run(store, causal=False))
    text = store.storage.read("report/audit.html").decode()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    cells = [row["class"] for row in csv.DictReader(io.StringIO(review_csv(audit_run(store, causal=False)).decode()))]
    assert set(cells) == {"'=<script>alert(1)</script>"}  # no spreadsheet takes it for a formula


def test_a_run_without_finished_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shard is finished"):
        audit_run(stored_run(tmp_path, "begun", committed=0))


def test_maps_that_are_all_flat_are_a_note_and_a_weak_class(tmp_path: Path) -> None:
    def flatten(_shard: Any, arrays: Any, records: list[Any], _facts: Any) -> None:
        from dataclasses import replace

        for number, record in enumerate(records):
            records[number] = replace(record, status="flat", metrics={})

    found = audit_run(stored_run(tmp_path, "flat", flatten, images=8), causal=False)
    assert "all are flat" in found.notes[0]
    assert {each.kind for each in found.findings} <= {"weak"}
    assert found.findings


def test_an_unknown_method_is_answered_with_those_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known are"):
        audit_run(stored_run(tmp_path, "run"), method="lime")
