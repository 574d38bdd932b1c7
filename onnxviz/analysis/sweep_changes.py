"""What runs at other sizes and is not as it should be: samples that mix, wrong declarations, NaN, padding."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.axes import Dimension, sample_axis
from onnxviz.analysis.baked_sizes import baked_sizes, joining_node, node_words
from onnxviz.analysis.batch_rows import compare_rows, first_mixing, one_row
from onnxviz.analysis.comparison import OutputParity, compare
from onnxviz.analysis.padding import try_padding
from onnxviz.analysis.size_plan import Symbols
from onnxviz.analysis.size_trials import MEMORY, Outcome, SizeTrials
from onnxviz.analysis.sweep_result import Kind, SizeChange, at_sizes
from onnxviz.errors import OnnxvizError, listed
from onnxviz.graph.shapes import shape_list

__all__ = ["declared_changes", "nonfinite_changes", "padding_changes", "sample_changes"]

_MOST_NODES = 10_000
_COMPARED = 8  # samples of a batch that are compared with what they give alone
_SHARE = 0.2  # of the time, for samples alone
_EXPRESSION = re.compile(r"[\w.+*/() -]{1,120}")  # names are untrusted: a tower of powers would be computed with
Found = tuple[list[SizeChange], list[str]]


def sample_changes(
    model: ir.Model,
    trials: SizeTrials,
    dimension: Dimension,
    strip: Mapping[int, Outcome],
    limits: Mapping[str, float],
    op_library: str | os.PathLike[str] | None,
) -> Found:
    """Return the outputs in which samples of a batch influence each other, and what could not be compared.

    Args:
        model: What ran.
        trials: Where it runs.
        dimension: What counts samples.
        strip: Number of samples -> what became of them, their outputs included.
        limits: Output -> relative error that rounding explains.
        op_library: A shared library of custom operators.
    """
    name, whole = dimension.name, {count: one.outputs for count, one in strip.items() if count > 1 and one.outputs}
    if not whole:
        return [], [f"{name}: samples were not compared, since no batch of several ran"]
    feeds = trials.feeds_at({name: max(whole)})
    rows = min(max(whole), _COMPARED, max(trials.affordable(_SHARE), 3))
    alone = [trials.run_feeds(one_row(feeds, dimension, i), {**trials.usual, name: 1}) for i in range(rows)]
    if troubles := [one.trouble for one in alone if not one.ran]:
        return [], [f"{name}: samples were not compared, since one alone does not run: {troubles[0]}"]
    again = trials.run_feeds(one_row(feeds, dimension, 0), {**trials.usual, name: 1})
    noisy = [n for n, a in alone[0].outputs.items() if n in again.outputs and _differ(n, a, again.outputs[n], limits)]
    if noisy:
        return [], [f"{name}: samples were not compared, since two runs on the same input differ in {listed(noisy)}"]
    axes = _sample_axes(alone[0], whole)
    if not axes:
        return [], [f"{name}: no output has a part for each sample"]
    told = listed([str(count) for count in sorted(whole)], 8)
    worst: dict[str, OutputParity] = {}
    counts: dict[str, list[int]] = {}
    for count, outputs in sorted(whole.items()):
        own = [one.outputs for one in alone[:count]]
        for _, parity in compare_rows(outputs, own, axes, limits, count=count):
            counts.setdefault(parity.name, []).append(count)
            if parity.name not in worst or parity.relative_l2 > worst[parity.name].relative_l2:
                worst[parity.name] = parity
    node = _mixing_node(model, trials, dimension, op_library) if worst else None
    changes = []
    for output, parity in worst.items():
        message = f"what it says of a sample depends on the others in a batch: it {parity.problem}"
        at = tuple(strip[count].sizes for count in counts[output])
        changes.append(SizeChange("samples", output, message, at, node, evidence=_numbers(parity, counts[output])))
    agree = f"{len(axes) - len(worst)} of {len(alone[0].shapes)} outputs say of each sample what they say of it alone"
    return changes, [f"{name}: in batches of {told}, {agree}"]


def _sample_axes(one: Outcome, whole: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    found = {}
    for name, array in one.outputs.items():
        shapes = {1: np.shape(array)} | {c: np.shape(outputs[name]) for c, outputs in whole.items() if name in outputs}
        if (axis := sample_axis(shapes)) is not None:
            found[name] = axis
    return found


def _differ(name: str, one: Any, other: Any, limits: Mapping[str, float]) -> bool:
    return compare(name, one, other, limits.get(name) or None, peak=10).problem is not None


def _numbers(parity: OutputParity, counts: Sequence[int] = ()) -> dict[str, Any]:
    """Return the numbers of a comparison as JSON can hold them."""
    numbers = {
        "max_abs": parity.max_abs, "relative_l2": parity.relative_l2, "cosine": parity.cosine,
        "tolerance": parity.tolerance,
    }  # fmt: skip
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {**({"samples": list(counts)} if counts else {}), **finite}


def _mixing_node(
    model: ir.Model, trials: SizeTrials, dimension: Dimension, op_library: str | os.PathLike[str] | None
) -> str | None:
    from onnxviz.runtime.capture import capture

    if sum(1 for _ in model.graph) > _MOST_NODES:
        return None

    def capturing(feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        return capture(model, dict(feeds), bodies=False, providers="cpu", op_library=op_library, max_memory=MEMORY)

    try:
        found = first_mixing(model, {n: trials.feeds_at({dimension.name: n}) for n in (2, 3)}, dimension, capturing)
    except OnnxvizError:  # node by node it may not run where it does as a whole; the outputs tell all the same
        return None
    return None if found is None else node_words(found.node)


def declared_changes(model: ir.Model, symbols: Symbols, ran: Sequence[Outcome]) -> Iterator[SizeChange]:
    """Yield the sizes of outputs that are declared and are others, or not always the same where they are told to be."""
    for value in model.graph.outputs:
        name, declared = str(value.name), shape_list(value)
        seen = [one for one in ran if name in one.shapes]
        if declared is None or not seen:
            continue
        if odd := [one for one in seen if len(one.shapes[name]) != len(declared)]:
            ranks = sorted({len(one.shapes[name]) for one in odd})
            message = f"it is declared with {len(declared)} axes, and has {' or '.join(map(str, ranks))}"
            yield _change("rank", name, message, odd)
            continue
        for axis, dim in enumerate(declared):
            yield from _axis_changes(symbols, name, axis, dim, seen)


def _axis_changes(
    symbols: Symbols, name: str, axis: int, dim: int | str | None, seen: Sequence[Outcome]
) -> Iterator[SizeChange]:
    expected = [(one, _expected(dim, one.sizes)) for one in seen]
    wrong = [(one, size) for one, size in expected if size is not None and one.shapes[name][axis] != size]
    if not wrong:
        return
    first, size = wrong[0]
    told = f"declared as {size}" if isinstance(dim, int) else f"declared as {dim!r}, which is {size}"
    message = f"axis {axis} is {told}, and is {first.shapes[name][axis]} at {at_sizes(first.sizes)}"
    node, why = _cause(symbols, dim, name) if isinstance(dim, str) and dim in symbols.tokens else (None, "")
    yield replace(_change("declared", name, message, [one for one, _ in wrong]), node=node, why=why)


def _cause(symbols: Symbols, dimension: str, output: str) -> tuple[str | None, str]:
    """Return the node because of which an output does not have a dimension as it is declared, and what it does."""
    if (baked := next(baked_sizes(symbols, dimension, output), None)) is not None:
        return baked.node, str(baked)
    if (joined := joining_node(symbols, dimension, output)) is not None:
        node, others = joined
        return node, f"{node} puts {', '.join(map(repr, [dimension, *others[:-1]]))} and {others[-1]!r} into one size"
    return None, ""


def _expected(dim: int | str | None, sizes: Mapping[str, int]) -> int | None:
    """Return what a declared size stands for at these sizes; None where it says nothing."""
    if not isinstance(dim, str):
        return dim
    if dim in sizes:
        return sizes[dim]
    if not any(name in dim for name in sizes) or not _EXPRESSION.fullmatch(dim) or "**" in dim:
        return None
    try:
        found = ir.SymbolicDim(dim).evaluate(dict(sizes))
    except (ValueError, TypeError, ArithmeticError, SyntaxError, AttributeError):
        return None  # a name that is no expression
    return found if isinstance(found, int) else None


def nonfinite_changes(base: Outcome, ran: Sequence[Outcome]) -> Iterator[SizeChange]:
    """Yield the outputs that hold NaN or Inf at some size and not at the usual one."""
    for name in base.shapes:
        odd = [one for one in ran if name in one.nonfinite and 0 not in one.sizes.values()]
        if odd and name not in base.nonfinite:
            message = f"it holds NaN or Inf at {at_sizes(odd[0].sizes)}, and not at the usual sizes"
            yield _change("nonfinite", name, message, odd)


def padding_changes(trials: SizeTrials, dimensions: Sequence[Dimension], limits: Mapping[str, float]) -> Found:
    """Return where padding that a mask hides changes something, and where that was not tried, or is well."""
    changes, notes = [], []
    for dimension in dimensions:
        tried = try_padding(trials, dimension, limits)
        if tried is None:
            continue
        if tried.problem is not None:
            notes.append(f"{dimension.name}: padding was not compared: {tried.problem}")
        elif tried.worst is None:
            notes.append(f"{dimension.name}: padding that {tried.mask} hides changes no output")
        else:
            message = f"padding of {dimension.name!r} that {tried.mask!r} hides changes it: it {tried.worst.problem}"
            at = ({**trials.usual},)
            changes.append(SizeChange("padding", tried.worst.name, message, at, evidence=_numbers(tried.worst)))
    return changes, notes


def _change(kind: Kind, output: str, message: str, at: Sequence[Outcome]) -> SizeChange:
    return SizeChange(kind, output, message, tuple(one.sizes for one in at))
