"""Attention through all layers of a stream of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attention import LayerAttention, filled_rows
from onnxviz.analysis.tokens import Tokens
from onnxviz.errors import InputError, SelectionError

__all__ = ["Rollout", "gradient_rollout", "rollout", "stream_of"]


@dataclass(frozen=True, eq=False)
class Rollout:
    """How much of each output token comes from each input token, through all layers.

    Attributes:
        matrix: ``(T, T)`` float64; each row sums to 1.
        tokens: What the tokens are.
        layers: Titles of the layers that it runs through.
        residual: Weight of the residual connection.
        note: What was left out; empty where nothing.
        across: Other tokens that these attend to: ``(T, T')`` and what they are.
    """

    matrix: npt.NDArray[np.float64]
    tokens: Tokens
    layers: tuple[str, ...]
    residual: float
    note: str
    across: tuple[tuple[npt.NDArray[np.float64], Tokens], ...] = ()


def rollout(layers: Sequence[LayerAttention], *, residual: float = 0.5) -> Rollout:
    """Return the attention rollout of self-attention layers (Abnar & Zuidema 2020, section 3).

    With ``A_l`` the mean over the heads of layer l and ``r`` the weight of the residual connection (0.5 in the paper),
    ``Ã_l = (1 - r) A_l + r I``, its rows scaled to sum to 1, and ``R = Ã_L ⋯ Ã_2 Ã_1``. A row that is masked as a whole
    stays where it is (a row of I). Only layers whose results reach the last one along the residual stream are taken:
    not the encoder of a decoder, nor another tower. Layers of cross-attention are left out, which ``note`` says: what
    they bring in from other tokens is not followed.

    Args:
        layers: Layers, first to last.
        residual: ``r``, from 0 to below 1.

    Raises:
        SelectionError: No layer is self-attention with as many keys as queries, or these change from layer to layer.

    >>> import numpy as np
    >>> from onnxviz.analysis.tokens import token_layout
    >>> from onnxviz.graph.token_streams import TokenStream
    >>> two = token_layout(TokenStream(), 2, {})
    >>> a = np.array([[[1, 0], [0.5, 0.5]]], np.float32)
    >>> one = LayerAttention("a", "a", "self", 0, (0,), a, two, two, 0.0, 0)
    >>> rollout([one, one]).matrix.tolist()
    [[1.0, 0.0], [0.4375, 0.5625]]
    """
    if not 0 <= residual < 1:
        raise InputError(
            f"a residual of {residual:g} is no share", hint="give one from 0 to below 1; the paper has 0.5"
        )
    stream, note = stream_of(layers)
    count = stream[-1].weights.shape[1]
    matrix = np.eye(count)
    for layer in stream:
        filled = np.asarray(filled_rows(layer.weights).any(axis=0))
        mean = np.where(filled[:, None], layer.mean(), np.eye(count))
        mixed = (1 - residual) * mean + residual * np.eye(count)
        matrix = mixed / mixed.sum(axis=-1, keepdims=True) @ matrix
    return Rollout(matrix, stream[-1].queries, tuple(layer.title for layer in stream), residual, note)


def gradient_rollout(layers: Sequence[LayerAttention], gradients: Mapping[int, npt.NDArray[Any]]) -> Rollout:
    """Return the relevance of tokens by attention and its gradient (Chefer, Gur and Wolf 2021, equations 5 to 11).

    From ``R = I``, layer after layer with ``Ā = mean over heads of ReLU(∂y/∂A ⊙ A)``: self-attention of the tokens q
    adds ``Ā R_qb`` to ``R_qb`` of all tokens b; attention of q to k adds ``R̄_qqᵀ Ā R̄_kk`` to ``R_qk`` and ``Ā R_kq`` to
    ``R_qq``, where ``R̄`` is ``R - I`` with rows that sum to 1, plus I.

    Args:
        layers: Layers, first to last, that lead to the score.
        gradients: ``order`` of a layer -> the gradient of the score there, ``(heads, Q, K)``.

    Returns:
        That of the queries of the last layer; ``across``: that of other tokens for those queries.

    >>> import numpy as np
    >>> from onnxviz.analysis.tokens import token_layout
    >>> from onnxviz.graph.token_streams import TokenStream
    >>> two = token_layout(TokenStream(), 2, {})
    >>> a = np.array([[[1, 0], [0.5, 0.5]]], np.float32)
    >>> one = LayerAttention("a", "a", "self", 0, (0,), a, two, two, 0.0, 0)
    >>> gradient_rollout([one], {0: np.array([[[0, 9], [2, -1]]])}).matrix.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    known: dict[Tokens, dict[Tokens, npt.NDArray[np.float64]]] = {}  # queries -> tokens -> relevance
    for layer in layers:
        q, k = layer.queries, layer.keys
        for side in (q, k):
            known.setdefault(side, {side: np.eye(len(side))})
        weights = np.where(filled_rows(layer.weights)[..., None], layer.weights, 0.0)
        mean = np.maximum(weights * np.float64(gradients[layer.order]), 0).mean(axis=0)
        if layer.kind == "self" and len(q) == len(k):
            known[q] = {other: matrix + mean @ matrix for other, matrix in known[q].items()}
            continue
        added = _normed(known[q][q]).T @ mean @ _normed(known[k][k])
        back = mean @ known[k][q] if q in known[k] else 0.0
        known[q] |= {k: known[q].get(k, 0.0) + added, q: known[q][q] + back}
    last = layers[-1].queries
    found = known[last]
    left = [layer for layer in layers if layer.queries != last and layer.queries not in found]
    said = [f"{len(left)} of {len(layers)} layers left out (other tokens)" if left else "", layers[-1].note]
    across = tuple((matrix, tokens) for tokens, matrix in found.items() if tokens != last)
    return Rollout(
        found[last], last, tuple(layer.title for layer in layers if layer not in left), 1.0,
        " · ".join(part for part in said if part), across,
    )  # fmt: skip


def _normed(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ``R̄`` (equations 8 and 9)."""
    own = np.eye(len(matrix))
    rest = matrix - own
    total = rest.sum(axis=-1, keepdims=True)
    return np.asarray(rest / np.where(total > 0, total, 1.0) + own)


def stream_of(layers: Sequence[LayerAttention]) -> tuple[list[LayerAttention], str]:
    """Return the layers of self-attention whose results reach the last one, and what was left out.

    Raises:
        SelectionError: No layer is self-attention with as many keys as queries, or these change from layer to layer.
    """
    own = [layer for layer in layers if layer.kind == "self"]
    square = [layer for layer in own if layer.weights.shape[1] == layer.weights.shape[2]]
    if not square:
        what = "all is cross-attention" if not own else "queries and keys differ in number"
        raise SelectionError(f"rollout needs self-attention over the same tokens: {what}", hint="leave out --rollout")
    last = square[-1]
    reached = _reached(layers, last)
    stream = [one for one in square if one.queries.blocks == last.queries.blocks and one.order in reached]
    left = len(layers) - len(stream)
    said = [f"{left} of {len(layers)} layers left out (cross-attention or other tokens)" if left else "", last.note]
    return stream, " · ".join(part for part in said if part)


def _reached(layers: Sequence[LayerAttention], last: LayerAttention) -> set[int]:
    """Return the layers whose results enter the stream of the last one; all, where the graph does not tell."""
    above = {layer.order: layer.after for layer in layers}
    if any(after is None for after in above.values()):
        return set(above)
    found, pending = set(), [last.order]
    while pending:
        order = pending.pop()
        if order not in found:
            found.add(order)
            pending += above.get(order) or ()
    return found
