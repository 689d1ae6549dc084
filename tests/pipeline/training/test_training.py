"""Real trainings: killed and resumed with the same bytes, distributed, and refused."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from hdm_core import Classifier
from hdm_core.sources.checkpoint import CARD, MODEL
from pipeline.cli.main import main
from pipeline.config.load import load, load_config
from pipeline.datasets import list_samples
from pipeline.datasets.images import read_image
from pipeline.errors import RunError
from pipeline.execution.cluster import CPU_ENVIRONMENT
from pipeline.monitoring.progress import Progress
from pipeline.training.config import TrainConfig
from pipeline.training.run import train, train_presets
from pipeline.training.store import STATE
from tests.support.plans import files_below, refused
from tests.support.small_run import LOCAL, hdm
from tests.support.trainings import load_training, run_training, training_config, write_colour_dataset

# A kill from outside comes too late on a busy machine: these epochs take milliseconds.
TRAINING_KILLED = """
import os, signal, sys
from pipeline.config.load import load
from pipeline.training.config import TrainConfig
from pipeline.training.run import train

def kill_after_epoch(progress):
    if progress.message.startswith(f"epoch {sys.argv[2]} of"):
        os.kill(os.getpid(), signal.SIGKILL)

train(load(sys.argv[1], None, TrainConfig, {}), kill_after_epoch)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_dataset(tmp_path_factory.mktemp("training") / "images")


@pytest.fixture(scope="module")
def folder(images: Path) -> Path:
    """Folder of a classifier that was trained without interruption."""
    return Path(run_training(images, name="whole").url)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "split.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_a_training_leaves(folder: Path) -> None:
    assert files_below(folder) == {MODEL, CARD, "split.csv", "history.json", "train.json"}
    card = json.loads((folder / CARD).read_text())
    assert card["classes"] == ["blue", "red"]
    assert (card["preprocess"]["resize"], card["preprocess"]["crop"]) == (36, 32)
    metrics = card["metrics"]
    assert (metrics["train_images"], metrics["validation_images"], metrics["test_images"]) == (8, 4, 4)
    history = json.loads((folder / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert [entry["stage"] for entry in history] == [0, 1, 1, 1]
    best = max(history, key=lambda entry: (entry["validation_accuracy"], -entry["validation_loss"]))
    assert metrics["epoch"] == best["epoch"]
    assert metrics["validation_loss"] == pytest.approx(best["validation_loss"])


def test_the_card_tells_what_the_classifier_does(folder: Path, images: Path) -> None:
    """The test accuracy of the card is that of a run on just these images."""
    classifier = Classifier.from_checkpoint(folder)
    run = load_config(
        {
            "name": "held-back",
            "dataset": {"kind": "folder", "root": str(images), "splits": str(folder / "split.csv"), "split": "test"},
            "classifier": {"source": "checkpoint", "path": str(folder)},
            "methods": ["grad_cam"],
            "output": "runs",
        }
    )
    samples = list_samples(run.dataset, {})
    assert [sample.image_id for sample in samples] == [row["image_id"] for row in rows(folder) if row["split"] == "test"]
    with classifier.frozen() as network:
        logits = network(classifier.prepare([read_image(sample, {}).image for sample in samples]))
    correct = sum(int(guess) == sample.label for guess, sample in zip(logits.argmax(1), samples, strict=True))
    assert correct / len(samples) == json.loads((folder / CARD).read_text())["metrics"]["test_accuracy"]


def test_it_learns(tmp_path: Path) -> None:
    recipe = {
        "stages": [{"epochs": 6, "learning_rate": 1e-4, "head_learning_rate": 1e-2}],
        "batch": 4,
        "statistics": "pretrained",
        "augmentation": {"colour": 0},
    }
    done = run_training(write_colour_dataset(tmp_path / "images"), test=0.5, validation=None, recipe=recipe)
    assert done.card.metrics["test_accuracy"] == 1.0
    assert done.card.metrics["epoch"] == 6, "without validation images the last epoch is the result"


def test_a_training_that_is_done_is_not_done_again(folder: Path, images: Path) -> None:
    before = (folder / MODEL).stat().st_mtime_ns
    again = run_training(images, name="whole")
    assert again.card.metrics == json.loads((folder / CARD).read_text())["metrics"]
    assert (folder / MODEL).stat().st_mtime_ns == before


def test_another_configuration_is_refused(folder: Path, images: Path) -> None:
    message = refused(lambda: run_training(images, {"recipe.batch": 5}, name="whole"))
    assert "recipe.batch (4, now 5)" in message


@pytest.mark.server
def test_a_training_that_was_killed_ends_with_the_same_bytes(images: Path, folder: Path, tmp_path: Path) -> None:
    """Killed after the epoch of the head alone, when a new stage begins, and again within that stage."""
    config = tmp_path / "training.yaml"
    config.write_text(yaml.safe_dump(training_config(images, output=str(tmp_path))))
    killed = tmp_path / "colours"
    for epoch in (1, 2):
        ended = subprocess.run([sys.executable, "-c", TRAINING_KILLED, config, str(epoch)], capture_output=True, text=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert (killed / STATE).exists()
        assert not (killed / CARD).exists()
    ended = hdm("train", config, "--json")
    assert ended.returncode == 0, ended.stderr
    logged = [line.partition(":")[0] for line in ended.stderr.splitlines() if line.startswith("epoch")]
    assert logged[-1] == "epoch 4 of 4"
    assert not {"epoch 1 of 4", "epoch 2 of 4"} & set(logged), "an epoch that was saved is not done again"
    for name in (MODEL, "split.csv", CARD):
        assert (killed / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.server
def test_two_workers_train_together(images: Path, tmp_path: Path) -> None:
    config = tmp_path / "training.yaml"
    config.write_text(yaml.safe_dump(training_config(images, name="two", output=str(tmp_path), compute={"threads": 1, "workers": 2})))
    ended = hdm("train", config, "--json")
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads(ended.stdout)["metrics"]
    history = json.loads((tmp_path / "two" / "history.json").read_text())
    assert metrics["validation_loss"] == pytest.approx(history[int(metrics["epoch"]) - 1]["validation_loss"])
    assert 0 <= metrics["test_accuracy"] <= 1
    assert "epoch 4 of 4" in ended.stderr
    assert files_below(tmp_path / "two") == {MODEL, CARD, "split.csv", "history.json", "train.json"}
    Classifier.from_checkpoint(tmp_path / "two")


@pytest.mark.server
def test_a_run_trains_its_classifier_first(images: Path, tmp_path: Path) -> None:
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(training_config(images)))
    classifier = {"source": "checkpoint", "path": str(tmp_path / "classifiers" / "first"), "train": str(tmp_path / "training.yaml")}
    run = {
        "name": "run",
        "dataset": {"kind": "folder", "root": str(images), "limit": 4},
        "classifier": classifier,
        "methods": ["grad_cam"],
        "compute": {**LOCAL, "shard_size": 4},
        "output": str(tmp_path / "runs"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    done = hdm("run", tmp_path / "run.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statuses"] == {"ok": 4}
    assert "is not trained yet" in done.stderr
    assert "epoch 4 of 4" in done.stderr
    info = json.loads((tmp_path / "runs" / "run" / "run.json").read_text())
    assert info["model_fingerprint"] == Classifier.from_checkpoint(classifier["path"]).weights_digest()


def test_the_test_images_have_no_say(images: Path, folder: Path, tmp_path: Path) -> None:
    """With other images in place of the test images, the weights are equal byte for byte."""
    other = write_colour_dataset(tmp_path / "images")
    held_back = [row["image_id"] for row in rows(folder) if row["split"] == "test"]
    for image_id in held_back:
        (other / image_id).write_bytes((other / ("red/0.png" if image_id.startswith("blue") else "blue/0.png")).read_bytes())
    done = run_training(other, name="whole")
    assert Path(done.url, MODEL).read_bytes() == (folder / MODEL).read_bytes()
    assert done.card.data != json.loads((folder / CARD).read_text())["data"]


def test_an_unreadable_image_is_left_out_and_counted(tmp_path: Path) -> None:
    images = write_colour_dataset(tmp_path / "images")
    (images / "red" / "0.png").write_bytes(b"no image")
    done = run_training(images)
    assert done.card.metrics["unreadable_images"] == 1
    (row,) = [row for row in rows(Path(done.url)) if row["error"]]
    assert row["image_id"] == "red/0.png"


def test_a_class_of_unreadable_images(tmp_path: Path) -> None:
    images = write_colour_dataset(tmp_path / "images", 4)
    for path in (images / "red").iterdir():
        path.write_bytes(b"")
    assert "the class red has no images to train on" in refused(lambda: run_training(images))


def test_images_that_changed_since_the_training_began(images: Path, tmp_path: Path) -> None:
    own = write_colour_dataset(tmp_path / "images")
    interrupt(own)
    (own / "red" / "1.png").write_bytes((own / "red" / "2.png").read_bytes())
    assert "other images" in refused(lambda: run_training(own))


def test_a_network_that_cannot_take_its_images_is_refused_before_anything_is_written(images: Path) -> None:
    changes = {"classifier.arch": "squeezenet1_1", "classifier.weights": None, "classifier.resize": 8, "classifier.crop": 8}
    message = refused(lambda: run_training(images, changes, name="unfit"))
    assert message.startswith("classifier: squeezenet1_1: the network does not take images of 8 x 8")
    assert not list(images.parent.rglob("unfit"))


def interrupt(images: Path) -> None:
    """Start a training that stops after its first epoch."""

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.message:  # the metrics of a finished epoch
            raise StopError

    with pytest.raises(StopError):
        train(load_training(images), stop)


def test_a_learning_rate_that_is_too_high_is_said(images: Path, tmp_path: Path) -> None:
    stages = [{"epochs": 2, "learning_rate": 1e30}]
    with pytest.raises(RunError, match=r"lower recipe\.stages\.0\.learning_rate"):
        run_training(images, {"recipe.stages": stages}, output=str(tmp_path))


def test_weights_are_written_as_they_were_averaged(images: Path, folder: Path, tmp_path: Path) -> None:
    plain = load_file(Path(run_training(images, {"recipe.average": None}, output=str(tmp_path)).url) / MODEL)
    averaged = load_file(folder / MODEL)
    assert plain.keys() == averaged.keys()
    assert any((plain[name] != averaged[name]).any() for name in plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "neither a preset (cub, cub-mobilenet, idrid-mobilenet, palm, palm-mobilenet)"),
        (["cub-mobilenet"], "dataset.root is missing"),
        (["cub-mobilenet", "--root", "no/such/folder"], "no such folder"),
        (["mine", "--set", "recipe.epochs=3"], "recipe.epochs: unknown key"),
        (["mine", "--set", "recipe.stages=[]"], "recipe.stages: input should not be empty"),
        (["mine", "--set", "recipe.stages=[{epochs: 1, train: [layer9], learning_rate: 1}]"], "no part 'layer9'; its parts are features,"),
        (["mine", "--set", "recipe.batch=1"], "recipe.batch: input should be greater than or equal to 2"),
        (["mine", "--set", "test=test"], "test: no labelled images in the split 'test'; the dataset has no splits"),
        (["mine", "--set", "test=a", "--set", "validation=a"], "both the split 'a'"),
        (["mine", "--set", "classifier.arch=resnet51"], "no classification network 'resnet51'"),
        (["mine", "--set", "classifier.weights=no.pth"], "the weights no.pth of mobilenet_v2 cannot be loaded"),
        (["mine", "--set", "storage={secret: x}"], "storage.secret is a secret"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text(yaml.safe_dump(training_config(images, output=str(tmp_path / "out"))))
    monkeypatch.chdir(tmp_path)
    for name, value in CPU_ENVIRONMENT.items():  # otherwise the command re-executes itself
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["hdm", "train", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "out").exists(), "a refused training leaves no files"


@pytest.mark.parametrize("preset", train_presets())
def test_the_presets_are_valid(preset: str) -> None:
    config = load(preset, {"dataset.root": "data"}, TrainConfig, train_presets())
    assert config.name == preset
    assert config.test is not None
    assert [config.recipe.locate_epoch(epoch) for epoch in (0, config.recipe.stages[0].epochs)] == [(0, 0), (1, 0)]


def test_the_hash_is_of_what_the_weights_depend_on(images: Path) -> None:
    one = load_training(images)
    for same in ({"output": "elsewhere"}, {"name": "other"}, {"compute.cache": 0}, {"compute.max_attempts": 1}):
        assert load_training(images, same).hash() == one.hash()
    for other in ({"seed": 1}, {"recipe.batch": 5}, {"test": 0.3}, {"compute.workers": 2}, {"compute.threads": 2}, {"dataset.limit": 9}):
        assert load_training(images, other).hash() != one.hash()
