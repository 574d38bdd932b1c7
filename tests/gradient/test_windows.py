"""Convolutions and pooling against PyTorch's autograd and against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.registry import standard_table
from tests.gradient.rules_case import differences, grads, node_model, relative, run

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def check(model: ir.Model, feeds: dict[str, np.ndarray], wrt: list[str], tolerance: float = 2e-3) -> None:
    errors = differences(model, feeds, wrt)
    assert max(errors.values()) < tolerance, errors


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    ("dims", "channels", "filters", "group", "kernel", "stride", "dilation", "padding"),
    [
        (1, 4, 6, 1, 3, 1, 1, 1), (1, 4, 6, 2, 5, 3, 2, 3), (2, 3, 5, 1, 3, 1, 1, 1), (2, 3, 5, 1, 3, 2, 1, 1),
        (2, 6, 9, 3, 3, 1, 2, 2), (2, 4, 4, 4, 3, 1, 1, 1), (2, 4, 8, 4, 5, 2, 1, 2), (2, 3, 4, 1, 1, 1, 1, 0),
        (2, 3, 4, 1, 1, 2, 1, 0), (2, 3, 4, 1, 1, 1, 1, 2), (2, 4, 4, 2, 2, 3, 1, 0), (3, 2, 4, 2, 3, 2, 1, 1),
    ],
)  # fmt: skip
def test_conv_as_torch(
    dims: int, channels: int, filters: int, group: int, kernel: int, stride: int, dilation: int, padding: int,
    opened: bool, constant: bool,
) -> None:  # fmt: skip
    import torch

    feeds = {
        "x": noise(2, channels, *(11, 12, 9)[:dims]), "w": noise(filters, channels // group, *[kernel] * dims),
        "b": noise(filters),
    }  # fmt: skip
    wrt = ["x", "b"] if constant else ["x", "w", "b"]
    model = node_model(
        "Conv", feeds, opened=opened, constants=["w"] if constant else [], group=group, strides=[stride] * dims,
        dilations=[dilation] * dims, pads=[padding] * 2 * dims,
        **({"kernel_shape": [kernel] * dims} if opened else {}),
    )  # fmt: skip
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in feeds.items()}
    conv: Any = (torch.conv1d, torch.conv2d, torch.conv3d)[dims - 1]
    y = conv(*tensors.values(), stride, padding, dilation, group)
    seed = noise(*y.shape)
    expected = torch.autograd.grad(y, [tensors[name] for name in wrt], torch.tensor(seed))
    found, _ = grads(model, feeds, wrt, seed)
    assert max(relative(f, e.numpy()) for f, e in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose", "AveragePool", "LpPool", "MaxPool"])
def test_auto_pad_and_open_sizes(op_type: str, stride: int, auto: str, opened: bool) -> None:
    feeds = {"x": 0.02 * RNG.permutation(2 * 4 * 9 * 7).reshape(2, 4, 9, 7).astype(np.float32)}
    given: dict[str, Any] = {"kernel_shape": [4, 3], "strides": [stride, stride], "auto_pad": auto}
    if op_type.startswith("Conv"):
        feeds |= {"w": noise(4, 2, 4, 3)}
        given |= {"group": 2}
    elif auto == "NOTSET":
        given |= {"ceil_mode": 1, "pads": [1, 0, 2, 1]}
    model = node_model(op_type, feeds, opened=opened, **given)
    check(model, feeds, list(feeds), 5e-3)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        {"strides": [2, 3], "output_padding": [1, 2]},
        {"strides": [2, 2], "output_shape": [12, 13]},
        {"strides": [2, 2], "output_shape": [11, 10], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 2], "pads": [1, 0, 2, 1], "dilations": [1, 2]},
        {"strides": [1, 1], "group": 2, "pads": [1, 1, 1, 1]},
    ],
)
def test_conv_transpose(given: dict[str, Any], opened: bool) -> None:
    feeds = {"x": noise(2, 4, 5, 6), "w": noise(4, 3, 3, 3), "b": noise(3 * given.get("group", 1))}
    check(node_model("ConvTranspose", feeds, opened=opened, kernel_shape=[3, 3], **given), feeds, list(feeds))


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize(
    "given",
    [
        {"kernel_shape": [2, 3], "strides": [2, 3]}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [1, 2], "dilations": [2, 1], "pads": [2, 1, 2, 1]},
    ],
)  # fmt: skip
def test_average_pool(given: dict[str, Any], include: int, opened: bool) -> None:
    feeds = {"x": noise(2, 3, 8, 9)}
    model = node_model("AveragePool", feeds, opset=19, opened=opened, count_include_pad=include, **given)
    check(model, feeds, ["x"])


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("given", [{"storage_order": 1}, {"dilations": [2, 2]}, {"ceil_mode": 1}, {}])
def test_max_pool_as_torch(given: dict[str, Any], opened: bool) -> None:
    import torch

    x = noise(2, 3, 10, 11)
    x[0, 0, 2:5, 2:5] = 9  # ties: the first gets it all
    model = node_model(
        "MaxPool", {"x": x}, opened=opened, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], **given
    )
    tensor = torch.tensor(x, requires_grad=True)
    y = torch.max_pool2d(tensor, 3, 2, 1, given.get("dilations", [1])[0], bool(given.get("ceil_mode")))
    seed = noise(*y.shape)
    (expected,) = torch.autograd.grad(y, tensor, torch.tensor(seed))
    (found,), _ = grads(model, {"x": x}, ["x"], seed)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("opened", [False, True])
def test_global_pools(op_type: str, shape: tuple[int, ...], opened: bool) -> None:
    feeds = {"x": noise(*shape)}
    check(node_model(op_type, feeds, opened=opened), feeds, ["x"])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool_powers(p: int) -> None:
    feeds = {"x": noise(1, 2, 6, 6)}
    check(node_model("LpPool", feeds, kernel_shape=[3, 3], strides=[2, 2], p=p), feeds, ["x"], 5e-3)


def test_the_second_order_of_a_convolution() -> None:
    """``(w * x)²`` is quadratic in x: its second derivative along v is ``2 wᵀ * (w * v)``."""
    import torch

    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1, 2, 7, 7] x, float[3, 2, 3, 3] w) => (float[1, 3, 4, 4] z)
      {y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w) z = Mul(y, y)}"""
    once = gradient_model(ir.from_onnx_text(text), "z", ["x"])
    twice = gradient_model(once.model, "x.grad", ["x", "w"])
    feeds = {"x": noise(1, 2, 7, 7), "w": noise(3, 2, 3, 3)}
    seeds = {"z.grad": np.ones((1, 3, 4, 4), np.float32), "x.grad.grad": noise(1, 2, 7, 7)}
    found = run(twice.model, {**feeds, **seeds}, list(twice.gradients.values()))
    x, w = (torch.tensor(array, requires_grad=True) for array in feeds.values())
    (first,) = torch.autograd.grad(torch.conv2d(x, w, None, 2, 1).square().sum(), x, create_graph=True)
    expected = torch.autograd.grad(first, [x, w], torch.tensor(seeds["x.grad.grad"]))
    assert max(relative(f, e.numpy()) for f, e in zip(found, expected, strict=True)) < 1e-5


def test_a_thousandth_is_caught() -> None:
    table = standard_table()
    rule = table.rows["", "Conv"][0].rule
    off = table.changed({("", "Conv"): lambda s, dy: rule(s, s.ops.Mul(dy, s.ops.scalar(1.001, dy)))})
    feeds = {"x": noise(1, 2, 6, 6), "w": noise(3, 2, 3, 3)}
    model = node_model("Conv", feeds)
    seed = noise(1, 3, 4, 4)
    right, wrong = (grads(model, feeds, ["x", "w"], seed, table=used)[0] for used in (table, off))
    assert all(relative(w, r) > 9e-4 for w, r in zip(wrong, right, strict=True))
    assert max(differences(model, feeds, ["x", "w"]).values()) < 2e-4


def test_half_and_what_is_not_known() -> None:
    feeds = {"x": noise(1, 2, 6, 6).astype(np.float16), "w": noise(3, 2, 3, 3).astype(np.float16)}
    model = node_model("Conv", feeds, strides=[2, 2])
    found, made = grads(model, feeds, ["x", "w"], np.ones((1, 3, 2, 2), np.float16))
    assert {array.dtype for array in found} == {np.dtype(np.float16)}
    assert made.cuts == ()
    text = (
        '<ir_version: 8, opset_import: ["": 18]> g (float[1, 2, 6, 6] x, float[3, 2, K, K] w) => (float[1, 3, A, B] y) '
    )
    with pytest.raises(GradientError, match="no gradient of Conv-11 at 'y': the size of its kernel is not known"):
        gradient_model(ir.from_onnx_text(text + "{y = Conv(x, w)}"), "y")
