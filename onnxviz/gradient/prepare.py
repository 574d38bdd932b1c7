"""The forward model as the rules take it: functions inlined, opset 18 or later, shapes inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx.version_converter
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.ops import label
from onnxviz.graph.ceiled import round_down
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.contents import is_made_up
from onnxviz.graph.extract import cut, piece_proto
from onnxviz.graph.inference import infer_in_place
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model, from_proto, summary_line, to_proto

__all__ = ["OPSET", "infer_appended", "prepare"]

#: The lowest version of the standard operators that backward nodes are written in.
OPSET = 18
_STANDARD = ("", "ai.onnx")
_IR = 8  # the version of the file format that this opset came with; before 4, every initializer was an input
_SCAN = 9  # the version of Scan that all later ones keep to
_ASIDE = "onnxviz.unknown"  # the domain of what no version of onnx knows, during a conversion
_COORDINATES = 11  # Resize says since then which pixel lies where; the conversion forgets what it was before
_SMALL = 1024  # bytes of a constant that a conversion may have to look into


def prepare(model: ir.Model) -> ir.Model:
    """Return a copy without functions, of opset 18 or later, whose tensors have their types and shapes.

    Raises:
        GradientError: The model's opset cannot be raised.
    """
    flat = inline_functions(model)
    opset = flat.opset_imports.get("", flat.opset_imports.get("ai.onnx", OPSET))
    if opset < OPSET:
        flat = _raised(flat, opset)
    elif flat is model:
        flat = copy_model(model)
    flat.opset_imports.setdefault("", flat.opset_imports.pop("ai.onnx", OPSET))  # both names are of one domain
    _infer(flat)
    round_down(flat)
    flat.ir_version = max(flat.ir_version or 0, _IR)
    return flat


def _infer(model: ir.Model) -> None:
    """Infer shapes, in place; what outputs are declared to be stands where it does not contradict them."""
    declared = {value: value.shape for value in model.graph.outputs if value.producer() is not None}
    for value in declared:
        value.shape = None
    infer_in_place(model)
    for value, shape in declared.items():
        if shape is not None and (value.shape is None or not _contradicts(shape, value.shape)):
            value.shape = shape


def infer_appended(model: ir.Model, nodes: Sequence[ir.Node]) -> None:
    """Infer the types and shapes of what nodes give that were appended, in place, and of nothing else.

    Sizes that no tensor before them has by name stay open: a name that is made up here may mean another size there.
    """
    piece, given = cut(nodes, (), _small_constant), [value for node in nodes for value in node.outputs]
    types = {value: ir.serde.serialize_value(value).type for value in piece.inputs}
    weights = [ir.serde.serialize_tensor(_named(value)) for value in piece.constants]
    proto = piece_proto(model, piece, types, weights)
    told = (value for value in given if value.type is not None and value.shape is not None)
    proto.graph.value_info.extend(ir.serde.serialize_value(value) for value in told)
    alone = from_proto(proto)
    infer_in_place(alone)
    known = {size for value in piece.inputs for size in value.shape or () if not isinstance(size, int)}
    made = {value.name: value for node in alone.graph for value in node.outputs}
    for value in given:
        twin = made[value.name]
        value.type = value.type or twin.type
        if twin.shape is not None:
            own = value.shape if value.shape is not None else [None] * len(twin.shape)
            pairs = zip(twin.shape, own, strict=True)
            value.shape = ir.Shape([size if isinstance(size, int) or size in known else old for size, old in pairs])


def _small_constant(value: ir.Value) -> ir.TensorProtocol | None:
    tensor = constant_tensor(value)
    return tensor if tensor is not None and tensor.nbytes <= _SMALL else None


def _named(value: ir.Value) -> ir.TensorProtocol:
    tensor = constant_tensor(value)
    assert tensor is not None
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)


def _contradicts(declared: ir.Shape, inferred: ir.Shape) -> bool:
    """Whether a shape cannot be true: of another rank or size, or fixed where the inputs leave it open."""
    if len(declared) != len(inferred):
        return True
    pairs = [(said, true) for said, true in zip(declared, inferred, strict=True) if isinstance(said, int) and said >= 0]
    return any(said != true for said, true in pairs if isinstance(true, int) or not is_made_up(true))


def _check(model: ir.Model, opset: int) -> None:
    """Refuse what no later opset has a form of."""
    if opset < _SCAN and any(node.op_type == "Scan" and node.domain in _STANDARD for node in model.graph.all_nodes()):
        raise GradientError(
            f"the model is of opset {opset}, and Scan of version 8 takes batches, which no later version does",
            hint="export it with opset 9 or later",
        )
    for node in model.graph.all_nodes():
        if node.domain not in _STANDARD or not onnx.defs.has(node.op_type):
            continue
        if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
            raise GradientError(
                f"{node.op_type} at {label(node)!r} is no operator of opset {opset}, so the "
                f"model cannot be raised to {OPSET}",
                hint="export it again, with operators of ONNX",
            )


def _raised(model: ir.Model, opset: int) -> ir.Model:
    """Convert a skeleton, in which weights are inputs, and put the weights back."""
    _check(model, opset)
    skeleton = copy_model(model)
    skeleton.ir_version = max(skeleton.ir_version or 0, _IR)
    graph, declared = skeleton.graph, {value.name for value in model.graph.inputs}
    for node in graph.all_nodes():
        if node.op_type == "Dropout":  # whose mask was of the input's type, and became boolean
            for mask in node.outputs[1:]:
                mask.type = None
    weights = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or (tensor.nbytes <= _SMALL and not isinstance(tensor, ir.ExternalTensor)):
            continue
        weights[name] = tensor
        graph.initializers.pop(name)
        value.const_value, value.type, value.shape = None, ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        if name not in declared:
            graph.inputs.append(value)
    unknown = {node for node in graph.all_nodes() if not node.domain and not onnx.defs.has(node.op_type)}
    for node in unknown:  # Crop, ImageScaler and such, which runtimes still have and the converter stops at
        node.domain = _ASIDE
    if unknown:
        skeleton.opset_imports[_ASIDE] = 1
    try:
        raised = _converted(to_proto(skeleton))
    except Exception as error:
        raise GradientError(
            f"the model is of opset {opset}, and raising it to {OPSET} fails: {summary_line(error)}",
            hint="convert it with the tool that made it, then try again",
        ) from error
    raised.opset_imports.pop(_ASIDE, None)
    for node in raised.graph.all_nodes():
        if node.domain == _ASIDE:
            node.domain = ""
    if opset < _COORDINATES:
        _keep_coordinates(raised, weights)
    inputs = {value.name: value for value in raised.graph.inputs}
    for name, tensor in weights.items():
        value = inputs[name]
        value.const_value = tensor
        if name not in declared:
            raised.graph.inputs.remove(value)
        raised.graph.register_initializer(value)
    raised.meta.update(model.meta)
    return raised


def _converted(proto: onnx.ModelProto) -> ir.Model:
    """Convert a model; tensors that the converter would give other names (Upsample's) are outputs meanwhile."""
    made = onnx.version_converter.convert_version(proto, OPSET)
    kept = {name for node in made.graph.node for name in node.output}
    lost = [name for node in proto.graph.node for name in node.output if name and name not in kept]
    if lost:
        count = len(proto.graph.output)
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in lost)
        inferred = onnx.shape_inference.infer_shapes(proto)
        types = {info.name: info.type for info in inferred.graph.value_info}
        for info in proto.graph.output[count:]:
            if info.name in types:
                info.type.CopyFrom(types[info.name])
        made = onnx.version_converter.convert_version(proto, OPSET)
        del made.graph.output[count:]
    return from_proto(made)


def _keep_coordinates(model: ir.Model, weights: Mapping[str, ir.TensorProtocol]) -> None:
    """Let each Resize take the pixels that Upsample, and itself before version 11, took.

    Pixels lie at their corners; the nearest is the one below, and onnxruntime takes the one above where it shrinks.
    """
    for node in [node for node in model.graph.all_nodes() if node.op_type == "Resize" and node.domain in _STANDARD]:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        tensor = constant_tensor(value) or (weights.get(str(value.name)) if value is not None else None)
        scales = [] if tensor is None else tensor.numpy().tolist()
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
        shrinks = any(scale < 1 for scale in scales)
        if mode == "nearest" and shrinks and any(scale > 1 for scale in scales):
            raise GradientError(
                f"{label(node)!r} grows along one axis and shrinks along another, which no "
                "Resize of version 11 or later does with the same pixels",
                hint="export the model with opset 11 or later",
            )
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if shrinks else "floor")
