"""Types and shapes by onnx's own inference, helped where it has no schema.

onnx stops at operators that it does not know, and with it every tensor behind them. So inference runs on a throw-away
skeleton without weights, in which the common operators of com.microsoft are replaced by standard ones of the same
output shape. What is still untyped then gets its element type from the operators' schemas. Sizes that onnx cannot
express are worked out last: see ``propagation``.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnxviz.graph.ceiled import correct_ceiled, forget_shapes
from onnxviz.graph.contents import is_made_up
from onnxviz.graph.model import copy_model, to_proto
from onnxviz.graph.propagation import propagate

__all__ = ["infer_in_place"]

_LONGEST_VECTOR = 1_000_000  # elements of a vector up to which onnx may follow values
_MOST_POOLS = 64  # that are corrected, each at the price of an inference
_SMALL = 1024  # bytes of a constant that shape inference may need to see

#: operator without a schema -> (standard operator of the same first output's shape and type, the inputs it takes)
_STAND_INS: dict[str, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(
        [
            "ImageScaler",
            "Affine",
            "ScaledTanh",
            "ParametricSoftplus",
            "Gelu",
            "FastGelu",
            "QuickGelu",
            "BiasGelu",
            "SkipLayerNormalization",
            "SimplifiedLayerNormalization",
            "SkipSimplifiedLayerNormalization",
            "QLinearSigmoid",
            "QLinearLeakyRelu",
            "QLinearSoftmax",
            "MultiHeadAttention",
            "GroupNorm",
            "RotaryEmbedding",
        ],
        ("Identity", (0,)),
    ),
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
}
#: input that gives the element type of the first output, where it is not the first one
_TYPE_INPUT = {
    "EmbedLayerNormalization": 2,
    "QuantizeLinear": 2,
    "DequantizeLinear": 1,
    "MatMulIntegerToFloat": 2,
    "QAttention": 3,
}
_FLOATS = ("tensor(float", "tensor(double", "tensor(bfloat16")


def infer_in_place(model: ir.Model) -> None:
    """Fill in the types and shapes of a model's tensors; what cannot be inferred stays as it is declared."""
    declared = [value for value in model.graph.outputs if value.shape is not None]
    _run(model)
    if _propagate_types(model):
        _run(model)
    propagate(model, declared)


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    skeleton = copy_model(model)
    graph = skeleton.graph
    declared = set(graph.inputs)
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None:
            continue
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        if isinstance(tensor, ir.ExternalTensor) or tensor.nbytes > _SMALL:
            graph.initializers.pop(str(value.name))
            value.const_value = None
            if value not in declared:
                graph.inputs.append(value)
    proto = to_proto(skeleton)
    for node in proto.graph.node:
        _stand_in(node)
    return proto


def _stand_in(node: onnx.NodeProto) -> None:
    row = _STAND_INS.get(node.op_type)
    last = any(a.name == "channels_last" and a.i for a in node.attribute)
    if row is None or last or (node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)):
        return
    op_type, keep = row
    names = [node.input[i] for i in keep if i < len(node.input)]
    known = onnx.defs.get_schema(op_type).attributes
    attributes = [a for a in node.attribute if a.name in known]
    node.domain, node.op_type = "", op_type
    for field, items in (("input", names), ("output", list(node.output[:1])), ("attribute", attributes)):
        node.ClearField(field)
        getattr(node, field).extend(items)


def _run(model: ir.Model) -> None:
    graphs = list(model.graphs())
    try:
        skeleton = _skeleton(model)
        proto = _inferred(skeleton)
        for _ in range(_MOST_POOLS):
            if not correct_ceiled(skeleton, proto):
                break
            proto = _inferred(skeleton)
        if len(graphs) == 1:  # only what is asked for of a large graph is made into objects
            found = [_declared(proto.graph)]
        else:
            found = [_made(graph) for graph in ir.serde.deserialize_model(proto).graphs()]
    except Exception:  # noqa: BLE001 - inference of a damaged model may fail anywhere; then what is declared stands
        return
    for mine, inferred in zip(graphs, found, strict=False):
        for node in mine:
            for output in node.outputs:
                if (other := inferred.get(output.name or "")) is not None:
                    _merge(output, other)


def _declared(graph: onnx.GraphProto) -> dict[str | None, ir.Value]:
    infos = (*graph.value_info, *graph.output)
    return {info.name: ir.serde.deserialize_value_info_proto(info, None) for info in infos if info.name}


def _made(graph: ir.Graph) -> dict[str | None, ir.Value]:
    return {value.name: value for node in graph for value in node.outputs if value.name}


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    # onnx takes every vector for a possible shape and copies it element by element.
    values = bool(max((_length(info) for info in proto.graph.input), default=0) < _LONGEST_VECTOR)
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=values)
    except onnx.shape_inference.InferenceError as error:
        if "differ" in str(error):  # what the file declares of intermediate tensors is wrong: infer without it
            forget_shapes(proto)
        return onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=values)


def _length(info: onnx.ValueInfoProto) -> int:
    dims = info.type.tensor_type.shape.dim
    return dims[0].dim_value if len(dims) == 1 else 0


def _merge(mine: ir.Value, found: ir.Value) -> None:
    if mine.type is None and found.type is not None:
        mine.type = found.type
    if found.shape is None or (mine.is_graph_output() and mine.shape is not None):
        return  # the declared interface of a model is not rewritten
    if mine.shape is None or mine.shape.rank() != found.shape.rank():
        mine.shape = found.shape.copy()
        return
    pairs = zip(mine.shape, found.shape, strict=True)
    mine.shape = ir.Shape([new if isinstance(new, int) or is_made_up(old) else old for old, new in pairs])


def _propagate_types(model: ir.Model) -> bool:
    """Give untyped tensors the element type that the schema or the input implies; True if any got one."""
    changed = False
    opsets = model.graph.opset_imports
    for node in model.graph:
        schema = _schema(node, opsets)
        if node.op_type == "Cast" and node.outputs[0].type is None:
            node.outputs[0].type = ir.TensorType(ir.DataType(node.attributes.get_int("to", 1)))
            changed = True
        for position, output in enumerate(node.outputs):
            if output.type is not None or "onnxviz.type" in output.meta:
                continue
            kind = _type_by_schema(node, schema, position) if schema else _type_by_input(node, position)
            if kind is not None:
                output.type = kind
                changed = True
                output.meta["onnxviz.guessed"] = schema is None
            elif schema is not None and schema.outputs:
                formal = schema.outputs[min(position, len(schema.outputs) - 1)]
                output.meta["onnxviz.not_float"] = not any(t.startswith(_FLOATS) for t in formal.types)
    return changed


def _schema(node: ir.Node, opsets: dict[str, int]) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a name that UTF-8 cannot hold
        return None


def _type_by_schema(node: ir.Node, schema: onnx.defs.OpSchema, position: int) -> ir.TypeProtocol | None:
    formal = schema.outputs[min(position, len(schema.outputs) - 1)] if schema.outputs else None
    if formal is None:
        return None
    for value, parameter in zip(node.inputs, schema.inputs, strict=False):
        if parameter.type_str == formal.type_str and value is not None and value.type is not None:
            return value.type
    allowed = list(formal.types)
    dtype = allowed[0][len("tensor(") : -1].upper() if len(allowed) == 1 and allowed[0].startswith("tensor(") else ""
    return ir.TensorType(ir.DataType[dtype]) if dtype in ir.DataType.__members__ else None


def _type_by_input(node: ir.Node, position: int) -> ir.TypeProtocol | None:
    if node.op_type == "EmbedLayerNormalization" and position == 1:
        return ir.TensorType(ir.DataType.INT32)  # the mask's index
    at = _TYPE_INPUT.get(node.op_type, 0)
    source = node.inputs[at] if position == 0 and at < len(node.inputs) else None
    return source.type if source is not None and isinstance(source.type, ir.TensorType) else None
