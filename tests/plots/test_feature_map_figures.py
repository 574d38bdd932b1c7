"""Feature-map figures, tested by what they draw: images, limits, texts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle, StepPatch

from onnxviz.analysis.feature_maps import feature_maps
from onnxviz.analysis.scale import color_scale
from onnxviz.errors import SelectionError
from onnxviz.plots.feature_maps import plot_feature_maps, plot_feature_sheet, spread
from onnxviz.plots.save import save_figure

RNG = np.random.default_rng(0)
RELU = np.maximum(RNG.normal(size=(1, 40, 9, 12)), 0).astype(np.float32)


def texts(figure: Figure) -> str:
    found = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        found += [t.get_text() for t in (*axes.texts, axes.xaxis.label, axes.yaxis.label)]
    return "\n".join(found)


def tiles(axes: Axes) -> list[np.ma.MaskedArray[Any, Any]]:
    return [np.ma.asarray(image.get_array()) for image in axes.images]


def colorbars(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if hasattr(axes, "_colorbar")]


def check_grid(figure: Figure, maps: np.ndarray) -> None:
    drawn = tiles(figure.axes[0])
    assert len(drawn) == len(maps)
    for tile, expected in zip(drawn, maps, strict=True):
        np.testing.assert_array_equal(tile.filled(np.nan), expected)
    extents = {tuple(image.get_extent()) for image in figure.axes[0].images}
    assert len(extents) == len(maps)  # no tile hides another


def test_all_forty_channels_are_drawn_and_none_is_padding() -> None:
    fm = feature_maps(RELU, by="index")
    check_grid(plot_feature_maps(fm), RELU[0])


def test_a_dropped_remainder_would_be_noticed() -> None:
    figure = plot_feature_maps(feature_maps(RELU, by="index", top=32))
    with pytest.raises(AssertionError):
        check_grid(figure, RELU[0])


def test_shared_scale_has_one_colorbar_and_one_norm() -> None:
    fm = feature_maps(RELU)
    figure = plot_feature_maps(fm)
    limits = {image.get_clim() for image in figure.axes[0].images}
    assert limits == {(0, fm.scale.vmax)}
    assert len(colorbars(figure)) == 1
    assert colorbars(figure)[0].get_ylim() == (0, fm.scale.vmax)
    assert {image.get_cmap().name for image in figure.axes[0].images} == {"viridis"}


def test_signed_maps_are_symmetric_with_white_at_zero() -> None:
    figure = plot_feature_maps(feature_maps(RNG.normal(2, 1, (1, 3, 8, 8)).astype(np.float32)))
    image = figure.axes[0].images[0]
    low, high = image.get_clim()
    assert low == -high
    assert min(image.get_cmap()(np.asarray(image.norm(np.zeros(1))))[0, :3]) > 0.96


def test_channel_scale_prints_each_range_and_has_no_colorbar() -> None:
    array = RELU[:, :3] * np.array([1, 10, 100], np.float32)[:, None, None]
    figure = plot_feature_maps(feature_maps(array, by="index"), scale="channel")
    assert colorbars(figure) == []
    limits = [image.get_clim()[1] for image in figure.axes[0].images]
    assert limits == [color_scale(channel).vmax for channel in array[0]]
    shown = texts(figure)
    for limit in limits:
        assert f"0 … {limit:.3g}" in shown
    assert "each channel on its own scale" in shown


def test_caption_states_count_scale_and_clipping() -> None:
    array = np.random.default_rng(1).random((1, 512, 8, 8)).astype(np.float32)
    shown = texts(plot_feature_maps(feature_maps(array, name="layer4", top=64)))
    assert "64 of 512 channels, by energy · scale 0 … 0.995 (99.5th percentile, 0.5 % clipped)" in shown
    assert "layer4" in shown
    assert "1 × 512 × 8 × 8" in shown


def test_every_tile_carries_its_channel() -> None:
    fm = feature_maps(RELU, top=7)
    labels = [t.get_text() for t in plot_feature_maps(fm).axes[0].texts]
    assert [label for label in labels if label.isdigit()] == [str(c) for c in fm.channels]


def test_nan_and_inf_are_hatched_and_masked_not_painted() -> None:
    array = RELU[:, :2].copy()
    array[0, 0, 2:4, 3:6] = np.nan
    array[0, 1, 0, 0] = np.inf
    figure = plot_feature_maps(feature_maps(array, by="index"))
    axes = figure.axes[0]
    hatched = [p for p in axes.patches if isinstance(p, PathPatch)]
    assert len(hatched) == 2
    assert {p.get_hatch() for p in hatched} == {"////"}
    assert [int(tile.mask.sum()) for tile in tiles(axes)] == [6, 1]
    box = hatched[0].get_path().get_extents()
    left, right, bottom, top = axes.images[0].get_extent()
    assert box.x0 == pytest.approx(left + 3 / 12 * (right - left))
    assert box.y0 == pytest.approx(top + 2 / 9 * (bottom - top))
    assert "6 NaN (hatched) · 1 Inf (hatched)" in texts(figure)


def test_constant_and_dead_channels_are_marked() -> None:
    array = RELU[:, :4].copy()
    array[0, 1], array[0, 2] = 0, np.nan
    figure = plot_feature_maps(feature_maps(array, by="index"))
    dashed = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_linestyle() not in ("solid", "-")]
    assert len(dashed) == 2
    assert "const 0" in texts(figure)
    assert "no finite value" in texts(figure)
    assert "2 constant" in texts(figure)


def test_one_outlier_leaves_the_others_visible() -> None:
    array = RELU.copy()
    array[0, 0, 0, 0] = 1e9
    figure = plot_feature_maps(feature_maps(array))
    assert figure.axes[0].images[0].get_clim()[1] < 10


def test_signals_and_vectors() -> None:
    signal = RNG.normal(size=(1, 5, 30)).astype(np.float32)
    figure = plot_feature_maps(feature_maps(signal, layout="NCHW"))
    np.testing.assert_array_equal(tiles(figure.axes[0])[0], signal[0])
    assert len(colorbars(figure)) == 1
    logits = np.array([[1.0, -2.0, np.nan, 3.0]], np.float32)
    figure = plot_feature_maps(feature_maps(logits))
    assert not list(figure.axes[0].images)  # a vector is no picture
    (bars,) = [p for p in figure.axes[0].patches if isinstance(p, StepPatch)]
    np.testing.assert_array_equal(bars.get_data()[0][::2], [1, -2, 0, 3])
    assert any(p.get_hatch() for p in figure.axes[0].patches)
    assert "−2" in texts(figure)


def test_long_vectors_name_the_largest_only() -> None:
    logits = RNG.normal(size=(1, 1000)).astype(np.float32)
    figure = plot_feature_maps(feature_maps(logits))
    assert f"at {logits.argmax()}" in texts(figure)
    assert len(figure.axes[0].texts) == 1


def test_the_sheet_has_a_row_a_layer_each_with_its_scale() -> None:
    layers = [feature_maps(RELU * factor, name=f"layer{factor}") for factor in (1, 5)]
    picture = np.zeros((8, 8, 3), np.uint8)
    figure = plot_feature_sheet(layers, picture=picture, per_layer=6)
    rows = [axes for axes in figure.axes if axes.images and axes not in colorbars(figure)]
    assert [len(axes.images) for axes in rows] == [1, 6, 6]
    assert rows[1].images[0].get_clim()[1] * 5 == pytest.approx(rows[2].images[0].get_clim()[1])
    assert len(colorbars(figure)) == 2
    shown = texts(figure)
    assert "input picture" in shown
    assert "6 of 40 channels, by energy" in shown
    assert "2 layers" in shown


def test_a_hundred_layers_become_an_even_spread() -> None:
    layers = [feature_maps(RELU[:, :1], name=f"layer{i}") for i in range(100)]
    figure = plot_feature_sheet(layers, per_layer=1)
    shown = texts(figure).split("\n")
    assert any(line.startswith("24 of 100 layers") for line in shown)
    assert "layer0" in shown
    assert "layer99" in shown
    assert spread(100, 24)[0] == 0
    assert len(set(spread(100, 24))) == 24


def test_nothing_to_draw_and_unknown_scales_are_told() -> None:
    with pytest.raises(SelectionError):
        plot_feature_sheet([])
    with pytest.raises(SelectionError, match="no scale"):
        plot_feature_maps(feature_maps(RELU), scale="tile")  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_hostile_names_are_drawn_as_text(tmp_path: Path, ending: str) -> None:
    name = "evil $x_{$ </script>\n\x00\u202e卷积" + "n" * 10_000
    fm = feature_maps(RELU[:, :2], name=name)
    for i, figure in enumerate(
        (plot_feature_maps(fm), plot_feature_sheet([fm, feature_maps(RELU[0, 0, :1], name=name)]))
    ):
        save_figure(figure, tmp_path / f"{i}.{ending}")  # warnings are errors: no glyph may be missing
    if ending == "svg":
        assert b"</script>" not in (tmp_path / "0.svg").read_bytes()


def test_extreme_values_are_drawn_without_warnings(tmp_path: Path) -> None:
    for values in (3e38, 1e-45, np.nan, np.inf, 0.0):
        array = np.full((1, 2, 3, 3), values, np.float32)
        array[0, 0, 0, 0] = -array[0, 0, 0, 0]
        for scale in ("shared", "channel"):
            save_figure(plot_feature_maps(feature_maps(array), scale=scale), tmp_path / "a.png")
    for shape in ((1, 1, 1, 500), (1, 3, 400, 2), (1, 3, 2, 400), (1, 2000, 2), (1, 1, 2, 2)):
        save_figure(plot_feature_maps(feature_maps(np.ones(shape))), tmp_path / "a.png")


def test_settings_and_pyplot_are_left_alone() -> None:
    code = (
        "import sys, matplotlib, numpy as np\nbefore = matplotlib.rcParams.copy()\n"
        "from onnxviz.analysis.feature_maps import feature_maps\nfrom onnxviz.plots.feature_maps import *\n"
        "from onnxviz.plots.save import save_figure\nimport tempfile, pathlib\n"
        "figure = plot_feature_maps(feature_maps(np.ones((1, 3, 4, 4))))\n"
        "save_figure(figure, pathlib.Path(tempfile.mkdtemp()) / 'a.svg')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert all(before[k] == matplotlib.rcParams[k] for k in before if k != 'backend')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_users_dark_style_does_not_change_the_colours() -> None:
    with matplotlib.rc_context({"image.cmap": "gray", "axes.facecolor": "black", "figure.facecolor": "black"}):
        figure = plot_feature_maps(feature_maps(RELU))
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure.axes[0].images[0].get_cmap().name == "viridis"
