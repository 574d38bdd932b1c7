"""An activation function as a curve: run over a grid of values, so that any operator has one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import ExecutionError
from onnxviz.graph.activations import ActivationSite
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.quantised import dequantizer
from onnxviz.runtime.piece import run_piece
from onnxviz.runtime.values import constant_array

__all__ = ["FLAT", "REACH", "Curve", "activation_curve", "function_name", "signature"]

Floats = npt.NDArray[np.float64]

#: A function is flat where its slope is below this share of its largest slope.
FLAT = 0.01
#: The grid reaches at least this far to both sides.
REACH = 20.0
_POINTS = 4001
_MOST_CURVES = 4096
_LINEAR = 1e6  # from here on the grid is geometric
_FARTHEST = 3e38
_FINE = 2001
_FEW_PARAMETERS = 64
_ROUNDING = 1e-5  # share of a rectifier's largest value from -20 to 20 that its kernel may err by


@dataclass(frozen=True, eq=False)
class Curve:
    """A function over a grid.

    Attributes:
        x: ``(G,)`` float64, ascending.
        y: ``(K, G)`` float64: a row a curve; several where the function has a parameter a channel.
        flat: ``(K, M, 2)`` intervals of x in which a curve is flat: ``|f'(x)|`` below 1 % of its largest value over the
            grid. A turning point, where the slope only changes its sign, is left out. Open at an end of the grid
            (±Inf) where the curve is flat there; NaN where a curve has fewer.
        zero_below: Whether the function is a rectifier: for negative x never above 0, and smaller than for positive x.
            Kernels round: up to 1e-5 of its largest value near zero counts as 0.
        most_below: Largest value of a rectifier for negative x, at least 0: what is not above it is not above 0.
    """

    x: Floats
    y: Floats
    flat: Floats
    zero_below: bool
    most_below: float = 0.0

    def is_flat(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which values lie where the (only) curve is flat."""
        found = np.zeros(values.shape, bool)
        for low, high in self.flat[0]:
            if not math.isnan(low):
                found |= (values > low) & (values < high)
        return found


def activation_curve(
    model: ir.Model,
    site: ActivationSite,
    low: float = -1.0,
    high: float = 1.0,
    *,
    among: tuple[float, float] | None = None,
    known: dict[Any, Curve] | None = None,
) -> Curve:
    """Run an activation function over a grid that holds ``low … high`` and at least -20 … 20.

    Where most values lie close together, ``among`` two ends, the grid is finer from there to zero, as far as float32
    lets slopes be told.

    The nodes are cut out of the model with their attributes and constants and run in onnxruntime, in float32 (in the
    codes of their type, for quantised operators). The slope is the difference between neighbours of the grid. Ends of
    the grid are rounded up to powers of 2, so that a model of a thousand ReLUs needs few runs: ``known`` holds the
    curves of those before, and is added to.

    Raises:
        ExecutionError: onnxruntime cannot run them, or there is a curve for each of too many parameters.

    >>> from onnxviz.graph.activations import activation_sites
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] z) {y = Neg(x) z = Relu(y)}''')
    >>> curve = activation_curve(model, activation_sites(model)[0])
    >>> curve.flat[0].round(2).tolist(), curve.zero_below
    ([[-inf, 0.0]], True)
    """
    ends = tuple(_power(end) for end in (low, high, *(among or (0.0, 0.0))))
    key = (signature(site), ends)
    if known is not None and key in known:
        return known[key]
    curve = _run(model, site, ends)
    if known is not None and key[0] is not None:
        known[key] = curve
    return curve


def _power(value: float) -> float:
    """Return the next power of 2, away from zero."""
    return math.copysign(2.0 ** math.ceil(math.log2(abs(value))), value) if value and math.isfinite(value) else 0.0


def signature(site: ActivationSite) -> tuple[Any, ...] | None:
    """Return what tells one function from another, names aside; None where it has many parameters."""
    places: dict[Any, Any] = {site.source: "source"}
    found: list[tuple[Any, ...]] = []
    for node in site.nodes:
        inputs = []
        for value in node.inputs:
            tensor = None if value is None or value in places else constant_tensor(value)
            if tensor is not None and tensor.size > _FEW_PARAMETERS:
                return None
            inputs.append(
                places.get(value) if tensor is None else (str(tensor.dtype), constant_array(tensor).tobytes())
            )
        places |= {value: (len(found), i) for i, value in enumerate(node.outputs)}
        found.append((node.domain, node.op_type, node.version, str(sorted(node.attributes.items())), tuple(inputs)))
    return (*found, places.get(site.output))


def _run(model: ir.Model, site: ActivationSite, ends: tuple[float, ...]) -> Curve:
    low, high, *among = ends
    if site.op_type.startswith("QLinear"):
        x, y = _codes(model, site)
    else:
        coarse, fine = _grid(low, high), _fine((among[0], among[1]))
        x = np.concatenate([coarse, fine])
        extra = _parameter_shape(site)
        if math.prod(extra) > _MOST_CURVES:
            raise ExecutionError(f"it has {math.prod(extra)} parameters, and {_MOST_CURVES} curves are the most")
        grid = np.broadcast_to(x.astype(np.float32).reshape(-1, *[1] * len(extra)), (len(x), *extra))
        found = run_piece(model, site.nodes, site.source, np.ascontiguousarray(grid), site.output)[0]
        y = np.unique(found.reshape(len(x), -1).T.astype(np.float64), axis=0)
        x, y = _joined(x, y, len(coarse))
    flat = _flat(x, y)
    rectifies, most = _rectifies(x, y)
    return Curve(x, y, flat, rectifies, most)


def _grid(low: float, high: float) -> Floats:
    """Return points a hundredth apart around zero, and up to as many again on each side where values lie there.

    None is nearer to the next than that: rounding of float32 would rule the slope.
    """
    parts = [np.linspace(-REACH, REACH, _POINTS)]
    for end, sign in ((low, -1), (high, 1)):
        beyond = min(sign * end, _FARTHEST) - REACH
        near = min(beyond, _LINEAR)
        if near > 0:
            count = min(_POINTS, max(int(near / (2 * REACH) * _POINTS), 1)) + 1
            parts.append(sign * np.linspace(REACH, REACH + max(near, 1.0), count)[1:])
        if beyond > _LINEAR:
            parts.append(sign * np.geomspace(REACH + _LINEAR, REACH + beyond, 500)[1:])
    return np.asarray(np.unique(np.concatenate(parts).astype(np.float32)), np.float64)


def _fine(among: tuple[float, float]) -> Floats:
    """Return a finer grid over what most values lie among, zero included; empty where the coarse one is as fine."""
    low, high = min(among[0], 0.0), max(among[1], 0.0)
    if not 1e-30 < high - low < _FINE * 2 * REACH / _POINTS / 5:
        return np.empty(0)
    return np.asarray(np.linspace(low, high, _FINE).astype(np.float32), np.float64)


def _joined(x: Floats, y: Floats, count: int) -> tuple[Floats, Floats]:
    """Put the fine grid, which follows the coarse one of ``count`` points, into its place.

    It is dropped where rounding of float32 would rule its slopes: values of about 0.5 have no slope over 1e-8.
    """
    coarse, fine = x[:count], x[count:]
    if not fine.size:
        return x, y
    step = (fine[-1] - fine[0]) / (len(fine) - 1)
    with np.errstate(all="ignore"):
        slopes = np.abs(np.diff(y[:, :count], axis=1) / np.diff(coarse))
        broad = np.abs(y[:, count + 100 :] - y[:, count:-100]) / (100 * step)  # rounding is little against so many
        noise = 1.2e-7 * np.abs(y[:, count:]).max() / step
    every = np.concatenate([slopes.reshape(-1), broad.reshape(-1)])
    if not noise < 1e-3 * every[np.isfinite(every)].max(initial=0.0):
        return coarse, y[:, :count]
    kept = np.flatnonzero((coarse < fine[0] - step) | (coarse > fine[-1] + step))
    order = np.concatenate([kept[coarse[kept] < fine[0]], np.arange(count, len(x)), kept[coarse[kept] > fine[-1]]])
    return x[order], y[:, order]


def _parameter_shape(site: ActivationSite) -> tuple[int, ...]:
    """Return the shape of the function's parameters: () but for PRelu and the like."""
    shapes = [
        tuple(tensor.shape.numpy())
        for node in site.nodes
        for value in node.inputs
        if value is not None and (tensor := constant_tensor(value)) is not None
    ]
    shape = np.broadcast_shapes(*(s for s in shapes if math.prod(s) > 1))
    return tuple(shape)


def _codes(model: ir.Model, site: ActivationSite) -> tuple[Floats, Floats]:
    given = site.nodes[0].inputs
    zero = constant_tensor(given[2]) if len(given) > 2 else None
    info = np.iinfo(np.uint8 if zero is None or zero.dtype == ir.DataType.UINT8 else np.int8)
    grid = np.arange(info.min, info.max + 1).astype(info.dtype)
    found = run_piece(model, site.nodes, site.source, grid, site.output)[0]
    node = site.nodes[0]
    return dequantizer(node, 1)(grid), dequantizer(node, 3)(found)[None]


def _flat(x: Floats, y: Floats) -> Floats:
    """Return the intervals in which each curve is flat, as ``(K, M, 2)``."""
    with np.errstate(all="ignore"):
        slope = np.diff(y, axis=1) / np.diff(x)
    last = len(x) - 1
    rows: list[list[tuple[float, float]]] = []
    for line in slope:
        top = float(np.abs(line[np.isfinite(line)]).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            # a slope of exactly 1 %, as LeakyRelu has by default, is not below it
            flat = np.abs(line) < FLAT * top * 0.99 if top > 0 else np.ones(len(line), bool)
        ends = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(np.int8))).reshape(-1, 2)
        rows.append([
            (-math.inf if a == 0 else float(x[a]), math.inf if b == last else float(x[b]))
            for a, b in ends
            if a == 0 or b == last or line[a - 1] * line[b] >= 0
        ])  # fmt: skip
    most = max((len(row) for row in rows), default=0)
    found = np.full((len(rows), most, 2), np.nan)
    for row, intervals in zip(found, rows, strict=True):
        if intervals:
            row[: len(intervals)] = intervals
    return found


def _rectifies(x: Floats, y: Floats) -> tuple[bool, float]:
    """Return whether a function is a rectifier from -20 to 20, and its largest value below 0."""
    near = np.abs(x) <= REACH
    x, y = (x[near], y[:, near]) if near.any() else (x, y)
    negative, positive = y[:, x < 0], y[:, x > 0]
    if not np.isfinite(y).all():
        return False, 0.0
    most, below = float(positive.max(initial=0.0)), float(negative.max(initial=0.0))
    small = np.abs(negative).max(initial=0.0) < 0.9 * np.abs(positive).max(initial=0.0)
    return bool(small and below <= _ROUNDING * most and most > 0), below


def _known(x: Floats) -> dict[str, Floats]:
    sigmoid = 1 / (1 + np.exp(-x))
    erf = np.array([math.erf(v / math.sqrt(2)) for v in x])
    return {
        "SiLU": x * sigmoid,
        "GELU": x * (1 + erf) / 2,
        "GELU (tanh)": x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "quick GELU": x / (1 + np.exp(-1.702 * x)),
        "hard swish": x * np.clip(x + 3, 0, 6) / 6,
        "Mish": x * np.tanh(np.log1p(np.exp(x))),
        "ReLU6": np.clip(x, 0, 6),
        "ReLU": np.maximum(x, 0),
    }


def function_name(site: ActivationSite, curve: Curve | None) -> str:
    """Return what to call a function: its operator, or for a pattern the known function whose values its curve has.

    A pattern is given a name only where it agrees with it to 1e-3 from -6 to 6.
    """
    if len(site.nodes) == 1 and site.op_type not in ("Clip", "Max"):
        return site.op_type
    pattern = " · ".join(dict.fromkeys(node.op_type for node in site.nodes))
    if curve is None or len(curve.y) != 1:
        return pattern
    near = np.flatnonzero(np.abs(curve.x) <= 6)[::7]
    for name, values in _known(curve.x[near]).items():
        if np.allclose(curve.y[0, near], values, atol=1e-3, rtol=0):
            return f"{name} ({pattern})" if "(" not in name else f"{name}: {pattern}"
    return pattern
