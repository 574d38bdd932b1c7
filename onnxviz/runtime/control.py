"""If, Loop and Scan, run body by body so that what happens inside can be seen.

Semantics: ONNX operator specification, If-1 to If-25, Loop-1 to Loop-25, Scan-9 to Scan-25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import ExecutionError
from onnxviz.runtime.values import to_array, to_value

if TYPE_CHECKING:
    from onnxviz.runtime.nodewise import Engine, Observation
    from onnxviz.runtime.program import Program, Step

__all__ = ["run_control"]

Values = dict[ir.Value, ort.OrtValue]


def run_control(
    engine: Engine, step: Step, values: Values, observe: Callable[[Observation], None], iteration: tuple[int, ...]
) -> list[ort.OrtValue]:
    """Run a node of control flow and return the values of its step's outputs.

    Raises:
        ExecutionError: A node of a body fails, or the node is given what it cannot take.
    """
    node = step.piece.nodes[0]
    given = [None if value is None else engine.value_of(value, values) for value in node.inputs]

    def call(name: str, inputs: Sequence[ort.OrtValue], position: tuple[int, ...]) -> list[ort.OrtValue]:
        body = step.control[name]
        if len(inputs) != len(body.graph.inputs):
            raise ExecutionError(
                f"the body of {_title(node)} takes {len(body.graph.inputs)} values and is given {len(inputs)}"
            )
        inner = {**values, **dict(zip(body.graph.inputs, inputs, strict=True))}
        engine.run_program(body, inner, observe, position)
        return [engine.value_of(value, inner) for value in body.graph.outputs]

    if node.op_type == "If":
        condition = bool(_one(node, given[0]))
        results = call("then_branch" if condition else "else_branch", [], iteration)
    elif node.op_type == "Loop":
        results = _loop(node, given, step.control["body"], call, iteration)
    else:
        results = _scan(node, [_held(node, v) for v in given], step.control["body"], call, iteration)
    by_value = dict(zip(node.outputs, results, strict=False))
    return [by_value[value] for value in step.piece.outputs]


def _title(node: ir.Node) -> str:
    return f"{node.op_type} node {node.name!r}"


def _held(node: ir.Node, value: ort.OrtValue | None) -> ort.OrtValue:
    if value is None:
        raise ExecutionError(f"an input that {_title(node)} needs is missing")
    return value


def _one(node: ir.Node, value: ort.OrtValue | None) -> Any:
    array = to_array(_held(node, value))
    if array.size != 1:
        raise ExecutionError(f"{_title(node)} is steered by one value, not by an array of shape {array.shape}")
    return array.reshape(-1)[0]


def _like(value: ir.Value, scalar: np.ndarray) -> ort.OrtValue:
    """Return a scalar in the rank that a body declares for it: exporters write () and (1,)."""
    rank = 0 if value.shape is None else value.shape.rank()
    return to_value(value.name or "", scalar.reshape((1,) * rank))


def _loop(
    node: ir.Node,
    given: Sequence[ort.OrtValue | None],
    body: Program,
    call: Callable[[str, Sequence[ort.OrtValue], tuple[int, ...]], list[ort.OrtValue]],
    iteration: tuple[int, ...],
) -> list[ort.OrtValue]:
    trips = None if not given or given[0] is None else int(_one(node, given[0]))
    going = len(given) < 2 or given[1] is None or bool(_one(node, given[1]))
    carried = [_held(node, value) for value in given[2:]]
    if len(body.graph.outputs) < 1 + len(carried):
        raise ExecutionError(f"the body of {_title(node)} gives too few values: {len(body.graph.outputs)}")
    scanned: list[list[np.ndarray]] = [[] for _ in range(len(body.graph.outputs) - 1 - len(carried))]
    counter, condition = body.graph.inputs[0], body.graph.inputs[1]
    step = 0
    while going and (trips is None or step < trips):
        start = [_like(counter, np.array(step, np.int64)), _like(condition, np.array(going))]
        results = call("body", [*start, *carried], (*iteration, step))
        going = bool(_one(node, results[0]))
        carried = results[1 : 1 + len(carried)]
        for rows, value in zip(scanned, results[1 + len(carried) :], strict=True):
            rows.append(to_array(value))
        step += 1
    outer = node.outputs[len(carried) :]
    inner = body.graph.outputs[1 + len(carried) :]
    stacked = [
        to_value(value.name or "", _stack(node, rows, each))
        for value, rows, each in zip(outer, scanned, inner, strict=False)
    ]
    return [*carried, *stacked]


def _stack(node: ir.Node, rows: Sequence[np.ndarray], inner: ir.Value) -> np.ndarray:
    """Join what each iteration gave along a new first axis; without iterations the open sizes are 0."""
    if len({row.shape for row in rows}) > 1:
        shapes = ", ".join(str(row.shape) for row in rows[:4])
        raise ExecutionError(f"{_title(node)} joins {inner.name!r} of all iterations, and its shapes differ: {shapes}")
    if rows:
        return np.stack(rows)
    sizes = [dim if isinstance(dim, int) else 0 for dim in inner.shape or ()]
    dtype = np.dtype(object) if inner.dtype == ir.DataType.STRING else (inner.dtype or ir.DataType.FLOAT).numpy()
    return np.zeros((0, *sizes), dtype)


def _scan(
    node: ir.Node,
    given: Sequence[ort.OrtValue],
    body: Program,
    call: Callable[[str, Sequence[ort.OrtValue], tuple[int, ...]], list[ort.OrtValue]],
    iteration: tuple[int, ...],
) -> list[ort.OrtValue]:
    count = node.attributes.get_int("num_scan_inputs", 0)
    state, sequences = list(given[: len(given) - count]), [to_array(v) for v in given[len(given) - count :]]
    outputs = len(node.outputs) - len(state)
    ints = _ints(node)
    axes, backwards = ints("scan_input_axes", count), ints("scan_input_directions", count)
    out_axes, out_backwards = ints("scan_output_axes", outputs), ints("scan_output_directions", outputs)
    sequences = [
        np.flip(np.moveaxis(s, axis, 0), 0) if back else np.moveaxis(s, axis, 0)
        for s, axis, back in zip(sequences, axes, backwards, strict=True)
    ]
    lengths = {len(sequence) for sequence in sequences}
    if len(lengths) != 1:
        raise ExecutionError(
            f"{_title(node)} scans inputs of different lengths: {', '.join(map(str, sorted(lengths)))}"
        )
    if len(body.graph.outputs) != len(node.outputs):
        raise ExecutionError(
            f"the body of {_title(node)} gives {len(body.graph.outputs)} values, not {len(node.outputs)}"
        )
    scanned: list[list[np.ndarray]] = [[] for _ in range(outputs)]
    for step in range(lengths.pop()):
        slices = [to_value("", np.ascontiguousarray(s[step]).reshape(s[step].shape)) for s in sequences]
        results = call("body", [*state, *slices], (*iteration, step))
        state = results[: len(state)]
        for rows, value in zip(scanned, results[len(state) :], strict=True):
            rows.append(to_array(value))
    stacked = [_stack(node, rows, inner) for rows, inner in zip(scanned, body.graph.outputs[len(state) :], strict=True)]
    flipped = [np.flip(a, 0) if back else a for a, back in zip(stacked, out_backwards, strict=True)]
    moved = [np.moveaxis(a, 0, axis) for a, axis in zip(flipped, out_axes, strict=True)]
    values = zip(node.outputs[len(state) :], moved, strict=True)
    return [*state, *(to_value(v.name or "", np.ascontiguousarray(a)) for v, a in values)]


def _ints(node: ir.Node) -> Callable[[str, int], list[int]]:
    def read(name: str, count: int) -> list[int]:
        attribute: Any = node.attributes.get(name)
        return list(attribute.as_ints()) if attribute is not None else [0] * count

    return read
