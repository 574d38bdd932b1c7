"""Measuring what float16 or int8 does to a model: ranges, each layer converted alone, then more and more of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.conversion_runs import MOST_BATCHES, ConversionRuns
from onnxviz.analysis.precisions import CodeRounding, HalfRounding, ValueRange
from onnxviz.analysis.readiness import Readiness, reasons
from onnxviz.analysis.readiness_parts import By, LayerEffect, Precision, TensorRange
from onnxviz.analysis.threads import one_thread
from onnxviz.errors import CheckError, InputError, listed
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.conversions import Layer, code_layers, code_ranges, half_layers, joined
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model, model_name
from onnxviz.graph.scopes import scope_name, scopes
from onnxviz.graph.select import select
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.smooth_outputs import smooth_outputs

if TYPE_CHECKING:
    from onnxviz.runtime.batches import Batches

__all__ = ["measure_readiness"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
_MOST_NODES = 10_000
_BLOCKS = 4


@one_thread()
def measure_readiness(
    model: ir.Model,
    batches: Batches,
    to: Precision,
    *,
    by: By = "node",
    layers: str | Sequence[str] = "*",
    tensors: str | Sequence[str] | None = None,
    most: int = 400,
    tolerance: float = 0.1,
    providers: str | Sequence[str] = "cpu",
    op_library: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Readiness:
    """Measure what converting a model to float16 or int8 would do, on given inputs.

    The model runs once on all batches to learn the range of every tensor. Then, on the first four batches, each layer
    is converted alone and what lies behind it runs again; and layers are converted together, the least sensitive
    first. A converted node reads rounded inputs and weights, computes in float32, and gives rounded outputs.

    Args:
        model: The model; it is not changed.
        batches: What it is fed.
        to: ``"fp16"`` or ``"int8"``; see :class:`onnxviz.analysis.precisions.HalfRounding` and ``CodeRounding``.
        by: What a layer is: a node, a block of the model's hierarchy, or all nodes of an operator.
        layers: Which nodes may be converted, as :func:`onnxviz.graph.select.select` takes them; others stay in float32.
        tensors: Where the effect is measured, as ``select`` takes them; by default at the outputs, or, for outputs that
            jump, before what makes them jump (:func:`onnxviz.graph.smooth_outputs.smooth_outputs`).
        most: Layers that are tried alone; beyond them only those with the largest error of their own are.
        tolerance: Relative error from which an answer counts as changed.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators.
        progress: Called with the number of layers that are done and of all.

    Raises:
        CheckError: Nothing computes in float32, or no number that is compared depends on it.
        SelectionError: A pattern matches nothing.
        ExecutionError, InputError: The model does not run on the inputs.

    >>> from onnxviz.runtime.capture import batches_of
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) <float k = {100000}> {h = Mul(x, k) y = Div(h, k)}''')
    >>> result = measure_readiness(model, batches_of(model, {"x": np.float32([1, 2])}), "fp16")
    >>> result.ready, [one.tensor for one in result.overflows], result.ranking[0].name
    (False, ['h', 'k'], 'Mul of h')
    """
    if not 0 < tolerance < 1:
        raise InputError(f"a tolerance of {tolerance:g} says nothing", hint="give a relative error between 0 and 1")
    options = {"providers": providers, "op_library": op_library}
    flat = _flattened(model, batches)
    seen = _Seen.of(flat, batches, options)
    plan = _plan(flat, seen, to, by, layers)
    ends, notes = _ends(flat, seen, tensors)
    from onnxviz.runtime.what_if import WhatIf

    ranges = {name: (one.low, one.high) for name, one in seen.ranges.items() if one.low <= one.high}
    changes = {node: change for layer in plan.layers for node, change in layer.changes.items()}
    rounding = HalfRounding() if to == "fp16" else CodeRounding(code_ranges(flat, changes, ranges))
    with WhatIf(flat, changes, ends, rounding, sizes=seen.sizes, **options) as run:  # type: ignore[arg-type]
        plan = plan.reached(run.nodes)
        if not plan.layers:
            raise CheckError("nothing that computes in float32 leads to what is compared", hint="choose other --tensor")
        coded = {str(value.name) for node, change in changes.items() for value in change.tensors(node)}
        steps = {name: rounding.step(name) for name in coded} if isinstance(rounding, CodeRounding) else {}
        answers = {str(value.name) for value in (ends if tensors is not None else flat.graph.outputs)}
        runs = ConversionRuns(
            run, plan.layers, batches, tolerance=tolerance, most=most, steps=steps, answers=answers, progress=progress
        )
        effects = runs.alone()
        curve = runs.together(effects)
        compared = tuple(str(value.name) for value in run.compared)
    first = batches.first()
    tensor_ranges = _tensor_ranges(flat, seen, plan, to, runs.vanishing(), steps)
    return Readiness(
        model_name(model), to, by, _marked(effects, plan.layers, tensor_ranges), tensor_ranges, curve, plan.left_out,
        compared, tolerance, tuple(map(str, first.records)),
        (len(batches), min(len(batches), MOST_BATCHES)), (*_notes(batches, runs.untried, most), *notes),
    )  # fmt: skip


def _notes(batches: Batches, untried: int, most: int) -> list[str]:
    notes = []
    if made_up := batches.first().made_up:
        notes.append(f"fed random numbers: {listed(made_up)}; on real inputs ranges and answers are others")
    if untried:
        notes.append(f"tried alone: the {most} layers with the largest errors of their own; {untried} were not")
    return notes


def _flattened(model: ir.Model, batches: Batches) -> ir.Model:
    """Return a copy with functions inlined and types inferred, in which weights are no inputs unless they are fed."""
    flat = copy_model(inline_functions(model))
    fed = set(batches.first().feeds)
    for value in list(flat.graph.inputs):
        if value.is_initializer() and str(value.name) not in fed:
            flat.graph.inputs.remove(value)
    if (nodes := len(flat.graph)) > _MOST_NODES:
        raise CheckError(f"{nodes:,} nodes are too many to run one by one; the most are {_MOST_NODES:,}")
    return infer_shapes(flat)


@dataclass(frozen=True)
class _Seen:
    """What every tensor of the main graph held."""

    ranges: Mapping[str, ValueRange]
    dtypes: Mapping[str, str]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, model: ir.Model, batches: Batches, options: Mapping[str, Any]) -> _Seen:
        """Run the model on all batches; nothing is kept but ranges."""
        from onnxviz.runtime.capture import capture

        captured = capture(
            model, batches, bodies=False, keep=False, reduce=lambda name, array: ValueRange.of(array), **options
        )
        ranges: dict[str, ValueRange] = {}
        dtypes: dict[str, str] = {}
        sizes: dict[str, int] = {}
        for inputs, _ in batches:
            for name, array in inputs.feeds.items():
                if isinstance(array, np.ndarray):
                    ranges[name] = ValueRange.of(array).merge(ranges.get(name, ValueRange()))
                    dtypes[name] = str(array.dtype)
        for name, record in captured.items():
            if record.statistics is not None:
                ranges[name] = record.statistics
            dtypes[name] = record.dtype
            try:
                sizes[name] = int(np.prod(record.shape, dtype=np.int64)) * np.dtype(record.dtype).itemsize
            except TypeError:
                continue  # strings and the like: their size is unknown
        return cls(ranges, dtypes, sizes)


@dataclass(frozen=True)
class _Plan:
    """What is converted."""

    layers: list[Layer]
    left_out: dict[str, str]

    def reached(self, nodes: frozenset[ir.Node]) -> _Plan:
        """Return the plan without the nodes on which nothing depends that is compared."""
        kept = []
        for layer in self.layers:
            own = {node: change for node, change in layer.changes.items() if node in nodes}
            if own:
                kept.append(Layer(layer.name, layer.op_type, layer.tensor, own))
        return _Plan(kept, self.left_out)


def _plan(model: ir.Model, seen: _Seen, to: Precision, by: By, patterns: str | Sequence[str]) -> _Plan:
    find = half_layers if to == "fp16" else code_layers
    layers, left_out = find(model, seen.dtypes)
    if not layers:
        raise CheckError(_nothing(to, left_out), hint="see `onnxviz inspect` for the types of its tensors")
    chosen = set(select(model, patterns)) if patterns != "*" else None
    asked = [one for one in layers if chosen is None or any(v in chosen for n in one.nodes for v in n.outputs)]
    if not asked:
        raise CheckError("none of the layers asked for can be converted", hint="leave --layer out to see which can")
    asked_for = {id(one) for one in asked}
    left_out |= {one.name: "it was not asked for" for one in layers if id(one) not in asked_for}
    if by == "op":
        asked = joined(asked, [one.op_type for one in asked])
    elif by == "block":
        asked = joined(asked, _blocks(model, asked))
    return _Plan(asked, left_out)


def _nothing(to: Precision, left_out: Mapping[str, str]) -> str:
    if not left_out:
        return "no node of the model computes in float32, so there is nothing to convert"
    kind = "float16" if to == "fp16" else "int8"
    return f"no node of the model can be converted to {kind}: {reasons(left_out)}"


def _blocks(model: ir.Model, layers: Sequence[Layer]) -> list[str]:
    """Return the block of each layer: the outermost groups of the hierarchy that are four at least."""
    found = scopes(model.graph)
    paths = [found.get(layer.nodes[0], ()) for layer in layers]
    deepest = max(map(len, paths))
    for depth in range(1, deepest + 1):
        names = [scope_name(path[:depth]) or layer.name for path, layer in zip(paths, layers, strict=True)]
        if len(set(names)) >= _BLOCKS or depth == deepest:
            return names
    raise CheckError("nothing in the model tells of blocks", hint="leave out --by block")


def _ends(model: ir.Model, seen: _Seen, patterns: str | Sequence[str] | None) -> tuple[list[ir.Value], list[str]]:
    """Return the tensors that are compared, and a note where they are not the outputs."""
    if patterns is not None:
        return [value for value in select(model, patterns) if str(value.name) in seen.dtypes], []
    outputs = list(model.graph.outputs)
    smooth, instead = smooth_outputs(model)
    ends = list(dict.fromkeys([*smooth, *instead])) if instead else outputs
    known = [value for value in ends if seen.dtypes.get(str(value.name)) is not None]
    if not known:
        raise CheckError("no output of the model is a tensor", hint="name tensors to compare with --tensor")
    jumping = [str(v.name) for v in outputs if v not in smooth]
    notes = [
        f"{value.name} is of a Softmax, which hides errors where it is sure; --tensor '{source.name}' is before it"
        for value in known
        if (source := _before_softmax(value)) is not None
    ]
    if instead and jumping:
        names = ", ".join(jumping)
        notes.append(
            f"{names}: chosen by rank or threshold, so what is compared lies before that; others with --tensor"
        )
    return known, notes


def _before_softmax(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "Softmax" else None


def _tensor_ranges(
    model: ir.Model,
    seen: _Seen,
    plan: _Plan,
    to: Precision,
    vanishing: Mapping[str, float],
    steps: Mapping[str, float],
) -> tuple[TensorRange, ...]:
    """Return the ranges of inputs and activations in the order of execution, then of the weights that are converted."""
    found: list[TensorRange] = []

    def add(value: ir.Value, kind: str, node: ir.Node | None) -> None:
        name = str(value.name)
        values = seen.ranges.get(name)
        if values is not None and seen.dtypes.get(name) in ("float32", "float64"):
            lost = values.share(values.flushed) if to == "fp16" else vanishing.get(name, 0.0)
            where = ("", "") if node is None else (node.name or node.op_type, node.op_type)
            found.append(TensorRange(name, kind, *where, values, lost, to, steps.get(name)))  # type: ignore[arg-type]

    for value in model.graph.inputs:
        add(value, "input", None)
    for node in model.graph:
        for value in node.outputs:
            if constant_tensor(value) is None:
                add(value, "activation", node)
    return (*found, *_weights(plan.layers, to))


def _weights(layers: Sequence[Layer], to: Precision) -> list[TensorRange]:
    """Return the ranges of the constants that are converted, each once."""
    found: dict[str, TensorRange] = {}
    for layer in layers:
        for node, change in layer.changes.items():
            for index in (*change.weights, *change.constants):
                value = node.inputs[index]
                tensor = constant_tensor(value)
                if value is None or tensor is None or str(value.name) in found:
                    continue
                array = np.asarray(tensor.numpy())
                values = ValueRange.of(array)
                lost = values.share(values.flushed)
                if to == "int8" and values.nonzero:
                    own = CodeRounding({})
                    codes = (
                        own.constant(array) if index in change.constants else own.weight(array, change.weights[index])
                    )
                    lost = values.share(int(((codes == 0) & (array != 0)).sum()))
                where = (node.name or node.op_type, node.op_type)
                found[str(value.name)] = TensorRange(str(value.name), "weight", *where, values, lost, to)
    return list(found.values())


def _marked(
    effects: Sequence[LayerEffect], layers: Sequence[Layer], tensors: Sequence[TensorRange]
) -> tuple[LayerEffect, ...]:
    """Mark the layers that read or give what overflows or underflows."""
    over = {one.tensor for one in tensors if one.overflow}
    under = {one.tensor for one in tensors if one.flat}
    marked = []
    for effect, layer in zip(effects, layers, strict=True):
        values: list[ir.Value | None] = []
        for node, change in layer.changes.items():
            read = (*change.inputs, *change.weights, *change.constants)
            values += [*node.outputs, *(node.inputs[index] for index in read)]
        names = {str(value.name) for value in values if value is not None}
        marks = [mark for mark, bad in (("overflow", over), ("underflow", under)) if names & bad]
        marked.append(replace(effect, marks=tuple(marks)))
    return tuple(marked)
