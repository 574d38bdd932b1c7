"""One node as a model: its gradients in onnxruntime, against another implementation or against differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.registry import Table
from onnxviz.graph.model import to_proto

Arrays = Mapping[str, np.ndarray]


def node_model(
    op_type: str, feeds: Arrays, *, opset: int = 18, opened: bool = False, constants: Sequence[str] = (),
    outputs: int = 1, of: int = 0, **attributes: Any,
) -> ir.Model:  # fmt: skip
    """Return a model of one node whose inputs are the feeds, in order; ``_`` begins the name of one left out.

    Args:
        op_type: The operator.
        feeds: Name -> array.
        opset: Of the model.
        opened: Declare sizes as symbols instead of numbers.
        constants: Names of the feeds that are initializers.
        outputs: Number of outputs of the node.
        of: Which of them is an output of the model.
        attributes: Of the node.
    """
    names = [f"y{i}" if i else "y" for i in range(outputs)]
    node = onnx.helper.make_node(op_type, ["" if n[0] == "_" else n for n in feeds], names, **attributes)
    inputs, weights = [], []
    for name, array in feeds.items():
        if name in constants:
            weights.append(onnx.numpy_helper.from_array(array, name))
        elif name[0] != "_":
            shape = [
                f"{name}{i}" if opened and i != 1 and array.dtype != np.int64 else size
                for i, size in enumerate(array.shape)
            ]
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    kind = onnx.helper.np_dtype_to_tensor_dtype(next(iter(feeds.values())).dtype)
    made = onnx.helper.make_empty_tensor_value_info(names[of])
    made.type.tensor_type.elem_type = kind
    graph = onnx.helper.make_graph([node], "g", inputs, [made], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)
    kind = inferred.graph.output[0].type.tensor_type
    if not kind.HasField("shape"):  # inference does not say; the checker wants to know the rank at least
        kind.shape.SetInParent()
        for axis in range(_rank(inferred, feeds)):
            kind.shape.dim.add().dim_param = f"made{axis}"
    return ir.from_proto(inferred)


def _rank(model: onnx.ModelProto, feeds: Arrays) -> int:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    forward = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name for value in forward.get_inputs()}
    return int(forward.run(None, {name: array for name, array in feeds.items() if name in given})[0].ndim)


def session(model: ir.Model) -> Any:
    proto = to_proto(model)
    opset = proto.opset_import[0].version
    standard = [node.op_type for node in proto.graph.node if not node.domain]
    if not any(onnx.defs.get_schema(op_type, opset, "").deprecated for op_type in standard):
        onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ir.Model, feeds: Arrays, wanted: Sequence[str] | None = None) -> list[np.ndarray]:
    made = session(model)
    given = {value.name for value in made.get_inputs()}
    found: list[np.ndarray] = made.run(wanted, {name: array for name, array in feeds.items() if name in given})
    return found


def grads(
    model: ir.Model, feeds: Arrays, wrt: Sequence[str], seed: np.ndarray, table: Table | None = None
) -> tuple[list[np.ndarray], GradientModel]:
    """Return the gradients that the built model computes."""
    of = str(model.graph.outputs[0].name)
    made = gradient_model(model, of, wrt, table=table)
    return run(made.model, {**feeds, f"{of}.grad": seed}, list(made.gradients.values())), made


def differences(model: ir.Model, feeds: Arrays, wrt: Sequence[str], table: Table | None = None) -> dict[str, float]:
    """Return the relative error of each gradient along a random direction, against onnxruntime's own forward pass."""
    rng = np.random.default_rng(5)
    (base,) = run(model, feeds, [str(model.graph.outputs[0].name)])
    seed = rng.normal(size=base.shape).astype(base.dtype)
    found, _ = grads(model, feeds, wrt, seed, table)
    errors = {}
    for name, grad in zip(wrt, found, strict=True):
        v, step = rng.normal(size=feeds[name].shape).astype(np.float32), np.float32(2e-3)
        ahead, behind = (run(model, {**feeds, name: feeds[name] + sign * step * v})[0] for sign in (1, -1))
        measured = float((seed.astype(np.float64) * (ahead.astype(np.float64) - behind)).sum() / (2 * step))
        terms = grad.astype(np.float64) * v
        errors[name] = abs(float(terms.sum()) - measured) / max(float(np.abs(terms).sum()), abs(measured), 1e-9)
    return errors


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the L2 norm of the difference by that of what is expected."""
    assert found.shape == expected.shape
    size = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / max(size, 1e-12)
