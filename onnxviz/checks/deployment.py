"""Checks of what should not be in a model that is deployed: G10, G13, G14, G15."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxviz.checks.finding import Problem, every_node, place_of, tensor_place
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import listed
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.equality import ints

_STANDARD = ("", "ai.onnx")
_TRAINING_DOMAINS = frozenset({"ai.onnx.preview.training", "ai.onnx.training"})
_LOSSES = frozenset({"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"})
_RANDOM = frozenset({
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
})  # fmt: skip
_INT32 = np.iinfo(np.int32)
_INT64 = np.iinfo(np.int64)
#: What exporters write for "to the end"; runtimes clamp it.
_TO_THE_END = frozenset({_INT64.max, _INT64.min, _INT64.min + 1})


@check(
    "G10",
    "error",
    "training residue",
    needs=Need.MODEL,
    what="Looks for Dropout and BatchNormalization in training mode, as their opset says it, and for operators that "
    "only training needs: losses, gradients, optimisers.",
    why="A Dropout that drops makes answers random, a BatchNormalization in training mode makes the answer for one "
    "sample depend on the others in its batch.",
    remedy="Export in evaluation mode: model.eval() in PyTorch, training=False in Keras.",
    false_positives="Monte-Carlo dropout drops on purpose. A model for on-device training has losses and gradients.",
)
def training_residue(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield what belongs to training."""
    graph = subject.inlined.graph  # what a function is told to do, its caller says
    looked = 0
    opset = graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 1))
    for node in graph.all_nodes():
        looked += node.op_type in ("Dropout", "BatchNormalization")
        problem = _training(node, opset)
        if problem is not None:
            yield problem
    yield {"dropout_and_batchnorm": looked}


def _training(node: ir.Node, opset: int) -> Problem | None:
    place, evidence = [place_of(node)], {"op_type": node.op_type, "opset": opset}
    gradient = node.domain == "com.microsoft" and (node.op_type.endswith("Grad") or "Optimizer" in node.op_type)
    if node.domain in _TRAINING_DOMAINS or gradient:
        return Problem(f"{node.domain}:{node.op_type} belongs to training", place, evidence)
    if node.domain not in _STANDARD:
        return None
    if node.op_type in _LOSSES:
        return Problem("a loss is computed", place, evidence, severity="warning")
    if node.op_type == "Dropout":
        return _dropout(node, opset)
    if node.op_type == "BatchNormalization":
        if opset >= 14:
            training = node.attributes.get_int("training_mode", 0) != 0
        elif opset >= 7:
            training = sum(bool(value.name) for value in node.outputs) > 1
        else:
            training = node.attributes.get_int("is_test", 0) == 0
        return Problem("it normalises by its batch: training mode", place, evidence) if training else None
    return None


def _dropout(node: ir.Node, opset: int) -> Problem | None:
    place, evidence = [place_of(node)], {"op_type": "Dropout", "opset": opset}
    if _drops_nothing(node, opset):
        return None
    if opset < 7:
        training = node.attributes.get_int("is_test", 0) == 0
        return Problem("it drops: training mode", place, evidence) if training else None
    mode = node.inputs[2] if opset >= 12 and len(node.inputs) > 2 else None
    if mode is None:
        return None
    tensor = constant_tensor(mode)
    if tensor is None:
        message = f"whether it drops is computed: {mode.name!r}"
        return Problem(message, [*place, tensor_place(mode.name)], evidence, severity="warning", key="computed")
    return Problem("it drops: training mode", place, evidence) if bool(read_array(tensor).any()) else None


def _drops_nothing(node: ir.Node, opset: int) -> bool:
    """Whether the share that a Dropout drops is 0."""
    if opset < 12:
        return node.attributes.get_float("ratio", 0.5) == 0
    ratio = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
    return ratio is not None and not read_array(ratio).any()


@check(
    "G13",
    "warning",
    "float64 compute",
    needs=Need.MODEL,
    what="Counts the nodes that compute in float64, and the inputs and outputs of that type.",
    why="Doubles take twice the memory, are 2 to 64 times as slow on GPUs, and many kernels do not exist for them: "
    "onnxruntime has no double Conv on the CPU, and NPUs have none at all.",
    remedy="Export in float32: convert the network, its inputs and the constants of numpy that were traced into it.",
    false_positives="Numbers that need the precision: financial features, trees trained on doubles, long sums.",
)
def float64(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield one problem for all nodes, and one for each input and output."""
    graph = subject.inferred.graph
    working = [node for node in graph.all_nodes() if _in_float64(node)]
    if working:
        kinds = [f"{count} {kind}" for kind, count in Counter(n.op_type for n in working).most_common()]
        evidence = {
            "nodes": len(working),
            "of": len(list(graph.all_nodes())),
            "first": [str(place_of(n)) for n in working[:8]],
        }
        yield Problem(f"{len(working)} nodes compute in float64: {listed(kinds)}", [], evidence, key="nodes")
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value.dtype == ir.DataType.DOUBLE and not value.is_initializer():
                yield Problem(f"an {what} is float64", [tensor_place(value.name)], key=what)
    yield {"nodes": 0}


def _in_float64(node: ir.Node) -> bool:
    """Whether a node computes with doubles; a cast does where it makes them."""
    if node.op_type in ("Constant", "Identity"):
        return False
    values = node.outputs if node.op_type.startswith("Cast") else (*node.inputs, *node.outputs)
    return any(value is not None and value.dtype == ir.DataType.DOUBLE for value in values)


@check(
    "G14",
    "warning",
    "int64 constants beyond int32",
    needs=Need.MODEL,
    what="Looks for int64 weights, constants and attributes with values that int32 cannot hold, except what Slice "
    "takes for its end and Loop for no limit.",
    why="TensorRT, Core ML, TFLite and many NPUs compute in int32: they refuse such a model, or clamp the number.",
    remedy="Use numbers within int32; for 'to the end' of an axis the largest int32 does.",
    false_positives="Hashes and ids may need 64 bits; then the target has to have them.",
)
def wide_integers(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield constants with numbers that int32 cannot hold."""
    looked = 0
    for node in every_node(subject.model):
        for name in node.attributes:
            wide = [n for n in _written(node, name) if not _INT32.min <= n <= _INT32.max]
            wide = [n for n in wide if node.op_type != "Slice" or n not in _TO_THE_END]
            if wide:
                evidence = {"attribute": name, "value": wide[0]}
                yield Problem(f"its {name} is {wide[0]}", [place_of(node)], evidence, key=name)
    for value in _integer_constants(subject.model):
        looked += 1
        tensor = constant_tensor(value)
        assert tensor is not None
        array = read_array(tensor)
        beyond = array[(array < _INT32.min) | (array > _INT32.max)]
        if beyond.size and not (_only_ends(value) and _TO_THE_END.issuperset(np.unique(beyond).tolist())):
            evidence = {
                "min": int(array.min()),
                "max": int(array.max()),
                "beyond": int(beyond.size),
                "of": int(array.size),
            }
            yield Problem(f"it holds {int(beyond.reshape(-1)[0])}", [tensor_place(value.name)], evidence)
    yield {"int64_constants": looked}


def _written(node: ir.Node, name: str) -> list[int]:
    """Return the whole numbers of an attribute; those of Constant are judged as tensors."""
    attribute = node.attributes[name]
    if attribute.is_ref() or node.op_type == "Constant":
        return []
    if attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS):
        return ints(node, name) or []
    tensor = attribute.as_tensor() if attribute.type == ir.AttributeType.TENSOR else None
    if tensor is None or tensor.dtype != ir.DataType.INT64 or not tensor.size:
        return []
    array = read_array(tensor)
    return [int(array.max()), int(array.min())]


def _integer_constants(model: ir.Model) -> Iterator[ir.Value]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.INT64:
                yield value
    for node in every_node(model):
        if node.op_type == "Constant" and node.outputs:
            tensor = constant_tensor(node.outputs[0])
            if tensor is not None and tensor.dtype == ir.DataType.INT64:
                yield node.outputs[0]


def _only_ends(value: ir.Value, depth: int = 4) -> bool:
    """Whether a constant only says where slices end or how long loops go on, directly or through what shapes it."""
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return False
    for node, index in uses:
        if (node.op_type == "Slice" and index in (1, 2)) or (node.op_type == "Loop" and index == 0):
            continue
        passes = node.op_type in ("Unsqueeze", "Reshape", "Concat", "Cast", "Identity", "Squeeze") and depth > 0
        if not passes or not _only_ends(node.outputs[0], depth - 1):
            return False
    return True


@check(
    "G15",
    "warning",
    "random numbers without a seed",
    needs=Need.MODEL,
    what="Looks for operators that draw random numbers and have no seed.",
    why="Two runs on the same input differ: nothing can be reproduced, and a comparison with another runtime says "
    "nothing.",
    remedy="Give the operator a seed, or feed the noise as an input.",
    false_positives="Generative models sample on purpose.",
)
def unseeded(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the nodes that draw numbers that nobody can draw again."""
    drawing = 0
    for node in subject.inlined.graph.all_nodes():
        if node.op_type in _RANDOM and node.domain in _STANDARD:
            drawing += 1
            if "seed" not in node.attributes:
                yield Problem(f"{node.op_type} has no seed", [place_of(node)], {"op_type": node.op_type})
    yield {"random_nodes": drawing}
