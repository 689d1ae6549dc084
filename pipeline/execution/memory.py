"""Memory of a run's workers, predicted before they start."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hdm_core import Classifier
from hdm_core.device import CONTEXT_BYTES, default_batch, pick_device
from hdm_core.free_memory import available_memory, resident_memory
from hdm_core.memory import MemoryNeed, forward_memory, method_memory
from pipeline.classifiers.load import load_classifier
from pipeline.plan import Plan

_MIB = 2**20


@dataclass(frozen=True)
class WorkerMemory:
    """Predicted memory of one worker, in bytes.

    Attributes:
        batch: images per forward pass of the run.
        methods: method -> bytes of live tensors with this batch, beside the weights and their folded copy;
            `forward` is that of the metrics.
        per_image: method -> bytes that one image more in the batch takes.
        host: largest memory of the worker's process.
        device: largest memory on its GPU; None on the CPU.
        available: free memory of this machine, or None where the system does not tell.
        fitting: workers that fit into the free memory of this machine, or of its GPU; None where that is not known.
    """

    batch: int
    methods: dict[str, int]
    per_image: dict[str, int]
    host: int
    device: int | None
    available: int | None
    fitting: int | None

    def text(self) -> str:
        """Return the prediction for people, in one line."""
        largest = max(self.methods, key=lambda name: self.methods[name])
        places = [f"{self.host / _MIB:,.0f} MiB of the host"]
        if self.device is not None:
            places.append(f"{self.device / _MIB:,.0f} MiB of the GPU")
        here = f"predicted on this machine's {'CPU' if self.device is None else 'GPU'}"
        fitting = "" if self.fitting is None else f"; {self.fitting} workers fit"
        return f"{' and '.join(places)} per worker with batches of {self.batch}, most for {largest} ({here}){fitting}"


def predict_memory(plan: Plan) -> WorkerMemory:
    """Predict the peak memory of a worker from passes of one image and of two here.

    The host's is the sum of what this process holds with the classifier, of the folded copy of the weights, of the largest method's
    tensors, and of the maps of the shards that a worker holds at once: one, or two on Ray. A GPU's is that
    of its context, weights and tensors.
    """
    compute = plan.config.compute
    device = pick_device(compute.gpus_per_worker)
    classifier = load_classifier(plan.config.classifier, plan.config.seed).to(device)
    base = resident_memory()
    needs: dict[str, MemoryNeed] = {
        method: method_memory(classifier, plan.size, method, settings, compute.fixed_precision)
        for method, settings in plan.config.settings.items()
    }
    if plan.config.metrics is not None:
        needs["forward"] = forward_memory(classifier, plan.size)
    batch = compute.fixed_batch_size or default_batch(device)
    methods = {name: need.at(batch) for name, need in needs.items()}
    tensors = max(methods.values())
    uncommitted = 1 if compute.executor == "local" else 2
    shards = uncommitted * min(compute.shard_size, len(plan.samples)) * plan.bytes // max(1, len(plan.samples))
    on_gpu = device.type == "cuda"
    copy = _weights(classifier)  # the folded one
    host = base + shards + (0 if on_gpu else copy + tensors)
    on_device = CONTEXT_BYTES + 2 * copy + tensors if on_gpu else None
    available = available_memory()
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else available
    own = base if not on_gpu and compute.executor == "local" else 0  # this process is the worker, and has its base already
    fitting = None if free is None else max(0, free + own) // (on_device or host)
    return WorkerMemory(batch, methods, {name: need.per_image for name, need in needs.items()}, host, on_device, available, fitting)


def _weights(classifier: Classifier) -> int:
    return sum(tensor.nbytes for tensor in (*classifier.module.parameters(), *classifier.module.buffers()))
