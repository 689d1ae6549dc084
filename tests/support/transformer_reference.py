"""A written-out forward pass of `AttentionNetwork`, block by block, for one image: no hooks, no fused attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hdm_core.testing.networks import AttentionNetwork


def blocks_of(network: AttentionNetwork, image: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return each block's attention maps (heads, N, N) and its tokens (N, K), which depend on these maps and on no earlier ones."""
    patches = network.patches(image[None])[0].flatten(1).T
    tokens = torch.cat([network.class_token[0], patches]).detach()
    result = []
    for block in network.blocks:
        normed = block.norm1(tokens)
        module = block.attention
        q, k, v = (normed @ module.in_proj_weight.T + module.in_proj_bias).chunk(3, -1)
        size = q.shape[1] // module.num_heads
        maps = []
        for head in range(module.num_heads):
            part = slice(head * size, (head + 1) * size)
            maps.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), 1))
        attention = torch.stack(maps).detach().requires_grad_()
        mixed = [attention[head] @ v[:, head * size : (head + 1) * size] for head in range(module.num_heads)]
        summed = tokens + module.out_proj(torch.cat(mixed, 1))
        left = summed + block.mlp(block.norm2(summed))
        result.append((attention, left))
        tokens = left.detach()
    return result


def logits_of(network: AttentionNetwork, pooled: Tensor) -> Tensor:
    """Return the logits of one token (K,), as the network's head has them."""
    return network.head(network.norm(pooled))
