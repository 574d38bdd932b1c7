"""Gradients of a convolution's weights, by products of matrices and by one convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxviz.gradient import correlation
from onnxviz.gradient.model import gradient_model
from tests.gradient.rules_case import differences, grads, node_model, relative

RNG = np.random.default_rng(0)

CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((9,), (5,), {"strides": [2], "pads": [3, 0], "dilations": [2]}),
    ((7, 8), (3, 2), {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ((7, 8), (1, 1), {"strides": [2, 2]}),
    ((7, 8), (1, 1), {"pads": [1, 0, 0, 2]}),
    ((8, 9), (3, 3), {"strides": [3, 2], "auto_pad": "SAME_UPPER"}),
    ((8, 9), (2, 3), {"strides": [2, 1], "auto_pad": "SAME_LOWER"}),
    ((4, 5, 6), (2, 2, 2), {"strides": [1, 2, 1], "pads": [1, 0, 0, 0, 1, 0]}),
]


def feeds_of(size: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=shape).astype(np.float32) for name, shape in
            {"x": (2, 3, *size), "w": (4, 3, *kernel)}.items()}  # fmt: skip


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(("size", "kernel", "given"), CASES)
def test_both_ways_are_one(
    size: tuple[int, ...], kernel: tuple[int, ...], given: dict[str, Any], opened: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    feeds = feeds_of(size, kernel)
    model = node_model("Conv", feeds, opened=opened, kernel_shape=list(kernel), **given)
    assert differences(model, feeds, ["w"])["w"] < 2e-3
    made = gradient_model(model, "y", ["w"])
    assert "Gemm" in {node.op_type for node in made.model.graph}
    shape = [size.value if hasattr(size, "value") else size for size in model.graph.outputs[0].shape or ()]
    if opened:
        return
    seed = RNG.normal(size=shape).astype(np.float32)
    ((by_products,), _), _ = grads(model, feeds, ["w"], seed), monkeypatch.setattr(correlation, "_PRODUCTS", 0)
    ((by_convolution,), other) = grads(model, feeds, ["w"], seed)
    assert "Gemm" not in {node.op_type for node in other.model.graph}
    assert relative(by_products, by_convolution) < 1e-5


def test_a_window_out_of_place_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = feeds_of((7, 8), (3, 3))
    model = node_model("Conv", feeds, pads=[1, 1, 1, 1])
    assert differences(model, feeds, ["w"])["w"] < 2e-3
    monkeypatch.setattr(correlation, "product", lambda *ranges: [(j, i) for i in ranges[0] for j in ranges[1]])
    assert differences(model, feeds, ["w"])["w"] > 1e-2
