"""Class activation maps without gradients: channels weighted by what they do to the score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.axes import spatial_axes
from onnxviz.analysis.attribution.baselines import BaselineSpec, baselines, seen_through
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.layers import Layer
from onnxviz.analysis.attribution.methods import Found, method
from onnxviz.analysis.attribution.resizing import enlarged
from onnxviz.analysis.attribution.run import Runner
from onnxviz.analysis.attribution.sources import cut_at
from onnxviz.errors import InputError, SelectionError, printable
from onnxviz.gradient.names import named_tensors
from onnxviz.graph.quantised import quantisation

__all__ = ["ablation_cam", "score_cam"]

Array = npt.NDArray[Any]
_NEEDS = ("layer",)


@method("score-cam", "channels of the layer, weighted by the score of the input seen through them",
        source="Wang et al. 2020, arXiv:1910.01279, eqs. 6-8", needs=_NEEDS, unit="activation")  # fmt: skip
def score_cam(case: Case, layer: Layer, *, relu: bool = True, fill: BaselineSpec = "zeros") -> Found:
    """Return ``ReLU(Σₖ αₖ Aₖ)``, α the softmax over channels of ``y(x ⊙ Hₖ)``, Hₖ the channel enlarged and
    scaled to run from 0 to 1.

    Channels that are the same everywhere are left out.

    Args:
        case: What is explained.
        layer: A.
        relu: Whether negative parts are cut off.
        fill: What is seen where ``H`` is 0.
    """
    names = [name for name in case.sources if len(spatial_axes(case, name)) == len(layer.size)]
    if not names:
        raise SelectionError(
            f"no input has the positions of {printable(layer.name, 60)}, through which it could be seen",
            hint="take ablation-cam",
        )
    chosen = baselines(case, fill)
    if len(chosen) > 1:
        raise InputError("Score-CAM takes one fill", hint="give one baseline")
    _, activations = at_layer(case, layer)
    scores = np.full(activations.shape[:2], -np.inf)
    for sample, places in case.forward.copies(activations.shape[1]):
        rows = {n: _through(case, n, sample, chosen[0].rows[n], activations[sample, places]) for n in names}
        scores[sample, places] = case.forward(*case.changed(sample, rows)).scores
    scores[np.ptp(activations.reshape(*scores.shape, -1), axis=-1) == 0] = -np.inf
    weights = _softmax(scores)
    return _mapped(layer, activations, weights, relu, _used(weights))


@method("ablation-cam", "channels of the layer, weighted by how far the score falls without them",
        source="Desai and Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360, eqs. 3, 4", needs=_NEEDS,
        unit="activation")  # fmt: skip
def ablation_cam(case: Case, layer: Layer, *, relu: bool = True) -> Found:
    """Return ``ReLU(Σₖ wₖ Aₖ)`` with ``wₖ = (y - yₖ) / |y|``, yₖ the score where channel k is 0.

    The paper divides by y, which turns the map round where the score is negative. Only what lies behind the layer runs.
    """
    raw, activations = at_layer(case, layer)
    count = activations.shape[1]
    weights = np.zeros(activations.shape[:2])
    runner = _behind(case, layer)
    zero = _zero(case, layer)
    axis = layer.letters.index("C")
    whole = np.zeros(case.samples)
    for sample in range(case.samples):
        whole[sample] = runner(*_rows(case, layer, raw[[sample]], sample)).scores[0]
    for sample, places in runner.copies(count):
        block = raw[[sample]].repeat(len(places), axis=0)
        for row, place in zip(block, places, strict=True):
            row[(slice(None),) * (axis - 1) + (place,)] = zero
        weights[sample, places] = whole[sample] - runner(*_rows(case, layer, block, sample)).scores
    weights /= np.where(whole == 0, 1.0, np.abs(whole))[:, None]
    return _mapped(layer, activations, weights, relu, ())


def at_layer(case: Case, layer: Layer) -> tuple[Array, npt.NDArray[np.float64]]:
    """Return a layer as the model holds it, and as numbers ``(N, K, …)`` where those are codes."""
    raw = case.runner(also=[layer.name])(case.feeds, case.everything).values[layer.name]
    known = quantisation(named_tensors(case.model)[layer.name]) if raw.dtype.kind in "iu" else None
    numbers = layer.channels_first(raw)
    return raw, numbers if known is None else (numbers - known[1]) * known[0]


def _zero(case: Case, layer: Layer) -> float:
    """Return what stands for 0 in a layer."""
    known = quantisation(named_tensors(case.model)[layer.name])
    return 0.0 if known is None else known[1]


def _behind(case: Case, layer: Layer) -> Runner:
    """Return what lies behind a layer, opened with the layer as an input."""
    feeding = replace(case.feeding, rowwise=case.feeding.rowwise | {layer.name})
    return Runner(cut_at(case.model, [layer.name]), feeding, target=case.target, how=case.how)


def _rows(case: Case, layer: Layer, block: Array, sample: int) -> tuple[dict[str, Any], Array]:
    chosen = np.full(len(block), sample, np.intp)
    # Where samples are fed without an axis of their own, that is taken off: the layer's is one of the model.
    return {**case.rows(chosen), layer.name: block[:, None] if case.feeding.bare else block}, chosen


def _through(case: Case, name: str, sample: int, fill: Array, seen: Array) -> Array:
    """Return a sample seen through maps ``(R, *cells)``, enlarged and scaled to run from 0 to 1."""
    axes, fed = spatial_axes(case, name), case.value(name)
    sizes = [1] * (fed.ndim - 1)
    for axis in axes:
        sizes[axis - 1] = fed.shape[axis]
    large = enlarged(seen, [fed.shape[axis] for axis in axes]).reshape(len(seen), -1)
    low, high = large.min(axis=1, keepdims=True), large.max(axis=1, keepdims=True)
    large = ((large - low) / np.where(high > low, high - low, 1.0)).reshape(len(seen), *sizes)
    return seen_through(case, name, sample, fill, large)


def _softmax(scores: Array) -> Array:
    most = scores.max(axis=1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(most), most, 0.0))
    total = powers.sum(axis=1, keepdims=True)
    return np.asarray(powers / np.where(total > 0, total, 1.0))


def _used(weights: Array) -> tuple[str, ...]:
    """Say how many channels a softmax leaves, which is few where scores are large."""
    even = 1 / np.maximum((weights**2).sum(axis=1), 1e-30)
    shown = ", ".join(f"{n:.3g}" for n in even[:4]) + (" …" if len(even) > 4 else "")
    return (f"the softmax leaves about {shown} of {weights.shape[1]} channels",)


def _mapped(layer: Layer, activations: Array, weights: Array, relu: bool, notes: tuple[str, ...]) -> Found:
    heat = np.einsum("nk,nk...->n...", weights, activations)
    made = np.maximum(heat, 0) if relu else heat
    empty = [i for i, one in enumerate(made) if not np.any(one)]
    if empty and np.any(heat[empty[0]]):
        notes = (*notes, f"the map of sample {empty[0]} is 0: everything in it is negative, and relu cuts that off")
    return Found({layer.name: made}, notes=notes)
