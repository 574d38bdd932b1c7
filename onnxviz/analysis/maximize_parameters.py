"""What the optimiser moves: a picture's spectrum in decorrelated colours, or its pixels.

Sources: Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017, and its code, lucid
(``param/spatial.py``, ``param/color.py``): the spectrum of a real picture, scaled by 1/f, so that a step moves all
frequencies alike; colours along the axes that are uncorrelated in ImageNet; a sigmoid keeps values between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.gradient.ops import Ops

__all__ = ["Parameters", "color_matrix", "frequency_scale", "inverse_bases"]

Floats = npt.NDArray[np.float64]

_DEVIATION = 0.01  # of the first numbers
_CONTRAST = 4.0  # lucid divides what the inverse transform gives
_EDGE = 0.005  # a start closer to 0 or 1 would need an infinite logit
_LONG = 4096  # points from which a transform costs less than a matrix
#: Square root of the covariance of colours in ImageNet, by its singular vectors; rows are R, G, B.
_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def color_matrix(color: str) -> Floats | None:
    """Return what turns decorrelated colours into those of a picture, ``(3, 3)``; None where it has no three.

    >>> color_matrix("rgb").shape, color_matrix("gray")
    ((3, 3), None)
    """
    if color not in ("rgb", "bgr"):
        return None
    matrix: Floats = _COLORS / np.linalg.norm(_COLORS, axis=0).max()
    return matrix if color == "rgb" else matrix[::-1].copy()


def frequency_scale(size: tuple[int, ...], decay: float = 1.0) -> Floats:
    """Return the factor of each frequency of a real picture or signal, of the shape of its ``rfftn``.

    It is ``sqrt(points) / max(f, 1 / longest side) ** decay``, f in periods a point.

    >>> frequency_scale((4,)).tolist()
    [8.0, 8.0, 4.0]
    """
    axes = [np.fft.fftfreq(n) for n in size[:-1]] + [np.fft.rfftfreq(size[-1])]
    grid = np.meshgrid(*axes, indexing="ij")
    frequency = np.sqrt(sum(np.square(axis) for axis in grid))
    scale: Floats = np.sqrt(np.prod(size)) / np.maximum(frequency, 1.0 / max(size)) ** decay
    return scale


def inverse_bases(size: tuple[int, ...]) -> list[Floats]:
    """Return the matrices by which the inverse of ``rfftn`` is a product, real and imaginary parts stacked.

    Of a signal of L points one, ``(2 F, L)``; of a picture one from the left, ``(2 H, 2 H)``, and two from the right,
    ``(F, W)``, for the real and the imaginary part.

    >>> spectrum = np.fft.rfft([1.0, 2.0, 5.0])
    >>> bool(np.allclose(np.concatenate([spectrum.real, spectrum.imag]) @ inverse_bases((3,))[0], [1, 2, 5]))
    True
    """
    length = size[-1]
    half = length // 2 + 1
    twice = np.full((half, 1), 2.0)  # all but the first and, of an even number, the last stand for two
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    angle = 2 * np.pi * np.outer(np.arange(half), np.arange(length)) / length
    real, imaginary = twice * np.cos(angle) / length, -twice * np.sin(angle) / length
    if len(size) == 1:
        return [np.concatenate([real, imaginary])]
    turn = 2 * np.pi * np.outer(np.arange(size[0]), np.arange(size[0])) / size[0]
    c, s = np.cos(turn) / size[0], np.sin(turn) / size[0]
    return [np.block([[c, -s], [s, c]]), real, imaginary]


@dataclass(frozen=True)
class Parameters:
    """How the numbers that are optimised become a picture from 0 to 1.

    Attributes:
        kind: ``"fft"``: the spectrum; ``"pixel"``: the values themselves.
        channels: Of the picture.
        size: (height, width) or (length,).
        color: ``"rgb"`` or ``"bgr"``: colours are decorrelated; else each channel is on its own.
        decay: Exponent of the frequency, of ``"fft"``.
    """

    kind: Literal["fft", "pixel"]
    channels: int
    size: tuple[int, ...]
    color: str = ""
    decay: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the numbers of one picture: real parts, then imaginary ones, along the axis before the last.

        >>> Parameters("fft", 3, (6, 8)).shape, Parameters("fft", 1, (8,)).shape, Parameters("pixel", 3, (6, 8)).shape
        ((3, 12, 5), (1, 10), (3, 6, 8))
        """
        if self.kind == "pixel":
            return self.channels, *self.size
        half = self.whole[-1] // 2 + 1
        return (self.channels, 2 * self.size[0], half) if len(self.size) == 2 else (self.channels, 2 * half)

    @property
    def whole(self) -> tuple[int, ...]:
        """Sizes of what is transformed: a long signal is the first part of one whose length is a power of two.

        onnxruntime transforms other lengths with an error of 1e-3.
        """
        long = len(self.size) == 1 and self.size[0] > _LONG
        return (1 << (self.size[0] - 1).bit_length(),) if long else self.size

    def _scale(self) -> Floats:
        scale = frequency_scale(self.whole, self.decay) / _CONTRAST
        return np.concatenate([scale, scale])

    def random(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return the numbers that one picture begins with."""
        return (_DEVIATION * rng.standard_normal(self.shape)).astype(np.float32)

    def encode(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Return the numbers that stand for a picture, ``(C, ...)`` from 0 to 1.

        Raises:
            InputError: It has another shape.
        """
        if values.shape != (self.channels, *self.size):
            raise InputError(f"a start of shape {values.shape} is not of shape {(self.channels, *self.size)}")
        inside = np.clip(np.asarray(values, np.float64), _EDGE, 1 - _EDGE)
        logits = np.log(inside / (1 - inside))
        matrix = color_matrix(self.color)
        if matrix is not None:
            logits = np.tensordot(np.linalg.inv(matrix), logits, 1)
        if self.kind == "pixel":
            return logits.astype(np.float32)
        if self.whole != self.size:
            logits = np.pad(logits, ((0, 0), (0, self.whole[0] - self.size[0])), mode="edge")
        spectrum = np.fft.rfftn(logits, axes=tuple(range(1, logits.ndim)))
        stacked = np.concatenate([spectrum.real, spectrum.imag], axis=1)
        return (stacked / self._scale()).astype(np.float32)

    def write(self, ops: Ops, numbers: ir.Value, batch: int, opset: int) -> ir.Value:
        """Append the nodes that turn ``(N, *shape)`` numbers into ``(N, C, ...)`` pictures, and return those."""
        values = numbers if self.kind == "pixel" else self._inverse(ops, numbers, opset)
        matrix = color_matrix(self.color)
        if matrix is not None:
            flat = ops.Reshape(values, ops.ints(batch, 3, -1))
            values = ops.MatMul(ops.constant(matrix.astype(np.float32)), flat)
        shaped = ops.Reshape(values, ops.ints(batch, self.channels, *self.size))
        return ops.Sigmoid(shaped)

    def _inverse(self, ops: Ops, numbers: ir.Value, opset: int) -> ir.Value:
        scaled = ops.Mul(numbers, ops.constant(self._scale().astype(np.float32)))
        if self.whole != self.size:
            return self._transform(ops, scaled, opset)
        bases = [ops.constant(basis.astype(np.float32)) for basis in inverse_bases(self.size)]
        if len(self.size) == 1:
            return ops.MatMul(scaled, bases[0])
        columns = ops.MatMul(bases[0], scaled)
        rows, axis = self.size[0], ops.ints(2)
        real = ops.Slice(columns, ops.ints(0), ops.ints(rows), axis)
        imaginary = ops.Slice(columns, ops.ints(rows), ops.ints(2 * rows), axis)
        return ops.Add(ops.MatMul(real, bases[1]), ops.MatMul(imaginary, bases[2]))

    def _transform(self, ops: Ops, scaled: ir.Value, opset: int) -> ir.Value:
        """Return the inverse transform of a long signal by DFT, whose operator has no inverse of a half spectrum."""
        length = self.whole[0]
        half = length // 2 + 1
        twice = np.full((1, half, 1), 2.0, np.float32)
        twice[:, [0, -1]] = 1
        pairs = ops.Transpose(ops.Reshape(scaled, ops.ints(-1, 2, half)), perm=[0, 2, 1])
        pairs = ops.Mul(pairs, ops.constant(twice))
        full = ops.Pad(pairs, ops.ints(0, 0, 0, 0, length - half, 0))
        full.shape = ir.Shape([None, length, 2])
        made = ops.DFT(full, None, ops.integer(1), inverse=1) if opset >= 20 else ops.DFT(full, axis=1, inverse=1)
        return ops.Slice(made, ops.ints(0, 0), ops.ints(self.size[0], 1), ops.ints(1, 2))
