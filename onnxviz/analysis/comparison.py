"""How far an array is from what it should be, strictly.

Shapes must be equal (never broadcast), dtypes must be equal, NaN must meet NaN and an infinity the same infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TOLERANCE", "OutputParity", "compare", "decibels", "worse"]

Array = npt.NDArray[Any]

#: Relative error that is accepted by default, by dtype; integers, bools and strings must be equal.
TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-4, "complex64": 1e-4, "complex128": 1e-4}


@dataclass(frozen=True)
class OutputParity:
    """How far one output is from its source, the worst over all inputs that were compared.

    Attributes:
        name: The ONNX output.
        dtype: Its dtype.
        shape: Its shape on the last input.
        max_abs: Largest absolute difference of finite elements.
        max_relative: ``max_abs`` over the largest absolute source value, the worst over the inputs.
        relative_l2: ``‖onnx - source‖₂ / ‖source‖₂``.
        cosine: Cosine similarity of the flattened outputs, the lowest over the inputs.
        tolerance: What ``relative_l2`` and ``max_relative`` may reach; 0 means equal.
        problem: Why the output fails; None where it passes.
        varies: Whether the source gave different outputs for different inputs; one that is always the same, as that of
            a deep network with small random weights, agrees whatever went wrong before it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_abs: float
    max_relative: float
    relative_l2: float
    cosine: float
    tolerance: float
    problem: str | None = None
    varies: bool = True


def compare(
    name: str, source: Array, onnx: Array, tolerance: float | None = None, *, peak: float = 1.0
) -> OutputParity:
    """Compare one output of the source network with the ONNX model's.

    >>> a = np.array([1.0, np.nan], np.float32)
    >>> compare("y", a, a).problem is None
    True
    >>> compare("y", a, np.array([1.0, 1.0], np.float32)).problem
    'is not NaN at 1 place where its source is'

    Args:
        name: The output's name.
        source: What the source network gave.
        onnx: What the ONNX model gave.
        tolerance: Accepted relative error of floating-point outputs; by default by dtype. Others must be equal.
        peak: How many times the tolerance the largest difference may reach, relative to the largest magnitude.
    """
    limit = TOLERANCE.get(str(source.dtype), 0.0)
    limit = tolerance if tolerance is not None and limit else limit
    problem = _structural_problem(source, onnx)
    if problem is not None:
        return OutputParity(name, str(onnx.dtype), onnx.shape, np.inf, np.inf, np.inf, 0.0, limit, problem)
    if source.dtype.kind not in "fciubV":
        unequal = int(np.sum(source != onnx))
        problem = f"differs at {unequal} of {source.size} elements" if unequal else None
        error = np.inf if unequal else 0.0
        return OutputParity(name, str(onnx.dtype), onnx.shape, error, error, error, float(not unequal), 0.0, problem)
    wide = np.complex128 if source.dtype.kind == "c" else np.float64
    a, b = source.astype(wide).ravel(), onnx.astype(wide).ravel()
    finite = np.isfinite(a)
    a, b = a[finite], b[finite]
    max_abs = float(np.abs(a - b).max(initial=0.0))
    max_relative = _ratio(max_abs, float(np.abs(a).max(initial=0.0)))
    relative_l2 = _ratio(float(np.linalg.norm(a - b)), float(np.linalg.norm(a)))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = (
        float(abs(np.vdot(a, b)) if wide is np.complex128 else np.dot(a, b)) / norms if norms else float(max_abs == 0)
    )
    if max(relative_l2, max_relative / peak) > limit:
        problem = f"differs by {relative_l2:.2e} relative ({max_abs:.2e} at most), over the tolerance of {limit:.0e}"
    return OutputParity(name, str(onnx.dtype), onnx.shape, max_abs, max_relative, relative_l2, cosine, limit, problem)


def decibels(relative: float) -> float:
    """Return a relative error as a signal-to-noise ratio in dB, ``-20·log₁₀(‖error‖ / ‖signal‖)``.

    >>> decibels(0.01), decibels(0.0)
    (40.0, inf)
    """
    if relative == 0:
        return math.inf
    return -20 * math.log10(relative) if math.isfinite(relative) else -math.inf


def _ratio(error: float, scale: float) -> float:
    return error / scale if scale else 0.0 if error == 0 else np.inf


def _structural_problem(source: Array, onnx: Array) -> str | None:
    if source.dtype != onnx.dtype:
        return f"has type {onnx.dtype}, its source {source.dtype}"
    if source.shape != onnx.shape:
        return f"has shape {list(onnx.shape)}, its source {list(source.shape)}"
    if source.dtype.kind not in "fcV":
        return None
    odd: dict[str, Callable[[Any], Any]] = {"NaN": np.isnan}
    if source.dtype.kind != "c":
        odd |= {"+inf": np.isposinf, "-inf": np.isneginf}
        source, onnx = source.astype(np.float64), onnx.astype(np.float64)
    for what, is_odd in odd.items():
        expected, found = is_odd(source), is_odd(onnx)
        for count, verb, other in (
            (int(np.sum(found & ~expected)), "is", "is not"),
            (int(np.sum(expected & ~found)), "is not", "is"),
        ):
            if count:
                return f"{verb} {what} at {count} place{'s' * (count > 1)} where its source {other}"
    return None


def worse(a: OutputParity, b: OutputParity) -> OutputParity:
    return OutputParity(
        a.name,
        b.dtype,
        b.shape,
        max(a.max_abs, b.max_abs),
        max(a.max_relative, b.max_relative),
        max(a.relative_l2, b.relative_l2),
        min(a.cosine, b.cosine),
        a.tolerance,
        a.problem or b.problem,
    )
