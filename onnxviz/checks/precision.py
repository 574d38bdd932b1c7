"""Checks of what a conversion to 16 bits would do: N03."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.precisions import FLUSHED, LARGEST16, NORMAL16, ROUNDS_TO_INF
from onnxviz.checks.finding import InapplicableError, Problem, place_of, tensor_place
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import Repro, node_repro
from onnxviz.checks.running import observed
from onnxviz.checks.subject import Subject
from onnxviz.graph.constants import constant_tensor

_LARGEST_BF16 = 3.3895313892515355e38
_WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@check(
    "N03",
    "warning",
    "overflow or underflow in float16",
    needs=Need.MODEL | Need.INPUTS,
    what="Takes the largest and smallest magnitude that each float32 tensor had in the run, and each weight has, and "
    "says which would overflow in float16 (beyond 65504) or vanish in it (below 3e-8); bfloat16 has float32's range "
    "and is told in the evidence. Reported are the first tensors on each way; a tensor of the model that is float16 "
    "already and overflowed is an error.",
    why="A tensor that overflows is Inf, and NaN soon after; an epsilon that becomes 0 divides by zero.",
    remedy="Keep these nodes in float32 (the `node_block_list` of onnxruntime's converter), use bfloat16, or scale; "
    "`onnxviz readiness --to fp16` tells which nodes matter.",
    false_positives="It matters only if the model is to run in float16. Masks such as -1e9 are clamped by most "
    "converters. Larger inputs than those of the run may overflow elsewhere.",
)
def half_range(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield where a conversion to float16 would break the model, and where it did."""
    seen = observed(subject)
    producers = {str(v.name): node for node in subject.inferred.graph for v in node.outputs}
    wide = {n: o for n, o in seen.items() if o.dtype in ("float32", "float64")}
    narrow = {n: o for n, o in seen.items() if o.dtype == "float16"}
    if not wide and not narrow:
        raise InapplicableError("the model computes with no floating-point numbers")
    over = {name for name, one in wide.items() if one.largest >= ROUNDS_TO_INF}
    for name in (n for n in seen if n in over):
        node = producers.get(name)
        if node is None or not any(v is not None and str(v.name) in over for v in node.inputs):
            one = wide[name]
            evidence = {
                "largest": one.largest, "float16_max": LARGEST16, "bfloat16_overflows": one.largest > _LARGEST_BF16,
                "samples": subject.batches.samples, "tensors_over": len(over),
            }  # fmt: skip
            places = [tensor_place(name), *([place_of(node)] if node is not None else [])]
            repro = None if node is None else node_repro(subject, name, _beyond)
            message = f"it reached {one.largest:.4g}, and float16 ends at 65504"
            yield Problem(message, places, evidence, key="over", repro=repro)
    yield from _overflowed(subject, narrow, producers)
    gone = {name for name, one in wide.items() if one.nonzero and one.largest <= FLUSHED}
    for name in (n for n in seen if n in gone):
        one, node = wide[name], producers.get(name)
        if node is None or not any(v is not None and str(v.name) in gone for v in node.inputs):
            evidence = {"largest": one.largest, "float16_smallest": 2.0**-24, "tensors_under": len(gone)}
            yield Problem(
                f"all of it becomes 0 in float16: at most {one.largest:.3g}",
                [tensor_place(name)],
                evidence,
                key="under",
                repro=None if node is None else node_repro(subject, name, _vanishes),
            )
    yield from _constants(subject)
    normal = sum(o.nonzero > 0 and o.largest < NORMAL16 for o in wide.values())
    yield {"tensors": len(wide), "subnormal_tensors": normal, "samples": subject.batches.samples}


def _overflowed(subject: Subject, narrow: Any, producers: dict[str, ir.Node]) -> Iterator[Problem]:
    """Yield the float16 tensors where Inf first appears from finite numbers."""
    odd = {name for name, one in narrow.items() if one.plus}
    for name in odd:
        node = producers.get(name)
        if node is not None and not any(v is not None and str(v.name) in odd for v in node.inputs):
            evidence = {"inf": narrow[name].plus, "of": narrow[name].count, "op_type": node.op_type}
            yield Problem(
                "it overflowed in float16", [tensor_place(name), place_of(node)], evidence, severity="error", key="inf",
                repro=node_repro(subject, name, lambda array: bool(np.isposinf(array).any())),
            )  # fmt: skip


def _beyond(array: Any) -> bool:
    """Whether a number of an array overflows in float16."""
    return bool((np.abs(array[np.isfinite(array)]) >= ROUNDS_TO_INF).any())


def _vanishes(array: Any) -> bool:
    """Whether an array holds numbers, and all become 0 in float16."""
    return bool(array.any() and (np.abs(array) <= FLUSHED).all())


def _reader(subject: Subject, node: ir.Node) -> Callable[[], Repro]:
    """Return what makes a model of a node whose constant does not survive float16."""
    return node_repro(subject, str(node.outputs[0].name), lambda array: True)


def _constants(subject: Subject) -> Iterator[Problem]:
    """Yield weights beyond float16, and small numbers that are added, divided by or multiplied with and vanish."""
    told: set[ir.Value] = set()
    for node in subject.inferred.graph.all_nodes():
        for value in node.inputs:
            tensor = None if value is None or value in told else constant_tensor(value)
            if value is None or tensor is None or tensor.dtype not in _WIDE or not tensor.size:
                continue
            told.add(value)
            array = read_array(tensor)
            size = np.abs(array[np.isfinite(array)]).astype(np.float64)
            largest = float(size.max(initial=0.0))
            if largest >= ROUNDS_TO_INF and node.op_type not in ("Clip", "Resize", "Upsample"):
                evidence = {"largest": largest, "op_type": node.op_type}
                yield Problem(
                    f"this constant holds {largest:.3g}, and float16 ends at 65504",
                    [tensor_place(value.name), place_of(node)],
                    evidence,
                    key="weight",
                    repro=_reader(subject, node),
                )
            elif array.size == 1 and 0 < largest <= FLUSHED and node.op_type in ("Add", "Div", "Mul", "Max", "Sub"):
                evidence = {"value": largest, "op_type": node.op_type}
                yield Problem(
                    f"the constant {largest:.3g} is 0 in float16",
                    [tensor_place(value.name), place_of(node)],
                    evidence,
                    key="epsilon",
                    repro=_reader(subject, node),
                )
