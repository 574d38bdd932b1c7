"""Class activation maps: the channels of a layer, weighted by the gradients of the score there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.layers import Layer
from onnxviz.analysis.attribution.methods import Found, method

__all__ = ["CAMS", "element_wise", "first_component", "grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam",
           "xgrad_cam"]  # fmt: skip

Array = npt.NDArray[np.float64]
_NEEDS = ("gradient", "layer")


def grad_cam(activations: Array, gradients: Array) -> Array:
    """Return ``Σₖ mean(Gₖ) Aₖ`` of ``(N, K, …)`` arrays, ``(N, …)``.

    >>> grad_cam(np.ones((1, 2, 2, 2)), np.full((1, 2, 2, 2), 3.0)).tolist()
    [[[6.0, 6.0], [6.0, 6.0]]]
    """
    return _weighted(activations, _mean(gradients))


def grad_cam_plus_plus(activations: Array, gradients: Array) -> Array:
    """Return ``Σₖ wₖ Aₖ`` with ``wₖ = Σ α ReLU(G)`` and ``α = G² / (2 G² + ΣAₖ · G³ + 1e-6)`` (eq. 19)."""
    square = gradients**2
    below = 2 * square + _sum(activations) * square * gradients + 1e-6
    alpha = np.where(gradients != 0, square / np.where(below == 0, 1.0, below), 0.0)
    return _weighted(activations, _sum(alpha * np.maximum(gradients, 0)))


def hires_cam(activations: Array, gradients: Array) -> Array:
    """Return ``Σₖ Gₖ ⊙ Aₖ`` (eq. 3)."""
    return np.asarray((gradients * activations).sum(axis=1))


def layer_cam(activations: Array, gradients: Array) -> Array:
    """Return ``Σₖ ReLU(Gₖ) ⊙ Aₖ`` (eq. 6)."""
    return np.asarray((np.maximum(gradients, 0) * activations).sum(axis=1))


def element_wise(activations: Array, gradients: Array) -> Array:
    """Return ``Σₖ ReLU(Gₖ ⊙ Aₖ)``."""
    return np.asarray(np.maximum(gradients * activations, 0).sum(axis=1))


def xgrad_cam(activations: Array, gradients: Array) -> Array:
    """Return ``Σₖ wₖ Aₖ`` with ``wₖ = Σ Gₖ Aₖ / (Σ Aₖ + 1e-7)`` (eq. 8)."""
    below = _sum(activations) + 1e-7
    return _weighted(activations, _sum(gradients * activations) / np.where(below == 0, 1.0, below))


def first_component(block: Array, like: Array) -> Array:
    """Return the projection of ``(N, K, …)`` on the first right singular vector of its positions, centred.

    The sign, which is arbitrary, is that which makes the projection go with ``like``, ``(N, …)``.

    >>> block = np.array([[[3.0, 0.0, 0.0]]])
    >>> first_component(block, block[:, 0]).round(6).tolist()
    [[2.0, -1.0, -1.0]]
    """
    found = np.empty((len(block), *block.shape[2:]))
    for one, guide, made in zip(block, like, found, strict=True):
        flat = one.reshape(len(one), -1).T
        flat = flat - flat.mean(axis=0)
        _, _, right = np.linalg.svd(flat, full_matrices=False)
        along = flat @ right[0]
        against = float(along @ (guide.reshape(-1) - guide.mean())) < 0
        made[...] = (-along if against else along).reshape(made.shape)
    return found


def eigen_cam(activations: Array, gradients: Array) -> Array:
    """Return the first principal component of A, its sign that of the mean of the channels."""
    return first_component(activations, activations.mean(axis=1))


def eigen_grad_cam(activations: Array, gradients: Array) -> Array:
    """Return the first principal component of ``G ⊙ A``, its sign that of their sum."""
    return first_component(gradients * activations, (gradients * activations).sum(axis=1))


def _spatial(array: Array) -> tuple[int, ...]:
    return tuple(range(2, array.ndim))


def _mean(array: Array) -> Array:
    return np.asarray(array.mean(axis=_spatial(array), keepdims=True))


def _sum(array: Array) -> Array:
    return np.asarray(array.sum(axis=_spatial(array), keepdims=True))


def _weighted(activations: Array, weights: Array) -> Array:
    return np.asarray((weights * activations).sum(axis=1))


Formula = Callable[[Array, Array], Array]
#: Name -> formula, whether its map is cut at 0 by default, what it shows, where it is published.
CAMS: dict[str, tuple[Formula, bool, str, str]] = {
    "grad-cam": (grad_cam, True, "channels of the layer, weighted by their mean gradient",
                 "Selvaraju et al. 2017, arXiv:1610.02391, eq. 2"),
    "grad-cam++": (grad_cam_plus_plus, True, "the same, weighted so that several objects of a class all count",
                   "Chattopadhay et al. 2018, arXiv:1710.11063, eq. 19"),
    "hires-cam": (hires_cam, False, "gradient × activation at each position: never where the model does not look",
                  "Draelos and Carin 2020, arXiv:2011.08891, eq. 3"),
    "layer-cam": (layer_cam, True, "positive gradients × activations: fine maps of early layers too",
                  "Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, eq. 6"),
    "element-wise-cam": (element_wise, True, "the positive parts of gradient × activation",
                         "Pillai and Pirsiavash 2021, arXiv:2110.00519"),
    "xgrad-cam": (xgrad_cam, True, "channels weighted by gradients, normalised by their activations",
                  "Fu et al. 2020, arXiv:2008.02312, eq. 8"),
    "eigen-cam": (eigen_cam, True, "the first principal component of the layer: what it holds, whatever the target",
                  "Muhammad and Yeasin 2020, arXiv:2008.00299"),
    "eigengrad-cam": (eigen_grad_cam, True, "the first principal component of gradient × activation",
                      "Gildenblat 2021, pytorch-grad-cam"),
}  # fmt: skip


def _enter(name: str, formula: Formula, cut: bool, about: str, source: str) -> None:
    def run(case: Case, layer: Layer, *, relu: bool = cut) -> Found:
        activations, gradients, cuts = at_layer(case, layer)
        heat = formula(activations, gradients)
        made = np.maximum(heat, 0) if relu else heat
        return Found({layer.name: made}, cuts=cuts, notes=_flat(made, heat, gradients, relu))

    method(name, about, source=source, needs=_NEEDS, unit="activation" if name == "eigen-cam" else "score")(run)


for _name, _row in CAMS.items():
    _enter(_name, *_row)


def at_layer(case: Case, layer: Layer, table: Any = None) -> tuple[Array, Array, tuple[str, ...]]:
    """Return activations and gradients of a layer for all samples, ``(N, K, …)`` each, and where gradients end."""
    runner = case.runner(wrt=[layer.name], also=[layer.name], table=table)
    found = case.through(runner)
    parts = layer.channels_first(found.values[layer.name]), layer.channels_first(found.gradients[layer.name])
    return (*parts, runner.cuts)


def _flat(made: Array, heat: Array, gradients: Array, relu: bool) -> tuple[str, ...]:
    """Say of maps that show nothing why they do."""
    empty = [i for i, one in enumerate(made) if not np.any(one)]
    if not empty:
        return ()
    which = "" if len(made) == 1 else f" of sample {', '.join(map(str, empty[:5]))}{' …' if len(empty) > 5 else ''}"
    if not np.any(gradients[empty[0]]):
        return (f"the map{which} is 0: the target does not change with the layer there",)
    if relu and np.any(heat[empty[0]]):
        return (f"the map{which} is 0: everything in it is negative, and relu cuts that off",)
    return (f"the map{which} is 0 everywhere",)
