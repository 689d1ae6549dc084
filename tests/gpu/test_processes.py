"""Two processes on one GPU."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.gpu.marks import ON_GPU
from tests.support.paths import ROOT

pytestmark = ON_GPU

# A worker with half of the GPU: it prints a digest of its maps.
CODE = """
import hashlib
from hdm_core.device import pick_device
from tests.cuda.settings import NETWORKS, explained
from tests.support.tiny_networks import pictures

device = pick_device(0.5)
maps = [explained(NETWORKS["residual"]().to(device), pictures(3, 16), method).maps.cpu() for method in ("hdm", "rise", "grad_cam") * 3]
print(device.type, hashlib.sha256(b"".join(each.numpy().tobytes() for each in maps)).hexdigest())
"""


def digests_of_two_processes() -> list[list[str]]:
    """Return the device and the digest that each of two processes prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return outputs


def test_two_processes_give_the_same_bits_at_the_same_time() -> None:
    first, second = digests_of_two_processes()
    assert first[0] == "cuda"
    assert first == second
