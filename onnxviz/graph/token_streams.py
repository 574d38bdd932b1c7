"""Where the tokens of a sequence come from, followed backwards through a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.node_attributes import int_attribute

__all__ = ["Join", "TokenStream", "data_inputs", "is_fixed", "token_stream", "upwards"]

_FIRST_ONLY = {"Reshape", "Expand", "Tile", "Slice", "Squeeze", "Unsqueeze", "Pad", "Resize", "Upsample", "Split",
               "Clip", "QuantizeLinear", "DequantizeLinear", "Dropout", "CastLike", "Trilu", "ReduceMean",
               "ReduceSum", "TopK"}  # fmt: skip
_MAKES_NO_TOKENS = {"Shape", "Size", "ConstantOfShape", "Range", "RandomNormal", "RandomUniform", "OneHot", "EyeLike"}
_PLANES = {"Conv", "QLinearConv", "ConvInteger", "FusedConv", "MaxPool", "AveragePool"}


@dataclass(frozen=True)
class Join:
    """A Concat on the way of a token stream.

    Attributes:
        tensor: What it gives.
        axis: Along which.
        parts: Tensor and stream of each input.
        fixed: Shape of each input that is a constant, which no capture records; else None.
    """

    tensor: str
    axis: int
    parts: tuple[tuple[str, TokenStream], ...]
    fixed: tuple[tuple[int, ...] | None, ...] = ()


@dataclass(frozen=True)
class TokenStream:
    """Where a sequence of tokens comes from, followed backwards along the residual stream.

    Attributes:
        joins: Concats, the nearest first.
        planes: Outputs of convolutions and poolings, the nearest first: one of them has a cell a picture token.
        inputs: Graph inputs that the tokens come from, the nearest first; empty for learned tokens.
        tokens: Those of the inputs that are integers: token ids.
    """

    joins: tuple[Join, ...] = ()
    planes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["learned", "text", "image", "signal"]:
        """What the tokens are: by the inputs and by whether a convolution lies on the way."""
        if self.tokens:
            return "text"
        if not self.inputs:
            return "learned"
        return "image" if self.planes else "signal"

    def tensors(self) -> Iterator[str]:
        """Yield every tensor whose shape tells how the tokens are laid out."""
        yield from self.planes
        for join in self.joins:
            for name, stream in join.parts:
                yield name
                yield from stream.tensors()


def is_fixed(value: ir.Value | None, depth: int = 6) -> bool:
    """Whether a value is the same whatever is fed: a constant, or made of constants."""
    if value is None or constant_tensor(value) is not None:
        return True
    node = value.producer()
    return depth > 0 and node is not None and all(is_fixed(v, depth - 1) for v in node.inputs)


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """Return the inputs that a node's output is made of, those left out that only give shapes, indices or constants."""
    inputs: Sequence[ir.Value | None] = node.inputs
    if node.op_type in _MAKES_NO_TOKENS:
        return []
    if node.op_type in _FIRST_ONLY:
        inputs = inputs[:1]
    elif node.op_type == "Where":
        inputs = inputs[1:]
    elif node.op_type in ("Gather", "GatherND") and len(inputs) > 1:
        inputs = inputs[1:2] if is_fixed(inputs[0]) else inputs[:1]
    return [v for v in inputs if v is not None and constant_tensor(v) is None]


def upwards(start: ir.Value, ends: Collection[ir.Node]) -> Iterator[tuple[ir.Value, ir.Node | None]]:
    """Walk back from a value, the nearest first, not past the nodes in ``ends``."""
    row, seen = [start], {start}
    while row:
        above = []
        for value in row:
            node = value.producer()
            yield value, node
            if node is not None and node not in ends:
                for v in data_inputs(node):
                    if v not in seen:
                        seen.add(v)
                        above.append(v)
        row = above


def token_stream(start: ir.Value, ends: Collection[ir.Node], *, joins: bool = True) -> TokenStream:
    """Return where the tokens of a value come from.

    Args:
        start: Queries or keys.
        ends: Products of weights and values: what they bring in comes from other tokens, so they are not passed.
        joins: Look into Concats.
    """
    found: list[Join] = []
    planes, inputs, tokens = [], [], []
    for value, node in upwards(start, ends):
        name = str(value.name)
        if node is None:
            if value.is_graph_input() and value.const_value is None:
                inputs.append(name)
                if value.dtype in (ir.DataType.INT32, ir.DataType.INT64):
                    tokens.append(name)
        elif node.op_type in _PLANES and value is node.outputs[0]:
            planes.append(name)
        elif node.op_type == "Concat" and joins:
            parts = tuple((str(v.name), token_stream(v, ends, joins=False)) for v in node.inputs if v is not None)
            found.append(Join(name, int_attribute(node, "axis"), parts, tuple(map(_fixed_shape, node.inputs))))
    return TokenStream(tuple(found), tuple(planes), tuple(inputs), tuple(tokens))


def _fixed_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    tensor = constant_tensor(value)
    return None if tensor is None else tuple(size for size in tensor.shape if isinstance(size, int))
