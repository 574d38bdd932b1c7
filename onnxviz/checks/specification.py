"""Checks of what ONNX demands: G01, G02."""

from __future__ import annotations

import math
from collections.abc import Iterator

import google.protobuf.message
import onnx

from onnxviz.checks.finding import Place, Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.quiet import quiet

_STRIPPED = 4096  # elements of a weight whose data may have been left in the file
#: What the specification calls the standard domain as well; the checker knows it by its empty name alone.
_LONG = "ai.onnx"
_NO_SHAPE = "Field 'shape' of 'type' is required but missing"


@check(
    "G01",
    "error",
    "breach of the specification",
    needs=Need(0),
    what="Opens the file and runs onnx's own checker on it, its full check with strict shape inference included.",
    why="A file that breaks the rules may load in one runtime and be refused, or computed differently, by the next.",
    remedy="Export the model again with a current exporter, or mend what the message names.",
    false_positives="onnxruntime tolerates some breaches, such as outputs without a shape or nodes out of order; "
    "other runtimes and most tools do not. The checker stops at the first breach: there may be more behind it.",
)
def specification(subject: Subject) -> Iterator[Problem]:
    """Yield the first breach that the checker finds, or why the file does not open."""
    if subject.model_error is not None:
        error = subject.model_error
        yield Problem(f"the model does not open: {error.message}", _file(subject), remedy=error.hint, key="open")
        if subject.proto_error is not None:
            return
    try:
        said = _refusal(subject, fill=False)
        if said:
            yield _breach(subject, said)
        if _NO_SHAPE in said:  # the checker stops at the first breach: is there another behind it?
            said = _refusal(subject, fill=True)
            if said and _NO_SHAPE not in said:
                yield _breach(subject, said)
    except google.protobuf.message.EncodeError as error:
        raise CheckError("the model cannot be serialised for the checker") from error


def _file(subject: Subject) -> list[Place]:
    return [] if subject.path is None else [Place("file", subject.path.name)]


def _refusal(subject: Subject, *, fill: bool) -> str:
    """Return what onnx's checker says of a model; empty if it has nothing to say.

    External data is judged by checks of its own, so such tensors become inputs; with ``fill``, outputs without a shape
    get the one that can be inferred.
    """
    external = [t for t in subject.proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    try:
        with quiet():  # it prints to the standard output, where the result goes
            entries = (*subject.proto.opset_import, *subject.proto.graph.node)
            spelled_out = any(entry.domain == _LONG for entry in entries)
            if subject.path is not None and not external and not fill and not spelled_out:
                onnx.checker.check_model(str(subject.path), full_check=True)
                return ""
            proto = onnx.ModelProto()
            proto.CopyFrom(subject.proto)
            _external_as_inputs(proto.graph)
            for entry in (*proto.opset_import, *_nodes(proto)) if spelled_out else ():
                entry.domain = "" if entry.domain == _LONG else entry.domain
            if fill:
                _fill_shapes(proto)
                if any(_lacks_shape(info) for info in proto.graph.output):  # some node gives none: say which
                    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
            onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error) or "the checker refuses it"
    return ""


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a model, those of functions and of bodies too."""
    pending = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                pending.extend(body.node)


def _external_as_inputs(graph: onnx.GraphProto) -> None:
    inputs = {info.name for info in graph.input}
    kept = []
    for tensor in list(graph.initializer):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and (tensor.raw_data or not _is_stripped(tensor)):
            kept.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    graph.ClearField("initializer")
    graph.initializer.extend(kept)


def _is_stripped(tensor: onnx.TensorProto) -> bool:
    """Whether the data of a large weight was left in the file: see :attr:`Subject.proto`."""
    fields = (
        tensor.float_data,
        tensor.int32_data,
        tensor.int64_data,
        tensor.double_data,
        tensor.uint64_data,
        tensor.string_data,
    )
    return (
        not any(len(field) for field in fields)
        and all(dim > 0 for dim in tensor.dims)
        and math.prod(tensor.dims) >= _STRIPPED
    )


def _lacks_shape(info: onnx.ValueInfoProto) -> bool:
    return info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape")


def _fill_shapes(proto: onnx.ModelProto) -> None:
    try:
        inferred = _inferred_alone(proto)
    except CheckError:
        inferred = {}
    for info in proto.graph.output:
        if _lacks_shape(info):
            dtype, shape = inferred.get(info.name, (info.type.tensor_type.elem_type, None))
            if shape is not None:
                info.CopyFrom(
                    onnx.helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type or dtype, shape)
                )


def _breach(subject: Subject, text: str) -> Problem:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[0].rstrip(".") if lines else "the checker refuses it"
    context = next((line for line in lines[1:] if line.startswith("==> Context")), "")
    where = []
    if _NO_SHAPE in message:
        graph = subject.proto.graph
        lacking = [info.name for info in (*graph.input, *graph.output) if _lacks_shape(info)]
        if lacking:
            message = f"{len(lacking)} of the model's inputs and outputs have no shape"
            where = [tensor_place(name) for name in lacking[:8]]
    evidence = {"checker": text[:1000]}
    return Problem(
        f"{message} {context.removeprefix('==> ')}".strip(), where or _file(subject), evidence, key=lines[0][:200]
    )


@check(
    "G02",
    "error",
    "declared type or shape is wrong",
    needs=Need.PROTO,
    what="Infers types and shapes from the inputs alone and compares them with what the file declares of its outputs "
    "and intermediate tensors; unless `--static` was given, runs it and compares the declarations with what every "
    "tensor really was.",
    why="Callers and compilers allocate what is declared. A wrong declaration is a wrong buffer, a failed build, or a "
    "warning in every log.",
    remedy="Let the declarations be inferred anew (onnx.shape_inference on a model without value_info), or export "
    "again.",
    false_positives="None known where both sizes are numbers; sizes with names are not compared. What operators "
    "outside the standard domains give is not inferred.",
)
def declarations(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the tensors that are declared otherwise than they can be inferred."""
    graph = subject.proto.graph
    for info in graph.input:
        if any(dim.HasField("dim_value") and dim.dim_value < 0 for dim in info.type.tensor_type.shape.dim):
            shape = _declared(info.type)[1]
            message = "an input is declared with a negative size"
            yield Problem(message, [tensor_place(info.name)], {"declared": shape}, severity="warning")
    declared = {info.name: _declared(info.type) for info in (*graph.value_info, *graph.output)}
    inferred = _inferred_alone(subject.proto)
    compared = 0
    told: set[str] = set()
    for name, (dtype, shape) in declared.items():
        if name not in inferred:
            continue
        compared += 1
        found_dtype, found_shape = inferred[name]
        if dtype and found_dtype and dtype != found_dtype:
            told.add(name)
            names = [onnx.TensorProto.DataType.Name(kind) for kind in (dtype, found_dtype)]
            evidence = {"declared": names[0], "inferred": names[1]}
            yield Problem(
                f"it is declared as {names[0]} and is {names[1]}", [tensor_place(name)], evidence, key="dtype"
            )
        elif shape is not None and found_shape is not None and _contradict(shape, found_shape):
            told.add(name)
            evidence = {"declared": shape, "inferred": found_shape}
            message = f"it is declared with shape {_text(shape)} and has {_text(found_shape)}"
            yield Problem(message, [tensor_place(name)], evidence, key="shape")
    yield {"declared": len(declared), "compared": compared}
    if not subject.options.static and subject.model_error is None:
        from onnxviz.checks.declared import compare_with_run

        yield from compare_with_run(subject, declared, told)


Shape = list[int | str | None]


def _declared(kind: onnx.TypeProto) -> tuple[int, Shape | None]:
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    dims = tensor.shape.dim
    return tensor.elem_type, [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims]


def _inferred_alone(proto: onnx.ModelProto) -> dict[str, tuple[int, Shape | None]]:
    """Infer types and shapes without what the file declares of them."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    bare.graph.ClearField("value_info")
    if not bare.opset_import:
        bare.opset_import.add(version=1)
    for info in bare.graph.output:
        info.ClearField("type")
    try:
        with quiet():
            found = onnx.shape_inference.infer_shapes(bare, strict_mode=False, data_prop=True).graph
    except Exception as error:
        raise CheckError(f"types and shapes cannot be inferred: {summary_line(error)}") from error
    return {info.name: _declared(info.type) for info in (*found.value_info, *found.output) if info.HasField("type")}


def _contradict(one: Shape, other: Shape) -> bool:
    if len(one) != len(other):
        return True
    pairs = zip(one, other, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a >= 0 and b >= 0 and a != b for a, b in pairs)


def _text(shape: Shape | None) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in shape or ())}]"
