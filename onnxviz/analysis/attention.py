"""Attention in numbers: means and entropies of heads, mass on blocks, sinks, rollout, and how alike heads are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.tokens import Tokens, name_texts, token_layout
from onnxviz.errors import InputError, SelectionError, printable

if TYPE_CHECKING:
    from onnxviz.graph.attention import AttentionNode
    from onnxviz.runtime.record import Capture

__all__ = [
    "AttentionMaps",
    "HeadDistances",
    "LayerAttention",
    "Rollout",
    "attention_maps",
    "choose_layers",
    "head_distances",
    "jensen_shannon",
    "rollout",
]

FloatArray = npt.NDArray[np.float64]
SINK = 0.3  # mean attention from which a key counts as a sink
_MOST_HEADS = 400  # of a head comparison


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """The attention weights of one layer, for one sample.

    Attributes:
        name: Of the layer.
        tensor: Of the weights.
        kind: ``"self"`` or ``"cross"``.
        order: Place among the model's attention layers, from 0.
        heads: Index of each head in the model.
        weights: ``(heads, Q, K)`` float32, read-only.
        queries: What the queries are.
        keys: What the keys are.
        error: Largest distance of a row's sum from 1 (rows that are NaN or wholly masked left out).
        empty: Rows, all heads together, that are NaN or sum to 0: masked as a whole.
        note: What a reader should know; empty where nothing.
    """

    name: str
    tensor: str
    kind: Literal["self", "cross"]
    order: int
    heads: tuple[int, ...]
    weights: npt.NDArray[np.float32]
    queries: Tokens
    keys: Tokens
    error: float
    empty: int
    note: str = ""

    @property
    def title(self) -> str:
        """The layer in a word or two: ``"layer 3"``, with its kind where it is cross-attention."""
        return f"layer {self.order}" + (" (cross)" if self.kind == "cross" else "")

    def mean(self) -> FloatArray:
        """Return the mean over the heads: ``(Q, K)``; its rows sum to 1 as each head's do."""
        return np.asarray(self.weights.mean(axis=0, dtype=np.float64))

    def entropy(self) -> FloatArray:
        """Return the entropy of every row in bits: ``(heads, Q)``, ``-Σ p log2 p``; from 0 to log2 K; NaN if empty."""
        p = self.weights.astype(np.float64)
        bits = -np.sum(p * np.log2(np.where(p > 0, p, 1.0)), axis=-1)
        return np.where(_filled(self.weights), bits, np.nan)

    def received(self) -> FloatArray:
        """Return the mean attention that each key gets, over the queries that may see it: ``(heads, K)``.

        Under a causal mask key k is seen by queries k and later only; those are recognised by a strictly zero upper
        triangle.
        """
        p = np.where(_filled(self.weights)[..., None], self.weights, 0.0)
        seen = np.broadcast_to(_filled(self.weights)[..., None], p.shape).astype(np.float64)
        if _is_causal(p):
            seen = seen * np.tri(*p.shape[1:])
        return np.asarray(p.sum(axis=1, dtype=np.float64) / np.maximum(seen.sum(axis=1), 1))

    def sinks(self, threshold: float = SINK) -> FloatArray:
        """Return the share of heads for which each key is an attention sink: ``(K,)``.

        A key is a sink of a head where the mean attention it gets is above ε = 0.3 (Gu et al. 2024, *When attention
        sink emerges in language models*, equation 8; the phenomenon: Xiao et al. 2023). With 3 keys or fewer that is
        no more than an even share, and none is called a sink.
        """
        if self.weights.shape[-1] <= 1 / threshold:
            return np.zeros(self.weights.shape[-1])
        return np.asarray(np.mean(self.received() > threshold, axis=0))

    def special_mass(self) -> FloatArray:
        """Return the share of attention that goes to CLS, registers and special tokens: ``(heads,)``."""
        return self._row_mean(self.weights[:, :, list(self.keys.special)].sum(axis=-1, dtype=np.float64))

    def block_mass(self) -> FloatArray:
        """Return where each block's queries look: ``(heads, query blocks, key blocks)``; each row sums to 1."""
        rows = []
        for q in self.queries.blocks:
            part = self.weights[:, q.start : q.stop]
            cells = [part[:, :, k.start : k.stop].sum(axis=-1, dtype=np.float64) for k in self.keys.blocks]
            kept = _filled(part)
            count = np.where(kept.any(axis=1), kept.sum(axis=1), np.nan)
            rows.append(np.stack([np.where(kept, cell, 0).sum(axis=1) / count for cell in cells], axis=-1))
        return np.stack(rows, axis=1)

    def _row_mean(self, values: FloatArray) -> FloatArray:
        kept = _filled(self.weights)
        return np.asarray(np.where(kept, values, 0).sum(axis=-1) / np.maximum(kept.sum(axis=-1), 1))

    def of_head(self, head: int) -> LayerAttention:
        """Return the layer with one of its heads.

        Raises:
            SelectionError: There is no such head.
        """
        if head not in self.heads:
            raise SelectionError(
                f"{self.title} has no head {head}", hint=f"it has {len(self.heads)}, 0 to {self.heads[-1]}"
            )
        place = self.heads.index(head)
        return replace(self, heads=(head,), weights=self.weights[place : place + 1])


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention of a model for one sample.

    Attributes:
        model_name: Of the model.
        layers: In the graph's order.
        picture: What was fed, ``(H, W, 3)`` uint8, as the model saw it; None where no picture was.
        notes: What a reader should know.
    """

    model_name: str
    layers: tuple[LayerAttention, ...]
    picture: npt.NDArray[np.uint8] | None
    notes: tuple[str, ...] = ()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the numbers behind the pictures, by name: weights, entropies, masses, sinks, and labels."""
        found: dict[str, npt.NDArray[Any]] = {}
        for layer in self.layers:
            start = f"layer{layer.order}"
            found |= {
                f"{start}.weights": layer.weights,
                f"{start}.heads": np.array(layer.heads),
                f"{start}.entropy_bits": layer.entropy(),
                f"{start}.received": layer.received(),
                f"{start}.sink_share": layer.sinks(),
                f"{start}.special_mass": layer.special_mass(),
                f"{start}.block_mass": layer.block_mass(),
                f"{start}.query_labels": np.array(layer.queries.labels, dtype=np.str_),
                f"{start}.key_labels": np.array(layer.keys.labels, dtype=np.str_),
                f"{start}.query_blocks": np.array([b.name for b in layer.queries.blocks]),
                f"{start}.key_blocks": np.array([b.name for b in layer.keys.blocks]),
            }
        return found


def _filled(weights: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows hold a distribution: finite, and not masked as a whole."""
    total = weights.sum(axis=-1, dtype=np.float64)
    return np.asarray(np.isfinite(total) & (total > 0))


def _is_causal(weights: npt.NDArray[Any]) -> bool:
    queries, keys = weights.shape[1:]
    return queries == keys > 2 and not np.triu(weights.max(axis=0), 1).any()


def attention_maps(
    captured: Capture,
    layers: Sequence[AttentionNode],
    *,
    sample: int = 0,
    batch: int | None = None,
    words: Sequence[str] = (),
) -> AttentionMaps:
    """Return the attention of a captured run.

    Args:
        captured: A run with :meth:`onnxviz.graph.attention.AttentionGraph.tensors`.
        layers: What :func:`onnxviz.graph.attention.find_attention` found.
        sample: Which sample of the batch.
        batch: Samples that were fed; by default the first size of the first input.
        words: Labels of the text tokens.

    Raises:
        SelectionError: There is no such sample, or the weights are no attention.
    """
    shapes = {name: record.shape for name, record in captured.items()}
    shapes |= {record.name: tuple(record.shape) for record in captured.inputs}
    fed = batch or next((r.shape[0] for r in captured.inputs if len(r.shape) > 1), 1)
    found = [
        _layer(captured[layer.tensor].array, layer, order, shapes, fed, sample, words)
        for order, layer in enumerate(layers)
        if layer.tensor in captured
    ]
    return AttentionMaps(captured.model_name, tuple(found), captured.picture, captured.notes)


def _layer(
    array: npt.NDArray[Any],
    layer: AttentionNode,
    order: int,
    shapes: dict[str, tuple[int, ...]],
    batch: int,
    sample: int,
    words: Sequence[str],
) -> LayerAttention:
    stack, per_sample = _per_sample(array, batch, layer.tensor)
    if not 0 <= sample < len(stack):
        raise SelectionError(f"there is no sample {sample}", hint=f"{len(stack)} were fed, counted from 0")
    weights = np.ascontiguousarray(stack[sample], dtype=np.float32)
    weights.flags.writeable = False
    filled = _filled(weights)
    total = weights.sum(axis=-1, dtype=np.float64)
    error = float(np.abs(total[filled] - 1).max()) if filled.any() else 0.0
    sides = [
        name_texts(token_layout(stream, count, shapes, samples_only=per_sample), words)
        for stream, count in zip((layer.queries, layer.keys), weights.shape[1:], strict=True)
    ]
    notes = [tokens.note for tokens in sides[:1] if tokens.note]
    if not per_sample:
        notes.append(f"{len(stack)} windows of {batch} sample: window {sample} is shown")
    if error > 0.01:
        notes.append(f"rows sum to 1 ± {error:.2g}")
    empty = int(np.count_nonzero(~filled))
    if empty:
        notes.append(f"{empty} rows are masked as a whole")
    return LayerAttention(
        layer.name, layer.tensor, layer.kind, order, tuple(range(len(weights))), weights, sides[0], sides[1], error,
        empty, " · ".join(notes),
    )  # fmt: skip


def _per_sample(array: npt.NDArray[Any], batch: int, name: str) -> tuple[npt.NDArray[Any], bool]:
    """Return weights as (N, heads, Q, K), and whether N is the batch rather than windows."""
    if array.ndim < 2 or 0 in array.shape:
        raise SelectionError(f"tensor {name!r} of shape {array.shape} holds no attention", hint="choose another layer")
    if array.ndim == 2:
        return array[None, None], True
    if array.ndim == 3:
        merged = array.shape[0] % batch == 0
        heads = array.shape[0] // batch if merged else array.shape[0]
        return array.reshape(-1, heads, *array.shape[-2:]), merged
    stack = array.reshape(-1, *array.shape[-3:])
    return stack, len(stack) == batch


@dataclass(frozen=True, eq=False)
class Rollout:
    """How much of each output token comes from each input token, through all layers.

    Attributes:
        matrix: ``(T, T)`` float64; each row sums to 1.
        tokens: What the tokens are.
        layers: Titles of the layers that it runs through.
        residual: Weight of the residual connection.
        note: What was left out; empty where nothing.
    """

    matrix: FloatArray
    tokens: Tokens
    layers: tuple[str, ...]
    residual: float
    note: str


def rollout(layers: Sequence[LayerAttention], *, residual: float = 0.5) -> Rollout:
    """Return the attention rollout of self-attention layers (Abnar & Zuidema 2020, section 3).

    With ``A_l`` the mean over the heads of layer l and ``r`` the weight of the residual connection (0.5 in the paper),
    ``Ã_l = (1 - r) A_l + r I``, its rows scaled to sum to 1, and ``R = Ã_L ⋯ Ã_2 Ã_1``. A row that is masked as a whole
    stays where it is (a row of I). Layers of cross-attention are left out, which ``note`` says: what they bring in from
    other tokens is not followed.

    Args:
        layers: Layers, first to last.
        residual: ``r``, from 0 to below 1.

    Raises:
        SelectionError: No layer is self-attention with as many keys as queries, or these change from layer to layer.

    >>> import numpy as np
    >>> from onnxviz.graph.attention import TokenStream
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
    own = [layer for layer in layers if layer.kind == "self"]
    square = [layer for layer in own if layer.weights.shape[1] == layer.weights.shape[2]]
    if not square:
        what = "all is cross-attention" if not own else "queries and keys differ in number"
        raise SelectionError(f"rollout needs self-attention over the same tokens: {what}", hint="leave out --rollout")
    last = square[-1]
    stream = [one for one in square if one.queries.blocks == last.queries.blocks]
    count = last.weights.shape[1]
    matrix = np.eye(count)
    for layer in stream:
        filled = np.stack([_filled(head) for head in layer.weights])
        heads = np.where(filled[..., None], layer.weights, np.eye(count)).astype(np.float64)
        mixed = (1 - residual) * heads.mean(axis=0) + residual * np.eye(count)
        matrix = mixed / mixed.sum(axis=-1, keepdims=True) @ matrix
    left = len(layers) - len(stream)
    note = f"{left} of {len(layers)} layers left out (cross-attention or other tokens)" if left else ""
    return Rollout(matrix, last.queries, tuple(layer.title for layer in stream), residual, note)


@dataclass(frozen=True, eq=False)
class HeadDistances:
    """How far apart heads are.

    Attributes:
        matrix: ``(H, H)`` float64, bits from 0 (the same) to 1 (never looking at the same key); NaN between layers
            with different tokens.
        layers: Title of each head's layer.
        heads: Index of each head in its layer.
        note: What was left out; empty where nothing.
    """

    matrix: FloatArray
    layers: tuple[str, ...]
    heads: tuple[int, ...]
    note: str


def jensen_shannon(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Return the mean Jensen-Shannon divergence of the rows of two ``(Q, K)`` arrays, in bits, from 0 to 1.

    ``JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2`` (Lin 1991, equation 4.1); rows empty in either are left out.

    >>> jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    1.0
    """
    p, q = (np.asarray(a, np.float64) for a in (first, second))
    kept = _filled(p) & _filled(q)
    if not kept.any():
        return float("nan")
    p, q = p[kept], q[kept]

    def bits(x: FloatArray) -> FloatArray:
        return np.asarray(-np.sum(x * np.log2(np.where(x > 0, x, 1.0)), axis=-1))

    return float(np.clip(np.mean(bits((p + q) / 2) - (bits(p) + bits(q)) / 2), 0, 1))


def head_distances(layers: Sequence[LayerAttention]) -> HeadDistances:
    """Return the Jensen-Shannon divergence between every two heads, as Clark et al. 2019 (section 6) compare them.

    Raises:
        SelectionError: There are fewer than two heads.
    """
    every = [(layer, place) for layer in layers for place in range(len(layer.heads))]
    note = f"the first {_MOST_HEADS} of {len(every)} heads" if len(every) > _MOST_HEADS else ""
    every = every[:_MOST_HEADS]
    if len(every) < 2:
        raise SelectionError("there is one head: nothing to compare it with", hint="leave out --layer or --head")
    matrix = np.full((len(every), len(every)), np.nan)
    for i, (one, a) in enumerate(every):
        for j, (other, b) in enumerate(every[: i + 1]):
            if one is other or (one.queries.blocks, one.keys.blocks) == (other.queries.blocks, other.keys.blocks):
                matrix[i, j] = matrix[j, i] = 0.0 if i == j else jensen_shannon(one.weights[a], other.weights[b])
    return HeadDistances(
        matrix, tuple(layer.title for layer, _ in every), tuple(layer.heads[place] for layer, place in every), note
    )


def choose_layers(maps: AttentionMaps, layer: str | None, head: int | None) -> AttentionMaps:
    """Return the layers (by number, from 0, or by a part of the name) and the head that were asked for.

    Raises:
        SelectionError: There is no such layer or head.
    """
    chosen = list(maps.layers)
    if layer is not None:
        number = int(layer) if layer.lstrip("-").isdigit() else None
        count = len(chosen)
        if number is not None:
            chosen = [one for one in chosen if one.order == (number if number >= 0 else number + count)]
        else:
            chosen = [one for one in chosen if layer in one.name]
        if not chosen:
            raise SelectionError(
                f"there is no attention layer {layer!r}",
                hint=f"there are {count}, 0 to {count - 1}; the first is {printable(maps.layers[0].name, 80)}",
            )
    if head is not None:
        chosen = [one.of_head(head) for one in chosen]
    return replace(maps, layers=tuple(chosen))
