"""Measures of error: their definitions, and that nothing unmeasured passes for small."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxviz.analysis.error_metrics import ErrorMetrics, error_metrics

RNG = np.random.default_rng(0)


def test_definitions() -> None:
    a = RNG.standard_normal((4, 10)).astype(np.float32)
    b = a + np.float32(0.1) * RNG.standard_normal((4, 10)).astype(np.float32)
    found = error_metrics(a, b, ranked=True)
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    assert found.rmse == pytest.approx(math.sqrt(mse))
    assert found.psnr == pytest.approx(10 * math.log10(float(np.ptp(a)) ** 2 / mse))
    assert found.top1 == np.mean(a.argmax(1) == b.argmax(1))
    shared = [len({*np.argsort(x)[-5:]} & {*np.argsort(y)[-5:]}) for x, y in zip(a, b, strict=True)]
    assert found.top5 == pytest.approx(np.mean(shared) / 5)


def test_equal_tensors() -> None:
    a = np.float32([[1, 2, 3]])
    assert error_metrics(a, a, ranked=True) == ErrorMetrics(0.0, math.inf, 1.0, None)
    assert error_metrics(np.zeros((0, 3)), np.zeros((0, 3))) == ErrorMetrics(0.0, math.inf)


def test_ranks_that_changed() -> None:
    scores = np.float32([[0, 1, 2, 3, 4, 5, 6]])
    found = error_metrics(scores, -scores, ranked=True)
    assert (found.top1, found.top5) == (0.0, 0.6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2))), (np.array(["a"], object), np.array(["a"], object)),
        (np.float32([np.nan]), np.float32([1])), (np.float32([np.inf]), np.float32([-np.inf])),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_infinitely_wrong(one: np.ndarray, other: np.ndarray) -> None:
    assert error_metrics(one, other) == ErrorMetrics(math.inf, -math.inf)


def test_a_constant_that_is_off_has_no_signal() -> None:
    assert error_metrics(np.ones(4), np.full(4, 2.0)).psnr == -math.inf


def test_the_worst_of_two() -> None:
    one, other = ErrorMetrics(1.0, 20.0, 0.5, None), ErrorMetrics(2.0, 10.0, 1.0, 0.2)
    assert one.worse(other) == other.worse(one) == ErrorMetrics(2.0, 10.0, 0.5, 0.2)
