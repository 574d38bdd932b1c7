"""Methods that carry something else back than the gradient: guided backpropagation, DeepLIFT, relevance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.axes import spatial_axes
from onnxviz.analysis.attribution.baselines import BaselineSpec, baselines
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.families import cam
from onnxviz.analysis.attribution.layers import Layer
from onnxviz.analysis.attribution.methods import Found, method
from onnxviz.analysis.attribution.resizing import enlarged
from onnxviz.analysis.attribution.run import Runner
from onnxviz.errors import GradientError, InputError, SelectionError, printable
from onnxviz.gradient.overrides.names import RULE_SETS, rules_table

__all__ = ["COMPOSITES", "deconvnet", "deeplift", "guided_backprop", "guided_grad_cam", "lrp", "redirected_gradient"]

Array = npt.NDArray[Any]
#: Names of the rules of relevance, as the parameter ``composite`` takes them.
COMPOSITES = tuple(name.removeprefix("lrp-") for name in RULE_SETS if name.startswith("lrp-"))
_MOST_NOTES = 2
_RECTIFIERS = {"Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Max"}


@method("guided-backprop", "the gradient that passes rectifiers only where it is positive itself",
        source="Springenberg et al. 2015, arXiv:1412.6806, section 3.4", unit="score / input")  # fmt: skip
def guided_backprop(case: Case) -> Found:
    """Return what comes back with ``g [x > 0] [g > 0]`` at rectifiers."""
    return _plain(case, "guided")


@method("deconvnet", "what comes back where rectifiers rectify that, whatever their input was",
        source="Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1", unit="score / input")  # fmt: skip
def deconvnet(case: Case) -> Found:
    """Return what comes back with ``max(g, 0)`` at rectifiers."""
    return _plain(case, "deconvnet")


@method("redirected-gradient", "the gradient that dead rectifiers let through where it may revive them",
        source="Olah et al. 2017, doi:10.23915/distill.00007, appendix", unit="score / input")  # fmt: skip
def redirected_gradient(case: Case) -> Found:
    """Return the gradient that activation maximization follows."""
    return _plain(case, "redirected")


@method("guided-grad-cam", "guided backpropagation, within what Grad-CAM shows",
        source="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2", needs=("gradient", "layer"),
        unit="score² / input")  # fmt: skip
def guided_grad_cam(case: Case, layer: Layer, *, interpolation: str = "linear") -> Found:
    """Return guided backpropagation times Grad-CAM, that enlarged to the input.

    Args:
        case: What is explained.
        layer: Of Grad-CAM.
        interpolation: ``"linear"`` as in the paper, or ``"nearest"``.
    """
    if interpolation not in ("linear", "nearest"):
        raise InputError(f"there is no interpolation {interpolation!r}", hint="choose linear or nearest")
    guided = _plain(case, "guided")
    activations, gradients, cuts = cam.at_layer(case, layer)
    heat = np.maximum(cam.grad_cam(activations, gradients), 0)
    maps: dict[str, Array] = {}
    for name, one in guided.maps.items():
        axes = spatial_axes(case, name)
        if len(axes) != len(layer.size):
            continue
        shape = [len(one)] + [n if axis in axes else 1 for axis, n in enumerate(one.shape) if axis]
        large = enlarged(heat, [one.shape[axis] for axis in axes], nearest=interpolation == "nearest")
        maps[name] = one * large.reshape(shape)
    if not maps:
        raise SelectionError(
            f"no input has the positions of {printable(layer.name, 60)}", hint="name another layer with --layer"
        )
    notes = (*guided.notes, f"Grad-CAM is that of {layer}")
    return Found(maps, cuts=tuple(dict.fromkeys((*guided.cuts, *cuts))), notes=notes)


@method("deeplift", "each input's contribution to the difference between the score and that of a baseline",
        source="Shrikumar et al. 2017, arXiv:1704.02685, section 3.5.2 (Rescale)", unit="score")  # fmt: skip
def deeplift(case: Case, *, baseline: BaselineSpec = "zeros", seed: int = 0) -> Found:
    """Return contributions by the Rescale rule; of several baselines the mean.

    ``completeness`` is ``Σ - (y(x) - y(x'))``: what the rules lose.
    """
    runner = case.runner(wrt=case.sources, table=rules_table("deeplift"))
    chosen = baselines(case, baseline, seed)
    maps = {name: np.zeros(case.value(name).shape) for name in case.sources}
    base = np.zeros(case.samples)
    for one in chosen:
        rows = {name: np.asarray(array, case.value(name).dtype) for name, array in one.rows.items()}
        fed = {runner.baselines[name]: array for name, array in rows.items() if name in runner.baselines}
        for name, array in runner({**case.feeds, **fed}, case.everything).gradients.items():
            maps[name] += np.float64(array) / len(chosen)
        base += case.forward({**case.feeds, **rows}, case.everything).scores / len(chosen)
    told = {"baseline": ", ".join(one.name for one in chosen), "seed": seed}
    return Found(maps, base, _sum(case, maps) - (case.scores - base), runner.cuts, _notes(runner), told)


@method("lrp", "the score, shared out layer by layer to what it came from",
        source="Bach et al. 2015, doi:10.1371/journal.pone.0130140; Montavon et al. 2019, "
               "doi:10.1007/978-3-030-28954-6_10", unit="score")  # fmt: skip
def lrp(
    case: Case, *, composite: str = "epsilon-plus-flat", epsilon: float | None = None, gamma: float | None = None,
    alpha: float | None = None, beta: float | None = None, low: Any = None, high: Any = None, bias: str | None = None,
    fold: bool | None = None,
) -> Found:  # fmt: skip
    """Return relevance, whose sum is the score less what biases and stabilisers take.

    ``completeness`` is ``Σ R - y``: the negative of that.

    Args:
        case: What is explained.
        composite: Which rule goes where: one of :data:`COMPOSITES`.
        epsilon, gamma, alpha, beta: Of its rules; None leaves the set's own.
        low, high: Of the zBox rule: bounds of the input, a number or one a channel (``"-2.1/-2/-1.8"``).
        bias: ``rule``, ``kept`` or ``zero``: whether biases take part.
        fold: Whether a BatchNormalization is folded into the layer before it.
    """
    name = str(composite).strip().lower().removeprefix("lrp-")
    if name not in COMPOSITES:
        raise InputError(f"there is no composite {composite!r}", hint=f"choose {', '.join(COMPOSITES)}")
    given = {"epsilon": epsilon, "gamma": gamma, "alpha": alpha, "beta": beta, "low": low, "high": high, "bias": bias,
             "fold": None if fold is None else int(fold)}  # fmt: skip
    told = {key: _written(value) for key, value in given.items() if value is not None}
    try:
        table = rules_table(f"lrp-{name}:" + ",".join(f"{key}={value}" for key, value in told.items()))
    except GradientError as error:
        raise InputError(error.message, hint=error.hint) from None
    runner = case.runner(wrt=case.sources, table=table)
    maps = runner(case.feeds, case.everything).gradients
    whole = {**RULE_SETS[f"lrp-{name}"].parameters, **told}
    shown = {key: whole.get(key) for key in ("epsilon", "gamma", "alpha", "beta", "low", "high", "bias", "fold")}
    if shown["fold"] is not None:
        shown["fold"] = bool(float(str(shown["fold"])))
    return Found(
        maps, None, _sum(case, maps) - case.scores, runner.cuts, _notes(runner), {"composite": name, **shown}
    )  # fmt: skip


def _plain(case: Case, rules: str) -> Found:
    runner = case.runner(wrt=case.sources, table=rules_table(rules))
    rectified = any(node.op_type in _RECTIFIERS for node in case.model.graph)
    notes = _notes(runner) if rectified else ("the model has no rectifier: this is the true gradient",)
    return Found(runner(case.feeds, case.everything).gradients, cuts=runner.cuts, notes=notes)


def _notes(runner: Runner) -> tuple[str, ...]:
    left = len(runner.notes) - _MOST_NOTES
    return (*runner.notes[:_MOST_NOTES], *([f"the same at {left} more nodes"] if left > 0 else []))


def _sum(case: Case, maps: dict[str, Array]) -> npt.NDArray[np.float64]:
    sums = [array.reshape(case.samples, -1).sum(axis=1, dtype=np.float64) for array in maps.values()]
    return np.asarray(np.sum(sums, axis=0), np.float64)


def _written(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
