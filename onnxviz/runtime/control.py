"""If, Loop and Scan, run body by body so that what happens inside can be seen.

Semantics: ONNX operator specification, If-1 to If-25, Loop-1 to Loop-25, Scan-9 to Scan-25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

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
        ExecutionError: A node of a body fails.
    """
    node = step.piece.nodes[0]
    given = [None if value is None else engine.value_of(value, values) for value in node.inputs]

    def call(name: str, inputs: Sequence[ort.OrtValue], position: tuple[int, ...]) -> list[ort.OrtValue]:
        body = step.control[name]
        inner = {**values, **dict(zip(body.graph.inputs, inputs, strict=True))}
        engine.run_program(body, inner, observe, position)
        return [engine.value_of(value, inner) for value in body.graph.outputs]

    if node.op_type == "If":
        condition = bool(to_array(_held(given[0])).reshape(-1)[0])
        results = call("then_branch" if condition else "else_branch", [], iteration)
    elif node.op_type == "Loop":
        results = _loop(node, given, step.control["body"], call, iteration)
    else:
        results = _scan(node, [_held(v) for v in given], call, iteration)
    by_value = dict(zip(node.outputs, results, strict=False))
    return [by_value[value] for value in step.piece.outputs]


def _held(value: ort.OrtValue | None) -> ort.OrtValue:
    if value is None:
        raise ValueError("an input that the operator needs is missing")
    return value


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
    trips = None if given[0] is None else int(to_array(given[0]).reshape(-1)[0])
    going = len(given) < 2 or given[1] is None or bool(to_array(given[1]).reshape(-1)[0])
    carried = [_held(value) for value in given[2:]]
    scanned: list[list[np.ndarray]] = [[] for _ in range(len(body.graph.outputs) - 1 - len(carried))]
    counter, condition = body.graph.inputs[0], body.graph.inputs[1]
    step = 0
    while going and (trips is None or step < trips):
        start = [_like(counter, np.array(step, np.int64)), _like(condition, np.array(going))]
        results = call("body", [*start, *carried], (*iteration, step))
        going = bool(to_array(results[0]).reshape(-1)[0])
        carried = results[1 : 1 + len(carried)]
        for rows, value in zip(scanned, results[1 + len(carried) :], strict=True):
            rows.append(to_array(value))
        step += 1
    outer = node.outputs[len(carried) :]
    stacked = [_stack(rows, value, inner) for rows, value, inner in zip(
        scanned, outer, body.graph.outputs[1 + len(carried) :], strict=False)]  # fmt: skip
    return [*carried, *stacked]


def _stack(rows: Sequence[np.ndarray], value: ir.Value, inner: ir.Value) -> ort.OrtValue:
    """Join what each iteration gave along a new first axis; without iterations the open sizes are 0."""
    if rows:
        return to_value(value.name or "", np.stack(rows))
    sizes = [dim if isinstance(dim, int) else 0 for dim in inner.shape or ()]
    dtype = np.dtype(object) if inner.dtype == ir.DataType.STRING else (inner.dtype or ir.DataType.FLOAT).numpy()
    return to_value(value.name or "", np.zeros((0, *sizes), dtype))


def _scan(
    node: ir.Node,
    given: Sequence[ort.OrtValue],
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
    scanned: list[list[np.ndarray]] = [[] for _ in range(outputs)]
    for step in range(len(sequences[0])):
        slices = [to_value("", np.ascontiguousarray(s[step]).reshape(s[step].shape)) for s in sequences]
        results = call("body", [*state, *slices], (*iteration, step))
        state = results[: len(state)]
        for rows, value in zip(scanned, results[len(state) :], strict=True):
            rows.append(to_array(value))
    return [
        *state,
        *(_joined(*parts) for parts in zip(scanned, node.outputs[len(state) :], out_axes, out_backwards, strict=True)),
    ]


def _joined(rows: list[np.ndarray], value: ir.Value, axis: int, backwards: int) -> ort.OrtValue:
    if not rows:
        return _stack(rows, value, value)
    stacked = np.stack(rows[::-1] if backwards else rows)
    axis += stacked.ndim if axis < 0 else 0
    return to_value(value.name or "", np.ascontiguousarray(np.moveaxis(stacked, 0, axis)))


def _ints(node: ir.Node) -> Callable[[str, int], list[int]]:
    def read(name: str, count: int) -> list[int]:
        attribute: Any = node.attributes.get(name)
        return list(attribute.as_ints()) if attribute is not None else [0] * count

    return read
