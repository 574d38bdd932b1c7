"""The sides of a feature map: which axes of a tensor are channels, which positions."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.diagram.volume_attributes import int_of
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.shapes import model_inputs, symbolic_shape

__all__ = ["Extent", "Extents", "Shape"]

Dim = int | str | None
Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Extent:
    """The sides of a feature map.

    Attributes:
        channels: How many channels, or features of a vector.
        spatial: The axes of positions: rows and columns, tokens, depth, rows and columns; empty for vectors.
        known: Whether the model tells the number of axes at all.
        tokens: Whether the positions are tokens, each with a vector of features.
    """

    channels: Dim = None
    spatial: tuple[Dim, ...] = ()
    known: bool = True
    tokens: bool = False

    @property
    def is_vector(self) -> bool:
        """Whether there is one position only."""
        return self.known and all(size == 1 for size in self.spatial)


class Extents:
    """Reads the sides of a model's tensors from their shapes."""

    def __init__(self, model: ir.Model) -> None:
        self.layouts = tensor_layouts(model)
        shapes = [shape for value in model_inputs(model) if (shape := symbolic_shape(value))]
        self.batch: set[Dim] = {shape[0] for shape in shapes if len(shape) > 1} | {1}
        self.names = {size for size in self.batch if isinstance(size, str)}

    def __call__(self, value: ir.Value) -> Extent:
        """Return the sides of a tensor."""
        shape = symbolic_shape(value)
        if shape is None:
            return Extent(known=False)
        made = value.producer()
        if made is not None and kind_of(made) == "recurrent":
            return self._states(made, value, shape)
        layout, rank = self.layouts.get(str(value.name)), len(shape)
        if layout == "NHWC" and rank > 2:
            return Extent(shape[-1], shape[1:-1])
        if rank > 3 or (rank == 3 and layout == "NCHW"):
            return Extent(shape[1], shape[2:5])
        if rank == 3:  # tokens × width, the batch first or second
            second = shape[1] in self.batch and shape[0] not in self.batch and shape[0] is not None
            return Extent(shape[2], (shape[0] if second else shape[1],), tokens=True)
        if rank == 2:
            tokens = self._tokens(shape[0])
            return Extent(shape[1], (tokens,) if tokens else (), tokens=bool(tokens))
        return Extent(shape[0] if rank else 1)

    def _states(self, node: ir.Node, value: ir.Value, shape: Shape) -> Extent:
        """Return the sides of what a recurrent layer gives: the features of both directions follow one another."""
        if len(shape) < 3:
            return Extent(shape[-1] if shape else 1)
        layout = int_of(node, "layout", 0)
        every = len(shape) == 4 and value is node.outputs[0]
        ways = shape[(2 if layout else 1) if every else (1 if layout else 0)]
        width = shape[-1]
        if isinstance(ways, int) and isinstance(width, int):
            width *= ways
        steps = shape[1 if layout else 0]
        return Extent(width, (steps,), tokens=True) if every and steps != 1 else Extent(width)

    def _tokens(self, size: Dim) -> int | None:
        """Return how many positions of one example lie in the first axis of a matrix; None where it is the batch."""
        if size is None or size in self.batch:
            return None
        if isinstance(size, int):
            return size
        try:
            found = ir.SymbolicDim(size).evaluate(dict.fromkeys(self.names, 1))
        except (ValueError, KeyError, ZeroDivisionError, OverflowError):
            return None
        return found if isinstance(found, int) and found > 1 else None
