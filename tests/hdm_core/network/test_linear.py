"""RowwiseLinear against PyTorch's linear layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hdm_core.network.linear import RowwiseLinear


def test_a_row_of_the_head_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(0)
    linear, features = nn.Linear(130, 7), torch.randn(41, 130)
    head = RowwiseLinear(linear)
    with torch.no_grad():
        whole = head(features)
        torch.testing.assert_close(whole, linear(features))
        for rows in range(1, 41):
            assert torch.equal(head(features[:rows]), whole[:rows])
        assert torch.equal(head(features.flip(0)), whole.flip(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_head_stays_in_single_precision_under_autocast(dtype: torch.dtype) -> None:
    linear, features = nn.Linear(8, 3), torch.randn(4, 8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = RowwiseLinear(linear)(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.linear(features.float(), linear.weight, linear.bias))


def test_a_linear_layer_on_tokens_is_not_changed() -> None:
    linear, tokens = nn.Linear(8, 3), torch.randn(2, 5, 8)
    assert torch.equal(RowwiseLinear(linear)(tokens), linear(tokens))
