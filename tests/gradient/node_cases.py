"""onnx's own node tests as a measure of the rules: every float case of an operator, compared or refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxviz.errors import GradientError, OnnxvizError
from onnxviz.gradient.model import gradient_model
from onnxviz.graph.model import from_proto
from tests.gradient.numeric import NEWEST, Disagreement, answers_differently, compare, gradients

#: Operator -> the inputs that say how large its result is, or where it is taken
SETTLES = {"Resize": (1, 2, 3), "Upsample": (1,), "RoiAlign": (1,), "MaxRoiPool": (1,)}
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}


@dataclass(frozen=True)
class Outcome:
    """What became of one case: ``pass``, ``wrong``, ``refused`` (no rule), ``cut`` (no gradient) or ``failed``."""

    name: str
    op_type: str
    version: int
    status: str
    detail: str = ""
    domain: str = ""


def cases() -> Iterator[Any]:
    """Yield the node tests with one node, of the standard domain, that have a float input and output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    for case in found:
        model = case.model
        if model is None or len(model.graph.node) != 1 or model.graph.node[0].domain not in ("", "ai.onnx"):
            continue
        if any(_kind(v) in FLOATS for v in model.graph.input) and any(_kind(v) in FLOATS for v in model.graph.output):
            yield case


def _kind(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0


def check(case: Any, tolerance: float = 2e-3) -> Outcome:
    """Compare the gradient of one case with central differences, or with what it is known to be."""
    known, options = getattr(case, "op", None), getattr(case, "options", {})
    model = case.model if known else _runnable(case.model)
    node = model.graph.node[0]
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    op = known or ("", node.op_type, onnx.defs.get_schema(node.op_type, opset, "").since_version)

    def outcome(status: str, detail: object = "") -> Outcome:
        return Outcome(case.name, op[1], op[2], status, str(detail).split("\n")[0][:200], op[0])

    rng = np.random.default_rng(3)
    given = zip([value.name for value in model.graph.input], case.data_sets[0][0], strict=True)
    arrays = _cropped(model, _frozen(model, {name: _array(array) for name, array in given}))
    sign = (
        -1 if node.op_type in ("Acos", "Asin", "Atanh") else 1
    )  # their examples reach up to 1, their domain ends there
    feeds = {name: _off_kinks(array, rng, sign) for name, array in arrays.items()}
    of = next(v.name for v in model.graph.output if _kind(v) in FLOATS)
    wrt = [v.name for v in model.graph.input if _kind(v) in FLOATS and v.name and np.size(feeds[v.name])]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        passed, last = [], None
        for name in wrt:
            try:
                forward = from_proto(onnx.ModelProto.FromString(model.SerializeToString()))
                made = gradient_model(forward, of, [name], **options)
                if changed := answers_differently(model, made.model, feeds, made.seed):
                    return outcome("wrong", f"{changed} is not what it was")
                if name in getattr(case, "expected", {}):
                    results = [_exact(model, arrays, of, name, case.expected[name], options)]
                else:
                    results = compare(model, feeds, of, [name], built=made, **options)
            except GradientError as error:
                last = outcome("cut" if "no gradient leads" in str(error) else "refused", error)
                continue
            except OnnxvizError as error:
                return outcome("failed", f"{type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - every way to fail is counted
                return outcome("failed", f"{type(error).__name__}: {error}")
            ends = [v for v in (*model.graph.input, *model.graph.output) if v.name in (name, of)]
            half = 20 if any(_kind(v) == onnx.TensorProto.FLOAT16 for v in ends) else 1
            results = [r for r in results if np.isfinite(r.measured)]
            if not results:
                return outcome("failed", f"{name}: the case lies at the edge of the function's domain")
            wrong = [r for r in results if not r.relative <= tolerance * half]
            if wrong:
                return outcome("wrong", f"{name}: {wrong[0].gradient:.6g} against {wrong[0].measured:.6g}")
            passed.append(name)
    if not passed:
        return last or outcome("cut", "no float input")
    return outcome("pass", f"with respect to {', '.join(passed)}" + (f"; {last.detail}" if last else ""))


def _exact(
    model: onnx.ModelProto, feeds: dict[str, Any], of: str, name: str, expected: np.ndarray, options: Any
) -> Disagreement:
    """Compare the gradient that a seed of ones gives with what it should be: the largest difference."""
    forward = from_proto(onnx.ModelProto.FromString(model.SerializeToString()))
    found, _ = gradients(forward, feeds, of, [name], np.ones_like(expected), **options)
    off = float(np.abs(found[name] - expected).max())
    return Disagreement(name, off, 0.0, 1.0)


def _array(given: Any) -> Any:
    return onnx.numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else given


def _frozen(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """Make constants of what settles the shape of a result though it is of floats; return the other inputs."""
    settles = SETTLES.get(model.graph.node[0].op_type, ())
    names = {name for place, name in enumerate(model.graph.node[0].input) if place in settles and name}
    for value in [value for value in model.graph.input if value.name in names]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(feeds[value.name]), value.name))
        model.graph.input.remove(value)
    return {name: array for name, array in feeds.items() if name not in names}


def _cropped(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """Return less of a volume that is pooled by steps of 1: the reference evaluator walks it window by window."""
    node, kept = model.graph.node[0], slice(0, 8)
    volume = feeds.get(node.input[0]) if node.op_type in ("AveragePool", "LpPool", "MaxPool") else None
    if np.ndim(volume) != 5 or any(attribute.name not in ("kernel_shape", "p") for attribute in node.attribute):
        return feeds
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim, size in zip(value.type.tensor_type.shape.dim[2:], np.shape(volume)[2:], strict=True):
            dim.dim_value -= max(size - kept.stop, 0)
    return {**feeds, node.input[0]: volume[:, :, kept, kept, kept]}


def _off_kinks(array: Any, rng: np.random.Generator, sign: int = 1) -> Any:
    """Move numbers a little: examples like to sit at 0 and on ties, where no derivative is."""
    if getattr(array, "dtype", None) not in (np.float32, np.float64, np.float16):
        return array
    finite = np.where(np.isfinite(array), array, 0.5)  # examples of casts hold infinities, too
    return np.asarray(finite + sign * 0.01 * (1 + rng.random(np.shape(array)))).astype(array.dtype)


def _runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a case in the newest opset that onnxruntime runs, where the operator is there already."""
    lowered = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in lowered.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > NEWEST:
            entry.version = NEWEST
            lowered.ir_version = min(lowered.ir_version, 13)
            try:
                known = onnx.defs.get_schema(lowered.graph.node[0].op_type, NEWEST, "").attributes
            except onnx.defs.SchemaError:
                return model
            for attribute in [a for a in lowered.graph.node[0].attribute if a.name not in known]:
                lowered.graph.node[0].attribute.remove(attribute)
            try:
                onnx.checker.check_model(lowered, full_check=True)
            except onnx.shape_inference.InferenceError:  # a type that only the newest version takes
                return model
    return lowered
