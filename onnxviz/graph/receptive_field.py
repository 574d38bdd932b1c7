"""Receptive fields: which part of the model's input each position of a tensor sees.

For a chain of windows (kernel k, stride s, padding p, dilation d) Araujo, Norris and Sim, "Computing Receptive Fields
of Convolutional Neural Networks", Distill 2019 (doi 10.23915/distill.00021), give in closed form the size
``r = 1 + Σ (k_l - 1) d_l Π_{i<l} s_i``, the jump (effective stride) ``Π s_l`` and the first position ``-Σ p_l Π s_i``.
Here the same recurrence is followed tensor by tensor over any graph, with the exact interval of every position
(:mod:`onnxviz.graph.position_maps`), so that branches, upsampling and transposed convolutions are covered as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.extract import outer_values
from onnxviz.graph.layouts import input_layout, tensor_layouts
from onnxviz.graph.position_facts import Facts
from onnxviz.graph.position_maps import PositionMap, identity_map
from onnxviz.graph.position_rules import rule_of
from onnxviz.graph.position_sights import Sight, forget
from onnxviz.graph.shapes import model_inputs, shape_list

__all__ = ["ReceptiveField", "receptive_fields"]


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """What one position of a tensor sees of an input, axis by axis (the input's spatial axes, in their order).

    Attributes:
        axes: The input's spatial axes.
        size: How many positions are seen at most, beyond the borders too; where all are seen (``whole``) the input's
            size, None if that is open.
        jump: How far what is seen moves from one position of the tensor to the next; None where all is seen.
        centre: The middle of what position 0 sees, in positions of the input; None where all is seen.
        maps: The exact intervals; None where all is seen.
    """

    axes: tuple[int, ...]
    size: tuple[int | None, ...]
    jump: tuple[Fraction | None, ...]
    centre: tuple[Fraction | None, ...]
    maps: tuple[PositionMap | None, ...]

    @property
    def whole(self) -> tuple[bool, ...]:
        """Whether everything along an axis is seen, as behind global pooling."""
        return tuple(found is None for found in self.maps)

    def interval(self, axis: int, position: int) -> tuple[int, int] | None:
        """Return the first and last input position along the ``axis``-th spatial axis that a position sees.

        They may lie beyond the input's borders, in the padding, where there is nothing to be seen. None stands for
        everything; of a position that sees nothing, the last is before the first.
        """
        found = self.maps[axis]
        return None if found is None else found.interval(position)


def receptive_fields(model: ir.Model, source: str | None = None) -> dict[str, ReceptiveField]:
    """Return the receptive field of every tensor that depends on an input with spatial axes.

    Followed are convolutions (strides, padding, ``auto_pad``, dilations, groups), pooling, transposed convolutions,
    Resize and Upsample, Pad, Slice, Split, Gather, Tile, Concat, Transpose, Reshape, space-to-depth and back,
    reductions, softmax, matrix products and everything that works element by element, with what sizes and small
    constants decide; branches that meet see what each of them sees. Any other operator, functions of the model and
    nodes with bodies among them, is taken to see everything, and so is what depends on something open. So what is told
    may be too large: it reaches from the first position that is seen to the last one, and where a Resize scales by no
    exact binary fraction, it allows for rounding to either side.

    It is never too small, but for what it leaves out:

    - The statistics of normalisation (InstanceNormalization, GroupNormalization, LayerNormalization over positions,
      MeanVarianceNormalization and their kin) and of DynamicQuantizeLinear, gathered over whole maps at run time: these
      count as elementwise, as in the literature. Spelled out as reductions they see everything.
    - What tensors' sizes alone tell (Shape and Size).
    - The border of maps of open size, or too long to be written out (1,024 positions), that are padded by mirrored or
      repeated positions (Pad ``reflect`` and ``edge``, a Resize that reads beyond the border): intervals near the
      border then tell the positions beyond it, not those that stand in for them. A size is not touched by it.
    - Where ``auto_pad`` depends on an open size, that is taken to be a multiple of the stride: an interval may lie off
      by part of a stride.

    Args:
        model: A model with inferred shapes (:func:`onnxviz.graph.shapes.infer_shapes`); it is not changed and no
            weights are loaded.
        source: The input; by default the first whose axes are known to be channels and positions.

    Returns:
        Tensor name -> receptive field, the input's own included; empty where no input has spatial axes.

    Raises:
        InputError: The model has no input of that name, or it has no spatial axes.

    >>> from onnxviz.graph.shapes import infer_shapes
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 32, 32] x) => (float[1, 1, 14, 14] y) <float[1, 1, 5, 5] w>
    ...   {c = Conv<kernel_shape = [5, 5]>(x, w) y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(c)}''')
    >>> field = receptive_fields(infer_shapes(model))["y"]
    >>> field.size, [int(jump) for jump in field.jump], [str(centre) for centre in field.centre]
    ((6, 6), [2, 2], ['5/2', '5/2'])
    """
    start = _source(model, source)
    if start is None:
        return {}
    value, axes = start
    sizes = shape_list(value) or []
    return {str(v.name): _field(v, sight, axes, sizes) for v, sight in _sights(model, value, axes).items() if v.name}


def _sights(model: ir.Model, value: ir.Value, axes: tuple[int, ...]) -> dict[ir.Value, Sight]:
    """Return what each tensor sees of an input, in the nodes' order."""
    rank = len(shape_list(value) or [])
    sights = {value: Sight(tuple(identity_map(axis) if axis in axes else None for axis in range(rank)))}
    facts = Facts.of(model)
    for node in model.graph:
        facts.follow(node)
        inputs = [sights.get(v) if v is not None else None for v in node.inputs]
        captured = [sights[v] for v in outer_values(node) if v in sights]
        if captured:
            found: list[Sight | None] = [forget(node, [*inputs, *captured])] * len(node.outputs)
        elif any(sight is not None for sight in inputs):
            found = rule_of(node, facts)(node, inputs, facts)
        else:
            continue
        sights |= {output: sight for output, sight in zip(node.outputs, found, strict=False) if sight is not None}
    return sights


def _source(model: ir.Model, name: str | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Return the input and its spatial axes."""
    inputs = model_inputs(model)
    if name is not None and all(value.name != name for value in inputs):
        hint = f"its inputs are {', '.join(str(v.name) for v in inputs[:8])}" if inputs else None
        raise InputError(f"the model has no input {name!r}", hint=hint)
    layouts = tensor_layouts(model)
    for value in inputs:
        shape = shape_list(value)
        if (name is not None and value.name != name) or shape is None or len(shape) < 3:
            continue
        layout = layouts.get(str(value.name)) or (input_layout(model, value, layouts) if len(shape) == 4 else None)
        if layout in ("NCHW", "NHWC"):
            return value, tuple(range(2, len(shape)) if layout == "NCHW" else range(1, len(shape) - 1))
    if name is not None:
        raise InputError(f"input {name!r} has no axes known to be positions", hint="receptive fields need a map input")
    return None


def _field(value: ir.Value, sight: Sight, axes: tuple[int, ...], sizes: list[int | str | None]) -> ReceptiveField:
    maps: list[PositionMap | None] = []
    seen: list[int | None] = []
    own = shape_list(value) or [None] * len(sight.axes)
    for axis in axes:
        found = [(at, entry) for at, entry in enumerate(sight.axes) if entry is not None and entry.axis == axis]
        # An attention score lies along two axes of positions: it sees two places, so everything is said of it.
        if len(found) != 1 or axis in sight.lost:
            size = sizes[axis]
            maps.append(None)
            seen.append(size if isinstance(size, int) else None)
            continue
        ((at, entry),) = found
        length = own[at] if at < len(own) else None
        maps.append(entry)
        seen.append(entry.size(length if isinstance(length, int) and length > 0 else None))
    return ReceptiveField(
        axes,
        tuple(seen),
        tuple(None if entry is None else entry.jump for entry in maps),
        tuple(None if entry is None else Fraction(sum(entry.interval(0)), 2) for entry in maps),
        tuple(maps),
    )
