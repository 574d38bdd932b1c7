"""Whether a gradient is right: against central differences of the model in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.prepare import prepare
from onnxviz.graph.model import from_proto, to_proto
from tests.gradient.reference_ops import reference

Arrays = Mapping[str, Any]
NEWEST = 26  # the newest opset that onnxruntime 1.31 runs
_LONG = 2e-2
_RANDOM = {"Dropout", "Bernoulli", "Multinomial"}


@dataclass(frozen=True)
class Disagreement:
    """One input whose gradient was measured: the two directional derivatives."""

    name: str
    gradient: float
    measured: float
    size: float

    @property
    def relative(self) -> float:
        return abs(self.gradient - self.measured) / max(self.size, 1e-4)


def gradients(
    model: ir.Model, feeds: Arrays, of: str, wrt: Sequence[str], seed: np.ndarray, *, built: GradientModel | None = None,
    **options: Any,
) -> Any:  # fmt: skip
    """Return the gradients that the built model computes in onnxruntime, and what was built, now or before."""
    made = built or gradient_model(model, of, wrt, **options)
    proto = to_proto(made.model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.shape_inference.InferenceError:
        onnx.checker.check_model(proto)
        if _infers(to_proto(prepare(model))):  # some node tests are beyond onnx's own inference
            raise
    given = {value.name for value in proto.graph.input}
    fed = {k: v for k, v in {**feeds, made.seed: seed}.items() if k in given}
    return dict(zip(wrt, _run(proto, list(made.gradients.values()), fed, to_proto(model)), strict=True)), made


def _run(proto: onnx.ModelProto, names: list[str], feeds: Arrays, forward: onnx.ModelProto) -> list[Any]:
    """Run a model in onnxruntime; what that cannot load, without the forward nodes, or in the reference evaluator."""
    try:
        return list(_session(proto).run(names, dict(feeds)))
    except (NotImplemented_, InvalidGraph, Fail, InvalidArgument, RuntimeError) as error:
        first = error
    given = dict(feeds)
    try:
        wanted = {value.name for value in forward.graph.input}
        results = reference(forward).run(None, {k: v for k, v in feeds.items() if k in wanted})
        given |= dict(zip([value.name for value in forward.graph.output], results, strict=True))
    except Exception:  # noqa: BLE001 - then the forward nodes stay
        results = []
    alone = _alone(proto, names, set(given) - set(feeds))
    fed = {value.name: given[value.name] for value in alone.graph.input}
    try:
        return list(_session(alone).run(names, fed))
    except (NotImplemented_, InvalidGraph, Fail, InvalidArgument, RuntimeError):
        try:
            return list(reference(alone).run(names, fed))
        except Exception:  # noqa: BLE001 - what onnxruntime said is worth more
            raise first from None


def _alone(proto: onnx.ModelProto, names: list[str], given: set[str]) -> onnx.ModelProto:
    """Return what computes some outputs from what is given, in the newest opset that onnxruntime runs."""
    model = from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    kept = [value for value in model.graph.outputs if value.name in names]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    for value in [v for node in model.graph for v in node.outputs if v.name in given and v.uses()]:
        entering = ir.Value(name=f"{value.name}", type=value.type, shape=value.shape)
        ir.convenience.replace_all_uses_with(value, entering)
        value.name = f"{value.name}.computed"
        model.graph.inputs.append(entering)
    RemoveUnusedNodesPass()(model)
    if model.opset_imports[""] > NEWEST:
        model.opset_imports[""], model.ir_version = NEWEST, min(model.ir_version, 13)
    return to_proto(model)


def _infers(proto: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def _session(proto: onnx.ModelProto) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def compare(
    model: onnx.ModelProto, feeds: Arrays, of: str, wrt: Sequence[str], *, directions: int = 2, step: float = 1e-6,
    built: GradientModel | None = None, **options: Any,
) -> list[Disagreement]:  # fmt: skip
    """Compare gradients with ``(f(x + h v) - f(x - h v)) / 2h`` along random directions v, in float64."""
    rng = np.random.default_rng(7)
    feeds = {name: np.asarray(given) if isinstance(given, np.generic) else given for name, given in feeds.items()}
    place = [o.name for o in model.graph.output].index(of)
    forward = _Forward(model, feeds, place, step)
    seed = rng.normal(size=forward.base.shape)
    kind = next(o for o in model.graph.output if o.name == of).type.tensor_type.elem_type
    found, _ = gradients(
        from_proto(onnx.ModelProto.FromString(model.SerializeToString())), feeds, of, wrt,
        seed.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), built=built, **options,
    )  # fmt: skip
    results = []
    for name in wrt:
        for _ in range(directions):
            v = rng.normal(size=np.shape(feeds[name]))
            terms = np.asarray(found[name], np.float64) * v
            gradient, floor = float(terms.sum()), 1e-4 * float(np.linalg.norm(seed))  # float32 knows no less
            measured = min(
                (float((seed * slope).sum()) for slope in forward.slopes(name, v)),
                key=lambda slope: abs(slope - gradient) if np.isfinite(slope) else np.inf,
            )
            size = max(float(np.abs(terms).sum()), abs(measured), floor)
            results.append(Disagreement(name, gradient, measured, size))
    return results


class _Forward:
    """The model as a function: in float64 by the reference evaluator, else as it is by onnxruntime."""

    def __init__(self, model: onnx.ModelProto, feeds: Arrays, place: int, step: float) -> None:
        self.model, self.place = model, place
        self.feeds, self.step = {name: _double(given) for name, given in feeds.items()}, step
        self.single = False
        self.evaluator: ReferenceEvaluator | None = None
        base = None
        if not any(node.op_type in _RANDOM for node in model.graph.node):  # each has random numbers of its own
            base = self._by_reference()
        if base is None or not _agrees(base, model, feeds, place):  # the gradient is that of what onnxruntime computes
            self.evaluator, self.feeds, self.single = None, dict(feeds), True
            base = self.run({})
        self.base = base

    def _by_reference(self) -> np.ndarray | None:
        """Return what the reference evaluator computes; None where it lacks an operator or a type."""
        try:
            self.evaluator = reference(self.model)
            return self.run({})
        except Exception:  # noqa: BLE001 - it raises all kinds of errors; onnxruntime may have the operator
            return None

    def run(self, changed: Arrays) -> np.ndarray:
        if self.evaluator is not None:
            found = self.evaluator.run(None, {**self.feeds, **changed})
        else:
            typed = {name: np.asarray(array).astype(self.feeds[name].dtype) for name, array in changed.items()}
            found = _session(self.model).run(None, {**self.feeds, **typed})
        self.single = self.single or getattr(found[self.place], "dtype", None) != np.float64
        return np.asarray(found[self.place], np.float64)

    def slopes(self, name: str, v: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the directional derivative: in double precision, and from steps so long that single precision will do.

        A reference implementation may round to single precision inside; of two long steps the error in h² is taken out.
        """
        for step in (1e-4, 5e-4, 2e-3) if self.single else (self.step, 1e-4):
            yield self._difference(name, v, step)
        long = self._difference(name, v, _LONG), self._difference(name, v, _LONG / 2)
        yield (4 * long[1] - long[0]) / 3

    def _difference(self, name: str, v: np.ndarray, step: float) -> np.ndarray:
        center = np.asarray(self.feeds[name], np.float64)
        ahead, behind = (self.run({name: np.asarray(center + sign * step * v)}) for sign in (1, -1))
        if not ahead.shape == behind.shape == self.base.shape:
            return np.full(self.base.shape, np.nan)  # a step across a size
        return (ahead - behind) / (2 * step)


def _agrees(base: np.ndarray, model: onnx.ModelProto, feeds: Arrays, place: int) -> bool:
    """Whether onnxruntime, where it runs a model, computes the same."""
    try:
        other = np.asarray(_session(model).run(None, dict(feeds))[place], np.float64)
    except (NotImplemented_, InvalidGraph, Fail, InvalidArgument, RuntimeError):
        return True
    size = np.abs(base[np.isfinite(base)]).max(initial=1)
    return other.shape == base.shape and bool(np.allclose(other, base, rtol=0, atol=0.01 * size, equal_nan=True))


def answers_differently(model: onnx.ModelProto, built: ir.Model, feeds: Arrays, seed: str | None) -> str:
    """Return the output that a built model gives otherwise than the model that it was made of; "" where none."""
    if any(node.op_type in _RANDOM for node in model.graph.node):
        return ""
    names, proto = [value.name for value in model.graph.output], to_proto(built)
    fed = dict(feeds)
    try:
        expected = _session(model).run(None, fed)
        if seed is not None:
            place = names.index(seed.removesuffix(".grad"))
            fed[seed] = np.zeros_like(expected[place])
        found = _session(proto).run(names, fed)
    except (NotImplemented_, InvalidGraph, Fail, InvalidArgument, RuntimeError):
        return ""  # onnxruntime runs one of the two, or none
    off = [name for name, a, b in zip(names, found, expected, strict=True) if not _close(a, b)]
    if off:  # onnxruntime's own kernel may be what differs from the operator's definition
        try:
            second = dict(zip(names, reference(model).run(None, dict(feeds)), strict=True))
        except Exception:  # noqa: BLE001 - it knows no such form: then onnxruntime's word stands
            return ", ".join(off)
        off = [name for name, a in zip(names, found, strict=True) if name in off and not _close(a, second[name])]
    return ", ".join(off)


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, list) or np.asarray(a).dtype.kind not in "fiub":
        return True
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = np.abs(b[np.isfinite(b)]).max(initial=1)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=0, atol=1e-3 * size, equal_nan=True))


def _double(given: Any) -> Any:
    return given.astype(np.float64) if getattr(given, "dtype", None) in (np.float32, np.float16) else given
