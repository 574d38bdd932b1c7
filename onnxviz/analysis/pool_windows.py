"""The windows of a pooling operator: which input positions each output position stands for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Windows", "ties", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """Where windows lie, one entry a spatial axis.

    Attributes:
        kernel: Sizes of a window, in taken positions.
        strides: Steps between windows.
        pads: Positions of padding before the first input position.
        dilations: Steps between the taken positions of a window.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

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
        if any(self.pads):
            parts.append(f"pad {_short(self.pads)}")
        if any(d != 1 for d in self.dilations):
            parts.append(f"dilation {_short(self.dilations)}")
        return ", ".join(parts)


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
    pads = tuple(node.attributes.get_ints("pads", ()) or (0,) * 2 * rank)[:rank]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((o - 1) * s + (k - 1) * d + 1 - i, 0)
            for i, o, k, s, d in zip(before, after, kernel, strides, dilations, strict=True)
        ]
        pads = tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total)
    elif auto == "VALID":
        pads = (0,) * rank
    return Windows(kernel, strides, pads, dilations)


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
