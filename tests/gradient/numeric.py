"""Whether a gradient is right: against central differences of the model in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from onnxviz.gradient.model import gradient_model
from onnxviz.graph.model import from_proto, to_proto

Arrays = Mapping[str, Any]
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


def gradients(model: ir.Model, feeds: Arrays, of: str, wrt: Sequence[str], seed: np.ndarray, **options: Any) -> Any:
    """Return the gradients that the built model computes in onnxruntime, and what was built."""
    made = gradient_model(model, of, wrt, **options)
    proto = to_proto(made.model)
    onnx.checker.check_model(proto, full_check=True)
    given = {value.name for value in proto.graph.input}
    fed = {k: v for k, v in {**feeds, made.seed: seed}.items() if k in given}
    return dict(zip(wrt, _run(proto, list(made.gradients.values()), fed), strict=True)), made


def _run(proto: onnx.ModelProto, names: list[str], feeds: Arrays) -> list[Any]:
    """Run a model in onnxruntime; what that cannot load, in the reference evaluator."""
    try:
        return list(_session(proto).run(names, dict(feeds)))
    except (NotImplemented_, InvalidGraph, Fail, InvalidArgument) as error:
        try:
            return list(ReferenceEvaluator(proto).run(names, dict(feeds)))
        except Exception:  # noqa: BLE001 - what onnxruntime said is worth more
            raise error from None


def _session(proto: onnx.ModelProto) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def compare(
    model: onnx.ModelProto, feeds: Arrays, of: str, wrt: Sequence[str], *, directions: int = 2, step: float = 1e-4,
    **options: Any,
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
        seed.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), **options,
    )  # fmt: skip
    results = []
    for name in wrt:
        for _ in range(directions):
            v = rng.normal(size=np.shape(feeds[name]))
            measured = float((seed * forward.slope(name, v)).sum())
            terms = np.asarray(found[name], np.float64) * v
            size = max(float(np.abs(terms).sum()), abs(measured))
            results.append(Disagreement(name, float(terms.sum()), measured, size))
    return results


class _Forward:
    """The model as a function: in float64 by the reference evaluator, else as it is by onnxruntime."""

    def __init__(self, model: onnx.ModelProto, feeds: Arrays, place: int, step: float) -> None:
        self.model, self.place = model, place
        self.feeds, self.step = {name: _double(given) for name, given in feeds.items()}, step
        self.evaluator: ReferenceEvaluator | None = None
        random = any(node.op_type in _RANDOM for node in model.graph.node)
        try:
            if random:
                raise NotImplementedError("each has random numbers of its own")
            self.evaluator = ReferenceEvaluator(model)
            self.base = self.run({})
        except Exception:  # noqa: BLE001 - it lacks many an operator and type; onnxruntime may have it
            self.evaluator, self.feeds, self.step = None, dict(feeds), 2e-2
            self.base = self.run({})

    def run(self, changed: Arrays) -> np.ndarray:
        if self.evaluator is not None:
            found = self.evaluator.run(None, {**self.feeds, **changed})
        else:
            typed = {name: np.asarray(array).astype(self.feeds[name].dtype) for name, array in changed.items()}
            found = _session(self.model).run(None, {**self.feeds, **typed})
        return np.asarray(found[self.place], np.float64)

    def slope(self, name: str, v: np.ndarray) -> np.ndarray:
        """Return the directional derivative; of single precision from two steps, without their error in h^2."""
        if self.evaluator is not None:
            return self._difference(name, v, self.step)
        return (4 * self._difference(name, v, self.step / 2) - self._difference(name, v, self.step)) / 3

    def _difference(self, name: str, v: np.ndarray, step: float) -> np.ndarray:
        center = np.asarray(self.feeds[name], np.float64)
        ahead, behind = (self.run({name: np.asarray(center + sign * step * v)}) for sign in (1, -1))
        return (ahead - behind) / (2 * step)


def _double(given: Any) -> Any:
    return given.astype(np.float64) if getattr(given, "dtype", None) in (np.float32, np.float16) else given
