"""What is maximized: numbers made of a layer's values, a number a picture, as nodes.

Sources: lucid's ``objectives.py`` (neuron, channel, direction, ``cossim_pow``, deepdream, diversity); Olah et al. 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.feature_maps import axis_letters
from onnxviz.errors import SelectionError
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.graph.select import FLOAT_TYPES

__all__ = ["Goal", "Layer", "layer_of", "write_diversity", "write_goal"]

_EPSILON = 1e-4
_LEAST_COSINE = 0.1


@dataclass(frozen=True, eq=False)
class Goal:
    """One term of what a picture maximizes.

    Attributes:
        layer: The tensor.
        kind: ``"match"``: the mean over positions of ``a · d`` times ``max(0.1, cos(a, d)) ** cosine``, a the channels
            at a position; ``"energy"``: the mean of all squares, what deep dream climbs.
        channel: Of ``"match"``: d is this channel alone.
        position: d counts at this position alone, an index a spatial axis; negative ones count from the end.
        direction: d itself, ``(C,)``, or ``(C, P)`` with one a position.
        reference: d is what the layer holds for the picture's reference, seen as the picture is seen.
        cosine: The exponent.
        weight: Factor of the term.
    """

    layer: str
    kind: Literal["match", "energy"] = "match"
    channel: int | None = None
    position: tuple[int, ...] | None = None
    direction: npt.NDArray[np.floating] | None = None
    reference: bool = False
    cosine: float = 0.0
    weight: float = 1.0

    @property
    def form(self) -> tuple[str, str, float, bool]:
        """What is the same for all pictures of one run."""
        return self.layer, self.kind, self.cosine, self.reference

    @property
    def everywhere(self) -> bool:
        """Whether d is the same at all positions."""
        flat = self.direction is None or np.ndim(self.direction) == 1
        return self.position is None and flat and not self.reference

    def target(self, layer: Layer) -> npt.NDArray[np.float32]:
        """Return d, ``(C, 1)`` or ``(C, P)`` float32.

        Raises:
            SelectionError: The layer has no such channel or position, or d has another length.
        """
        channels = layer.channels
        if self.direction is not None:
            given = np.asarray(self.direction, np.float32)
            if given.shape not in ((channels,), (channels, layer.positions)) or not np.isfinite(given).all():
                raise SelectionError(
                    f"a direction in {layer.name} has {channels} numbers, one a channel, and not shape {given.shape}"
                    if np.isfinite(given).all() else f"the direction in {layer.name} holds NaN or infinite numbers"
                )  # fmt: skip
            wanted = given.reshape(channels, -1)
        else:
            wanted = np.zeros((channels, 1), np.float32)
            if self.kind == "match":
                wanted[layer.checked(self.channel or 0)] = 1
        if self.position is None:
            return wanted
        place = np.zeros(layer.places, np.float32)
        place[layer.place(self.position)] = layer.positions  # the mean over positions becomes the value at one
        return wanted * place.reshape(1, -1)


@dataclass(frozen=True)
class Layer:
    """A tensor as channels over positions.

    Attributes:
        name: The tensor.
        op_type: The operator that made it.
        axes: A letter an axis, as :func:`onnxviz.analysis.feature_maps.axis_letters` gives them.
        channels: Number of channels; of a recurrence, directions times units.
        places: Sizes of the spatial axes.
    """

    name: str
    op_type: str | None
    axes: str
    channels: int
    places: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Number of positions."""
        return math.prod(self.places)

    def checked(self, channel: int) -> int:
        """Return a channel that exists.

        Raises:
            SelectionError: It does not.

        >>> Layer("conv", "Conv", "NCHW", 8, (5, 5)).checked(8)
        Traceback (most recent call last):
        onnxviz.errors.SelectionError: conv has no channel 8; it has 8, counted from 0
        """
        if not 0 <= channel < self.channels:
            raise SelectionError(
                f"{self.name} has no channel {channel}", hint=f"it has {self.channels}, counted from 0"
            )
        return channel

    def place(self, position: tuple[int, ...]) -> tuple[int, ...]:
        """Return a position that exists; an empty one is the middle.

        Raises:
            SelectionError: It does not.

        >>> Layer("conv", "Conv", "NCHW", 8, (5, 7)).place(())
        (2, 3)
        """
        if not position:
            return tuple(size // 2 for size in self.places)
        if len(position) != len(self.places) or any(
            not -n <= p < n for p, n in zip(position, self.places, strict=False)
        ):
            sizes = "×".join(map(str, self.places)) or "one"
            raise SelectionError(
                f"{self.name} has no position {','.join(map(str, position))}",
                hint=f"it has {sizes} positions, counted from 0",
            )
        return tuple(p % n for p, n in zip(position, self.places, strict=True))

    def write(self, ops: Ops, value: ir.Value, batch: int) -> ir.Value:
        """Append the nodes that make ``(N, C, P)`` float32 of the tensor, and return that."""
        if value.dtype != ir.DataType.FLOAT:
            value = ops.Cast(value, to=int(ir.DataType.FLOAT))
        spatial = "".join(letter for letter in self.axes if letter not in "NdC")
        order = "".join(letter for letter in ("N", "d", "C") if letter in self.axes) + spatial
        if order != self.axes:
            value = ops.Transpose(value, perm=[self.axes.index(letter) for letter in order])
        return ops.Reshape(value, ops.ints(batch, self.channels, self.positions))


def layer_of(value: ir.Value, batch: int, layout: str | None) -> Layer:
    """Return a tensor as channels over positions.

    Args:
        value: The tensor, its shape known.
        batch: Number of pictures.
        layout: As :func:`onnxviz.graph.layouts.tensor_layouts` says.

    Raises:
        SelectionError: It is not of floating point, or its samples cannot be told apart.
    """
    name, node = str(value.name), value.producer()
    if value.dtype not in FLOAT_TYPES:
        kind = "of an unknown type" if value.dtype is None else f"{value.dtype.name.lower()}, not floating point"
        raise SelectionError(
            f"{name} is {kind}: there is no gradient to follow",
            hint="name a float tensor; of a quantised model, take the one it was made from",
        )
    shape = static_shape(value)
    if shape is None or None in shape:
        raise SelectionError(f"the shape of {name} is not known before the model runs", hint="name another tensor")
    sizes = tuple(size or 0 for size in shape)
    axes = axis_letters(sizes, name, node.op_type if node is not None else None, layout) if sizes else ""
    along = dict(zip(axes, sizes, strict=True))
    if along.get("N", 1) != batch or 0 in sizes:
        raise SelectionError(
            f"{name}, of shape {sizes}, has no axis of the {batch} picture{'s' if batch > 1 else ''} that enter",
            hint="name another tensor, or give --batch 1",
        )
    places = tuple(size for letter, size in along.items() if letter not in "NdC")
    channels = along.get("C", 1) * along.get("d", 1)
    return Layer(name, node.op_type if node is not None else None, axes, channels, places)


def write_goal(ops: Ops, block: ir.Value, goal: Goal, target: ir.Value | None, everywhere: bool) -> ir.Value:
    """Append the nodes of one term and return ``(N,)``.

    Args:
        ops: Where the nodes go.
        block: ``(N, C, P)`` the layer.
        goal: Its kind and exponent count.
        target: ``(N, C, 1)`` or ``(N, C, P)``; None of ``"energy"``.
        everywhere: Whether the target has one position.
    """
    if goal.kind == "energy" or target is None:
        return ops.ReduceMean(ops.Mul(block, block), ops.ints(1, 2), keepdims=0)
    if everywhere and not goal.cosine:
        pooled = ops.ReduceMean(block, ops.ints(2), keepdims=1)
        return ops.ReduceSum(ops.Mul(pooled, target), ops.ints(1, 2), keepdims=0)
    dots = ops.ReduceSum(ops.Mul(block, target), ops.ints(1), keepdims=0)
    if goal.cosine:
        sides = ops.Mul(_length(ops, block), _length(ops, target))
        cosine = ops.Max(ops.Div(dots, sides), ops.scalar(_LEAST_COSINE, dots))
        dots = ops.Mul(dots, ops.Pow(cosine, ops.scalar(goal.cosine, dots)))
    return ops.ReduceMean(dots, ops.ints(1), keepdims=0)


def _length(ops: Ops, block: ir.Value) -> ir.Value:
    """Return the length at each position, never 0, where its root has no slope."""
    squares = ops.ReduceSum(ops.Mul(block, block), ops.ints(1), keepdims=0)
    return ops.Sqrt(ops.Add(squares, ops.scalar(_EPSILON**2, squares)))


def write_diversity(ops: Ops, block: ir.Value, mates: ir.Value, batch: int) -> ir.Value:
    """Append the nodes of the likeness of pictures to their mates, ``(N,)``: cosines of Gram matrices.

    Args:
        ops: Where the nodes go.
        block: ``(N, C, P)`` the layer.
        mates: ``(N, N)`` how much each other picture counts.
        batch: N.
    """
    gram = ops.MatMul(block, ops.Transpose(block, perm=[0, 2, 1]))
    flat = ops.Reshape(gram, ops.ints(batch, -1))
    squares = ops.ReduceSum(ops.Mul(flat, flat), ops.ints(1), keepdims=1)
    unit = ops.Div(flat, ops.Sqrt(ops.Add(squares, ops.scalar(1e-10, squares))))
    likeness = ops.MatMul(unit, ops.Transpose(unit, perm=[1, 0]))
    return ops.ReduceSum(ops.Mul(likeness, mates), ops.ints(1), keepdims=0)
