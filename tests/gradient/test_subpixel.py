"""Strided convolutions of few channels: their input's gradient by one convolution of stride 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.gradient import subpixel as module
from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.ops import Ops
from tests.gradient.rules_case import differences, grads, node_model, relative, run

RNG = np.random.default_rng(0)


def noise(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def ops_of(made: GradientModel) -> set[str]:
    return {node.op_type for node in made.model.graph}


def conv_feeds(
    size: tuple[int, int], channels: int, kernel: tuple[int, int], dtype: Any = np.float32
) -> dict[str, Any]:
    return {"x": noise(2, channels, *size, dtype=dtype), "w": noise(5, channels, *kernel, dtype=dtype)}


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        ((12, 10), (7, 7), 2, (3, 3, 3, 3)), ((11, 13), (3, 3), 2, (1, 1, 1, 1)), ((12, 9), (3, 5), 2, (0, 2, 1, 0)),
        ((13, 12), (5, 4), 3, (2, 0, 0, 1)), ((9, 8), (1, 1), 2, (0, 0, 0, 0)), ((10, 11), (2, 1), 3, (0, 0, 0, 0)),
        ((8, 12), (4, 4), 4, (0, 0, 0, 0)), ((7, 7), (3, 2), 2, (2, 1, 0, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_torch(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, pads: tuple[int, ...], dtype: Any
) -> None:
    import torch

    feeds = conv_feeds(size, 3, kernel, dtype)
    model = node_model("Conv", feeds, constants=["w"], strides=[stride] * 2, pads=list(pads))
    x, w = torch.tensor(feeds["x"], requires_grad=True), torch.tensor(feeds["w"])
    y = torch.conv2d(torch.nn.functional.pad(x, (pads[1], pads[3], pads[0], pads[2])), w, None, stride)
    seed = noise(*y.shape, dtype=dtype)
    (expected,) = torch.autograd.grad(y, x, torch.tensor(seed))
    if dtype == np.float64:  # onnxruntime's CPU provider has no such convolution
        import onnx.reference

        from onnxviz.graph.model import to_proto

        made = gradient_model(model, "y", ["x"])
        found = onnx.reference.ReferenceEvaluator(to_proto(made.model)).run(["x.grad"], {**feeds, "y.grad": seed})
    else:
        found, made = grads(model, feeds, ["x"], seed)
    assert "DepthToSpace" in ops_of(made)
    assert relative(found[0], expected.numpy()) < (1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(
    ("channels", "given", "opened"),
    [
        (3, {"strides": [2, 2], "dilations": [2, 1]}, False),
        (3, {"strides": [2, 3]}, False),
        (3, {"strides": [2, 2], "pads": [0, 0, 9, 0]}, False),
        (3, {"strides": [1, 1]}, False),
        (17, {"strides": [2, 2]}, False),
        (3, {"strides": [2, 2]}, True),
    ],
)
def test_what_stays_a_transposed_convolution(channels: int, given: dict[str, Any], opened: bool) -> None:
    """Other strides and dilations, windows that hang over, many channels, sizes that are not known."""
    feeds = conv_feeds((9, 10), channels, (3, 3))
    model = node_model("Conv", feeds, constants=["w"], opened=opened, kernel_shape=[3, 3], **given)
    assert "DepthToSpace" not in ops_of(gradient_model(model, "y", ["x"]))
    assert differences(model, feeds, ["x"])["x"] < 2e-3


def test_an_open_batch_and_the_second_order() -> None:
    """Of ``Σ (w * x)²`` the second derivative along v is ``2 wᵀ * (w * v)``."""
    import torch

    w = noise(4, 3, 3, 3)
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[N, 3, 9, 7] x) => (float[N, 4, 5, 4] z) <float[4, 3, 3, 3] w>
      {y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w) z = Mul(y, y)}"""
    model = ir.from_onnx_text(text, initializers=[ir.tensor(w, name="w")])
    once = gradient_model(model, "z", ["x"])
    assert "DepthToSpace" in ops_of(once)
    twice = gradient_model(once.model, "x.grad", ["x"])
    feeds, v = {"x": noise(2, 3, 9, 7)}, noise(2, 3, 9, 7)
    (found,) = run(twice.model, {**feeds, "z.grad": np.ones((2, 4, 5, 4), np.float32), "x.grad.grad": v}, ["x.grad_2"])
    moved = torch.conv2d(torch.tensor(v), torch.tensor(w), None, 2, 1)
    expected = 2 * torch.nn.grad.conv2d_input((2, 3, 9, 7), torch.tensor(w), moved, 2, 1)
    assert relative(found, expected.numpy()) < 1e-5


def test_a_phase_out_of_place_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = conv_feeds((8, 8), 3, (3, 3))
    model = node_model("Conv", feeds, constants=["w"], strides=[2, 2], pads=[1, 1, 1, 1])
    assert differences(model, feeds, ["x"])["x"] < 2e-3
    right = Ops.node

    def wrong(self: Ops, op_type: str, *inputs: ir.Value | None, **given: Any) -> ir.Value:
        return right(
            self,
            op_type,
            *inputs,
            **({**given, "perm": [5, 3, 1, 0, 2, 4]} if len(given.get("perm", ())) == 6 else given),
        )

    monkeypatch.setattr(Ops, "node", wrong)
    assert differences(model, feeds, ["x"])["x"] > 1e-2
    assert module.few_numbers(model.graph.initializers["w"], (2, 2))
