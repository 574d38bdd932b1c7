"""Attention in numbers: means and entropies of heads, mass on blocks, sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.tokens import Tokens, name_texts, token_layout
from onnxviz.errors import SelectionError, printable

if TYPE_CHECKING:
    from onnxviz.graph.attention import AttentionNode
    from onnxviz.runtime.record import Capture

__all__ = ["AttentionMaps", "LayerAttention", "attention_maps", "choose_layers", "filled_rows"]

FloatArray = npt.NDArray[np.float64]
SINK = 0.3  # mean attention from which a key counts as a sink


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
        return np.where(filled_rows(self.weights), bits, np.nan)

    def received(self) -> FloatArray:
        """Return the mean attention that each key gets, over the queries that may see it: ``(heads, K)``.

        Under a causal mask key k is seen by queries k and later only; those are recognised by a strictly zero upper
        triangle.
        """
        p = np.where(filled_rows(self.weights)[..., None], self.weights, 0.0)
        seen = np.broadcast_to(filled_rows(self.weights)[..., None], p.shape).astype(np.float64)
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
            kept = filled_rows(part)
            count = np.where(kept.any(axis=1), kept.sum(axis=1), np.nan)
            rows.append(np.stack([np.where(kept, cell, 0).sum(axis=1) / count for cell in cells], axis=-1))
        return np.stack(rows, axis=1)

    def _row_mean(self, values: FloatArray) -> FloatArray:
        kept = filled_rows(self.weights)
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
        place, note = self.heads.index(head), f"head {head} of {len(self.heads)}"
        if len(self.heads) > 1:
            note = f"{self.note} · {note}" if self.note else note
            return replace(self, heads=(head,), weights=self.weights[place : place + 1], note=note)
        return self


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


def filled_rows(weights: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
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
    if not found:
        raise SelectionError("the run holds no attention weights", hint="capture the tensors that find_attention names")
    missing = f"{len(layers) - len(found)} layers were not captured" if len(found) < len(layers) else ""
    notes = (*captured.notes, *([missing] if missing else []))
    return AttentionMaps(captured.model_name, tuple(found), captured.picture, notes)


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
    filled = filled_rows(weights)
    total = weights.sum(axis=-1, dtype=np.float64)
    error = float(np.abs(total[filled] - 1).max()) if filled.any() else 0.0
    sides = [
        name_texts(token_layout(stream, count, shapes, samples_only=per_sample), words)
        for stream, count in zip((layer.queries, layer.keys), weights.shape[1:], strict=True)
    ]
    notes = list(dict.fromkeys(tokens.note for tokens in sides if tokens.note))
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
        stack = array.reshape(-1, heads, *array.shape[-2:])
        return stack, merged or len(stack) == 1
    stack = array.reshape(-1, *array.shape[-3:])
    return stack, len(stack) in (1, batch)


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
        most = max(chosen, key=lambda one: len(one.heads))
        chosen = [one.of_head(head) for one in chosen if head in one.heads] or [most.of_head(head)]
    return replace(maps, layers=tuple(chosen))
