"""A classifier source from outside: the mean of each colour channel, as three classes."""

from __future__ import annotations

from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from pipeline.classifiers.sources import Classes, ClassifierConfig, ClassifierSource


class MeanColour(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.eye_(self.features.weight.data[:, :, 0, 0])
        self.gain = gain

    def forward(self, images: Tensor) -> Tensor:
        return self.gain * self.features(images).mean(dim=(2, 3))


def load_mean_colour(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    gain = float((config.arguments or {}).get("gain", 1.0))
    preprocess = Preprocess(resize=16, crop=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Classifier(MeanColour(gain), name="mean colour", class_names=("red", "green", "blue"), preprocess=preprocess)


MEAN_COLOUR = ClassifierSource("mean_colour", load_mean_colour, optional=("arguments",))
