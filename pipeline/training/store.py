"""Folder of a training: configuration, split, state, history and classifier."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hdm_core.sources.checkpoint import CARD, MODEL, Card, save_checkpoint
from pipeline.config.diff import differences
from pipeline.errors import InputError, one_line
from pipeline.storage.objects import Storage, to_json
from pipeline.training.config import TrainConfig
from pipeline.training.loop import TrainingState
from pipeline.training.split import SPLIT

METADATA, STATE, HISTORY = "train.json", "state.pt", "history.json"


class TrainingStore:
    """Folder {output}/{name} of a training.

    The training is done when, and only when, the card exists. train.json holds the configuration, split.csv the images; state.pt,
    from which an interrupted training resumes, is removed at the end.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def at(cls, config: TrainConfig) -> TrainingStore:
        """Return the store of a configuration's classifier.

        Raises:
            InputError: if the output's protocol is unknown.
        """
        return cls(Storage.of(config.output, config.name, config.storage))

    @property
    def url(self) -> str:
        """URL of the folder."""
        return self.storage.url("")

    def create(self, config: TrainConfig, arguments: dict[str, Any]) -> None:
        """Create train.json, or check that it holds the same configuration.

        Args:
            arguments: of the network's builder. An unfinished training that earlier versions began with others does not resume.

        Raises:
            InputError: if the folder belongs to something else, or cannot be written.
        """
        metadata = {
            "config": config.model_dump(mode="json"),
            "identity": config.identity(),
            "config_hash": config.hash(),
            "arguments": arguments,
            "versions": {name: version(name) for name in ("hdm-pipeline", "torch", "torchvision")},
        }
        try:
            if not self.storage.exists(METADATA) and self.card() is not None:
                raise InputError(f"{self.url} holds a classifier that was not trained here; choose another name")
            if self.storage.create(METADATA, to_json(metadata)):
                return
            stored = self.storage.read_json(METADATA)
        except json.JSONDecodeError as error:
            raise InputError(f"{self.url}/{METADATA} is broken ({one_line(error)}); choose another name or remove the folder") from None
        except OSError as error:
            raise InputError(f"output {self.url} cannot be written: {one_line(error)}; choose another with --output") from None
        if stored.get("config_hash") != metadata["config_hash"]:
            changed = ", ".join(differences(stored.get("identity", {}), config.identity()))
            raise InputError(f"{self.url} was started with another configuration; they differ in {changed}; choose another name")
        if stored.get("arguments", {}) != arguments and self.card() is None:
            raise InputError(
                f"{self.url} was started by a version that built {config.classifier.arch} with other arguments than {arguments}; "
                "choose another name"
            )

    def record_split(self, table: bytes) -> str:
        """Write split.csv or compare it with the stored one, and return its sha256.

        The sha256 is the digest of the data.

        Raises:
            InputError: if the images differ from those that the training was started with.
        """
        if not self.storage.create(SPLIT, table) and self.storage.read(SPLIT) != table:
            raise InputError(f"{self.url} was started with other images than these, see its {SPLIT}; choose another name")
        return hashlib.sha256(table).hexdigest()

    def load(self) -> TrainingState:
        """Load the saved state; the initial state if no epoch was saved."""
        try:
            data = self.storage.read(STATE)
        except FileNotFoundError:
            return TrainingState()
        return TrainingState(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))

    def save(self, state: TrainingState) -> None:
        """Write the whole state and the history."""
        data = io.BytesIO()
        torch.save({entry.name: getattr(state, entry.name) for entry in fields(TrainingState)}, data)
        self.storage.write(STATE, data.getvalue())
        self.storage.write(HISTORY, to_json(state.history))

    def history(self) -> list[dict[str, float]]:
        """Return one entry per finished epoch."""
        try:
            history: Any = json.loads(self.storage.read(HISTORY))
        except FileNotFoundError:
            return []
        return list(history)

    def card(self) -> Card | None:
        """Return the card of the finished classifier; None while there is none."""
        try:
            return Card.model_validate_json(self.storage.read(CARD))
        except FileNotFoundError:
            return None

    def finish(self, network: nn.Module, card: Card) -> None:
        """Write the classifier, its card last, and remove the state."""
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(network, card, folder)
            for name in (MODEL, CARD):
                self.storage.write(name, Path(folder, name).read_bytes())
        self.storage.remove(STATE)
