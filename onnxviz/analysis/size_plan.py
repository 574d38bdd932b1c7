"""Which sizes a sweep tries, where nobody says: small, odd, prime and large ones, and those beside the strides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import onnx_ir as ir

from onnxviz.analysis.axes import Dimension
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.shapes import infer_shapes, name_axes, shape_list

__all__ = ["Symbols", "default_sizes", "pairs_of_sizes"]

_SAMPLES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 17)
_LENGTHS = (0, 1, 2, 3, 7, 8, 32, 64, 127, 128, 256, 512, 513, 1024)
_FAR = 1 << 14  # where an offset no longer hides a stride
_MOST_STRIDE = 128
_LEVELS = 5  # sizes of each of two dimensions that are tried together


class Symbols:
    """A model whose open dimensions have names that expressions can be read with, and what follows from them.

    Attributes:
        model: A copy, functions inlined, with the shapes that can be inferred.
        tokens: Dimension -> what it is called in the shapes.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 1, h, 8] x) => (float[n, 1, a, b] y)'
    >>> model = ir.from_onnx_text(text + '{y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)}')
    >>> from onnxviz.analysis.axes import dimensions
    >>> symbols = Symbols(model, dimensions(model))
    >>> symbols.formula("y", 2), symbols.strides()
    ('floor(h/2)', {'n': 1, 'h': 2})
    """

    def __init__(self, model: ir.Model, dimensions: Sequence[Dimension]) -> None:
        self.tokens = {dimension.name: f"_d{place}_" for place, dimension in enumerate(dimensions)}
        names: dict[str, dict[int, str]] = {}
        for dimension in dimensions:
            for tensor, axis in dimension.axes.items():
                names.setdefault(tensor, {})[axis] = self.tokens[dimension.name]
        self.model = infer_shapes(name_axes(inline_functions(model), names))
        self._outputs = {str(v.name): v for v in self.model.graph.outputs}

    def formula(self, output: str, axis: int) -> str | None:
        """Return the inferred size of an output's axis, in the names of the dimensions; None where it is unknown."""
        dim = self._dim(output, axis)
        if isinstance(dim, ir.SymbolicDim):
            return self.named(str(dim.value)) if dim.value is not None else None
        return None if dim is None else str(dim)

    def value(self, output: str, axis: int, sizes: Mapping[str, int]) -> int | None:
        """Return the inferred size of an output's axis at these sizes; None where it is unknown."""
        dim = self._dim(output, axis)
        return None if dim is None else _evaluated(dim, {self.tokens[name]: size for name, size in sizes.items()})

    def named(self, text: str) -> str:
        """Write the names of the dimensions in place of what they are called here."""
        for name, token in self.tokens.items():
            text = text.replace(token, name)
        return text

    def strides(self) -> dict[str, int]:
        """Return for each dimension by how much its coarsest tensor is smaller, as a whole number; 1 if by nothing."""
        found = dict.fromkeys(self.tokens, 1)
        texts: dict[str, int | ir.SymbolicDim] = {}
        for node in self.model.graph:
            for value in node.outputs:
                texts |= {str(d.value): d for d in value.shape or () if isinstance(d, ir.SymbolicDim) and d.value}
        for text, dim in texts.items():
            inside = [name for name, token in self.tokens.items() if token in text]
            size = _evaluated(dim, {self.tokens[inside[0]]: _FAR}) if len(inside) == 1 else None
            if size and (stride := round(_FAR / size)) > found[inside[0]] and stride <= _MOST_STRIDE:
                found[inside[0]] = stride
        return found

    def _dim(self, output: str, axis: int) -> int | ir.SymbolicDim | None:
        shape = self._outputs[output].shape if output in self._outputs else None
        if shape is None or axis >= len(shape):
            return None
        dim = shape_list(self._outputs[output])[axis]  # type: ignore[index]
        return ir.SymbolicDim(dim) if isinstance(dim, str) else dim


def _evaluated(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | None:
    try:
        found = dim if isinstance(dim, int) else dim.evaluate(sizes)
    except (ValueError, TypeError, ZeroDivisionError, ArithmeticError, SyntaxError, AttributeError):
        return None  # a name of the file that no expression can be
    return found if isinstance(found, int) else None


def default_sizes(usual: int, *, samples: bool = False, stride: int = 1) -> tuple[int, ...]:
    """Return the sizes to try of a dimension.

    Args:
        usual: The size that the model is known to run at.
        samples: It counts samples.
        stride: What :meth:`Symbols.strides` says.

    >>> default_sizes(1, samples=True)
    (0, 1, 2, 3, 4, 5, 7, 8, 16, 17)
    >>> default_sizes(224, stride=32)
    (0, 1, 31, 32, 33, 64, 96, 112, 113, 223, 224, 225, 240, 256, 448, 449)
    """
    if samples:
        return tuple(sorted({*_SAMPLES, usual}))
    around = {usual - 1, usual, usual + 1, 2 * usual + 1, _prime_from(usual // 2 + 1)}
    if stride > 1:
        beside = {stride - 1, stride, stride + 1, 2 * stride, 3 * stride, usual + stride // 2, usual + stride}
        sizes = {0, 1, usual // 2, 2 * usual, *around, *beside}
    else:
        sizes = {*_LENGTHS, *around}
    return tuple(sorted(size for size in sizes if size >= 0))


def _prime_from(number: int) -> int:
    number = max(number, 2)
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def pairs_of_sizes(working: Mapping[str, Sequence[int]], usual: Mapping[str, int]) -> list[dict[str, int]]:
    """Return combinations of two dimensions to try, the others at their usual size: not the whole product.

    Args:
        working: Dimension -> sizes that work alone.
        usual: Dimension -> its usual size.

    >>> pairs_of_sizes({"n": [1, 2, 8], "h": [32, 64]}, {"n": 1, "h": 32})
    [{'n': 2, 'h': 64}, {'n': 8, 'h': 64}]
    """
    levels = {name: [s for s in sizes if s and s != usual[name]] for name, sizes in working.items()}
    most = _LEVELS - 1 if len(levels) == 2 else 2
    spread = {name: _spread(sizes, most) for name, sizes in levels.items()}
    return [
        {one: first, other: second}
        for one, other in combinations(spread, 2)
        for first, second in product(spread[one], spread[other])
    ]


def _spread(sizes: Sequence[int], most: int) -> list[int]:
    """Return so many sizes, evenly from the smallest to the largest."""
    if len(sizes) <= most:
        return list(sizes)
    return [sizes[round(i * (len(sizes) - 1) / (most - 1))] for i in range(most)]
