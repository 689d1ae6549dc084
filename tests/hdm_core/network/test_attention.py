"""Attention maps are read exactly, from every function that computes attention, and the network answers as before."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.network.attention import AttentionReader
from hdm_core.testing.families import transformer
from hdm_core.testing.networks import attention_network
from tests.support.tiny_networks import pictures

HEADS, CHANNELS = 2, 8


class Attention(nn.Module):
    """Attention of tokens to each other, by one of torch's functions or written out."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.qkv, self.softmax = kind, nn.Linear(CHANNELS, 3 * CHANNELS), nn.Softmax(dim=-1)
        self.bias = nn.Parameter(torch.randn(1, HEADS, 6, 6))
        self.module = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.kind.startswith("module"):
            return self.module(tokens, tokens, tokens, need_weights="weights" in self.kind)[0]
        q, k, v = self.qkv(tokens).reshape(len(tokens), -1, 3, HEADS, CHANNELS // HEADS).permute(2, 0, 3, 1, 4)
        match self.kind:
            case "fused":
                mixed = F.scaled_dot_product_attention(q, k, v)
            case "fused with bias":
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
            case "fused with mask":
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias > 0.5 - 10 * torch.eye(6))
            case "fused and causal":
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            case "fused with scale":
                mixed = F.scaled_dot_product_attention(q, k, v, None, 0.0, False, scale=0.3)
            case "fused with groups":
                mixed = F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)
            case "method":
                mixed = (q @ k.mT / 2).softmax(dim=-1) @ v
            case "function":
                mixed = F.softmax(q @ k.mT / 2, -1) @ v
            case _:
                mixed = self.softmax(q @ k.mT / 2) @ v
        return mixed.transpose(1, 2).flatten(2)


KINDS = (
    *("module", "module with weights", "fused", "fused with bias", "fused with mask", "fused and causal", "fused with scale"),
    *("fused with groups", "method", "function", "softmax module"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_answers_as_before_and_rows_sum_to_one(kind: str) -> None:
    torch.manual_seed(0)
    attention, tokens, maps = Attention(kind).eval().requires_grad_(False), torch.randn(3, 6, CHANNELS), []
    expected = attention(tokens)
    with AttentionReader(maps.append) as reader:
        found = attention(tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert reader.missed == 0
    (read,) = maps
    assert read.shape == (3, HEADS, 6, 6)
    assert not read.requires_grad
    torch.testing.assert_close(read.sum(-1), torch.ones(3, HEADS, 6), rtol=0, atol=1e-6)
    assert torch.equal(attention(tokens), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_to_a_map_is_that_of_the_definition(kind: str) -> None:
    """y = sum of w o, o = A v for each head: dy / dA_ij = sum_d (dy / do_id) v_jd, by explicit loops."""
    torch.manual_seed(0)
    attention, tokens, maps = Attention(kind).eval().requires_grad_(False), torch.randn(1, 6, CHANNELS), []
    weight = torch.randn(6, CHANNELS)
    with torch.enable_grad(), AttentionReader(maps.append, leaves=True):
        score = (attention(tokens)[0] * weight).sum()
    (found,) = torch.autograd.grad(score, maps)
    if kind.startswith("module"):
        value = F.linear(tokens, attention.module.in_proj_weight, attention.module.in_proj_bias)[0, :, 2 * CHANNELS :]
        weight = weight @ attention.module.out_proj.weight
    else:
        value = attention.qkv(tokens)[0, :, 2 * CHANNELS :]
    size = CHANNELS // HEADS
    for head in range(HEADS):
        source = 0 if kind == "fused with groups" else head
        for i in range(6):
            for j in range(6):
                by_hand = sum(weight[i, head * size + d] * value[j, source * size + d] for d in range(size))
                assert math.isclose(float(found[0, head, i, j]), float(by_hand), abs_tol=1e-5)


@pytest.mark.parametrize("build", [attention_network, transformer])
def test_a_network_has_the_same_logits_and_a_map_for_every_block(build: Callable[[], nn.Module]) -> None:
    network, images, maps = build(), pictures(2, 32), []
    with torch.no_grad():
        expected = network(images)  # torch's fast path, which is one fused kernel
        with AttentionReader(maps.append):
            found = network(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert all(torch.allclose(each.sum(-1), torch.ones(())) for each in maps)
    assert len(maps) == sum(isinstance(module, nn.MultiheadAttention) for module in network.modules())


def test_attention_to_a_part_of_the_tokens_counts_as_missed_unless_it_is_last() -> None:
    tokens, maps = torch.randn(2, HEADS, 6, 4), []
    with AttentionReader(maps.append) as reader:
        F.scaled_dot_product_attention(tokens, tokens, tokens)
        F.scaled_dot_product_attention(tokens[:, :, :1], tokens, tokens)  # of a pooling query
        assert reader.missed == 0
        F.scaled_dot_product_attention(tokens, tokens, tokens)
        assert reader.missed == 1
        F.scaled_dot_product_attention(tokens[:, 0], tokens[:, 0], tokens[:, 0])
        assert reader.missed == 2
    assert len(maps) == 2


def test_attention_with_masks_or_added_keys_of_the_module_counts_as_missed() -> None:
    tokens, maps = torch.randn(2, 6, CHANNELS), []
    plain, added = (nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True, add_bias_kv=bias).eval() for bias in (False, True))
    with AttentionReader(maps.append) as reader, torch.no_grad():
        plain(tokens, tokens, tokens, attn_mask=torch.eye(6).bool())
        added(tokens, tokens, tokens)
        plain(tokens[:, :1], tokens, tokens)
    assert reader.missed == 2
    assert maps == []


def test_a_softmax_that_is_no_attention_is_left_alone() -> None:
    images, maps = torch.randn(2, 3, 4, 4), []
    with AttentionReader(maps.append):
        images.softmax(1)
        F.softmax(images.flatten(2), -1)
        torch.softmax(images[:, :, :2], dim=3)
    assert maps == []
