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

from onnxviz.gradient.model import gradient_model
from onnxviz.graph.model import from_proto, to_proto

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Disagreement:
    """One input whose gradient was measured: the two directional derivatives."""

    name: str
    gradient: float
    measured: float
    size: float

    @property
    def relative(self) -> float:
        return abs(self.gradient - self.measured) / max(self.size, 1e-6)


def gradients(model: ir.Model, feeds: Arrays, of: str, wrt: Sequence[str], seed: np.ndarray, **options: Any) -> Any:
    """Return the gradients that the built model computes in onnxruntime, and what was built."""
    made = gradient_model(model, of, wrt, **options)
    proto = to_proto(made.model)
    onnx.checker.check_model(proto, full_check=True)
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()}
    run = session.run(
        list(made.gradients.values()), {k: v for k, v in {**feeds, made.seed: seed}.items() if k in given}
    )
    return dict(zip(wrt, run, strict=True)), made


def compare(
    model: onnx.ModelProto, feeds: Arrays, of: str, wrt: Sequence[str], *, directions: int = 2, step: float = 1e-4,
    **options: Any,
) -> list[Disagreement]:  # fmt: skip
    """Compare gradients with ``(f(x + h v) - f(x - h v)) / 2h`` along random directions v, in float64."""
    rng = np.random.default_rng(7)
    forward = ReferenceEvaluator(model)
    feeds = {name: np.asarray(given) if isinstance(given, np.generic) else given for name, given in feeds.items()}
    doubles = {name: _double(given) for name, given in feeds.items()}
    place = [o.name for o in model.graph.output].index(of)

    def run(changed: Arrays) -> np.ndarray:
        return np.asarray(forward.run(None, {**doubles, **changed})[place], np.float64)

    base = run({})
    seed = rng.normal(size=base.shape)
    kind = next(o for o in model.graph.output if o.name == of).type.tensor_type.elem_type
    found, _ = gradients(
        from_proto(onnx.ModelProto.FromString(model.SerializeToString())), feeds, of, wrt,
        seed.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), **options,
    )  # fmt: skip
    results = []
    for name in wrt:
        for _ in range(directions):
            v = rng.normal(size=np.shape(doubles[name]))
            ahead, behind = (run({name: np.asarray(doubles[name] + sign * step * v)}) for sign in (1, -1))
            measured = float((seed * ((ahead - behind) / (2 * step))).sum())
            terms = np.asarray(found[name], np.float64) * v
            size = max(float(np.abs(terms).sum()), abs(measured))
            results.append(Disagreement(name, float(terms.sum()), measured, size))
    return results


def _double(given: Any) -> Any:
    return given.astype(np.float64) if getattr(given, "dtype", None) in (np.float32, np.float16) else given
