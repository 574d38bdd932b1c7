"""The attention of a run: captured tensors parted into samples, windows and heads, their tokens told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attention import AttentionMaps, LayerAttention, filled_rows
from onnxviz.analysis.tokens import name_texts, token_layout
from onnxviz.errors import SelectionError

if TYPE_CHECKING:
    from onnxviz.graph.attention import AttentionNode
    from onnxviz.runtime.record import Capture

__all__ = ["Fed", "attention_maps", "layer_attention", "sample_weights"]

Shapes = Mapping[str, tuple[int, ...]]


def attention_maps(
    captured: Capture,
    layers: Sequence[AttentionNode],
    *,
    sample: int = 0,
    window: int = 0,
    batch: int | None = None,
    words: Sequence[str] = (),
) -> AttentionMaps:
    """Return the attention of a captured run.

    Args:
        captured: A run with :meth:`onnxviz.graph.attention.AttentionGraph.tensors`.
        layers: What :func:`onnxviz.graph.attention.find_attention` found.
        sample: Which sample of the batch.
        window: Which window of the sample, for attention in windows.
        batch: Samples that were fed; by default the first size of the first input.
        words: Labels of the text tokens.

    Raises:
        SelectionError: There is no such sample or window, or the weights are no attention.
    """
    shapes = {name: record.shape for name, record in captured.items()}
    shapes |= {record.name: tuple(record.shape) for record in captured.inputs}
    first = next(((tuple(r.shape), r.dtype) for r in captured.inputs if len(r.shape) > 1), ((1,), ""))
    fed = batch or first[0][0]
    found = [
        layer_attention(captured[layer.tensor].array, layer, shapes, (fed, *first), (sample, window), words)
        for layer in layers
        if layer.tensor in captured
    ]
    if not found:
        raise SelectionError("the run holds no attention weights", hint="capture the tensors that find_attention names")
    missing = f"{len(layers) - len(found)} layers were not captured" if len(found) < len(layers) else ""
    notes = (*captured.notes, *([missing] if missing else []))
    return AttentionMaps(captured.model_name, tuple(found), captured.picture, notes)


Fed = tuple[int, tuple[int, ...], str]  # number of samples; shape and dtype of the first input that may hold them


def layer_attention(
    array: npt.NDArray[Any],
    layer: AttentionNode,
    shapes: Shapes,
    fed: Fed,
    place: tuple[int, int],
    words: Sequence[str],
) -> LayerAttention:
    """Return the attention of one layer: of one sample and window.

    Args:
        array: The weights of a run, as the model gives them.
        layer: What was found of the layer.
        shapes: Shapes of that run.
        fed: How many samples were fed; shape and dtype of the first input that may hold them.
        place: Sample and window.
        words: Labels of the text tokens.

    Raises:
        SelectionError: There is no such sample or window, or the weights are no attention.
    """
    if array.ndim < 2 or 0 in array.shape:
        raise SelectionError(
            f"tensor {layer.tensor!r} of shape {array.shape} holds no attention", hint="choose another layer"
        )
    chosen, windowed, note = sample_weights(array, layer, shapes, fed, *place)
    weights = np.ascontiguousarray(chosen, dtype=np.float32)
    weights.flags.writeable = False
    filled = filled_rows(weights)
    total = weights.sum(axis=-1, dtype=np.float64)
    error = float(np.abs(total[filled] - 1).max()) if filled.any() else 0.0
    sides = [
        name_texts(token_layout(stream, count, shapes, samples_only=not windowed), words)
        for stream, count in zip((layer.queries, layer.keys), weights.shape[1:], strict=True)
    ]
    notes = list(dict.fromkeys(tokens.note for tokens in sides if tokens.note)) + ([note] if note else [])
    if error > 0.01:
        notes.append(f"rows sum to 1 ± {error:.2g}")
    broken = int(np.count_nonzero(~np.isfinite(total)))
    empty = int(np.count_nonzero(~filled)) - broken
    if broken:
        notes.append(f"{_rows(broken)} NaN: masked as a whole, or a fault of the numbers")
    if empty:
        notes.append(f"{_rows(empty)} masked as a whole (zeros)")
    return LayerAttention(
        layer.name, layer.tensor, layer.kind, layer.order, tuple(range(len(weights))), weights, sides[0], sides[1],
        error, empty, " · ".join(notes), broken, layer.after,
    )  # fmt: skip


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"


def sample_weights(
    array: npt.NDArray[Any], layer: AttentionNode, shapes: Shapes, fed: Fed, sample: int, window: int
) -> tuple[npt.NDArray[Any], bool, str]:
    """Return the weights of one sample (and window) as (heads, Q, K), whether there are windows, and what to say."""
    note = ""
    if array.ndim == 2:
        array, batch = array[None, None], 1
    elif array.ndim == 3:
        batch = _samples_joined(array.shape, layer, shapes, fed)
        heads = len(array) // batch
        array = array.reshape(batch, heads, *array.shape[1:])
        if batch > 1:
            note = f"{batch} samples of {heads} head{'s' if heads > 1 else ''}, parted by the batch that was fed"
    else:
        array = array.reshape(-1, *array.shape[-3:])
        batch = len(array) if len(array) == 1 else fed[0]
    windows, rest = divmod(len(array), batch)
    if rest:  # the first axis counts something else
        windows, batch = len(array), 1
    if not 0 <= sample < batch:
        raise SelectionError(f"there is no sample {sample}", hint=f"{batch} were fed, counted from 0")
    if not 0 <= window < windows:
        has = f"attention has {windows} windows a sample, counted from 0" if windows > 1 else "leave out --window"
        raise SelectionError(f"there is no window {window}", hint=has)
    if windows > 1:
        note = f"window {window} of {windows}" + (f" of sample {sample}" if batch > 1 else "")
    return array[sample * windows + window], windows > 1, note


def _samples_joined(shape: tuple[int, ...], layer: AttentionNode, shapes: Shapes, fed: Fed) -> int:
    """Return how many samples lie in the first axis of ``(N * heads, Q, K)``.

    A picture's plane ``(N, C, H, W)`` tells. Else it is the batch that was fed, unless that axis of the input is the
    tokens': in ``(S, D)`` without a batch, or in ``(S, N, D)``.
    """
    joined, sizes = shape[0], shape[1:]
    names = (*layer.queries.planes, *layer.keys.planes)
    told = [shapes[name][0] for name in names if len(shapes.get(name, ())) == 4]
    batch, given, kind = fed
    if not told and batch == given[0] and batch in sizes and "float" in kind:
        if len(given) == 2:
            told = [1]
        elif len(given) == 3 and given[1] not in sizes:
            told = [given[1]]
    return next((n for n in (*told, batch) if n and joined % n == 0), 1)
