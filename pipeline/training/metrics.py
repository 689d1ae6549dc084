"""Classification metrics: accuracy, balanced accuracy, cross-entropy and AUC."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def classification_metrics(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Compute accuracy, balanced accuracy, cross-entropy and, for two classes, AUC.

    Args:
        logits: (B, classes).
        targets: (B,).

    Returns:
        `accuracy`; `balanced_accuracy`, the mean of the accuracies of the classes; `loss`, the cross-entropy in nats; `auc`, the
        area under the ROC curve of class 1: how often an image of class 1 has the greater score, ties counting half.
    """
    correct = (logits.argmax(1) == targets).double()
    per_class = [correct[targets == target].mean() for target in sorted(set(targets.tolist()))]
    metrics = {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(torch.stack(per_class).mean()),
        "loss": float(F.cross_entropy(logits.double(), targets)),
    }
    if logits.shape[1] == 2 and len(per_class) == 2:
        score = (logits[:, 1] - logits[:, 0]).double()
        margins = score[targets == 1][:, None] - score[targets == 0][None, :]
        metrics["auc"] = float((margins > 0).double().mean() + (margins == 0).double().mean() / 2)
    return metrics
