"""Checks of what ONNX demands: G01."""

from __future__ import annotations

from collections.abc import Iterator

import google.protobuf.message
import onnx

from onnxviz.checks.finding import Place, Problem, tensor_place
from onnxviz.checks.registry import Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError, ModelError
from onnxviz.graph.model import to_proto

_NO_SHAPE = "Field 'shape' of 'type' is required but missing"


@check(
    "G01",
    "error",
    "breach of the specification",
    needs=Need.PROTO,
    what="Opens the file and runs onnx's own checker on it, its full check with strict shape inference included.",
    why="A file that breaks the rules may load in one runtime and be refused, or computed differently, by the next.",
    remedy="Export the model again with a current exporter, or mend what the message names.",
    false_positives="onnxruntime tolerates some breaches, such as outputs without a shape or nodes out of order; other "
    "runtimes and most tools do not. The checker stops at the first breach: there may be more behind it.",
)
def specification(subject: Subject) -> Iterator[Problem]:
    """Yield the first breach that the checker finds, or why the file does not open."""
    if subject.model_error is not None:
        error = subject.model_error
        yield Problem(f"the model does not open: {error.message}", _file(subject), remedy=error.hint, key="open")
        if not _parses(subject):
            return
    try:
        _run_checker(subject)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield _breach(subject, str(error))
    except google.protobuf.message.EncodeError as error:
        raise CheckError("the model cannot be serialised for the checker") from error


def _file(subject: Subject) -> list[Place]:
    return [] if subject.path is None else [Place("file", subject.path.name)]


def _parses(subject: Subject) -> bool:
    try:
        _ = subject.proto
    except ModelError:
        return False
    return True


def _run_checker(subject: Subject) -> None:
    """Run onnx's checker; external data is judged by checks of its own, so their tensors become inputs."""
    external = [t for t in subject.proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if subject.path is not None and not external:
        onnx.checker.check_model(str(subject.path), full_check=True)
        return
    proto = onnx.ModelProto()
    proto.CopyFrom(subject.proto if subject.path is not None else to_proto(subject.model))
    graph = proto.graph
    inputs = {info.name for info in graph.input}
    kept = [tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    moved = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in moved:
        if tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    onnx.checker.check_model(proto, full_check=True)


def _breach(subject: Subject, text: str) -> Problem:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[0].rstrip(".") if lines else "the checker refuses it"
    context = next((line for line in lines[1:] if line.startswith("==> Context")), "")
    where = []
    if _NO_SHAPE in message:
        graph = subject.proto.graph
        infos = [i for i in (*graph.input, *graph.output) if i.type.HasField("tensor_type")]
        lacking = [i.name for i in infos if not i.type.tensor_type.HasField("shape")]
        if lacking:
            message = f"{len(lacking)} of the model's inputs and outputs have no shape"
            where = [tensor_place(name) for name in lacking[:8]]
    evidence = {"checker": text[:1000]}
    return Problem(
        f"{message} {context.removeprefix('==> ')}".strip(), where or _file(subject), evidence, key=lines[0][:200]
    )
