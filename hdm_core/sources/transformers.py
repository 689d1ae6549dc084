"""Image classifiers of Hugging Face's transformers, an optional dependency."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from hdm_core.messages import one_line
from hdm_core.preprocess import Preprocess
from hdm_core.problem_type import ProblemType, check_problem_type
from hdm_core.sources.paths import local_path
from hdm_core.sources.processor import follow_processor

_T = TypeVar("_T")

_CONFIG, _PROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", ("model.safetensors", "model.safetensors.index.json")
_NO_PROCESSOR = "copy that of the checkpoint that it was trained from, or give the preprocess (resize, mean and std in a configuration)"
_UNREACHABLE = ("couldn't connect", "offline", "cached files")  # in messages of transformers
_KEYS_SHOWN = 3  # in a message


@dataclass(frozen=True)
class Pretrained:
    """Network of a checkpoint, with what its files say about it.

    Attributes:
        module: in evaluation mode, on the CPU, in float32.
        preprocess: as the checkpoint's image processor, or as given.
        class_names: from `id2label`; None where the labels are transformers' own, LABEL_0 and so on.
        problem_type: of the configuration; None if it says nothing.
    """

    module: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] | None
    problem_type: ProblemType | None


def load_transformers(source: str | Path, preprocess: Preprocess | None = None) -> Pretrained:
    """Load an image classifier, on the CPU.

    Only safetensors are read, and no code of the checkpoint runs.

    Args:
        source: a local folder, or the name of a repository of the hub, such as "google/vit-base-patch16-224". Without a network the
            files of the hub's local cache are used.
        preprocess: replaces the checkpoint's image processor.

    Raises:
        ImportError: if transformers is not installed.
        OSError: if files are missing, or the hub cannot be reached.
        ValueError: if the checkpoint is no image classifier, needs code of its own, lacks weights, or its processor cannot be followed
            exactly.
    """
    try:
        library = importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise ImportError("transformers is not installed: pip install 'hdm-pipeline[transformers]'") from None
    folder = _folder(source)
    name, options = str(folder or source), {"local_files_only": folder is not None, "trust_remote_code": False}
    if folder is not None:
        _check_files(folder, needs_processor=preprocess is None)
    with _quiet(library):
        config = _call(name, lambda: library.AutoConfig.from_pretrained(name, **options))
        _check_architecture(library, name, config)
        module = _load_module(library, name, config, options)
        if preprocess is None:
            processor = _call(name, lambda: library.AutoImageProcessor.from_pretrained(name, backend="pil", **options))
            preprocess = follow_processor(processor, name)
    problem_type = getattr(config, "problem_type", None)
    if problem_type is not None:
        check_problem_type(problem_type)
    return Pretrained(module, preprocess, _class_names(config), problem_type)


def _folder(source: str | Path) -> Path | None:
    """Return a local folder, or None for the name of a repository.

    Raises:
        OSError: if it can be neither.
    """
    path = local_path(source)
    if path.is_dir():
        return path
    text = str(source)
    if isinstance(source, Path) or text.count("/") > 1 or text.startswith((".", "~", "/")):
        raise FileNotFoundError(f"{path} is no folder: give that of save_pretrained, or the name of a repository of the hub, ORG/NAME")
    return None


def _check_files(folder: Path, needs_processor: bool) -> None:
    """Check that a local folder has the files that are read.

    Raises:
        FileNotFoundError: if one is missing.
    """
    if not (folder / _CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {_CONFIG}: give a folder that save_pretrained of transformers wrote")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        pickled = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt*"))
        hint = (
            f"it has {pickled[0]}, a pickle, which is not read: convert it by "
            "AutoModelForImageClassification.from_pretrained(FOLDER).save_pretrained(OTHER)"
            if pickled
            else "give a folder that save_pretrained of transformers wrote"
        )
        raise FileNotFoundError(f"{folder} has no {_WEIGHTS[0]}; {hint}")
    if needs_processor and not (folder / _PROCESSOR).is_file():
        raise FileNotFoundError(f"{folder} has no {_PROCESSOR}: {_NO_PROCESSOR}")


def _check_architecture(library: Any, name: str, config: Any) -> None:
    """Check that transformers has an image classifier for a configuration.

    Raises:
        ValueError: if it has none.
    """
    if type(config) not in library.AutoModelForImageClassification._model_mapping:  # noqa: SLF001 - it has no public name
        saved = ", ".join(getattr(config, "architectures", None) or ()) or "no class"
        raise ValueError(f"{name} is of the type {config.model_type} ({saved}), for which transformers has no image classifier")


def _load_module(library: Any, name: str, config: Any, options: dict[str, Any]) -> nn.Module:
    """Load the network; weights that the checkpoint lacks would be random.

    Raises:
        ValueError: if weights are missing or of another shape.
        OSError: if there is no file of safetensors.
    """
    module, loaded = _call(
        name,
        lambda: library.AutoModelForImageClassification.from_pretrained(
            # What does not fit is in the information, in one line each.
            name,
            config=config,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        ),
    )
    missing = sorted(loaded["missing_keys"]) + sorted(key for key, *_ in loaded["mismatched_keys"])
    if missing:
        more = f" and {len(missing) - _KEYS_SHOWN} more" if len(missing) > _KEYS_SHOWN else ""
        saved = ", ".join(config.architectures or ()) or "no architecture"
        keys = ", ".join(missing[:_KEYS_SHOWN]) + more
        raise ValueError(
            f"{name} lacks weights of {type(module).__name__}, or has them in another shape ({keys}); its {_CONFIG} names {saved}: "
            "give a checkpoint that was trained as an image classifier"
        )
    network: nn.Module = module.eval()
    return network


def _class_names(config: Any) -> tuple[str, ...] | None:
    """Return the names of `id2label` in the order of the logits."""
    labels = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    if sorted(labels) != list(range(config.num_labels)) or all(label == f"LABEL_{number}" for number, label in labels.items()):
        return None
    return tuple(labels[number] for number in range(config.num_labels))


def _call(name: str, load: Callable[[], _T]) -> _T:
    """Call a loader of transformers, whose errors have many lines.

    Raises:
        OSError: if files are missing or cannot be read.
        ValueError: for all other errors.
    """
    try:
        return load()
    except Exception as error:  # transformers raises errors of many types
        text = one_line(error)
        if "trust_remote_code" in text or "custom code" in text:
            raise ValueError(f"{name} needs code of its own, which is not run: load it in a function of your own, source import") from None
        if isinstance(error, OSError):
            if any(words in text.lower() for words in _UNREACHABLE):
                raise OSError(f"{name} is not in the local cache, and the hub cannot be reached: give a folder, or download it") from None
            raise OSError(f"{name}: {text}") from None
        raise ValueError(f"transformers cannot load {name} ({text})") from None


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Switch progress bars and the report of loading off.

    What matters of the report is an error here.
    """
    settings, hub = library.utils.logging, logging.getLogger("huggingface_hub")
    level, hub_level, bar = settings.get_verbosity(), hub.level, settings.is_progress_bar_enabled()
    settings.set_verbosity_error()
    hub.setLevel(logging.ERROR)  # its retries are a line each
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        hub.setLevel(hub_level)
        if bar:
            settings.enable_progress_bar()
