"""Which nodes of a model can be converted to float16 or to 8-bit codes, and what is rounded where.

What converters do is followed, so that what is measured is what one will get: for float16
``onnxruntime.transformers.float16``, for codes ``onnxruntime.quantization.quantize_static`` in QDQ form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.kinds import CONTROL_FLOW, KINDS, kind_of

__all__ = ["CODED", "Change", "Layer", "code_layers", "code_ranges", "half_layers", "joined", "label_of"]

#: Operators that hand values on as they are, or pick some of them: they round nothing that was not rounded before.
MOVES = (
    KINDS["shape"] | KINDS["embedding"] | KINDS["control"] | KINDS["constant"] | KINDS["detection"] | {
        "Relu", "Clip", "MaxPool", "GlobalMaxPool", "MaxUnpool", "MaxRoiPool", "Neg", "Abs", "Sign", "Max", "Min",
        "Where", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "TopK", "Floor", "Ceil", "Round", "Hardmax",
        "ThresholdedRelu",
    }
) - {"Resize", "Upsample", "GridSample", "AffineGrid", "Range"}  # fmt: skip
#: Operators that onnxruntime's float16 converter keeps in float32.
_KEPT = frozenset(
    ["NonMaxSuppression", "RoiAlign", "Range", "CumSum", "Upsample", "RandomUniformLike", "RandomNormalLike"]
)
#: Operators that onnxruntime's static quantisation converts and that compute.
CODED = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Add",
        "Mul",
        "Sigmoid",
        "LeakyRelu",
        "AveragePool",
        "GlobalAveragePool",
        "Softmax",
        "Concat",
        "Resize",
        "LayerNormalization",
        "InstanceNormalization",
        "BatchNormalization",
        "Gather",
    ]
)
#: Operators whose outputs have the codes of their input: they hand on numbers of its range.
_SAME_CODES = frozenset(
    ["AveragePool", "Flatten", "Gather", "GatherElements", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Split",
     "Squeeze", "TopK", "Transpose", "Unsqueeze"]
)  # fmt: skip
_WEIGHTED = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_NORMS = frozenset(["LayerNormalization", "InstanceNormalization", "BatchNormalization"])
_TABLES = frozenset(["Gather", "GatherElements", "GatherND", "Where", "Concat", "ScatterND", "ScatterElements"])
#: Operator -> inputs that are sizes or scales of it, in float32 whatever the data is in.
_SIZES = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2)}
_WIDE = ("float32", "float64")
_NARROW = ("float16", "bfloat16")


@dataclass(frozen=True)
class Change:
    """What is rounded at one node.

    Attributes:
        inputs: Indices of the activations that are rounded before it.
        outputs: Indices of the outputs that are rounded after it.
        weights: Index of a constant -> the axis of its channels, each with a scale of its own; None for one scale.
        constants: Indices of constants that are rounded as activations are.
        biases: Indices of constants that are rounded to the product of the steps of input 0 and of weight 1.
    """

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()
    weights: Mapping[int, int | None] = field(default_factory=dict)
    constants: frozenset[int] = frozenset()
    biases: frozenset[int] = frozenset()

    def tensors(self, node: ir.Node) -> set[ir.Value]:
        """Return the activations that are rounded at this node."""
        values = (*(node.inputs[index] for index in self.inputs), *(node.outputs[index] for index in self.outputs))
        return {value for value in values if value is not None}


@dataclass(frozen=True)
class Layer:
    """Nodes that are converted together.

    Attributes:
        name: The node's name; the operator and the tensor where it has none; what groups are called.
        op_type: Its operator; of a group, how many nodes it has.
        tensor: What it gives.
        changes: Each node -> what is rounded at it.
    """

    name: str
    op_type: str
    tensor: str
    changes: Mapping[ir.Node, Change]

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Its nodes, in the order of the graph."""
        return tuple(self.changes)


def half_layers(model: ir.Model, dtypes: Mapping[str, str]) -> tuple[list[Layer], dict[str, str]]:
    """Return the nodes that can compute in float16, and those that compute in float32 and stay so -> why.

    Nodes that only move values, or pick some, are neither: they have nothing to lose. A Gather, Where or Concat of a
    float constant is a layer, for its constant is rounded.

    Args:
        model: Functions inlined.
        dtypes: Element type of each tensor of the main graph, as numpy spells it.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {a = Exp(x) y = Relu(a)}''')
    >>> layers, left = half_layers(model, {"x": "float32", "a": "float32", "y": "float32"})
    >>> [layer.name for layer in layers], left
    (['Exp of a'], {})
    """
    layers, left = [], {}
    for node, change in _computing(model, dtypes):
        reason = _unfit(node, dtypes)
        if reason is None and (node.op_type in _KEPT or node.domain == "ai.onnx.ml"):
            reason = "onnxruntime's converter keeps its operator in float32"
        if reason is not None:
            left[label_of(node)] = reason
        else:
            layers.append(_layer(node, {node: change}))
    return layers, left


def code_layers(model: ir.Model, dtypes: Mapping[str, str]) -> tuple[list[Layer], dict[str, str]]:
    """Return the nodes that can compute in 8-bit codes, and those that compute and stay in float -> why.

    Weights of Conv, ConvTranspose, Gemm and MatMul have a scale for each output channel; biases are 32-bit codes. A
    Relu or Clip that alone reads a layer is part of it: the range of the codes stands for it.

    Args:
        model: Functions inlined.
        dtypes: Element type of each tensor of the main graph, as numpy spells it.
    """
    layers, left = [], {}
    computing = dict(_computing(model, dtypes, MOVES - {"Concat"}))  # its inputs get codes of a common range
    coded: set[ir.Value] = set()
    for node in model.graph:
        if (change := computing.get(node)) is not None:
            reason = _unfit(node, dtypes) or _uncoded(node, coded)
            if reason is None:
                layers.append(layer := _code_layer(node, _coded(node, change), model))
                coded.update(value for one, own in layer.changes.items() for value in own.tensors(one))
            else:
                left[label_of(node)] = reason
        if _hands_on(node, coded):
            coded.update(node.outputs)
    return layers, left


def _uncoded(node: ir.Node, coded: set[ir.Value]) -> str | None:
    """Return why onnxruntime's quantiser leaves a node in float; None where it does not."""
    if node.op_type not in CODED or node.domain not in ("", "ai.onnx"):
        return "onnxruntime's quantiser leaves its operator in float"
    table = node.op_type in _TABLES and constant_tensor(node.inputs[0]) is not None
    if node.op_type in _SAME_CODES and not table and not _hands_on(node, coded):
        return "onnxruntime's quantiser leaves its operator in float where what it reads is"
    return None


def _code_layer(node: ir.Node, change: Change, model: ir.Model) -> Layer:
    """Return a layer, with the Relu or Clip behind it whose range its codes have."""
    rectifier = _rectifier(node, model)
    if rectifier is None:
        return _layer(node, {node: change})
    changes = {node: replace(change, outputs=frozenset()), rectifier: Change(outputs=frozenset({0}))}
    return _layer(node, changes, str(rectifier.outputs[0].name))


def _hands_on(node: ir.Node, coded: set[ir.Value]) -> bool:
    """Return whether a node gives the codes that it reads."""
    return node.op_type in _SAME_CODES and bool(node.inputs) and node.inputs[0] in coded


def code_ranges(
    model: ir.Model, changes: Mapping[ir.Node, Change], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Return the range that the codes of each tensor have: that of its numbers, but for two things.

    A Softmax gives 0 to 1, whatever was seen. Operators that move or choose codes, and pools that average them, give
    codes of the range that they read, as onnxruntime's quantiser has it.

    Args:
        model: Functions inlined.
        changes: Each node that is converted -> what is rounded at it.
        ranges: Tensor -> the smallest and the largest number that it held.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {a = Softmax(x) y = Flatten(a)}''')
    >>> code_ranges(model, {model.graph[0]: Change(outputs=frozenset({0}))}, {"a": (0.1, 0.2), "y": (0.1, 0.2)})
    {'a': (0.0, 1.0), 'y': (0.0, 1.0)}
    """
    found, coded = dict(ranges), set[ir.Value]()
    for node in model.graph:
        if (change := changes.get(node)) is not None:
            coded |= change.tensors(node)
            if node.op_type == "Softmax":
                found[str(node.outputs[0].name)] = (0.0, 1.0)
        if _hands_on(node, coded):
            coded.update(node.outputs)
        elif change is None or node.op_type not in _SAME_CODES or 0 not in change.constants:
            continue
        if (span := _span(node.inputs[0], found)) is not None:
            found |= {str(value.name): span for value in node.outputs if str(value.name) in found}
    return found


def _span(value: ir.Value | None, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
    """Return the range of a tensor, or of a constant."""
    tensor = constant_tensor(value)
    if tensor is None or not tensor.size:
        return None if value is None else ranges.get(str(value.name))
    return float(tensor.numpy().min()), float(tensor.numpy().max())


def _computing(
    model: ir.Model, dtypes: Mapping[str, str], moves: Collection[str] = MOVES
) -> Iterator[tuple[ir.Node, Change]]:
    """Yield the nodes of the main graph that give new floating-point numbers, with what they read and give."""
    for node in model.graph:
        outputs = frozenset(i for i, v in enumerate(node.outputs) if dtypes.get(str(v.name), "") in _WIDE + _NARROW)
        if not outputs or node.op_type in ("Constant", "Cast", "CastLike"):
            continue
        inputs, constants = set(), set()
        for index, value in enumerate(node.inputs):
            if value is None or index in _SIZES.get(node.op_type, ()):
                continue
            tensor = constant_tensor(value)
            if tensor is not None and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                constants.add(index)
            elif tensor is None and dtypes.get(str(value.name)) in _WIDE:
                inputs.add(index)
        if node.op_type in moves and not (node.op_type in _TABLES and constants) and node.op_type not in CONTROL_FLOW:
            continue
        wide = frozenset(i for i in outputs if dtypes[str(node.outputs[i].name)] in _WIDE)
        yield node, Change(frozenset(inputs), wide, dict.fromkeys(constants), frozenset())


def _unfit(node: ir.Node, dtypes: Mapping[str, str]) -> str | None:
    """Return why a node cannot be converted, whatever to; None where it can."""
    if node.op_type in CONTROL_FLOW or any(True for _ in bodies_of(node)):
        return "it is control flow"
    if kind_of(node) == "quantize" or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
        return "it is quantised already"
    sources = [v.producer() for v in node.inputs if v is not None and constant_tensor(v) is None]
    if sources and all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
        return "it is quantised already"
    if all(dtypes.get(str(v.name)) in _NARROW for v in node.outputs if dtypes.get(str(v.name)) in _WIDE + _NARROW):
        return "it computes in 16 bits already"
    return None


def _coded(node: ir.Node, change: Change) -> Change:
    """Sort the constants of a node into weights, what is rounded as activations are, and what stays exact."""
    constants = set(change.weights)
    biases = frozenset({2} & constants if 1 in constants else ())
    if node.op_type in _WEIGHTED:
        axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)
        if axis is None:
            axis = 0 if node.attributes.get_int("transB", 0) else 1
        own: dict[int, int | None] = {index: axis if index == 1 else None for index in constants if index < 2}
        return replace(change, weights=own, inputs=change.inputs - {2}, biases=biases)
    if node.op_type in _NORMS:
        own = {index: None for index in constants if index == 1}
        return replace(change, weights=own, inputs=change.inputs & {0}, biases=biases)
    return replace(change, weights={}, constants=frozenset(constants))


def _rectifier(node: ir.Node, model: ir.Model) -> ir.Node | None:
    """Return the Relu or Clip that alone reads what a node gives."""
    output = node.outputs[0]
    readers = list(output.consumers())
    if len(node.outputs) != 1 or len(readers) != 1 or output in model.graph.outputs:
        return None
    reader = readers[0]
    return reader if reader.op_type in ("Relu", "Clip") and reader.graph is model.graph else None


def label_of(node: ir.Node) -> str:
    """Return what to call a node: its name, else its operator and what it gives."""
    return node.name or f"{node.op_type} of {node.outputs[0].name}"


def _layer(node: ir.Node, changes: Mapping[ir.Node, Change], tensor: str | None = None) -> Layer:
    return Layer(label_of(node), node.op_type, tensor or str(node.outputs[0].name), changes)


def joined(layers: Sequence[Layer], names: Sequence[str]) -> list[Layer]:
    """Join layers that are given the same name, in the order of their first nodes.

    Args:
        layers: The layers.
        names: What the group of each is called.
    """
    groups: dict[str, list[Layer]] = {}
    for layer, name in zip(layers, names, strict=True):
        groups.setdefault(name, []).append(layer)
    return [
        Layer(name, f"{len(own)} nodes" if len(own) > 1 else own[0].op_type, own[-1].tensor,
              {node: change for layer in own for node, change in layer.changes.items()})
        for name, own in groups.items()
    ]  # fmt: skip
