"""Multi-head attention (Vaswani et al., "Attention is all you need", 2017), which two of the bundled models share."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["MLP", "MultiHeadAttention"]

_MASKED = -1e4  # e to it is 0, float16 can hold it, and a row that is masked throughout gives no NaN


class MultiHeadAttention(nn.Module):
    """softmax(Q·Kᵀ / √d)·V a head, written out, so that an exported graph has MatMul, Softmax and MatMul.

    Self-attention where ``queries`` and ``keys`` are the same tokens, else cross-attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)
        self.output = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Return the (N, T, width) tokens as (N, heads, T, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, queries: Tensor, keys: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return (N, Q, width) from (N, Q, width) queries and (N, K, width) keys; ``padding`` (N, K) hides keys."""
        query, key, value = self.split(self.query(queries)), self.split(self.key(keys)), self.split(self.value(keys))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], _MASKED)
        mixed = self.softmax(scores) @ value
        return self.output(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """The two layers between which a transformer block applies GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.gelu(self.fc1(x)))
