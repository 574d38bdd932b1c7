"""Spectra of weight matrices: singular values and what they say of rank, conditioning and tails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.power_law import PowerLaw, fit_power_law
from onnxviz.analysis.weight_forms import WeightName, weight_blocks
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import InputError, SelectionError

__all__ = ["LARGEST_SIDE", "Spectrum", "singular_values", "spectral_norm", "spectrum"]

Floats = npt.NDArray[np.float64]

#: Matrices whose smaller side is beyond this have no full spectrum: it would take minutes and gigabytes.
LARGEST_SIDE = 4096
_LEAST_SIDE = 10  # rows and columns from which a matrix is compared with a large random one
_DIRECT = 1 << 18  # elements up to which singular values are computed without the Gram matrix
_ROWS = 1 << 22  # elements of a matrix that are widened to float64 at a time


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of a weight and numbers made of them; σ are singular values, λ = σ² eigenvalues of WᵀW.

    Attributes:
        name: Which weight.
        singular_values: All ``blocks · min(outputs, inputs)`` of them, largest first, float64.
        blocks: How many matrices; the singular values of all, together those of the block-diagonal matrix.
        outputs: Rows of each.
        inputs: Columns of each.
        note: What the blocks are.
        rank: σ above ``σ_max · max(outputs, inputs) · 2⁻²³``, the tolerance of ``numpy.linalg.matrix_rank`` in float32.
        frobenius: ``√Σσ²``.
        stable_rank: ``Σσ² / σ_max²`` (Rudelson and Vershynin 2007).
        effective_rank: ``exp(-Σ p ln p)`` with ``p = σ / Σσ`` (Roy and Vetterli 2007).
        entropy: ``-Σ p ln p / ln n`` with ``p = σ² / Σσ²``, between 0 and 1 (Martin and Mahoney 2021, matrix entropy);
            None for a single value.
        condition: ``σ_max / σ_min``; None where σ_min is 0.
        std: Standard deviation s of the elements.
        edge: ``s (√outputs + √inputs)``: the largest σ of a random matrix with independent elements of that standard
            deviation, for large sides (Marchenko and Pastur 1967). What a layer has learned enlarges s too, so the
            edge of its noise is no further out. None where a side is below 10, for which the law says nothing.
        low_edge: ``s |√outputs - √inputs|``, the smallest, or None.
        beyond: How many σ are above ``edge``, or None.
        power_law: Fit to the tail of λ, or None.
        refused: Why there is none; else empty.
    """

    name: WeightName
    singular_values: Floats
    blocks: int
    outputs: int
    inputs: int
    note: str
    rank: int
    frobenius: float
    stable_rank: float
    effective_rank: float
    entropy: float | None
    condition: float | None
    std: float
    edge: float | None
    low_edge: float | None
    beyond: int | None
    power_law: PowerLaw | None
    refused: str

    @property
    def spectral_norm(self) -> float:
        """The largest singular value."""
        return float(self.singular_values[0])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the singular values as plain JSON types."""
        own = {
            key: value for key, value in self.__dict__.items() if key not in ("name", "singular_values", "power_law")
        }
        law = None if self.power_law is None else self.power_law.to_dict()
        return {**self.name.to_dict(), "spectral_norm": self.spectral_norm, **own, "power_law": law}


def spectrum(lw: LayerWeights, *, resamples: int = 200, seed: int = 0) -> Spectrum:
    """Return the spectrum of a weight.

    Args:
        lw: A weight that is a matrix for its layer: see :func:`onnxviz.analysis.weight_forms.weight_blocks`.
        resamples: Bootstrap samples of the power law's interval.
        seed: Of the bootstrap.

    Raises:
        SelectionError: It is a vector, empty, all zero, holds NaN or Inf, or both its sides are beyond 4096.
        ModelError: It cannot be read.

    >>> from onnxviz.analysis.weights import layer_weights
    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {3, 0, 0, 4}> {y = MatMul(x, w)}''')
    >>> found = spectrum(layer_weights(model)[0])
    >>> found.singular_values.tolist(), found.stable_rank, found.refused
    ([4.0, 3.0], 1.5625, 'a power law needs at least 50 positive values, here are 2')
    """
    blocks = weight_blocks(lw)
    count, outputs, inputs = blocks.values.shape
    if min(outputs, inputs) > LARGEST_SIDE:
        raise SelectionError(f"{outputs} × {inputs}: a full spectrum is made up to a smaller side of {LARGEST_SIDE}")
    bad = int(blocks.values.size - np.count_nonzero(np.isfinite(blocks.values)))
    if bad:
        raise SelectionError(f"{bad} of its values are NaN or Inf: it has no spectrum")
    values = np.sort(np.concatenate([singular_values(block) for block in blocks.values]))[::-1]
    if not values[0] > 0:
        raise SelectionError("all its values are 0: it has no spectrum")
    tolerance = values[0] * max(outputs, inputs) * float(np.finfo(np.float32).eps)
    std = float(np.std(blocks.values, dtype=np.float64))
    low_edge = edge = None
    if min(outputs, inputs) >= _LEAST_SIDE:
        edge = std * (math.sqrt(outputs) + math.sqrt(inputs))
        low_edge = std * abs(math.sqrt(outputs) - math.sqrt(inputs))
    try:
        law = fit_power_law(values[values > tolerance] ** 2, resamples=resamples, seed=seed)
        refused = ""
    except InputError as error:
        law, refused = None, error.message
    squares = values**2
    return Spectrum(
        name=WeightName.of(lw),
        singular_values=values,
        blocks=count,
        outputs=outputs,
        inputs=inputs,
        note=blocks.note,
        rank=int(np.count_nonzero(values > tolerance)),
        frobenius=float(np.sqrt(squares.sum())),
        stable_rank=float(squares.sum() / squares[0]),
        effective_rank=math.exp(_entropy(values)),
        entropy=_entropy(squares) / math.log(values.size) if values.size > 1 else None,
        condition=float(values[0] / values[-1]) if values[-1] > 0 else None,
        std=std,
        edge=edge,
        low_edge=low_edge,
        beyond=None if edge is None else int(np.count_nonzero(values > edge)),
        power_law=law,
        refused=refused,
    )


def _entropy(values: Floats) -> float:
    share = values / values.sum()
    share = share[share > 0]  # after the division, in which the smallest values become 0
    return float(-(share * np.log(share)).sum()) + 0.0


def singular_values(matrix: npt.NDArray[Any]) -> Floats:
    """Return the singular values of ``(rows, columns)``, largest first, float64.

    Large matrices go through the eigenvalues of their smaller Gram matrix in float64: what is below 10⁻⁷ of the
    largest is then noise, as it is in float32 weights anyway.

    >>> singular_values(np.array([[0.0, 2.0], [1.0, 0.0]])).tolist()
    [2.0, 1.0]
    """
    if matrix.size <= _DIRECT:
        values: Floats = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
        return values
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(gram(matrix))[::-1], 0)), np.float64)


def gram(matrix: npt.NDArray[Any]) -> Floats:
    """Return the smaller of ``W Wᵀ`` and ``Wᵀ W`` in float64, W widened a part at a time."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    side = tall.shape[1]
    total = np.zeros((side, side))
    step = max(_ROWS // side, 1)
    for start in range(0, len(tall), step):
        part = tall[start : start + step].astype(np.float64)
        total += part.T @ part
    return total


def spectral_norm(matrix: npt.NDArray[Any], *, most: int = 1024, steps: int = 200) -> float:
    """Return the largest singular value of finite ``(rows, columns)``.

    Up to a smaller side of ``most`` it is computed directly; beyond, by power iteration from a seeded start until it
    grows by less than 10⁻⁷, which comes from below.

    >>> round(spectral_norm(np.diag([1.0, 5.0, 2.0])), 6)
    5.0
    """
    if min(matrix.shape) <= most:
        return float(singular_values(matrix)[0])
    single = matrix.astype(np.float32, copy=False)
    vector: npt.NDArray[Any] = np.asarray(np.random.default_rng(0).standard_normal(single.shape[1]), np.float32)
    norm = 0.0
    for _ in range(steps):
        vector = vector / (np.linalg.norm(vector) or np.float32(1))
        image = single @ vector
        before, norm = norm, float(np.linalg.norm(image))
        vector = single.T @ image
        if norm - before <= 1e-7 * norm:
            break
    return norm
