"""One ONNX file that answers and explains: the model's outputs and a map, for any runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.attribution.deploy_maps import CAM_FORMULAS, channels_first, enlarged, over_channels, positive
from onnxviz.analysis.attribution.methods import find_method
from onnxviz.analysis.attribution.positions import Block, positions_of
from onnxviz.analysis.attribution.targets import Target
from onnxviz.errors import InputError, SelectionError, listed
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.names import named_tensors
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.overrides.names import rules_table
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.tidy import fresh_name

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case
    from onnxviz.analysis.attribution.result import Attribution

__all__ = ["DEPLOYABLE", "Deployable", "check_deployable", "deployable"]

#: Method that attributes to the input -> the rules that carry back.
_RULES = {
    "saliency": "gradient", "input-x-gradient": "gradient", "guided-backprop": "guided", "deconvnet": "deconvnet",
    "redirected-gradient": "redirected",
}  # fmt: skip
#: The methods that one graph can hold.
DEPLOYABLE = (*CAM_FORMULAS, *_RULES)


@dataclass(frozen=True, eq=False)
class Deployable:
    """A model that explains its answers.

    Attributes:
        model: Takes the inputs of the file, and the class where that was asked for; returns its outputs and the maps.
        attribution: The output that holds what :func:`onnxviz.attribute` gives: the map of the layer or of the input.
        heatmap: The output that holds the map at every position of the input, ``(N, H, W)`` or ``(N, steps)``; None
            where the input has no positions.
        class_input: The input that takes the class, ``(N,)`` int64; None where the class is found or fixed.
        cuts: Where gradients end, a line each.
        notes: What a reader should know.
    """

    model: ir.Model
    attribution: str
    heatmap: str | None
    class_input: str | None
    cuts: tuple[str, ...]
    notes: tuple[str, ...]


def deployable(
    case: Case, one: Attribution, *, target: str = "argmax", parameters: Mapping[str, Any] | None = None
) -> Deployable:  # fmt: skip
    """Return a model that gives its outputs and an attribution.

    Args:
        case: What was explained.
        one: The attribution: its method, its layer and the place of that on the input are those of the file.
        target: ``"argmax"``: each sample's highest class; ``"input"``: a class that is fed; ``"fixed"``: what was
            explained, for all samples the same.
        parameters: Of the method.

    Raises:
        InputError: The method is none that one graph can hold, or the target is not of that kind.
        SelectionError: What is attributed is inside the model.
        GradientError: As :func:`onnxviz.gradient.model.gradient_model`.
    """
    given = {**find_method(one.method).parameters, **(parameters or {})}
    _check(case, one, target)
    name = one.tensor
    made = gradient_model(
        case.target.model, case.target.tensor, [name], table=rules_table(_RULES.get(one.method, "gradient")),
        allow_cut=case.how.allow_cut, straight_through=case.how.straight_through,
    )  # fmt: skip
    graph = made.model.graph
    values = named_tensors(made.model)
    taken = set(values) | {str(v.name) for v in all_tensors(made.model)} | {str(node.name) for node in graph}
    ops = Ops(graph, taken | {str(v.name) for v in graph.inputs}, "explain")
    class_input = _seeded(ops, str(made.seed), values[case.target.tensor], case.target, target)
    carried = values[made.gradients[name]] if made.gradients[name] in values else _output(graph, made.gradients[name])
    value = _float(ops, values[name])
    gradient = _float(ops, carried)
    heat = _map(ops, one, value, gradient, given)
    attribution = _returned(ops, heat, "attribution", taken)
    signed = not (one.method == "saliency" and given["absolute"])
    pixels = _pixels(ops, case, one, values, heat, signed=signed)
    heatmap = None if pixels is None else _returned(ops, pixels, "heatmap", taken)
    graph.outputs[:] = [output for output in graph.outputs if output.name not in made.gradients.values()]
    graph.sort()
    graph.inputs[:] = [
        value for value in graph.inputs if not value.is_initializer()
    ]  # which runtimes take as constants
    model = infer_shapes(made.model)
    model.metadata_props.update(_said(one, target))
    notes = (*made.notes, *_bound_to_a_size(case, one, values[case.target.tensor], target))
    return Deployable(model, attribution, heatmap, class_input, tuple(map(str, made.cuts)), notes)


def check_deployable(method: str) -> None:
    """Refuse a method that one graph cannot hold.

    Raises:
        InputError: It cannot; the text names those that can be.
    """
    if method in DEPLOYABLE:
        return
    why = "ONNX has no singular value decomposition" if method.startswith("eigen") else "one graph runs the model once"
    raise InputError(f"{method} cannot be exported: {why}", hint=f"those that can are {', '.join(DEPLOYABLE)}")


def _check(case: Case, one: Attribution, target: str) -> None:
    check_deployable(one.method)
    if len(one.maps) > 1:
        raise InputError(f"{one.method} has a map of each of {len(one.maps)} inputs", hint="name one with --layer")
    if case.inner:
        named = listed(sorted(case.inner))
        raise SelectionError(f"{named} is inside the model, where the file is not cut", hint="take a CAM, or an input")
    if target not in ("argmax", "input", "fixed"):
        raise InputError(f"an exported target is argmax, input or fixed, not {target!r}", hint="say which class")
    if target != "fixed" and case.target.classes is None:
        raise InputError("the target is no class, so none can be found or fed", hint="export it as it is: fixed")
    if case.target.frozen:
        raise InputError("the target holds an argmax of its own", hint="name the class or the neuron")
    if target == "fixed" and any(at != case.target.at[0] for at in case.target.at):
        raise InputError("the samples have different targets", hint="name one with --target, or export argmax")


def _output(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for value in graph.outputs if value.name == name)


def _seeded(ops: Ops, seed: str, scores: ir.Value, target: Target, kind: str) -> str | None:
    """Let nodes make what enters at the target; return the input that takes the class, where there is one."""
    entering = next(value for value in ops.graph.inputs if value.name == seed)
    class_input = None
    if kind == "fixed":
        row = np.zeros((1, *target.shape), np.float32)
        at = (0, *target.at[0])
        row[at] = 1 / np.size(row[at])
        made = ops.Expand(ops.constant(row[0] if target.bare else row), ops.Shape(scores))
    else:
        flat = ops.Reshape(scores, ops.ints(1, -1)) if target.bare else ops.samples(scores)
        chosen = ops.ArgMax(flat, axis=1, keepdims=0)
        if kind == "input":
            class_input = fresh_name("class", ops.taken)
            batch = None if target.bare or scores.shape is None else scores.shape[0]
            chosen = ir.Value(
                name=class_input, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1 if target.bare else batch])
            )
            ops.graph.inputs.append(chosen)
        depth = ops.integer(int(np.prod(target.shape, dtype=int)))
        one_hot = ops.OneHot(chosen, depth, ops.constant(np.array([0, 1], np.float32)), axis=-1)
        one_hot.dtype = ir.DataType.FLOAT
        made = ops.Reshape(one_hot, ops.Shape(scores))
    made = ops.Cast(made, to=int(scores.dtype or ir.DataType.FLOAT))
    for node, place in list(entering.uses()):
        node.replace_input_with(place, made)
    ops.graph.inputs.remove(entering)
    return class_input


def _float(ops: Ops, value: ir.Value) -> ir.Value:
    return value if value.dtype == ir.DataType.FLOAT else _shape_of(ops.Cast(value, to=int(ir.DataType.FLOAT)), value)


def _shape_of(value: ir.Value, like: ir.Value) -> ir.Value:
    value.shape = like.shape
    return value


def _map(ops: Ops, one: Attribution, value: ir.Value, gradient: ir.Value, given: Mapping[str, Any]) -> ir.Value:
    if one.layer is not None:
        first, second = channels_first(ops, one.layer, value), channels_first(ops, one.layer, gradient)
        made = CAM_FORMULAS[one.method](ops, first, second, len(one.layer.size))
        return positive(ops, made) if given.get("relu") else made
    if one.method == "input-x-gradient":
        return ops.Mul(value, gradient)
    return ops.Abs(gradient) if one.method == "saliency" and given["absolute"] else gradient


def _pixels(
    ops: Ops, case: Case, one: Attribution, values: Mapping[str, ir.Value], heat: ir.Value, *, signed: bool
) -> ir.Value | None:
    """Return the map at every position of the input, ``(N, …)``; None where it has none."""
    try:
        where = positions_of(case, one)
    except SelectionError:
        return None
    block: Block = where.blocks[0]
    if not block.spatial:
        return None
    if one.layer is not None and where.cells is not None:
        fed = values[block.tensor]
        axes = [axis if case.feeding.bare else axis + 1 for axis in block.axes]
        return enlarged(ops, heat, where.cells, fed, axes)
    rest = [axis if case.feeding.bare else axis + 1 for axis in range(len(block.shape)) if axis not in block.axes]
    return over_channels(ops, heat, rest, signed=signed)


def _returned(ops: Ops, value: ir.Value, wanted: str, taken: set[str]) -> str:
    output = ops.Identity(value)
    output.name = fresh_name(wanted, taken)
    output.type = ir.TensorType(ir.DataType.FLOAT)
    ops.graph.outputs.append(output)
    return output.name


def _bound_to_a_size(case: Case, one: Attribution, scores: ir.Value, target: str) -> list[str]:
    """Say where a target that is fixed to a place ties the file to the sample."""
    if target != "fixed" or case.target.classes is not None:
        return []
    notes = []
    shape = case.target.shape
    open_ = scores.shape is None or any(not isinstance(size, int) for size in list(scores.shape)[-len(shape) :])
    if len(shape) > 1 and open_:
        size = " × ".join(map(str, shape))
        notes.append(
            f"the target is a place in {case.target.tensor} of {size}: the file takes inputs of that size alone"
        )
    if any(region is not None for region in one.regions):
        notes.append(f"whatever is fed, the map is that of the place in {case.target.tensor} found in this sample")
    return notes


def _said(one: Attribution, target: str) -> dict[str, str]:
    layer = {"onnxviz.layer": one.layer.name} if one.layer is not None else {}
    text = {"argmax": "the highest class", "input": "the class that is fed", "fixed": one.target[0]}[target]
    return {"onnxviz.attribution": one.method, "onnxviz.target": text, **layer}
