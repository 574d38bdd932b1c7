"""Checks of weights that do not fit their operators: G09."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.checks.finding import Problem, place_of, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.graph.shapes import shape_list

Shape = list[int | str | None]


@check(
    "G09",
    "error",
    "bias or per-channel parameter of a wrong shape",
    needs=Need.MODEL,
    what="Compares the bias of convolutions and Gemm, and the parameters of batch, instance, group and layer "
    "normalisation, with the channels that the weight or the input has.",
    why="Some runtimes read beyond the end of such a bias, others broadcast it where it does not belong.",
    remedy="Give the bias one element a channel: [channels] for convolutions, a shape that broadcasts to (M, N) for "
    "Gemm.",
    false_positives="None known: sizes that are not known are not judged.",
)
def parameter_shapes(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the parameters that do not fit their node."""
    judged = 0
    graph = subject.inferred.graph
    for node in graph.all_nodes():
        if node.domain not in _KNOWN:
            continue
        for index, wanted in _wanted(node, graph.opset_imports.get("", 1)):
            value = node.inputs[index] if index < len(node.inputs) else None
            shape = None if value is None else shape_list(value)
            if value is None or shape is None or not all(isinstance(dim, int) for dim in shape):
                continue
            judged += 1
            if not _fits(shape, wanted, broadcast=node.op_type in _BROADCASTS):
                message = f"{value.name!r} has shape {shape_text(shape)} where {shape_text(wanted)} is needed"
                places = [place_of(node), tensor_place(value.name)]
                yield Problem(message, places, {"shape": shape, "needed": wanted, "op_type": node.op_type})
    yield {"parameters": judged}


_CONVOLUTIONS = {"Conv": (1, 2), "FusedConv": (1, 2), "ConvTranspose": (1, 2), "QLinearConv": (3, 8)}
_GEMM = frozenset({"Gemm", "FusedGemm"})
_BROADCASTS = _GEMM | {"LayerNormalization"}
_KNOWN = ("", "ai.onnx", "com.microsoft")
_PER_CHANNEL = {"BatchNormalization": (1, 2, 3, 4), "InstanceNormalization": (1, 2), "GroupNormalization": (1, 2)}


def _wanted(node: ir.Node, opset: int) -> Iterator[tuple[int, Shape]]:
    """Yield the inputs of a node that hold a number a channel, and the shape that each should have."""
    kind, count = node.op_type, len(node.inputs)
    if kind in _CONVOLUTIONS:
        weight_at, bias_at = _CONVOLUTIONS[kind]
        weight = _shape_of(node, weight_at)
        if bias_at < count and weight is not None and len(weight) > 1:
            group = node.attributes.get_int("group", 1)
            channels = weight[0]
            if kind == "ConvTranspose":
                channels = weight[1] * group if isinstance(weight[1], int) else None
            yield bias_at, [channels]
    elif kind in _GEMM and count > 2:
        a, b = _shape_of(node, 0), _shape_of(node, 1)
        if b is not None and len(b) == 2:
            rows = None if a is None or len(a) != 2 else a[1 if node.attributes.get_int("transA", 0) else 0]
            yield 2, [rows, b[0 if node.attributes.get_int("transB", 0) else 1]]
    elif kind in _PER_CHANNEL:
        data = _shape_of(node, 0)
        by_channel = node.attributes.get_int("spatial", 1) != 0  # until opset 8, else one number an element
        by_group = kind == "GroupNormalization" and opset < 21  # exporters gave it one a channel all the same
        if data is not None and len(data) > 1 and by_channel and not by_group:
            yield from ((index, [data[1]]) for index in _PER_CHANNEL[kind])
    elif kind == "LayerNormalization" and (data := _shape_of(node, 0)) is not None:
        yield from ((index, data) for index in (1, 2))


def _shape_of(node: ir.Node, index: int) -> Shape | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else shape_list(value)


def _fits(shape: Shape, wanted: Shape, *, broadcast: bool) -> bool:
    """Whether a shape is the wanted one, or broadcasts to it; unknown sizes fit everything."""
    if not broadcast:
        return len(shape) == len(wanted) and all(
            w is None or isinstance(w, str) or s == w for s, w in zip(shape, wanted, strict=True)
        )
    if len(shape) > len(wanted):
        return False
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return all(s == 1 or not isinstance(w, int) or s == w for s, w in pairs)


def shape_text(shape: Shape) -> str:
    """Return a shape for a reader."""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"
