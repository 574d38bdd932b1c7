"""Checks of what quantisation costs: Q01, and the clipping of activations for Q02."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.held_numbers import passed_on
from onnxviz.checks.clipping import Clipping
from onnxviz.checks.finding import InapplicableError, Problem, place_of, tensor_place
from onnxviz.checks.layer_repro import layer_repro
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import node_repro
from onnxviz.checks.running import observe
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.model import copy_model

__all__ = ["clipped_activations", "float_twin", "quantisation_error"]

Array = npt.NDArray[Any]
_POOR = 10.0  # dB: an error of a third of the signal
_CLIPPED = 0.05
_LAYERS = frozenset({
    "Conv", "ConvTranspose", "MatMul", "Gemm", "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger",
    "Add", "QLinearAdd", "LayerNormalization", "Softmax",
})  # fmt: skip


@dataclass(frozen=True)
class Error:
    """Sums over all samples of a tensor of both models."""

    signal: float
    noise: float
    product: float
    square: float

    def merge(self, other: Error, /) -> Error:
        """Return the sums over both sets of samples."""
        return Error(
            self.signal + other.signal,
            self.noise + other.noise,
            self.product + other.product,
            self.square + other.square,
        )

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise in dB, 10·log₁₀(Σ x² / Σ (x - q)²)."""
        return float("inf") if not self.noise else 10 * float(np.log10(max(self.signal, 1e-300) / self.noise))

    @property
    def cosine(self) -> float:
        """Cosine similarity."""
        norm = np.sqrt(self.signal * self.square)
        return float(self.product / norm) if norm else 1.0


@check(
    "Q01",
    "warning",
    "large quantisation error of a layer",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Compares what layers of a quantised model give with the same tensors of `--reference`; without one, with the "
    "model itself when its QuantizeLinear and DequantizeLinear pairs on activations are left out, so that weights stay "
    "quantised. Reported are layers with a signal-to-noise ratio (SQNR) below 10 dB.",
    why="One layer that loses its signal spoils all behind it, while the average hides it.",
    remedy="Keep that layer in float, calibrate on data like the real inputs, use per-channel weights or equalisation.",
    false_positives="A layer may be poor and the answer right all the same. Errors of earlier layers are inherited: "
    "start with the first.",
)
def quantisation_error(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the layers with a poor signal-to-noise ratio."""
    nodes = list(subject.inlined.graph.all_nodes())
    quantised = sum("Quantize" in n.op_type or n.op_type.startswith("Q") for n in nodes)
    if not quantised:
        yield {"quantize_nodes": 0}
        return
    reference, source = _reference(subject)
    errors = _errors(subject, reference)
    if not errors:
        raise CheckError("no tensor of a layer has a twin to compare with")
    order = list(errors)
    for name, error in errors.items():
        if error.sqnr < _POOR:
            node = next(n for n in nodes if any(v.name == name for v in n.outputs))
            evidence = {
                "sqnr_db": error.sqnr, "cosine": error.cosine, "reference": source, "samples": subject.batches.samples,
                "layer": order.index(name) + 1, "layers": len(order),
            }  # fmt: skip
            yield Problem(
                f"its signal-to-noise ratio is {error.sqnr:.1f} dB (cosine {error.cosine:.4f})",
                [tensor_place(name), place_of(node)],
                evidence,
                repro=layer_repro(subject, reference, name),
            )
    worst = min(errors, key=lambda name: errors[name].sqnr)
    yield {
        "quantize_nodes": quantised,
        "layers": len(errors),
        "worst": worst,
        "worst_sqnr_db": errors[worst].sqnr,
        "reference": source,
    }


def _reference(subject: Subject) -> tuple[ir.Model, str]:
    if subject.options.reference is not None:
        return subject.reference, "the reference"
    twin, count = float_twin(subject.inlined)
    if not count:
        raise InapplicableError("its activations are codes throughout, so it needs --reference with the model in float")
    return twin, f"the model without {count} pairs on activations"


def float_twin(model: ir.Model) -> tuple[ir.Model, int]:
    """Return a copy whose activations are not quantised, and how many pairs were left out.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) <float s = {0.1}, uint8 z = {128}> {
    ...     q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d) }''')
    >>> twin, pairs = float_twin(model)
    >>> [node.op_type for node in twin.graph], pairs
    (['Relu'], 1)
    """
    copy = copy_model(model)
    outputs = set(copy.graph.outputs)
    count = 0
    for node in list(copy.graph):
        source = (
            node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] is not None else None
        )
        if (
            source is None
            or source.op_type != "QuantizeLinear"
            or source.inputs[0] is None
            or node.outputs[0] in outputs
        ):
            continue
        kept = source.inputs[0]
        if _rectifies(source):
            rectifier = ir.node("Relu", [kept])
            rectifier.outputs[0].name = f"{kept.name}_rectified_{count}"
            copy.graph.insert_before(node, rectifier)
            kept = rectifier.outputs[0]
        for user, index in list(node.outputs[0].uses()):
            user.replace_input_with(index, kept)
        copy.graph.remove(node, safe=True)
        count += 1
        if not source.outputs[0].uses() and source.outputs[0] not in outputs:
            copy.graph.remove(source, safe=True)
    return copy, count


def _rectifies(node: ir.Node) -> bool:
    """Whether the codes of a QuantizeLinear end at 0: quantisers then leave out the Relu before it."""
    limits = _limits(node)
    return limits is not None and -limits[0] < 1e-2 * limits[1]


def _errors(subject: Subject, reference: ir.Model) -> Mapping[str, Error]:
    """Return the errors of the layers' tensors that both models have, in the order of the graph."""
    there = {str(v.name) for node in reference.graph for v in node.outputs}
    names = [
        str(node.outputs[0].name)
        for node in subject.inlined.graph
        if node.op_type in _LAYERS and node.outputs[0].name in there
    ]
    if not names:
        return {}
    from onnxviz.runtime.capture import capture

    passed = passed_on(subject.inlined) if subject.options.reference is not None else {}
    ours_of = {name: str(passed[name].name) if name in passed else name for name in names}
    totals: dict[str, Error] = {}
    for place in range(min(len(subject.batches), 8)):
        feeds = subject.batches.batch(place).feeds
        ours, theirs = (
            capture(
                model, feeds, [_exact(n) for n in wanted], bodies=False, providers="cpu",
                op_library=subject.options.op_library,
            )
            for model, wanted in ((subject.inlined, list(ours_of.values())), (reference, names))
        )  # fmt: skip
        for name in names:
            own, other = ours.get(ours_of[name]), theirs.get(name)
            if own is None or other is None or own.shape != other.shape:
                continue
            if "float" not in own.dtype or "float" not in other.dtype:
                continue
            error = _error(other.array, own.array)
            totals[name] = totals[name].merge(error) if name in totals else error
    return {name: totals[name] for name in names if name in totals}


def _exact(name: str) -> str:
    """Return a glob that fits one name only."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _error(expected: Array, found: Array) -> Error:
    x, q = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    fine = np.isfinite(x) & np.isfinite(q)
    x, q = x[fine], q[fine]
    return Error(float(x @ x), float((x - q) @ (x - q)), float(x @ q), float(q @ q))


def clipped_activations(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the QuantizeLinear nodes that clip more than a twentieth of what they read."""
    nodes = {
        str(n.inputs[0].name): n for n in subject.inlined.graph
        if n.op_type == "QuantizeLinear" and n.inputs[0] is not None and constant_tensor(n.inputs[0]) is None
    }  # fmt: skip
    limits = {name: ends for name, node in nodes.items() if (ends := _limits(node)) is not None}
    limits |= {name: (-np.inf, limits[name][1]) for name in limits if _rectifies(nodes[name])}  # a Relu, on purpose
    if not limits:
        return
    counts: dict[str, Clipping] = {}
    for place in range(min(len(subject.batches), 8)):
        for name, array in subject.batches.batch(place).feeds.items():
            if name in limits:
                counts[name] = Clipping.of(np.asarray(array), *limits[name]).merge(counts.get(name, Clipping()))

    def counted(name: str, array: Array) -> Clipping:
        return Clipping.of(array, *limits.get(name, (-np.inf, np.inf)))

    captured = observe(subject.inlined, subject, counted)
    counts |= {r.name: r.statistics for r in captured.values() if r.name in limits and r.statistics is not None}
    for name, seen in counts.items():
        if seen.count >= 256 and seen.clipped > _CLIPPED * seen.count:
            low, high = limits[name]
            evidence = {
                "clipped": seen.clipped, "of": seen.count, "range": [low, high], "observed": [seen.low, seen.high],
                "samples": subject.batches.samples, "random_inputs": subject.made_up,
            }  # fmt: skip
            message = f"{seen.clipped / seen.count:.1%} of its values lie outside of {low:.4g} … {high:.4g}"
            yield Problem(
                message,
                [tensor_place(name), place_of(nodes[name])],
                evidence,
                severity="info" if subject.made_up else "warning",
                key="activations",
                repro=node_repro(subject, str(nodes[name].outputs[0].name), lambda array: True),
            )
    yield {"activations": len(counts)}


def _limits(node: ir.Node) -> tuple[float, float] | None:
    """Return the range of numbers that have a code; None where it is computed or differs by channel."""
    scale = constant_tensor(node.inputs[1])
    zero = constant_tensor(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or scale.size != 1 or (len(node.inputs) > 2 and node.inputs[2] is not None and zero is None):
        return None
    dtype = zero.dtype if zero is not None else ir.DataType.UINT8
    if not dtype.is_integer():
        return None
    step = float(read_array(scale).reshape(-1)[0])
    offset = 0 if zero is None else int(read_array(zero).reshape(-1)[0])
    if not np.isfinite(step) or step <= 0:
        return None
    return (int(dtype.min) - offset - 0.5) * step, (int(dtype.max) - offset + 0.5) * step
