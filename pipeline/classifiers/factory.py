"""Classifiers from a function of the user: source `import`."""

from __future__ import annotations

import pkgutil
from typing import Any

import torch
from torch import nn

from hdm_core import Classifier
from pipeline.errors import InputError, one_line


def call_factory(factory: str, arguments: dict[str, Any], seed: int) -> Classifier:
    """Call a function that returns a network or a classifier.

    A returned classifier has its own preprocessing and class names.

    Args:
        factory: package.module:function.
        seed: seed of torch's random numbers during the call.

    Raises:
        InputError: if the function cannot be imported, raises, or returns another type.
    """
    try:
        function = pkgutil.resolve_name(factory)
    except Exception as error:  # the user's module may raise any exception
        hint = "; every worker must be able to import it: install it, or set PYTHONPATH"
        raise InputError(f"classifier: {factory} cannot be imported ({one_line(error)}){hint}") from None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = function(**arguments)
    except Exception as error:
        raise InputError(f"classifier: {factory} failed ({type(error).__name__}: {one_line(error)})") from None
    if isinstance(made, Classifier):
        return made
    if not isinstance(made, nn.Module):
        raise InputError(f"classifier: {factory} gave a {type(made).__name__}, and should give a torch.nn.Module or a hdm_core.Classifier")
    return Classifier(made, name=factory)
