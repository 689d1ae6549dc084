"""Other checkpoint of a classifier, from `--against`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hdm_core import Classifier
from hdm_core.sanity import answers
from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.classifiers.sources import ClassifierConfig
from pipeline.config.load import load_config, load_section, presets
from pipeline.config.messages import describe
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError

_YAML = (".yaml", ".yml")


def load_against(source: str, config: RunConfig) -> Classifier:
    """Load the other checkpoint.

    Args:
        source: a configuration or preset, whose classifier is taken; a trained folder; a section of a classifier in braces; or a file of
            weights for the network of `config`.

    Raises:
        InputError: if it is none of these, or cannot be loaded.
    """
    path = Path(source).expanduser()
    if source.lstrip().startswith("{") or path.is_dir():
        return load_classifier(load_section(source), config.seed)
    if path.suffix in _YAML or source in presets():
        other = load_config(source)
        return load_classifier(other.classifier, other.seed)
    if not path.is_file():
        raise InputError(f"--against {source}: no configuration, preset, trained folder, classifier section or file of weights")
    return load_classifier(_with_weights(source, config), config.seed)


def _with_weights(source: str, config: RunConfig) -> ClassifierConfig:
    """Return the section of a configuration's network with other weights."""
    section = config.classifier
    keys = section.model_dump(exclude_none=True, exclude={"weights", "train", "path"})
    keys["path"] = source
    if section.source not in ("timm", "exported"):
        if not section.arch:
            raise InputError(
                f"--against {source}: a file of weights needs classifier.arch; give a section such as '{{source: import, factory: ...}}'"
            )
        keys["source"] = "checkpoint"
        keys.setdefault("classes", _count_classes(config))
    try:
        return ClassifierConfig.model_validate(keys)
    except ValidationError as error:
        raise InputError(f"--against {source}: {describe(error, ClassifierConfig)}") from None


def _count_classes(config: RunConfig) -> int:
    classifier = load_classifier(config.classifier, config.seed)
    return answers(classifier, preprocess_of(classifier).blank(), 1).shape[1]
