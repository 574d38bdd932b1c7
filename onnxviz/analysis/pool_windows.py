"""The windows of a pooling operator: which input positions each output position stands for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.node_attributes import int_attribute

__all__ = ["Windows", "ties", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """Where windows lie, one entry a spatial axis.

    Attributes:
        kernel: Sizes of a window, in taken positions.
        strides: Steps between windows.
        pads: Positions of padding before the first input position.
        dilations: Steps between the taken positions of a window.
        pads_end: Positions of padding after the last input position; empty where they are as many as before it.
        also: What else changes the numbers, in words.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_end: tuple[int, ...] = ()
    also: tuple[str, ...] = ()

    def bounds(self, position: Sequence[int], shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return first and last + 1 input position of the window of an output position, an axis each, padding left out.

        >>> Windows((3, 3), (2, 2), (1, 1), (1, 1)).bounds((0, 1), (8, 8))
        [(0, 2), (1, 4)]
        """
        found = []
        for at, k, s, p, d, size in zip(
            position, self.kernel, self.strides, self.pads, self.dilations, shape, strict=True
        ):
            start = at * s - p
            found.append((max(start, 0), min(start + (k - 1) * d + 1, size)))
        return found

    @property
    def tiles(self) -> bool:
        """Whether windows lie side by side: neither overlapping nor apart nor with holes."""
        return self.kernel == self.strides and all(d == 1 for d in self.dilations)

    def text(self) -> str:
        """Return the windows in words.

        >>> Windows((2, 2), (2, 2), (0, 0), (1, 1)).text(), Windows((3,), (2,), (1,), (1,)).text()
        ('2×2 windows, stride 2', 'windows of 3, stride 2, pad 1')
        """
        size = "×".join(map(str, self.kernel))
        parts = [f"{size} windows" if len(self.kernel) > 1 else f"windows of {size}", f"stride {_short(self.strides)}"]
        if self.pads_end not in ((), self.pads):
            parts.append(f"pad {_short(self.pads)} before and {_short(self.pads_end)} after")
        elif any(self.pads):
            parts.append(f"pad {_short(self.pads)}")
        if any(d != 1 for d in self.dilations):
            parts.append(f"dilation {_short(self.dilations)}")
        return ", ".join([*parts, *self.also])

    def outside(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which positions ``(*pooled, R)`` lie in no place of their window; -1 (none) is never outside.

        >>> Windows((2,), (2,), (0,), (1,)).outside(np.array([[1], [1]])).tolist()
        [False, True]
        """
        found = np.zeros(positions.shape[:-1], bool)
        for axis, size in enumerate(positions.shape[:-1]):
            shape = [1] * found.ndim
            shape[axis] = -1
            start = (np.arange(size) * self.strides[axis] - self.pads[axis]).reshape(shape)
            place, rest = np.divmod(positions[..., axis] - start, self.dilations[axis])
            found |= (rest != 0) | (place < 0) | (place >= self.kernel[axis])
        return np.asarray(found & (positions[..., 0] >= 0))


def _short(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "×".join(map(str, numbers))


def windows_of(node: ir.Node, before: Sequence[int], after: Sequence[int]) -> Windows:
    """Return the windows of a pooling node.

    Args:
        node: MaxPool, AveragePool, LpPool or a relative with their attributes.
        before: Spatial sizes of what enters.
        after: Spatial sizes of what leaves; padding that ``auto_pad`` leaves open follows from them.

    >>> node = ir.node("MaxPool", [None], attributes={"kernel_shape": [2], "auto_pad": "SAME_LOWER"})
    >>> windows_of(node, [5], [5]).pads
    (1,)
    """
    rank = len(before)
    kernel = tuple(node.attributes.get_ints("kernel_shape", (1,) * rank))
    strides = tuple(node.attributes.get_ints("strides", ()) or (1,) * rank)
    dilations = tuple(node.attributes.get_ints("dilations", ()) or (1,) * rank)
    given = tuple(node.attributes.get_ints("pads", ()) or (0,) * 2 * rank)
    pads, ends = given[:rank], given[rank:]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((o - 1) * s + (k - 1) * d + 1 - i, 0)
            for i, o, k, s, d in zip(before, after, kernel, strides, dilations, strict=True)
        ]
        pads = tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total)
        ends = tuple(t - p for t, p in zip(total, pads, strict=True))
    elif auto == "VALID":
        pads = ends = (0,) * rank
    return Windows(kernel, strides, pads, dilations, ends, tuple(_also(node, any(pads) or any(ends))))


def _also(node: ir.Node, padded: bool) -> list[str]:
    """Return what an operator does otherwise than is its habit."""
    said = []
    if int_attribute(node, "ceil_mode", 0):
        said.append("sizes rounded up")
    if padded and int_attribute(node, "count_include_pad", 0):
        said.append("padding counts in the mean")
    if node.op_type == "LpPool":
        said.append(f"p = {int_attribute(node, 'p', 2)}: the p-norm of a window")
    return said


def ties(before: npt.NDArray[Any], after: npt.NDArray[Any], windows: Windows) -> npt.NDArray[np.bool_]:
    """Return where several positions of a window hold its largest value, so that the survivor is one of equals.

    Args:
        before: ``(K, *spatial)``.
        after: ``(K, *pooled)``: the largest value of each window.
        windows: Where they lie.

    >>> ties(np.float32([[0, 0, 1, 2]]), np.float32([[0, 2]]), Windows((2,), (2,), (0,), (1,))).tolist()
    [[True, False]]
    """
    count = np.zeros(after.shape, np.int32)
    grids = [np.arange(size) for size in after.shape[1:]]
    for offset in itertools.product(*(range(k) for k in windows.kernel)):
        index, valid = [], np.ones(after.shape[1:], bool)
        for axis, (grid, k) in enumerate(zip(grids, offset, strict=True)):
            at = grid * windows.strides[axis] - windows.pads[axis] + k * windows.dilations[axis]
            inside = (at >= 0) & (at < before.shape[axis + 1])
            shape = [1] * len(grids)
            shape[axis] = -1
            valid &= inside.reshape(shape)
            index.append(np.clip(at, 0, before.shape[axis + 1] - 1))
        taken = before.reshape(len(before), -1)[:, np.ravel_multi_index(np.ix_(*index), before.shape[1:])]
        count += (taken == after) & valid
    return np.asarray(count > 1)
