"""The axis of the channels, and channels read in every layout and block size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis import accumulate, blocks
from onnxviz.analysis.channels import MOST_CHANNELS, channel_axes, channel_axis
from onnxviz.analysis.statistics import Summary, merge_all
from onnxviz.errors import SelectionError


@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [
        ((), None, None),
        ((5,), None, None),
        ((2, 10), None, 1),
        ((2, 7, 10), None, 2),
        ((2, 7, 10), "NCHW", 1),
        ((2, 7, 10), "NHWC", 2),
        ((2, 3, 8, 8), None, 1),
        ((2, 8, 8, 3), "NHWC", 3),
        ((2, 3, 4, 8, 8), None, 1),
        ((1, 9, MOST_CHANNELS + 1), None, None),
        ((1, 0), None, None),
    ],
)
def test_channel_axis(shape: tuple[int, ...], layout: str | None, axis: int | None) -> None:
    assert channel_axis(shape, layout) == axis


def test_channels_of_no_fixed_number_have_no_axis() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 8, 8, 3] x) => (float[N, 4, 6, 6] y, int64[4, M] z) <float[4, 3, 3, 3] w>
        {t = Transpose<perm = [0, 3, 1, 2]>(x) y = Conv(t, w) z = NonZero(y)}""")
    assert channel_axes(model) == {"x": 3, "t": 1, "y": 1}


def test_a_missing_axis_is_refused() -> None:
    with pytest.raises(SelectionError, match="no axis 2"):
        Summary.of(np.zeros((2, 3)), channel_axis=2)
    with pytest.raises(SelectionError, match="no channel 3"):
        Summary.of(np.zeros((2, 3)), channel_axis=1).channel(3)


def check(array: np.ndarray, axis: int) -> None:
    got = Summary.of(array, channel_axis=axis)
    columns = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
    values = got.channel_values()
    assert values["min"] == columns.min(axis=1).tolist()
    assert values["max"] == columns.max(axis=1).tolist()
    assert values["zero"] == (columns == 0).sum(axis=1).tolist()
    np.testing.assert_allclose(values["mean"], columns.mean(axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(values["std"], columns.std(axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(values["l2"], np.linalg.norm(columns, axis=1), rtol=1e-12)
    for name in values:
        assert values[name] == [getattr(part, name) for part in got.per_channel()]
    whole = Summary.of(array)
    assert (got.count, got.zero, got.min, got.max, got.bins) == (
        whole.count, whole.zero, whole.min, whole.max, whole.bins,
    )  # fmt: skip


SHAPES = [
    ((3, 5, 7, 7), 1), ((2, 4, 20, 20), 1), ((2, 300, 3), 2), ((4, 6, 5), 2), ((2, 30, 140), 2), ((6, 33), 1),
    ((2, 3, 4, 5), 2), ((5, 90), 0), ((1, 1, 700), 1), ((40, 1, 3), 1), ((3, 1), 1), ((2, 600, 1), 2),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("block", [48, 1 << 16])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_every_layout_against_numpy(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], axis: int, block: int, dtype: str
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    array = np.maximum(np.random.default_rng(1).standard_normal(shape) * 9, -1).astype(dtype)
    check(array, axis)
    check(np.asfortranarray(array), axis)


@pytest.mark.parametrize(("shape", "axis"), [case for case in SHAPES if case[1]])
@pytest.mark.parametrize("block", [48, 1 << 16])
def test_samples_apart_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], axis: int, block: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    array = np.random.default_rng(2).standard_normal((shape[0] + 4, *shape[1:])).astype(np.float32)
    array[array > 2] = np.nan
    whole = Summary.of(array, channel_axis=axis, histograms=True)
    ones = [Summary.of(sample[None], channel_axis=axis, histograms=True) for sample in array[::-1]]
    assert merge_all(ones) == whole
    assert Summary.from_state(whole.to_state()) == whole


def test_an_order_of_summation_that_shows_its_neighbours_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One column alone is summed pairwise by numpy, beside others one by one: the second column is there to prevent it."""
    real = accumulate._Run._arranged

    def alone(self: accumulate._Run, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        values, tile, axis = real(self, cube)
        return (values, tile[:, :1].copy(), 0) if axis == 0 and cube.shape[0] == 1 else (values, tile, axis)

    array = np.random.default_rng(4).standard_normal((5, 1, 150)).astype(np.float32) * 1e3
    parts = [array[:1], array[1:]]
    assert merge_all(map(Summary.of, parts)) == Summary.of(array)
    monkeypatch.setattr(accumulate._Run, "_arranged", alone)
    assert merge_all(map(Summary.of, parts)) != Summary.of(array)


def test_channel_histograms_give_quantiles() -> None:
    array = np.random.default_rng(3).standard_normal((4, 3, 50)).astype(np.float32)
    got = Summary.of(array, channel_axis=1, histograms=True)
    for index, part in enumerate(got.per_channel()):
        assert part.quantiles() == Summary.of(array[:, index]).quantiles()
    with pytest.raises(SelectionError, match="no histogram"):
        Summary.of(array, channel_axis=1).channel(0).quantile(0.5)
    with pytest.raises(SelectionError, match="by a share"):
        got.quantile(50)
    merged = got.merge(got)
    assert merged.channel(1).count == 2 * got.channel(1).count
