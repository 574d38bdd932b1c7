"""The random transformations under which a picture has to hold: where each pixel of the model's input is read.

Pad, jitter, scale, rotation and jitter (Olah et al. 2017, lucid's ``standard_transforms``) are put together into one
affine map, so that a picture is read between its pixels once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.gradient.ops import Ops

__all__ = ["Views", "view_matrix", "write_views"]

_SIDE = 224.0  # the side of a picture that amounts in pixels are meant for
_FILL = 0.5  # outside a picture


@dataclass(frozen=True)
class Views:
    """The transformations.

    Amounts in pixels are those of a side of 224; for other sizes they grow and shrink with the shorter side.

    Attributes:
        pad: Grey pixels around the picture, so that jitter moves no part of it out of sight.
        jitter: Pixels of the range of the first and of the second shift, whole ones.
        scale: Smallest and largest factor of the size.
        rotate: Largest angle in degrees, to either side.
        octaves: How many times the model looks closer, in even parts of all steps: first at the whole picture.
        ratio: How much closer each time. At closer looks the place is random.
    """

    pad: float = 12
    jitter: tuple[float, float] = (8, 4)
    scale: tuple[float, float] = (0.9, 1.1)
    rotate: float = 10
    octaves: int = 1
    ratio: float = 1.4

    @classmethod
    def none(cls) -> Views:
        """Return no transformation at all."""
        return cls(0, (0, 0), (1, 1), 0)

    @property
    def still(self) -> bool:
        """Whether nothing is transformed."""
        return self == replace(Views.none(), octaves=1, ratio=self.ratio)

    def text(self, axes: int = 2) -> str:
        """Return what is done to pictures, or to signals of one axis, for a caption.

        >>> Views().text()
        'pad 12, jitter 8 and 4 (pixels of 224), scale 0.9-1.1, rotation ±10°'
        """
        if self.still:
            return "no transformations"
        unit = "pixels" if axes == 2 else "points"
        said = f"pad {self.pad:g}, jitter {self.jitter[0]:g} and {self.jitter[1]:g} ({unit} of 224)"
        said += f", scale {self.scale[0]:g}-{self.scale[1]:g}"
        said += f", rotation ±{self.rotate:g}°" if axes == 2 else ""
        return said + (f", {self.octaves} octaves of {self.ratio:g}" if self.octaves > 1 else "")

    def draw(self, rng: np.random.Generator, picture: tuple[int, ...], octave: int = 0) -> npt.NDArray[np.float32]:
        """Return a random view as :func:`view_matrix` gives it.

        Args:
            rng: Where the numbers come from; eight are taken, whatever is done.
            picture: (height, width) of the picture, or (length,).
            octave: Which look, from 0.
        """
        numbers = rng.random(8)
        unit = min(picture) / _SIDE
        reach = [_whole(jitter * unit) for jitter in self.jitter]
        pad = _whole(self.pad * unit)
        first = [math.floor(n * (reach[0] + 1)) - reach[0] / 2 for n in numbers[0:2]]
        second = [math.floor(n * (reach[1] + 1)) - reach[1] / 2 for n in numbers[2:4]]
        scale = self.scale[0] + numbers[4] * (self.scale[1] - self.scale[0])
        angle = math.radians(self.rotate * (2 * numbers[5] - 1)) if len(picture) == 2 else 0.0
        near = self.ratio**octave
        around = [(n + 2 * pad - sum(reach)) / n / near for n in picture]
        room = [max(0.0, n * (1 - 1 / near)) for n in picture]
        at = [a + (number - 0.5) * free for a, number, free in zip(first, numbers[6:8], room, strict=False)]
        return view_matrix(picture, at, second, [a / scale for a in around], angle)


def _whole(amount: float) -> int:
    """Round an amount, at least to 1 where it is any.

    >>> _whole(0), _whole(0.2), _whole(7.6)
    (0, 1, 8)
    """
    return 0 if amount <= 0 else max(1, round(amount))


def view_matrix(
    picture: tuple[int, ...],
    shift: list[float] | tuple[float, ...] = (0.0, 0.0),
    late: list[float] | tuple[float, ...] = (0.0, 0.0),
    window: list[float] | tuple[float, ...] = (1.0, 1.0),
    angle: float = 0.0,
) -> npt.NDArray[np.float32]:
    """Return the matrix from a place of the model's input to the place of the picture that is read there.

    Places count from -1 to 1 from edge to edge, x before y. A place ``p`` of the window, in pixels of the picture from
    its middle, reads ``shift + R(angle) (p + late)``.

    Args:
        picture: (height, width) of the picture, or (length,).
        shift, late: Pixels of the picture, down and right, after and before the rotation.
        window: Size of what the model sees over that of the picture.
        angle: Radians.

    Returns:
        ``(3, 2)`` float32; a row ``(x, y, 1)`` times it is the place. The pixels of the model's input, however
        many, are spread over the window.

    >>> view_matrix((4, 4)).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    if len(picture) == 1:
        matrix = np.zeros((3, 2))
        matrix[0, 0] = window[0]
        matrix[2, 0] = 2 * (shift[0] + late[0]) / picture[0]
        return matrix.astype(np.float32)
    height, width = picture
    half = np.diag([width / 2, height / 2])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = np.linalg.inv(half) @ turn @ half @ np.diag([window[1], window[0]])
    moved = np.linalg.inv(half) @ (np.array([shift[1], shift[0]]) + turn @ np.array([late[1], late[0]]))
    return np.concatenate([linear.T, moved[None]]).astype(np.float32)


def write_views(
    ops: Ops, pictures: ir.Value, matrices: ir.Value, shape: tuple[int, ...], size: tuple[int, ...], opset: int
) -> ir.Value:
    """Append the nodes that read ``(N, C, ...)`` pictures where matrices say, and return what the model sees.

    Args:
        ops: Where the nodes go.
        pictures: Of ``shape``.
        matrices: ``(N, 3, 2)``.
        shape: Of the pictures.
        size: (height, width) or (length,) of the model's input.
        opset: Of the standard operators.
    """
    flat = len(size) == 1
    height, width = (1, size[0]) if flat else size
    x, y = ((2 * np.arange(n) + 1) / n - 1 for n in (width, height))
    grid = np.stack([*(axis.reshape(-1) for axis in np.meshgrid(x, y)), np.ones(height * width)], axis=1)
    places = ops.Reshape(
        ops.MatMul(ops.constant(grid.astype(np.float32)), matrices), ops.ints(shape[0], height, width, 2)
    )
    if flat:
        pictures = ops.Reshape(pictures, ops.ints(shape[0], shape[1], 1, shape[2]))
    middle = ops.constant(np.array(_FILL, np.float32))
    centred = ops.Sub(pictures, middle)
    centred.shape = ir.Shape([shape[0], shape[1], *((1,) if flat else ()), *shape[2:]])
    mode = "linear" if opset >= 20 else "bilinear"
    seen = ops.GridSample(centred, places, mode=mode, padding_mode="zeros", align_corners=0)
    seen = ops.Add(seen, middle)
    return ops.Reshape(seen, ops.ints(shape[0], shape[1], width)) if flat else seen
