"""A trained classifier's folder on storage, from the first epoch to the card."""

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

TRAINING, STATE, HISTORY = "train.json", "state.pt", "history.json"


class TrainingStore:
    """{output}/{name}. The training is done when, and only when, the card exists.

    train.json says what is trained, split.csv on what; state.pt is where an interrupted training goes on, and is gone at the end.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def at(cls, config: TrainConfig) -> TrainingStore:
        """The place of a configuration's classifier.

        Raises:
            InputError: if the output's protocol is unknown.
        """
        return cls(Storage.of(config.output, config.name, config.storage))

    @property
    def url(self) -> str:
        """Where the classifier is."""
        return self.storage.url("")

    def create(self, config: TrainConfig) -> None:
        """Begins the training here, or finds it begun with the same configuration.

        Raises:
            InputError: if something else is here, or the place cannot be written.
        """
        here = {
            "config": config.model_dump(mode="json"),
            "identity": config.identity(),
            "config_hash": config.hash(),
            "versions": {name: version(name) for name in ("hdm-pipeline", "torch", "torchvision")},
        }
        try:
            if not self.storage.exists(TRAINING) and self.card() is not None:
                raise InputError(f"{self.url} holds a classifier that was not trained here; choose another name")
            if self.storage.create(TRAINING, to_json(here)):
                return
            there = self.storage.read_json(TRAINING)
        except json.JSONDecodeError as error:
            raise InputError(f"{self.url}/{TRAINING} is broken ({one_line(error)}); choose another name or remove the folder") from None
        except OSError as error:
            raise InputError(f"output {self.url} cannot be written: {one_line(error)}; choose another with --output") from None
        if there.get("config_hash") != here["config_hash"]:
            what = ", ".join(differences(there.get("identity", {}), config.identity()))
            raise InputError(f"{self.url} was started with another configuration; they differ in {what}; choose another name")

    def keep_split(self, table: bytes) -> str:
        """Writes split.csv, or compares it with the one that is there; returns its sha256, the fingerprint of the data.

        Raises:
            InputError: if the images are not those that the training began with.
        """
        if not self.storage.create(SPLIT, table) and self.storage.read(SPLIT) != table:
            raise InputError(f"{self.url} was started with other images than these, see its {SPLIT}; choose another name")
        return hashlib.sha256(table).hexdigest()

    def load(self) -> TrainingState:
        """Where the training is; at its beginning, if no epoch was saved."""
        try:
            data = self.storage.read(STATE)
        except FileNotFoundError:
            return TrainingState()
        return TrainingState(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))

    def save(self, state: TrainingState) -> None:
        """Writes the state whole."""
        data = io.BytesIO()
        torch.save({each.name: getattr(state, each.name) for each in fields(TrainingState)}, data)
        self.storage.write(STATE, data.getvalue())
        self.storage.write(HISTORY, to_json(state.history))

    def history(self) -> list[dict[str, float]]:
        """What the epochs so far came to."""
        try:
            history: Any = json.loads(self.storage.read(HISTORY))
        except FileNotFoundError:
            return []
        return list(history)

    def card(self) -> Card | None:
        """The finished classifier's card."""
        try:
            return Card.model_validate_json(self.storage.read(CARD))
        except FileNotFoundError:
            return None

    def finish(self, network: nn.Module, card: Card) -> None:
        """Writes the classifier, its card last, and removes what was only needed to go on."""
        with tempfile.TemporaryDirectory() as place:
            save_checkpoint(network, card, place)
            for name in (MODEL, CARD):
                self.storage.write(name, Path(place, name).read_bytes())
        self.storage.remove(STATE)
