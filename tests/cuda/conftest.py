"""Kernels that both devices have, so that their bits can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch

from hdm_core.network.convolution import DirectConv2d
from hdm_core.network.linear import RowwiseLinear


@pytest.fixture(autouse=True)
def _same_kernels() -> Iterator[None]:
    """Use no kernel that rounds otherwise and runs on the CPU alone.

    These are `DirectConv2d`, the blocks of `RowwiseLinear`, CAMs image by image, and torch's fused attention for inference, which torch
    avoids while a mode sees its calls.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with (
        mock.patch.object(DirectConv2d, "fits", return_value=False),
        mock.patch.object(RowwiseLinear, "uses_blocks", return_value=False),
        mock.patch("hdm_core.methods.start.cam_batch", lambda _: 4),  # noqa: PT008 - a mock would keep the jobs, and their networks
    ):
        yield
    torch.backends.mha.set_fastpath_enabled(before)
