"""Checks of numbers that the file alone tells: N02, N04."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from onnxviz.checks.finding import Problem, Severity, place_of, tensor_place
from onnxviz.checks.hazard_repro import hazard_repro
from onnxviz.checks.interval_arithmetic import constant_scalar
from onnxviz.checks.interval_rules import INTERVAL_RULES
from onnxviz.checks.intervals import Bounds, Known, value_bounds
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import Repro, node_repro
from onnxviz.checks.subject import Subject
from onnxviz.graph.equality import is_copy
from onnxviz.graph.learned import learned_inputs

_STANDARD = ("", "ai.onnx")
_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE, None})
_LARGEST = {ir.DataType.FLOAT16: 65504.0, ir.DataType.DOUBLE: float(np.finfo(np.float64).max)}
_NORMS = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"})
_HUGE = 1e10
_CHUNK = 1 << 22  # elements of a weight that are looked at together


@check(
    "N02",
    "warning",
    "NaN or Inf within reach",
    needs=Need.MODEL,
    what="Bounds every tensor by interval arithmetic, from inputs that may be any finite number, and looks at each "
    "division, reciprocal, logarithm, root, power, exponential, inverse trigonometric function and normalisation: may "
    "its operand be where the result is NaN or infinite? Sums and products that overflow are not looked for.",
    why="What is right on the test set divides by zero on the first blank picture in production, and one NaN spoils "
    "everything behind it.",
    remedy="Bound the operand: add an epsilon, take the maximum with one, or use the operator that is stable "
    "(Softmax, Softplus, LayerNormalization).",
    false_positives="Intervals forget how tensors hang together, and an operator without a rule may give anything: "
    "what is within reach by them may not happen. Exponentials overflow only for inputs that a trained network may "
    "never see.",
)
def reachable(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the nodes whose operand may be outside their domain."""
    found: list[Problem] = []
    judged = 0

    def visit(node: ir.Node, known: Known) -> None:
        nonlocal judged
        look = _HAZARDS.get(node.op_type)
        if look is None or node.domain not in _STANDARD or not node.outputs or node.outputs[0].dtype not in _FLOATS:
            return
        judged += 1
        danger = look(node, known)
        if danger is not None:
            index, message = danger
            bounds = known.input(node, index)
            operand = node.inputs[index]
            name = operand.name if operand is not None else ""
            evidence = {"operand": name, "low": bounds.low, "high": bounds.high, "op_type": node.op_type}
            places = [place_of(node), tensor_place(name)]
            repro = hazard_repro(subject, node, index)
            found.append(Problem(f"{message}; {_said(bounds)}", places, evidence, repro=repro))

    value_bounds(subject.inferred.graph, INTERVAL_RULES, visit)
    yield from found
    yield {"operations": judged}


def _said(bounds: Bounds) -> str:
    if math.isinf(bounds.low) and math.isinf(bounds.high):
        return "nothing bounds its operand"
    return f"its operand is in [{bounds.low:.4g}, {bounds.high:.4g}]"


Danger = tuple[int, str]


def _division(node: ir.Node, known: Known) -> Danger | None:
    return (1, "the divisor may be 0") if known.input(node, 1).may_be_zero else None


def _reciprocal(node: ir.Node, known: Known) -> Danger | None:
    return (0, "the reciprocal of 0 is infinite") if known.input(node).may_be_zero else None


def _logarithm(node: ir.Node, known: Known) -> Danger | None:
    x = known.input(node)
    if x.low < 0:
        return 0, "the logarithm of a negative number is NaN, that of 0 is -Inf"
    return (0, "the logarithm of 0 is -Inf") if x.low == 0 and not x.nonzero else None


def _root(node: ir.Node, known: Known) -> Danger | None:
    return (0, "the root of a negative number is NaN") if known.input(node).low < 0 else None


def _exponential(node: ir.Node, known: Known) -> Danger | None:
    largest = _LARGEST.get(node.outputs[0].dtype or ir.DataType.FLOAT, float(np.finfo(np.float32).max))
    limit = math.log(largest)
    if known.input(node).high <= limit or _absorbed(node.outputs[0]):
        return None
    return 0, f"the exponential of more than {limit:.2f} is infinite"


def _absorbed(value: ir.Value, depth: int = 3) -> bool:
    """Whether an infinite value is harmless: everything that reads it divides by it, or by it and a constant."""
    uses = list(value.uses())
    if not uses or value.is_graph_output() or depth == 0:
        return False
    for node, index in uses:
        if (node.op_type == "Div" and index == 1 and node.inputs[0] is not value) or node.op_type == "Reciprocal":
            continue
        other = constant_scalar(node.inputs[1 - index]) if node.op_type == "Add" and len(node.inputs) == 2 else None
        if other is None or not _absorbed(node.outputs[0], depth - 1):
            return False
    return True


def _power(node: ir.Node, known: Known) -> Danger | None:
    x, power = known.input(node), known.input(node, 1)
    whole = power.low == power.high and power.low == math.floor(power.low) if math.isfinite(power.low) else False
    if x.low < 0 and not whole:
        return 0, "a negative number to a broken power is NaN"
    return (0, "0 to a negative power is infinite") if power.low < 0 and x.may_be_zero else None


def _unit(node: ir.Node, known: Known) -> Danger | None:
    x = known.input(node)
    beyond = x.low < -1 or x.high > 1
    edge = node.op_type == "Atanh" and (x.low <= -1 or x.high >= 1)
    return (0, f"{node.op_type} is defined from -1 to 1 only") if beyond or edge else None


def _area_cosine(node: ir.Node, known: Known) -> Danger | None:
    return (0, "Acosh is defined from 1 on only") if known.input(node).low < 1 else None


def _normalisation(node: ir.Node, known: Known) -> Danger | None:
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if node.op_type == "BatchNormalization":
        variance = known.input(node, 4)
        if not math.isfinite(variance.low):
            return None
        return (4, f"variance and epsilon {epsilon:g} may add up to 0 or less") if variance.low + epsilon <= 0 else None
    return (0, "without an epsilon, equal elements give 0 / 0") if epsilon <= 0 else None


_HAZARDS = {
    "Div": _division,
    "Mod": _division,
    "Reciprocal": _reciprocal,
    "Log": _logarithm,
    "Sqrt": _root,
    "Exp": _exponential,
    "Pow": _power,
    "Acos": _unit,
    "Asin": _unit,
    "Atanh": _unit,
    "Acosh": _area_cosine,
    "BatchNormalization": _normalisation,
    **dict.fromkeys(_NORMS, _normalisation),
}


@check(
    "N04",
    "error",
    "NaN, Inf or huge weights",
    needs=Need.MODEL,
    what="Looks at every constant of a floating-point type. NaN in a tensor of several elements is an error, and so is "
    f"Inf in what a layer learned; a learned number beyond {_HUGE:g}, or a single NaN, is a warning; Inf elsewhere is "
    "told.",
    why="A NaN among the weights makes every answer NaN, or just those that reach it: training diverged, or the "
    "export did.",
    remedy="Take an earlier checkpoint, or export again.",
    false_positives="Masks hold -Inf, limits hold Inf, and -Inf pads what a maximum is taken of: that is why Inf "
    "outside of learned tensors is information only.",
)
def bad_constants(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the constants that hold what no weight should."""
    looked = 0
    for value, tensor in float_constants(subject.model):
        looked += 1
        low, high, nans, infinities = extremes(tensor)
        learned = is_learned(value)
        evidence = {"nan": nans, "inf": infinities, "of": tensor.size, "min": low, "max": high, "learned": learned}
        severity: Severity | None = None
        if nans:
            message = f"{nans:,} of {tensor.size:,} elements are NaN"
            severity = "error" if tensor.size > 1 or learned else "warning"
        elif infinities:
            message = f"{infinities:,} of {tensor.size:,} elements are infinite"
            severity = "error" if learned else "info"
        elif learned and max(abs(low), abs(high)) > _HUGE:
            message, severity = f"a learned number is as large as {max(abs(low), abs(high)):.3g}", "warning"
        else:
            continue
        repro = _reader(subject, value, spoils=bool(nans or infinities))
        yield Problem(message, [tensor_place(value.name)], evidence, severity=severity, repro=repro)
    yield {"constants": looked}


def _reader(subject: Subject, value: ir.Value, *, spoils: bool) -> Callable[[], Repro] | None:
    """Return what makes a model of the first node that reads a constant, if a node of the main graph does."""
    for node in subject.inlined.graph:
        if any(v is not None and v.name == value.name for v in node.inputs) and node.outputs:
            return node_repro(subject, str(node.outputs[0].name), lambda a: not (spoils and np.isfinite(a).all()))
    return None


def float_constants(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield the weights and Constant nodes of a floating-point type, those in bodies and functions too."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        graphs += [function, *function.subgraphs()]
    for graph in graphs:
        for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
            if value.const_value is not None and value.const_value.dtype.is_floating_point():
                yield value, value.const_value
        for node in graph:
            attribute = node.attributes.get("value") if node.op_type == "Constant" else None
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = attribute.as_tensor()
                if tensor.dtype.is_floating_point() and node.outputs:
                    yield node.outputs[0], tensor


def is_learned(value: ir.Value, depth: int = 8) -> bool:
    """Whether an operator reads a constant as a weight, directly or through what only copies it."""
    for node, index in value.uses():
        if index in learned_inputs(node):
            return True
        if depth and node.outputs and is_copy(node) and is_learned(node.outputs[0], depth - 1):
            return True
    return False


def extremes(tensor: ir.TensorProtocol) -> tuple[float, float, int, int]:
    """Return the smallest and largest finite element of a tensor, and how many are NaN and infinite.

    Raises:
        CheckError: It cannot be read.
    """
    array = read_array(tensor).reshape(-1)
    lows, highs, nans, infinities = [], [], 0, 0
    for start in range(0, array.size, _CHUNK):
        part = array[start : start + _CHUNK]
        if part.dtype.kind != "f" or part.dtype.itemsize < 4:
            part = part.astype(np.float32)
        low, high = float(part.min()), float(part.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            nans += int(np.isnan(part).sum())
            infinities += int(np.isinf(part).sum())
            part = part[np.isfinite(part)]
            if not part.size:
                continue
            low, high = float(part.min()), float(part.max())
        lows.append(low)
        highs.append(high)
    return min(lows, default=0.0), max(highs, default=0.0), nans, infinities
