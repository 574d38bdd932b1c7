"""Norms, resampling, grids and layouts, in forms that onnx's node tests lack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from tests.gradient.rules_case import differences, grads, node_model, relative, run

RNG = np.random.default_rng(1)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (0.5 + RNG.random(shape)).astype(np.float32)


def check(op_type: str, feeds: dict[str, np.ndarray], wrt: list[str], tolerance: float = 3e-3, **given: Any) -> None:
    for opened in (False, True):
        errors = differences(node_model(op_type, feeds, opened=opened, **given), feeds, wrt)
        assert max(errors.values()) < tolerance, (opened, errors)


@pytest.mark.parametrize("of", [0, 1, 2])
def test_batch_norm_in_training(of: int) -> None:
    feeds = {"x": noise(4, 3, 5), "scale": noise(3), "bias": noise(3), "mean": noise(3), "variance": positive(3)}
    wrt = {0: ["x", "scale", "bias"], 1: ["x", "mean"], 2: ["x", "variance"]}[of]
    check("BatchNormalization", feeds, wrt, outputs=3, of=of, training_mode=1, momentum=0.7)


def test_batch_norm_as_torch() -> None:
    import torch

    feeds = {"x": noise(4, 3, 5, 2), "scale": noise(3), "bias": noise(3), "mean": noise(3), "variance": positive(3)}
    seed = noise(4, 3, 5, 2)
    found, _ = grads(node_model("BatchNormalization", feeds), feeds, list(feeds), seed)
    tensors = [torch.tensor(array, requires_grad=True, dtype=torch.float64) for array in feeds.values()]
    x, scale, bias, mean, variance = (t if t.dim() > 1 else t[:, None, None] for t in tensors)
    y = (x - mean) / torch.sqrt(variance + 1e-5) * scale + bias
    expected = torch.autograd.grad(y, tensors, torch.tensor(seed))
    assert max(relative(f, e.numpy()) for f, e in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize(("opset", "entries"), [(18, 2), (21, 6)])
def test_group_norm(opset: int, entries: int) -> None:
    feeds = {"x": noise(3, 6, 4, 2), "scale": noise(entries), "bias": noise(entries)}
    check("GroupNormalization", feeds, list(feeds), opset=opset, num_groups=2, epsilon=1e-2)


def test_instance_norm() -> None:
    feeds = {"x": noise(2, 3, 8), "scale": noise(3), "bias": noise(3)}
    check("InstanceNormalization", feeds, list(feeds))


@pytest.mark.parametrize("of", [0, 1, 2])
def test_layer_norm_and_its_statistics(of: int) -> None:
    feeds = {"x": noise(2, 3, 4, 5), "scale": noise(4, 5), "bias": noise(4, 5)}
    check("LayerNormalization", feeds, list(feeds) if not of else ["x"], outputs=3, of=of, axis=-2)


def test_layer_norm_in_half_precision_as_torch() -> None:
    import torch

    feeds = {"x": noise(4, 32).astype(np.float16), "scale": noise(32).astype(np.float16)}
    seed = noise(4, 32).astype(np.float16)
    found, _ = grads(node_model("LayerNormalization", feeds), feeds, list(feeds), seed)
    x, scale = (torch.tensor(array.astype(np.float64), requires_grad=True) for array in feeds.values())
    y = torch.nn.functional.layer_norm(x, (32,), scale)
    expected = torch.autograd.grad(y, [x, scale], torch.tensor(seed.astype(np.float64)))
    assert {array.dtype for array in found} == {np.dtype(np.float16)}
    assert max(relative(f, e.numpy()) for f, e in zip(found, expected, strict=True)) < 2e-3


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_norm(size: int) -> None:
    feeds = {"x": noise(2, 5, 3, 2)}
    check("LRN", feeds, ["x"], size=size, alpha=0.5, beta=0.6, bias=1.5)


def test_mean_variance_norm_and_lp_norm() -> None:
    feeds = {"x": noise(2, 3, 4, 5)}
    check("MeanVarianceNormalization", feeds, ["x"], axes=[0, 2, 3])
    check("MeanVarianceNormalization", feeds, ["x"], axes=[1, 3])
    for p in (1, 2):
        check("LpNormalization", feeds, ["x"], axis=1, p=p)
    zeros = {"x": np.zeros((2, 3), np.float32)}
    (found,), _ = grads(node_model("LpNormalization", zeros), zeros, ["x"], np.ones((2, 3), np.float32))
    assert found.tolist() == np.zeros((2, 3)).tolist()


MODES: list[dict[str, Any]] = [
    {"mode": mode, "coordinate_transformation_mode": how, **more}
    for mode, more in (
        ("nearest", {"nearest_mode": "floor"}), ("nearest", {"nearest_mode": "ceil"}), ("nearest", {}), ("linear", {}),
        ("linear", {"antialias": 1}), ("cubic", {}), ("cubic", {"antialias": 1, "exclude_outside": 1}),
        ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1}),
    )
    for how in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
]  # fmt: skip


@pytest.mark.parametrize("given", MODES)
@pytest.mark.parametrize("size", [(9, 4), (5, 11)])
def test_resize(given: dict[str, Any], size: tuple[int, int]) -> None:
    x = noise(1, 2, 6, 7)
    scales = np.array([1, 1, size[0] / 6 + 1e-4, size[1] / 7 + 1e-4], np.float32)
    sizes = np.array([1, 2, *size])
    check("Resize", {"x": x, "_": x, "scales": scales}, ["x"], opset=19, constants=["scales"], **given)
    check("Resize", {"x": x, "_roi": x, "_s": x, "sizes": sizes}, ["x"], opset=19, **given)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_other_axes_and_crops(mode: str) -> None:
    x, sizes = noise(2, 3, 5, 6), np.array([7, 4])
    check("Resize", {"x": x, "_": x, "_s": x, "sizes": sizes}, ["x"], opset=19, axes=[3, 2], mode=mode)
    roi = np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.2], np.float32)
    feeds = {"x": x, "roi": roi, "_s": x, "sizes": np.array([2, 3, 7, 4])}
    check(
        "Resize", feeds, ["x"], opset=19, mode=mode, coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0, constants=["roi", "sizes"],
    )  # fmt: skip
    volume = noise(1, 2, 3, 4, 5)
    scales = np.array([1, 1, 2, 1.5, 0.8], np.float32)
    check("Resize", {"x": volume, "_": volume, "scales": scales}, ["x"], mode=mode, constants=["scales"])


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("opened", [False, True])
def test_grid_sample_as_torch(mode: str, padding: str, corners: int, opened: bool) -> None:
    import torch

    feeds = {"x": noise(2, 3, 5, 7), "grid": (1.3 * noise(2, 4, 6, 2)).astype(np.float32)}
    model = node_model("GridSample", feeds, opened=opened, mode=mode, padding_mode=padding, align_corners=corners)
    tensors = [torch.tensor(array, requires_grad=True) for array in feeds.values()]
    y = torch.nn.functional.grid_sample(*tensors, mode, padding, bool(corners))
    seed = noise(*y.shape)
    expected = torch.autograd.grad(y, tensors, torch.tensor(seed))
    found, _ = grads(model, feeds, ["x", "grid"], seed)
    assert relative(found[0], expected[0].numpy()) < 1e-4
    assert relative(found[1], expected[1].numpy()) < 1e-4


def test_grid_sample_of_volumes_as_torch() -> None:
    import torch

    feeds = {"x": noise(1, 2, 3, 4, 5), "grid": noise(1, 2, 3, 2, 3)}
    tensors = [torch.tensor(array, requires_grad=True) for array in feeds.values()]
    y = torch.nn.functional.grid_sample(*tensors, align_corners=False)
    expected = torch.autograd.grad(y.sum(), tensors)
    found, _ = grads(node_model("GridSample", feeds, opset=20), feeds, ["x", "grid"], np.ones(y.shape, np.float32))
    assert max(relative(f, e.numpy()) for f, e in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("half", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, ratio: int, half: str) -> None:
    rois = np.array([[0.3, 1, 4.2, 6], [2, 0, 3.1, 0.4], [-2, -3, 20, 5.5]], np.float32)
    feeds = {"x": noise(2, 3, 8, 7), "rois": rois, "batch": np.array([1, 0, 1])}
    given = {"output_height": 3, "output_width": 2, "spatial_scale": 0.9, "coordinate_transformation_mode": half}
    check("RoiAlign", feeds, ["x"], sampling_ratio=ratio, mode=mode, **given)
    with pytest.raises(GradientError, match="input 1 has no gradient"):
        gradient_model(node_model("RoiAlign", feeds, **given), "y", ["rois"])


ROIS = [[0, 0.3, 1, 4.2, 6], [1, 2, 0, 3.1, 0.4], [1, -2.5, -3, 20, 5.5], [0, 6, 6, 6, 6], [0, 20, 20, 30, 30]]


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("opened", [False, True])
def test_max_roi_pool(scale: float, opened: bool) -> None:
    """As onnxruntime: whole elements, halves away from 0, bins that overlap, 0 for a bin without elements."""
    feeds = {"x": noise(2, 3, 8, 7), "rois": np.array(ROIS, np.float32)}
    feeds["x"][0, 1] = 2  # ties: the first gets it
    model = node_model("MaxRoiPool", feeds, opened=opened, pooled_shape=[3, 2], spatial_scale=scale)
    seed = noise(5, 3, 3, 2)
    (found,), _ = grads(model, feeds, ["x"], seed)
    expected, pooled = np.zeros_like(feeds["x"]), np.zeros_like(seed)
    for r, (batch, *corners) in enumerate(ROIS):
        x1, y1, x2, y2 = (int(np.sign(c) * np.floor(abs(np.float32(c * scale)) + 0.5)) for c in corners)
        sizes = np.float32(max(y2 - y1 + 1, 1)) / np.float32(3), np.float32(max(x2 - x1 + 1, 1)) / np.float32(2)
        for c, h, w in np.ndindex(3, 3, 2):
            rows, columns = (
                np.arange(size)[max(int(np.floor(i * s)) + first, 0) : max(int(np.ceil((i + 1) * s)) + first, 0)]
                for i, s, first, size in ((h, sizes[0], y1, 8), (w, sizes[1], x1, 7))
            )
            if len(rows) and len(columns):
                part = feeds["x"][int(batch), c][np.ix_(rows, columns)]
                i, j = np.unravel_index(part.argmax(), part.shape)
                pooled[r, c, h, w] = part[i, j]
                expected[int(batch), c, rows[i], columns[j]] += seed[r, c, h, w]
    np.testing.assert_allclose(run(model, feeds)[0], pooled)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found).sum() > 0


def test_regions_that_are_none() -> None:
    feeds = {"x": noise(2, 3, 8, 7), "rois": np.zeros((0, 4), np.float32), "batch": np.zeros(0, np.int64)}
    for mode in ("avg", "max"):
        for ratio in (0, 2):
            model = node_model("RoiAlign", feeds, mode=mode, sampling_ratio=ratio)
            assert not grads(model, feeds, ["x"], np.zeros((0, 3, 1, 1), np.float32))[0][0].any()


def test_layouts() -> None:
    x = noise(2, 8, 4, 6)
    for mode in ("DCR", "CRD"):
        check("DepthToSpace", {"x": x}, ["x"], blocksize=2, mode=mode)
    check("SpaceToDepth", {"x": x}, ["x"], blocksize=2)
    columns = noise(2, 12, 12)
    feeds = {"x": columns, "image": np.array([7, 6]), "block": np.array([2, 2])}
    check("Col2Im", feeds, ["x"], strides=[2, 1], pads=[0, 0, 1, 0], dilations=[1, 3])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_determinant_of_singular_matrices_too(size: int) -> None:
    x = noise(2, 3, size, size)
    x[0, 0] = 1  # of rank 1
    feeds = {"x": x}
    assert differences(node_model("Det", feeds), feeds, ["x"])["x"] < 3e-3
