"""The configuration's classifier, loaded."""

from __future__ import annotations

from dataclasses import replace

from hdm_core import Classifier, Preprocess
from pipeline.config import ClassifierConfig
from pipeline.errors import InputError, one_line


def load_classifier(config: ClassifierConfig, seed: int) -> Classifier:
    """The network on the CPU, with its preprocessing.

    Raises:
        InputError: if there is no such network or its weights cannot be had.
    """
    what = config.path or f"the weights {config.weights} of {config.arch}"
    try:
        if config.path is not None:
            classifier = Classifier.from_checkpoint(config.path)
        else:
            classifier = Classifier.from_torchvision(config.arch or "", config.weights, seed=seed)
    except ValueError as error:
        raise InputError(f"classifier: {one_line(error)}") from None
    except OSError as error:
        raise InputError(f"classifier: {what} cannot be had ({one_line(error)})") from None
    preprocess = classifier.preprocess or Preprocess()
    classifier.preprocess = replace(preprocess, resize=config.resize or preprocess.resize, crop=config.crop or preprocess.crop)
    return classifier


def preprocess_of(classifier: Classifier) -> Preprocess:
    """The preprocessing of a classifier that `load_classifier` made.

    Raises:
        ValueError: if it has none, so that no map could be laid on a photograph.
    """
    if classifier.preprocess is None:
        raise ValueError(f"{classifier.name} has no preprocess")
    return classifier.preprocess
