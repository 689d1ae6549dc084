"""A run that hdm 0.1.0 wrote, with the keys of that version: it is read, and not continued."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import open_run
from pipeline.config.load import load, load_config
from pipeline.config.renamed import renamed_keys
from pipeline.drift import compare
from pipeline.errors import InputError
from pipeline.execution.driver import plan_run
from pipeline.reexplain.plan import plan_reexplain
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.runs.verify import verify
from pipeline.tables.aggregate import aggregate
from pipeline.training.config import TrainConfig
from pipeline.training.run import train_presets
from tests.pipeline.conftest import Ended
from tests.support.paths import ROOT
from tests.support.plans import configuration, refused
from tests.support.small_run import config

DATA = ROOT / "tests" / "data"
OLD_KEYS = {
    "compute": {
        "batch": ("batch_size", 4),
        "attempts": ("max_attempts", 2),
        "stall": ("stall_timeout", 60),
        "lease": ("lease_seconds", 60),
        "patience": ("storage_timeout", 60),
        "sole_driver": ("single_driver", True),
    },
    "hdm": {"keep": ("keep_fraction", 0.5)},
    "dm": {"keep": ("keep_fraction", 0.5)},
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the stored run, with its photographs where its configuration says."""
    shutil.copytree(DATA / "run-0.1.0", tmp_path / "out" / "run-0.1.0")
    shutil.copytree(DATA / "run-0.1.0-photographs", tmp_path / "photographs")
    return tmp_path / "out" / "run-0.1.0"


@pytest.mark.parametrize(("section", "key"), [(section, key) for section, keys in OLD_KEYS.items() for key in keys])
def test_an_old_key_is_refused_with_the_new_one(section: str, key: str) -> None:
    new, value = OLD_KEYS[section][key]
    message = refused(lambda: configuration({f"{section}.{key}": value}))
    assert f"{section}.{key}: this key is now called {new}" in message
    assert len(message.splitlines()) == 1
    assert configuration({f"{section}.{new}": value})


def test_the_table_of_keys_is_what_is_refused() -> None:
    assert {section: {key: new for key, (new, _) in keys.items()} for section, keys in OLD_KEYS.items()} == renamed_keys()


def test_it_is_read(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.parents[1])
    store = RunStore.open(str(old))
    assert store.metadata()["config"]["compute"]["lease_seconds"] == 30
    assert store.metadata()["identity"]["methods"]["hdm"]["keep_fraction"] == 0.5
    assert verify(store).damaged == {}
    assert {row["method"] for row in aggregate(store).to_pylist()} == {"hdm", "dm", "grad_cam"}
    assert Path(write_report(store)).exists()
    assert compare(store, store).images.same == 3
    assert open_run(str(old)).sizes["image"] == 3


def test_its_maps_are_computed_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.parents[1])
    config = load_config(RunStore.open(str(old)).metadata()["config"])
    planned = plan_reexplain(config)
    assert planned.counts == {"new": 0, "changed": 3, "gone": 0, "reused": 0}
    assert all("hdm" in change.why for change in planned.changes)


def test_an_old_key_of_a_training_is_refused_with_the_new_one() -> None:
    message = refused(lambda: load("cub-mobilenet", {"dataset.root": "birds", "compute.attempts": 2}, TrainConfig, train_presets()))
    assert message == "cub-mobilenet: compute.attempts: this key is now called max_attempts; rename it"


def test_it_is_not_continued(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.parents[1])
    RunStore.open(str(old)).storage.remove("commits/000001.json")
    stored = RunStore.open(str(old)).metadata()["config"]
    with pytest.raises(InputError, match="earlier version of hdm") as error:
        plan_run(load_config(stored))
    assert "compute.lease" in str(error.value)
    assert "hdm.keep" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_the_commands_read_it_and_refuse_to_continue(old: Path, monkeypatch: pytest.MonkeyPatch, here: Callable[..., Ended]) -> None:
    monkeypatch.chdir(old.parents[1])
    for command in ("status", "verify", "tables", "report"):
        ended = here(command, old)
        assert ended.code == 0, ended.err
    new = config(old.parents[1], Path("photographs"), name="run-0.1.0")
    for arguments in (("repair", old), ("run", new)):
        ended = here(*arguments)
        assert ended.code == 2
        assert ended.err.splitlines()[-1].startswith("hdm: ")
        assert "was made by an earlier version of hdm" in ended.err
        assert "it can be read, but not continued" in ended.err
