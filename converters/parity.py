"""Whether a converted model computes what its source computes.

The outputs of both are compared on several seeded inputs. The comparison is strict where exporters' own checks are
lax: shapes must be equal (never broadcast), dtypes must be equal, NaN must meet NaN and an infinity the same infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from onnxviz.converters.base import Array, Conversion, seeded
from onnxviz.errors import ConversionError, OnnxvizError, ParityError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.session import run_model

__all__ = ["OutputParity", "Parity", "check_parity", "compare", "measure_parity", "parity_feeds"]

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


@dataclass(frozen=True)
class Parity:
    """The comparison of all outputs.

    Attributes:
        outputs: One entry an output.
        batches: The batch size of each input that was compared.
    """

    outputs: tuple[OutputParity, ...]
    batches: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """True where every output agrees."""
        return all(output.problem is None for output in self.outputs)

    @property
    def worst(self) -> OutputParity:
        """The output that fails first, else the one with the largest relative error."""
        return max(self.outputs, key=lambda o: (o.problem is not None, max(o.relative_l2, o.max_relative)))

    @property
    def constant(self) -> tuple[str, ...]:
        """Outputs that were the same for every input, so that their agreement proves little."""
        return tuple(output.name for output in self.outputs if not output.varies)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a number that is not finite, as where shapes differ, is None."""
        outputs = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(output).items()}
            for output in self.outputs
        ]
        return {"passed": self.passed, "batches": list(self.batches), "outputs": outputs}

    def __str__(self) -> str:
        worst = self.worst
        batches = ", ".join(map(str, dict.fromkeys(self.batches)))
        return (
            f"{len(self.outputs)} output{'s' * (len(self.outputs) != 1)} agree{'s' * (len(self.outputs) == 1)} "
            f"on {len(self.batches)} inputs (batch {batches}): {worst.name} is within {worst.relative_l2:.1e} relative"
            if self.passed
            else f"output {worst.name!r} {worst.problem}"
        )


def compare(name: str, source: Array, onnx: Array, tolerance: float | None = None) -> OutputParity:
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
        tolerance: Accepted relative error; by default by dtype.
    """
    limit = TOLERANCE.get(str(source.dtype), 0.0) if tolerance is None else tolerance
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
    if max(relative_l2, max_relative) > limit:
        problem = f"differs by {relative_l2:.2e} relative ({max_abs:.2e} at most), over the tolerance of {limit:.0e}"
    return OutputParity(name, str(onnx.dtype), onnx.shape, max_abs, max_relative, relative_l2, cosine, limit, problem)


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


def parity_feeds(conversion: Conversion, batches: Sequence[int] = (1, 2, 5), seed: int = 0) -> list[dict[str, Array]]:
    """Draw seeded inputs: one a batch size where the batch axis is dynamic, else as many of the fixed size.

    Other axes have the size of the conversion's example, and integers lie in the example's range.
    """
    feeds = []
    for index, batch in enumerate(batches):
        rng = np.random.default_rng([seed, index])
        feed = {}
        for value in conversion.model.graph.inputs:
            like = conversion.example[value.name or ""]
            shape = list(like.shape)
            if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
                shape[0] = batch
            feed[value.name or ""] = seeded(shape, like.dtype, rng, like)
        feeds.append(feed)
    return feeds


def measure_parity(
    conversion: Conversion,
    feeds: Iterable[Mapping[str, Array]] | None = None,
    *,
    tolerance: float | None = None,
    seed: int = 0,
) -> Parity:
    """Run the source network and the ONNX model on the same inputs and compare every output.

    Args:
        conversion: What a converter returned.
        feeds: Inputs by name; by default :func:`parity_feeds`.
        tolerance: Accepted relative error for every output; by default by dtype (``float32``: 1e-4).
        seed: Seed of the default inputs.

    Returns:
        The worst figures of each output over all inputs; a failing output has its ``problem`` set.

    Raises:
        ConversionError: The source network or the ONNX model does not run on one of the inputs, or they have different
            numbers of outputs.
    """
    chosen = list(parity_feeds(conversion, seed=seed) if feeds is None else feeds)
    if not chosen:
        raise ConversionError("there is nothing to compare on", hint="give at least one input")
    names = [value.name or "" for value in conversion.model.graph.outputs]
    worst: dict[str, OutputParity] = {}
    first_row: dict[str, Array] = {}
    varying: set[str] = set()
    batches = []
    for feed in chosen:
        first = next((a for a in feed.values() if a.ndim), None)
        batches.append(1 if first is None else len(first))
        expected = _run_source(conversion, feed, batches[-1])
        got = _run_onnx(conversion, feed, batches[-1])
        if len(expected) != len(names):
            raise ConversionError(f"the ONNX model has {len(names)} outputs, its source {len(expected)}")
        for name, source in zip(names, expected, strict=True):
            one = compare(name, source, got[name], tolerance)
            worst[name] = _worse(worst[name], one) if name in worst else one
            rows = source if source.ndim and len(source) == batches[-1] else source[None]
            reference = first_row.setdefault(name, rows[0] if len(rows) else rows)
            if any(row.tobytes() != reference.tobytes() for row in rows):
                varying.add(name)
    return Parity(tuple(replace(o, varies=o.name in varying) for o in worst.values()), tuple(batches))


def _run_source(conversion: Conversion, feed: Mapping[str, Array], batch: int) -> list[Array]:
    try:
        return conversion.reference(feed)
    except Exception as error:
        raise ConversionError(
            f"the source network does not run at batch size {batch}: {summary_line(error)}",
            hint="convert it with --static if its batch size is fixed",
        ) from error


def _run_onnx(conversion: Conversion, feed: Mapping[str, Array], batch: int) -> dict[str, Array]:
    try:
        return run_model(conversion.model, feed)
    except OnnxvizError as error:
        raise ConversionError(
            f"the converted model does not run at batch size {batch}: {error.message}",
            hint="convert it with --static, or keep the shapes in the network free of constants",
        ) from error


def _worse(a: OutputParity, b: OutputParity) -> OutputParity:
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


def check_parity(
    conversion: Conversion,
    feeds: Iterable[Mapping[str, Array]] | None = None,
    *,
    tolerance: float | None = None,
    seed: int = 0,
) -> Parity:
    """As :func:`measure_parity`, but an output that differs is an error.

    Raises:
        ParityError: An output differs; the message names it, its error and the tolerance, and the exception's
            ``parity`` holds the whole comparison.
        ConversionError: As :func:`measure_parity`.
    """
    parity = measure_parity(conversion, feeds, tolerance=tolerance, seed=seed)
    if not parity.passed:
        error = ParityError(
            f"the converted model differs from its source: output {parity.worst.name!r} {parity.worst.problem}",
            hint=f"it was written by {conversion.exporter}; do not use it",
        )
        vars(error)["parity"] = parity
        raise error
    return parity
