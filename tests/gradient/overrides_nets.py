"""Running rules other than the true gradient's, and small networks from torch to run them on."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.overrides.names import rules_table
from onnxviz.gradient.registry import Table
from onnxviz.graph.model import from_proto, to_proto

LIMIT = 1e-4  # of the largest element


def exported(net: Any, *inputs: Any) -> ir.Model:
    """Return a network as ONNX: inputs x0, x1, …, output y."""
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [f"x{place}" for place in range(len(inputs))]
        torch.onnx.export(
            net.eval(), inputs, file, dynamo=False, opset_version=17, do_constant_folding=False, input_names=names,
            output_names=["y"],
        )  # fmt: skip
    return from_proto(onnx.load_from_string(file.getvalue()))


def carried(
    model: ir.Model, rules: str | Table, feeds: dict[str, Any], target: str, **options: Any
) -> tuple[list[np.ndarray], np.ndarray | None, GradientModel]:
    """Return what rules carry back to each asked tensor, the imbalance, and what was built."""
    table = rules_table(rules) if isinstance(rules, str) else rules
    made = gradient_model(model, target=target, table=table, **options)
    proto = to_proto(made.model)
    onnx.checker.check_model(proto, full_check=True)
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [*made.gradients.values(), *([made.delta] if made.delta else [])]
    arrays = session.run(names, feeds)
    count = len(made.gradients)
    return arrays[:count], arrays[count] if made.delta else None, made


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference, of the largest element of b."""
    return float(np.abs(np.float64(a) - np.float64(b)).max() / max(np.abs(np.float64(b)).max(), 1e-30))


def planted(table: Table, op_type: str, factor: float = 1.001) -> Table:
    """Return a table whose rule for an operator is off by a factor."""
    row = table.rows[("", op_type)][-1]

    def wrong(step: Any, *dys: Any) -> Any:
        made = row.rule(step, *dys)
        parts = made if isinstance(made, tuple) else (made,)
        return tuple(None if part is None else step.ops.Mul(part, step.ops.scalar(factor, part)) for part in parts)

    rows = {**table.rows, ("", op_type): [type(row)(1, wrong, row.broadcasts, row.inner)]}
    return Table(rows, table.none, table.method)
