"""Section: the machine, its versions, and the limits that speed is compared with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import torch

from benchmarks.reference import seconds_per_call
from hdm_core.device import device_name
from infra.gpu.session import Facts, Session

_LAUNCHES = 1000


def check_facts(session: Session, facts: Facts) -> None:
    """Store versions, flags, and the speed of a copy, a product and a launch."""
    device, sizes = pick_test_device(), session.sizes
    facts["gpu"] = device_name(device)
    facts["driver"] = _driver()
    facts |= {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(), "cores": os.cpu_count()}
    facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    facts["flags"] = _flags()
    if device.type == "cuda":
        facts["memory_mib"] = [part // 2**20 for part in torch.cuda.mem_get_info(device)]  # free and total
    facts["copy_tb_per_s"] = _copied_bytes_per_second(sizes.copied, device, sizes.min_seconds) / 1e12
    factor = torch.randn(sizes.factor, sizes.factor, device=device, dtype=torch.bfloat16)  # zeros would be multiplied faster
    facts["bfloat16_tflop_per_s"] = 2 * sizes.factor**3 / seconds_per_call(lambda: factor @ factor, device, sizes.min_seconds) / 1e12
    number = torch.zeros(1, device=device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            number.add_(1)

    facts["launch_us"] = seconds_per_call(launch, device, sizes.min_seconds) / _LAUNCHES * 1e6


def _copied_bytes_per_second(numbers: int, device: torch.device, min_seconds: float) -> float:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_per_call(lambda: target.copy_(source), device, min_seconds)


def pick_test_device() -> torch.device:
    """Return the device to check: the first GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip().partition("\n")[0] or None


def _flags() -> dict[str, object]:
    """Return torch's settings of precision and determinism as the process starts."""
    cudnn = torch.backends.cudnn
    return {
        "cudnn_tf32": cudnn.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    }
