"""Networks of a hundred layers, and what a change of exporter may do to them: other names, another order."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

LAYERS = 100
WIDTH = 12


def deep_net(seed: int = 0) -> onnx.ModelProto:
    """Fifty blocks of a normalisation, two branches of a layer each, a gate and a sum: a hundred layers with weights.

    All normalisations hold the same numbers, so that weights alone tell none of them.
    """
    rng = np.random.default_rng(seed)
    nodes, weights = [], []

    def weight(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    shared = [weight("scale", np.ones(WIDTH)), weight("shift", np.zeros(WIDTH))]
    x = "x"
    for block in range(LAYERS // 2):
        at = f"/blocks.{block}"
        nodes.append(helper.make_node("LayerNormalization", [x, *shared], [f"{at}/norm"], f"{at}/norm"))
        for branch in ("gate", "up"):
            w = weight(f"{at}.{branch}.w", rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH))
            b = weight(f"{at}.{branch}.b", rng.standard_normal(WIDTH) * 0.3)
            nodes.append(helper.make_node("Gemm", [f"{at}/norm", w, b], [f"{at}/{branch}"], f"{at}/{branch}"))
        nodes.append(helper.make_node("Sigmoid", [f"{at}/gate"], [f"{at}/sigmoid"], f"{at}/sigmoid"))
        nodes.append(helper.make_node("Mul", [f"{at}/sigmoid", f"{at}/up"], [f"{at}/mul"], f"{at}/mul"))
        out = "y" if block == LAYERS // 2 - 1 else f"{at}/sum"
        nodes.append(helper.make_node("Add", [x, f"{at}/mul"], [out], out))
        x = out
    graph = helper.make_graph(
        nodes, "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def stripped(proto: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Take all names away, put nodes into another order that computes the same, and turn the operands of sums round."""
    rng = np.random.default_rng(seed)
    made = {output for node in proto.graph.node for output in node.output}
    pending, done, order = list(proto.graph.node), set[str](), []
    while pending:
        ready = [node for node in pending if all(name in done or name not in made for name in node.input)]
        node = ready[int(rng.integers(len(ready)))]
        order.append(node)
        done.update(node.output)
        pending = [other for other in pending if other is not node]
    names = sorted({name for node in order for name in (*node.input, *node.output)})
    new = {name: f"t{number}" for name, number in zip(names, rng.permutation(len(names)).tolist(), strict=True)}
    nodes = []
    for node in order:
        read = list(reversed(node.input)) if node.op_type in ("Add", "Mul") else list(node.input)
        again = helper.make_node(node.op_type, [new[n] for n in read], [new[n] for n in node.output], "")
        again.attribute.extend(node.attribute)
        nodes.append(again)
    weights = list(proto.graph.initializer)
    held = [
        numpy_helper.from_array(numpy_helper.to_array(weights[i]), new[weights[i].name])
        for i in rng.permutation(len(weights))
    ]
    ends = [
        [helper.make_tensor_value_info(new[v.name], TensorProto.FLOAT, ["n", WIDTH]) for v in values]
        for values in (proto.graph.input, proto.graph.output)
    ]
    graph = helper.make_graph(nodes, "g", *ends, held)
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=8)


def planted(proto: onnx.ModelProto, layer: int, kind: str) -> tuple[onnx.ModelProto, str]:
    """Return a copy with an error of about 1 % in the output of one layer, and the tensor that the layer writes.

    Args:
        proto: The network.
        layer: Which of its layers, from 0.
        kind: ``"scale"``: its weight and bias are off by 1 %; ``"element"``: one element of its weight is; ``"bias"``:
            one of its bias.
    """
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    node = [n for n in copy.graph.node if n.op_type == "Gemm"][layer]
    held = {tensor.name: tensor for tensor in copy.graph.initializer}

    def change(name: str, delta: np.ndarray) -> None:
        array = numpy_helper.to_array(held[name])
        held[name].CopyFrom(numpy_helper.from_array((array + delta).astype(np.float32), name))

    weight, bias = (numpy_helper.to_array(held[name]) for name in node.input[1:])
    # The layer reads what was normalised: its output has a norm of about √(‖w‖² + ‖b‖²) a sample.
    size = 0.01 * float(np.sqrt((weight**2).sum() + (bias**2).sum()))
    if kind == "scale":
        change(node.input[1], 0.01 * weight)
        change(node.input[2], 0.01 * bias)
    else:
        target, shape = (node.input[1], weight.shape) if kind == "element" else (node.input[2], bias.shape)
        delta = np.zeros(shape)
        delta[(1,) * len(shape)] = size
        change(target, delta)
    return copy, node.output[0]


def opened(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(proto)
