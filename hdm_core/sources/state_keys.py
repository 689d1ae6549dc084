"""Keys of a state dict, matched to a network's: prefixes of wrappers removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from torch import Tensor

# Submodules that torch puts between a module and its parameters: torch.compile, FSDP, activation checkpointing.
_INNER = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Entries that belong to a training and change no answer: AveragedModel's counter, and losses with class weights beside the network.
_COUNTER = "n_averaged"
_LOSSES = frozenset({"criterion", "loss", "loss_fn", "loss_func", "loss_function"})
_BATCHES = ".num_batches_tracked"


def match_keys(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Rename a state dict's keys to a network's by removing common prefixes.

    Prefixes are what wrappers add: `module.` of DataParallel, `_orig_mod.` of torch.compile, `model.` or `net.` of a LightningModule. They
    are removed one by one for as long as all keys share one, and only if the keys do not fit with them: a prefix that the network
    itself has stays. If no removal fits, the closest keys are returned.

    Args:
        state: parameters and buffers by name.
        own: the names that the network has.
    """
    current = best = _without_wrappers(state, own)
    while set(best) != set(own):
        prefix = _common_prefix([key for key in current if key.partition(".")[0] not in _LOSSES])
        if prefix is None:
            break
        current = _without_wrappers({key.removeprefix(prefix): value for key, value in current.items() if key.startswith(prefix)}, own)
        if _hits(current, own) > _hits(best, own):
            best = current
    return best


def _common_prefix(keys: Collection[str]) -> str | None:
    """Return the name up to the first dot that all keys share, or None.

    A number is none: it is a place in nn.Sequential, whose other members may be a normalisation or a softmax without weights.
    """
    heads = {key.partition(".")[0] if "." in key else "" for key in keys}
    head = heads.pop() if len(heads) == 1 else ""
    return f"{head}." if head.isidentifier() else None


def describe_prefixes(state: Collection[str], own: Collection[str]) -> str:
    """Return a hint for keys that do not fit because of prefixes.

    The text is empty if no prefix makes a key fit.
    """
    fits = Counter(
        ".".join(parts[:length]) + "."
        for key in state
        for parts in [key.split(".")]
        for length in range(1, len(parts))
        if key not in own and ".".join(parts[length:]) in own
    )
    # A prefix of the network's own blocks fits by chance: the true one fits most of the network.
    prefixes = [repr(prefix) for prefix, count in fits.most_common(3) if 2 * count > len(own)]
    if not prefixes:
        return ""
    return f"; names begin with the prefix {' or '.join(prefixes)}: save the state_dict() of the network alone"


def add_counters(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters that state dicts of before torch 0.4.1 lack.

    A network in evaluation mode does not use them.
    """
    return {**{key: value for key, value in own.items() if key.endswith(_BATCHES) and key not in state}, **state}


def _without_wrappers(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Remove what wrappers inside the network, and AveragedModel's counter, add."""
    inner = _INNER - {part for key in own for part in key.split(".")}
    names = {key: ".".join(part for part in key.split(".") if part not in inner) for key in state if key != _COUNTER or key in own}
    return {name: state[key] for key, name in names.items()}


def _hits(state: Mapping[str, Tensor], own: Collection[str]) -> int:
    return sum(key in state for key in own)
