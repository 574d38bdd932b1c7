"""Checks of work that cancels out: G11, G12."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.checks.finding import Problem, place_of
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.equality import ints
from onnxviz.graph.liveness import tensor_bytes

_STANDARD = ("", "ai.onnx")
#: Operators between two transposes that are looked at; a damaged graph may go round in circles.
FAR = 64
#: Operators that work on each element, whatever the layout.
ELEMENTWISE = frozenset({
    "Abs", "Cast", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Log", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
})  # fmt: skip
#: Operators of two tensors that work on each element where one of them is a single number.
_WITH_A_NUMBER = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub"})
_D = ir.DataType
_SMALL_FLOATS = frozenset({_D.FLOAT16, _D.BFLOAT16, _D.FLOAT, _D.DOUBLE})
#: Type -> the types that hold each of its values exactly.
WIDER: dict[ir.DataType, frozenset[ir.DataType]] = {
    _D.BOOL: _SMALL_FLOATS | {_D.INT8, _D.UINT8, _D.INT16, _D.UINT16, _D.INT32, _D.UINT32, _D.INT64, _D.UINT64},
    _D.INT8: _SMALL_FLOATS | {_D.INT16, _D.INT32, _D.INT64},
    _D.UINT8: _SMALL_FLOATS | {_D.INT16, _D.UINT16, _D.INT32, _D.UINT32, _D.INT64, _D.UINT64},
    _D.INT16: frozenset({_D.INT32, _D.INT64, _D.FLOAT, _D.DOUBLE}),
    _D.UINT16: frozenset({_D.INT32, _D.UINT32, _D.INT64, _D.UINT64, _D.FLOAT, _D.DOUBLE}),
    _D.INT32: frozenset({_D.INT64, _D.DOUBLE}),
    _D.UINT32: frozenset({_D.INT64, _D.UINT64, _D.DOUBLE}),
    _D.FLOAT16: frozenset({_D.FLOAT, _D.DOUBLE}),
    _D.BFLOAT16: frozenset({_D.FLOAT, _D.DOUBLE}),
    _D.FLOAT: frozenset({_D.DOUBLE}),
}


@check(
    "G11",
    "warning",
    "transposes that cancel",
    needs=Need.MODEL,
    what="Looks for a Transpose that another one undoes or could take in, next to it or behind operators that work on "
    "each element, and for transposes that move nothing.",
    why="Each transpose of an activation reads and writes all of it; between layouts NCHW and NHWC it often takes "
    "longer than the layer.",
    remedy="Remove the pair; `onnxviz check --fix` does. Better: export in the layout that the runtime wants.",
    false_positives="onnxruntime's optimiser removes many of them when it loads the model; other runtimes may not.",
)
def transposes(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield pairs of transposes, and transposes without effect."""
    count = 0
    for node in subject.inferred.graph.all_nodes():
        perm = transpose_perm(node)
        if perm is None:
            continue
        count += 1
        if perm == sorted(perm):
            yield Problem("it moves nothing", [place_of(node)], {"perm": perm}, key="none")
        first, between = _transpose_before(node)
        before = None if first is None else transpose_perm(first)
        if first is None or before is None or len(before) != len(perm):
            continue
        together = [before[axis] for axis in perm]
        cancels = together == sorted(together)
        if not cancels and between:
            continue
        evidence = {"perm": [before, perm], "between": between, "bytes_moved": _moved(first, node)}
        what = "they cancel" if cancels else f"they make one, perm {together}"
        inside = f" around {', '.join(between)}" if between else ""
        yield Problem(f"two transposes{inside}: {what}", [place_of(first), place_of(node)], evidence)
    yield {"transposes": count}


def transpose_perm(node: ir.Node) -> list[int] | None:
    """Return the permutation of a Transpose; None for other nodes, and where it is not known."""
    if node.op_type != "Transpose" or node.domain not in _STANDARD or not node.inputs:
        return None
    if "perm" in node.attributes:
        return ints(node, "perm")
    shape = node.outputs[0].shape
    if shape is None and node.inputs[0] is not None:
        shape = node.inputs[0].shape
    return None if shape is None else list(range(len(shape)))[::-1]


def layout_blind_input(node: ir.Node) -> int | None:
    """Return the input of a node that works on each of its elements, whatever the layout; None for other nodes."""
    if node.domain not in _STANDARD or not node.inputs:
        return None
    if node.op_type in ELEMENTWISE:
        return 0
    if node.op_type not in _WITH_A_NUMBER or len(node.inputs) != 2:
        return None
    tensors = [constant_tensor(value) for value in node.inputs]
    numbers = [tensor is not None and tensor.size == 1 and len(tensor.shape) < 2 for tensor in tensors]
    if tensors[0] is None and numbers[1]:
        return 0
    return 1 if numbers[0] and tensors[1] is None and node.op_type != "PRelu" else None


def _transpose_before(node: ir.Node) -> tuple[ir.Node | None, list[str]]:
    """Return the Transpose before a node with the elementwise operators between, each read by nothing else."""
    between: list[str] = []
    value = node.inputs[0]
    source = None if value is None else value.producer()
    while source is not None and source.domain in _STANDARD and len(between) < FAR:
        if source.op_type == "Transpose":
            return source, between[::-1]
        alone = len(list(source.outputs[0].uses())) == 1 and not source.outputs[0].is_graph_output()
        index = layout_blind_input(source)
        if index is None or not alone:
            break
        between.append(source.op_type)
        value = source.inputs[index]
        source = None if value is None else value.producer()
    return None, []


def _moved(*nodes: ir.Node) -> int | None:
    """Return the bytes that transposes read and write; None where a size is open."""
    sizes = [tensor_bytes(value) for node in nodes for value in (*node.inputs, *node.outputs) if value is not None]
    return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)


@check(
    "G12",
    "warning",
    "redundant casts",
    needs=Need.MODEL,
    what="Looks for casts to the type that a tensor has already, and for casts of casts where the first loses nothing.",
    why="A cast reads and writes a whole tensor; chains of them mark the seams of a conversion to another precision.",
    remedy="Cast once, or not at all; `onnxviz check --fix` does.",
    false_positives="Two casts of which the first rounds are no chain: they are not reported.",
)
def casts(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield casts that a model does not need."""
    count = 0
    for node in subject.inferred.graph.all_nodes():
        target = cast_target(node)
        if target is None or node.inputs[0] is None:
            continue
        count += 1
        source = node.inputs[0]
        if source.dtype == target:
            yield Problem(
                f"it casts {target.name} to {target.name}",
                [place_of(node)],
                {"bytes": tensor_bytes(source)},
                key="same",
            )
            continue
        before = source.producer()
        middle = None if before is None else cast_target(before)
        origin = None if before is None or not before.inputs or before.inputs[0] is None else before.inputs[0].dtype
        if before is not None and middle is not None and is_lossless(origin, middle):
            assert origin is not None
            chain = [kind.name for kind in (origin, middle, target)]
            message = f"{' → '.join(chain)} is {'nothing' if origin == target else 'one cast'}"
            yield Problem(message, [place_of(before), place_of(node)], {"chain": chain}, key="chain")
    yield {"casts": count}


def cast_target(node: ir.Node) -> ir.DataType | None:
    """Return what a Cast or CastLike casts to; None for other nodes."""
    if node.op_type == "CastLike" and node.domain in _STANDARD and len(node.inputs) == 2:
        return None if node.inputs[1] is None else node.inputs[1].dtype
    to = ints(node, "to") if node.op_type == "Cast" and node.domain in _STANDARD and node.inputs else None
    return ir.DataType(to[0]) if to and to[0] in ir.DataType._value2member_map_ else None


def is_lossless(source: ir.DataType | None, target: ir.DataType) -> bool:
    """Whether each value of a type is exactly one of another."""
    return source is not None and (source == target or target in WIDER.get(source, frozenset()))
