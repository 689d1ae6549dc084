"""A method with the settings, networks and refusals of its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.explain import explain
from hdm_core.explanation import Explanation
from hdm_core.methods import Method
from hdm_core.preprocess import Preprocess
from hdm_core.settings import Settings
from hdm_core.testing.networks import attention_network, mixed_state_attention_network, mixed_state_network, smooth_network


@dataclass(frozen=True)
class MethodCase:
    """A registered method with the settings that it is checked with.

    Attributes:
        entry: the method.
        settings: those that replace the default preset's, so that a check on tiny networks is quick.
        cheapest: cheaper ones still, for larger networks and many repetitions.
        class_agnostic: the map does not depend on the class that is explained.
        needs_layers: an exported program, which has operations and no layers, is refused.
        refused: families of networks that the method refuses, with words of its error.

    A method that needs attention is checked on tiny transformers, the others on tiny convolutional networks.
    """

    entry: Method
    settings: Mapping[str, Any] = field(default_factory=dict)
    cheapest: Mapping[str, Any] = field(default_factory=dict)
    class_agnostic: bool = False
    needs_layers: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)

    def explain(self, network: nn.Module, images: Tensor, **arguments: Any) -> Explanation:
        """Explain images of a network by the method."""
        classifier = Classifier.from_module(network, Preprocess(resize=16, crop=16))
        return explain(classifier, images, self.entry.id, **{**self.settings, **arguments})

    def smooth_network(self, classes: int = 3) -> nn.Module:
        """Build a network without kinks whose logits spread over several units."""
        return attention_network(classes) if self.entry.needs_attention else smooth_network(classes)

    def mixed_state_network(self) -> nn.Module:
        """Build a network of mixed state: a part in evaluation mode, one parameter frozen."""
        return mixed_state_attention_network() if self.entry.needs_attention else mixed_state_network()

    def configure(self) -> Settings:
        """Return the settings of `explain`."""
        return self.entry.configure(None, **self.settings)
