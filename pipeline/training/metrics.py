"""How good a classifier is on some images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scores(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Of logits (B, classes) and targets (B,): the share that is right, the mean of the classes' shares, and the cross-entropy in nats.

    Of two classes also the area under the ROC curve of class 1: how often an image of class 1 has the greater score, ties half.
    """
    right = (logits.argmax(1) == targets).double()
    of_class = [right[targets == target].mean() for target in sorted(set(targets.tolist()))]
    found = {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(torch.stack(of_class).mean()),
        "loss": float(F.cross_entropy(logits.double(), targets)),
    }
    if logits.shape[1] == 2 and len(of_class) == 2:
        score = (logits[:, 1] - logits[:, 0]).double()
        ahead = score[targets == 1][:, None] - score[targets == 0][None, :]
        found["auc"] = float((ahead > 0).double().mean() + (ahead == 0).double().mean() / 2)
    return found
