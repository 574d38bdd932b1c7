"""Weight figures, tested by what they draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import SelectionError
from onnxviz.plots.histogram import plot_histogram
from onnxviz.plots.save import save_figure
from onnxviz.plots.weight_sheet import plot_weight_sheet
from onnxviz.plots.weights import mosaic, plot_kernels, plot_matrix, pool_matrix

RNG = np.random.default_rng(0)


def layer(op: str, array: np.ndarray, *, name: str = "layer", **attributes: Any) -> LayerWeights:
    weight = ir.Value(name="w", const_value=ir.Tensor(array, name="w"), shape=ir.Shape(array.shape))
    x = ir.Value(name="x")
    node = ir.node(op, inputs=[x, weight], name=name, attributes=attributes)
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 21})
    (found,) = layer_weights(ir.Model(graph, ir_version=10))
    return found


def conv(*shape: int) -> LayerWeights:
    return layer("Conv", RNG.normal(size=shape).astype(np.float32))


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in (*figure.texts, *(t for axes in figure.axes for t in axes.texts)))


def colorbars(figure: Figure) -> int:
    return sum(hasattr(axes, "_colorbar") for axes in figure.axes)


def picture(figure: Figure, place: int = 0) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.asarray([axes for axes in figure.axes if axes.images][place].images[0].get_array())


def check_mosaic(drawn: np.ma.MaskedArray[Any, Any], kernels: np.ndarray, columns: int) -> None:
    count, height, width = kernels.shape
    assert int(drawn.count()) == kernels.size  # the remainder is masked, not zero
    for i in range(count):
        row, column = divmod(i, columns)
        cell = drawn[row * height : (row + 1) * height, column * width : (column + 1) * width]
        np.testing.assert_array_equal(cell, kernels[i])


def test_every_kernel_stands_in_its_cell() -> None:
    kernels = RNG.normal(size=(7, 3, 4)).astype(np.float32)
    check_mosaic(mosaic(kernels, 3), kernels, 3)


def test_a_transposed_mosaic_would_be_noticed() -> None:
    kernels = RNG.normal(size=(9, 3, 3)).astype(np.float32)
    with pytest.raises(AssertionError):
        check_mosaic(mosaic(kernels.swapaxes(1, 2), 3), kernels, 3)


def test_grey_kernels_are_a_grid_on_one_symmetric_scale() -> None:
    lw = conv(10, 1, 5, 5)
    figure = plot_kernels(lw)
    columns = picture(figure).shape[1] // 5
    check_mosaic(picture(figure), lw.kernel[:, 0], columns)
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    assert colorbars(figure) == 1
    assert "10 filters of 1 input channel" in texts(figure)


def test_several_inputs_are_a_matrix_of_kernels() -> None:
    lw = conv(6, 4, 3, 3)
    check_mosaic(picture(plot_kernels(lw)), lw.kernel.swapaxes(0, 1).reshape(-1, 3, 3), 6)
    lw = conv(4, 6, 3, 3)
    check_mosaic(picture(plot_kernels(lw)), lw.kernel.reshape(-1, 3, 3), 6)


def test_three_inputs_add_colour_pictures() -> None:
    lw = conv(40, 3, 3, 3)
    figure = plot_kernels(lw)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    colour = next(np.asarray(p) for p in pictures if p is not None and p.ndim == 3)
    vmax = figure.axes[0].images[0].get_clim()[1]
    np.testing.assert_allclose(
        colour[:3, :3], np.clip(lw.kernel[0].transpose(1, 2, 0) / (2 * vmax) + 0.5, 0, 1), atol=1e-6
    )
    assert int(picture(figure).count()) == lw.kernel.size
    assert all(
        np.asarray(axes.images[0].get_array()).ndim == 2 for axes in plot_kernels(conv(40, 4, 3, 3)).axes if axes.images
    )


def test_many_kernels_give_the_norm_matrix_and_the_first_ones() -> None:
    lw = conv(64, 32, 3, 3)
    figure = plot_kernels(lw)
    norms = np.sqrt((lw.kernel.astype(float) ** 2).sum(axis=(2, 3)))
    np.testing.assert_allclose(picture(figure), norms)
    assert figure.axes[0].images[0].get_clim()[0] == 0
    check_mosaic(picture(figure, 1), lw.kernel[:16, :16].reshape(-1, 3, 3), 16)
    assert "first 16 filters" in texts(figure)
    assert colorbars(figure) == 2


@pytest.mark.parametrize(("shape", "said"), [((4, 2, 5), "1-D kernels"), ((4, 2, 3, 5, 5), "slice 1 of 3")])
def test_kernels_of_other_ranks(shape: tuple[int, ...], said: str) -> None:
    assert said in texts(plot_kernels(conv(*shape)))


def test_what_has_no_kernels_is_told() -> None:
    for lw in (conv(8, 4, 1, 1), layer("MatMul", np.ones((3, 4), np.float32))):
        with pytest.raises(SelectionError, match="no kernels"):
            plot_kernels(lw)


def test_matrices_are_out_by_in_on_a_symmetric_scale() -> None:
    weight = RNG.normal(size=(5, 7)).astype(np.float32)
    figure = plot_matrix(layer("MatMul", weight))
    np.testing.assert_array_equal(picture(figure), weight.T)
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    assert "7 outputs down × 5 inputs across" in texts(figure)
    np.testing.assert_array_equal(picture(plot_matrix(conv(6, 4, 1, 1))).shape, (6, 4))


def test_large_matrices_are_averaged_and_say_so() -> None:
    matrix = RNG.normal(size=(10, 7))
    pooled, note = pool_matrix(matrix, (3, 7))
    expected = [matrix[a:b].mean(axis=0) for a, b in ((0, 3), (3, 6), (6, 10))]
    np.testing.assert_allclose(pooled, expected)
    assert note == "each pixel is the mean of 3.33 × 1 values"
    figure = plot_matrix(layer("MatMul", RNG.normal(size=(900, 20)).astype(np.float32)))
    assert "each pixel is the mean of" in texts(figure)


def test_vectors_are_bars() -> None:
    figure = plot_matrix(layer("PRelu", np.array([1.0, -2.0, 3.0], np.float32)))
    (bars,) = [p for p in figure.axes[0].patches if isinstance(p, StepPatch)]
    assert bars.get_data()[0][::2].tolist() == [1, -2, 3]


def test_a_histogram_draws_its_counts_and_tells_the_rest() -> None:
    values = np.append(RNG.normal(size=2000), [np.nan, np.inf, 1e6]).astype(np.float32)
    lw = layer("MatMul", values.reshape(-1, 1))
    figure = plot_histogram(lw)
    (bars,) = [p for p in figure.axes[0].patches if isinstance(p, StepPatch)]
    np.testing.assert_array_equal(bars.get_data()[0], lw.histogram.counts)
    shown = texts(figure)
    assert "1 NaN" in shown
    assert "1 Inf" in shown
    assert "above the last bin" in shown


def test_a_spike_of_zeros_is_a_colour_of_its_own() -> None:
    values = RNG.normal(size=4000).astype(np.float32)
    values[:3000] = 0
    lw = layer("MatMul", values.reshape(-1, 1))
    figure = plot_histogram(lw)
    bars = [p for p in figure.axes[0].patches if isinstance(p, StepPatch)]
    assert len(bars) == 2
    assert bars[0].get_data()[0].sum() == 1000
    assert figure.axes[0].get_ylim()[1] < 1000  # the other bars stay readable
    assert "75 % zero" in texts(figure)
    assert "3000 zeros" in texts(figure)


def test_drawing_into_axes_that_are_given() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    lw = layer("MatMul", RNG.normal(size=(5, 7)).astype(np.float32))
    assert plot_matrix(lw, ax=left) is figure
    assert plot_histogram(lw, ax=right) is figure
    assert left.images
    assert right.patches


def test_the_sheet_has_a_row_a_weight(small_cnn: ir.Model) -> None:
    figure = plot_weight_sheet(layer_weights(small_cnn))
    shown = texts(figure)
    assert "4 weights" in shown
    for expected in ("conv1", "fc1", "18 parameters", "all 2 kernels", "outputs down, inputs across"):
        assert expected in shown
    with pytest.raises(SelectionError):
        plot_weight_sheet([])


def test_a_long_sheet_is_an_even_spread() -> None:
    layers = [layer("MatMul", np.ones((2, 2), np.float32), name=f"fc{i}") for i in range(60)]
    shown = texts(plot_weight_sheet(layers))
    assert "24 of 60 weights" in shown
    assert "fc59" in shown


def test_a_damaged_weight_does_not_stop_the_sheet(small_cnn: ir.Model) -> None:
    def broken() -> ir.TensorProtocol:
        raise OSError("gone")

    lazy = ir.LazyTensor(broken, dtype=ir.DataType.FLOAT, shape=ir.Shape((2, 1, 3, 3)), name="w")
    small_cnn.graph.initializers["w"].const_value = lazy
    figure = plot_weight_sheet(layer_weights(small_cnn))
    assert "cannot be read" in texts(figure)
    assert "fc1" in texts(figure)


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, 3e38, 1e-45])
def test_odd_values_are_drawn_without_warnings(tmp_path: Path, fill: float) -> None:
    kernel = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
    kernel[0], kernel[1] = fill, -fill
    lw = layer("Conv", kernel)
    for figure in (plot_kernels(lw), plot_matrix(lw), plot_histogram(lw), plot_weight_sheet([lw])):
        save_figure(figure, tmp_path / "a.png")
    empty = layer("MatMul", np.zeros((0, 3), np.float32))
    save_figure(plot_weight_sheet([empty, lw]), tmp_path / "a.png")
    with pytest.raises(SelectionError, match="is empty"):
        plot_matrix(empty)


def test_wide_weights_get_a_logarithmic_histogram(tmp_path: Path) -> None:
    weight = (10.0 ** RNG.uniform(-7, 5, (50, 4)) * RNG.choice([-1, 1], (50, 4))).astype(np.float32)
    figure = plot_histogram(layer("MatMul", weight))
    assert figure.axes[0].get_xscale() == "symlog"
    ticks = figure.axes[0].get_xticks()
    assert 0 in ticks
    assert np.abs(ticks[ticks != 0]).min() > 1e-8  # within the linear part their labels would be on top of zero's
    save_figure(figure, tmp_path / "a.png")


@pytest.mark.corpus
def test_sheets_of_real_models_are_written(corpus: Path, tmp_path: Path) -> None:
    from onnxviz.graph.io import open_model

    for path in (
        "classifier/SqueezeNet_fp32.onnx",
        "audio/silero_vad_16k_op15.onnx",
        "ocr/ch_ppocr_mobile_v2.0_det_infer.onnx",
    ):
        save_figure(plot_weight_sheet(layer_weights(open_model(corpus / "models" / path))), tmp_path / "a.png", dpi=50)


def test_an_outlier_at_the_end_of_float32_is_drawn_without_overflow(tmp_path: Path) -> None:
    array = RNG.normal(size=(30, 30)).astype(np.float32)
    array[3, 4] = 3e38  # far beyond the scale, which is the 99.5th percentile
    save_figure(plot_matrix(layer("MatMul", array)), tmp_path / "m.png")  # warnings are errors here
