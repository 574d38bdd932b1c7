"""Attention in numbers: means and entropies of heads, mass on blocks, sinks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.tokens import Tokens
from onnxviz.errors import SelectionError, printable

__all__ = ["SINK", "AttentionMaps", "LayerAttention", "choose_layers", "filled_rows", "finite_mean", "layers_named"]

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
        empty: Rows, all heads together, that are zeros: masked as a whole.
        note: What a reader should know; empty where nothing.
        broken: Rows, all heads together, that hold NaN or Inf: masked as a whole, or a fault of the numbers.
        after: ``order`` of the layers whose results enter the stream that the queries come from; None if not known.
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
    broken: int = 0
    after: tuple[int, ...] | None = None

    @property
    def title(self) -> str:
        """The layer in a word or two: ``"layer 3"``, with its kind where it is cross-attention."""
        return f"layer {self.order}" + (" (cross)" if self.kind == "cross" else "")

    def mean(self) -> FloatArray:
        """Return the mean over the heads: ``(Q, K)``; heads in which a query is masked as a whole are left out."""
        return _mean_where(self.weights, filled_rows(self.weights))

    def looks(self, query: int | None) -> FloatArray:
        """Return where a query looks, or for None all on average: ``(heads, K)``; masked rows are left out."""
        if query is not None:
            return self.weights[:, query].astype(np.float64)
        return _mean_where(self.weights.swapaxes(0, 1), filled_rows(self.weights).T)

    def mean_look(self, query: int | None) -> FloatArray:
        """Return the mean of :meth:`looks` over the heads that have a row there: ``(K,)``."""
        looks = self.looks(query)
        return _mean_where(looks, filled_rows(looks))

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
        """Return the share of attention that CLS, registers and special tokens get: ``(heads,)``; NaN if masked."""
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
        count = np.where(kept.any(axis=-1), kept.sum(axis=-1), np.nan)
        return np.asarray(np.where(kept, values, 0).sum(axis=-1) / count)

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
        refused: Which layers keep their weights, and why, in one line; empty where none does.
    """

    model_name: str
    layers: tuple[LayerAttention, ...]
    picture: npt.NDArray[np.uint8] | None
    notes: tuple[str, ...] = ()
    refused: str = ""

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


def finite_mean(values: npt.NDArray[Any]) -> FloatArray:
    """Return the mean over the first axis, heads that are NaN left out; NaN where all are.

    >>> finite_mean(np.array([[1.0, np.nan], [np.nan, np.nan]])).tolist()
    [1.0, nan]
    """
    known = ~np.isnan(values)
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return np.asarray(np.where(known, values, 0).sum(axis=0) / count)


def _mean_where(weights: npt.NDArray[Any], kept: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the mean of ``(M, …, K)`` over the rows that are kept, ``(M, …)``; where none is, over all: 0 or NaN."""
    kept = np.where(kept.any(axis=0), kept, True)
    total = np.where(kept[..., None], weights, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(total / kept.sum(axis=0)[..., None])


def _is_causal(weights: npt.NDArray[Any]) -> bool:
    queries, keys = weights.shape[1:]
    return queries == keys > 2 and not np.triu(weights.max(axis=0), 1).any()


class _Placed(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def order(self) -> int: ...


_AnyLayer = TypeVar("_AnyLayer", bound=_Placed)


def layers_named(layers: Sequence[_AnyLayer], layer: str | None, refused: Mapping[int, str]) -> list[_AnyLayer]:
    """Return the layers that a text asks for: by number, from 0 or negative from the end, or by a part of the name.

    Args:
        layers: All whose weights can be had.
        layer: What is asked for; None for all.
        refused: The others: number -> why they cannot.

    Raises:
        SelectionError: There is no such layer, or it is one of the others.
    """
    if layer is None:
        return list(layers)
    count = max([one.order for one in layers] + list(refused), default=-1) + 1
    if re.fullmatch(r"-?[0-9]{1,9}", layer):
        number = int(layer) if not layer.startswith("-") else int(layer) + count
        if number in refused:
            raise SelectionError(f"attention layer {number}: {refused[number]}", hint="choose another layer")
        chosen = [one for one in layers if one.order == number]
    else:
        chosen = [one for one in layers if layer in one.name]
    if not chosen:
        raise SelectionError(
            f"there is no attention layer {layer!r}",
            hint=f"there are {count}, 0 to {count - 1}; the first is {printable(layers[0].name, 80)}",
        )
    return chosen


def choose_layers(maps: AttentionMaps, layer: str | None, head: int | None) -> AttentionMaps:
    """Return the layers (by number, from 0, or by a part of the name) and the head that were asked for.

    Raises:
        SelectionError: There is no such layer or head.
    """
    chosen = layers_named(maps.layers, layer, {})
    if head is not None:
        most = max(chosen, key=lambda one: len(one.heads))
        chosen = [one.of_head(head) for one in chosen if head in one.heads] or [most.of_head(head)]
    return replace(maps, layers=tuple(chosen))
