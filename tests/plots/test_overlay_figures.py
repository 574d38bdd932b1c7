"""Heat maps over their input, slices, patches and lines, tested by what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from onnxviz.analysis.feature_maps import FeatureMaps, feature_maps
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.placement import CellAxis, Placement
from onnxviz.analysis.scale import color_scale
from onnxviz.analysis.spatial_heat import Canvas, HeatSheet, SpatialHeat
from onnxviz.analysis.tokens import TokenBlock, Tokens
from onnxviz.errors import SelectionError
from onnxviz.plots.feature_maps import plot_feature_maps, plot_feature_sheet
from onnxviz.plots.overlays import plot_overlays
from onnxviz.plots.save import save_figure

RNG = np.random.default_rng(2)
PICTURE = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
EVIL = "evil $x_{$ </script>\n\u202e卷积" + "n" * 10_000


def heat(name: str, values: np.ndarray, *axes: CellAxis, note: str = "") -> SpatialHeat:
    values = values.astype(np.float32)
    return SpatialHeat(
        name, "Conv", (1, 3, *values.shape), "float32", "mean", values, Placement(axes, not note, note), 3,
        color_scale(values, percentile=100.0), 0,
    )  # fmt: skip


CELLS = (CellAxis(5.5, 4.0, 4), CellAxis(3.5, 8.0, 4))


def sheet(*heats: SpatialHeat, **more: Any) -> HeatSheet:
    return HeatSheet("net", Canvas("x", (24, 32), PICTURE), heats, "mean", **more)


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in (*figure.texts, *(t for axes in figure.axes for t in axes.texts)))


def overlays(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if len(axes.images) == 2]


def test_the_heat_lies_where_its_cells_are() -> None:
    values = np.zeros((4, 4))
    values[1, 2] = 1.0
    (axes,) = overlays(plot_overlays(sheet(heat("c", values, *CELLS))))
    below, over = axes.images
    assert below.get_extent() == over.get_extent() == [-0.5, 31.5, 23.5, -0.5]
    drawn = np.asarray(over.get_array())
    scale = drawn.shape[0] / 24
    brightest = np.unravel_index(np.argmax(drawn[..., 3] * drawn[..., 0]), drawn.shape[:2])
    at = [(place + 0.5) / scale - 0.5 for place in brightest]
    np.testing.assert_allclose(at, [5.5 + 4.0, 3.5 + 16.0], atol=0.2)
    for row, inside in ((0, False), (4, True), (19, True), (22, False)):  # cells reach from 3.5 to 19.5
        assert (drawn[round((row + 0.5) * scale), 0, 3] > 0) == inside


def test_signed_heat_is_symmetric_and_a_bar_tells_it() -> None:
    figure = plot_overlays(sheet(heat("c", RNG.normal(size=(4, 4)), *CELLS)))
    (bar,) = [axes for axes in figure.axes if hasattr(axes, "_colorbar")]
    low, high = bar.get_ylim()
    assert low == -high
    (own,) = [axes for axes in figure.axes if axes.images and np.shape(axes.images[0].get_array()) == (4, 4)]
    assert own.images[0].get_clim() == (low, high)
    (over,) = overlays(figure)
    drawn = np.asarray(over.images[1].get_array())
    visible = drawn[drawn[..., 3] > 0]
    assert (visible[:, 0] > visible[:, 2] + 0.2).any()  # red above 0
    assert (visible[:, 2] > visible[:, 0] + 0.2).any()  # blue below


def test_each_tile_of_a_sheet_has_its_scale_and_its_remarks() -> None:
    heats = [
        heat("a", np.ones((4, 4)) * 0.2, *CELLS),
        heat("b", RNG.random((4, 4)) * 50, *CELLS, note="stretched over the input"),
        heat("c", np.full((4, 4), np.nan), *CELLS),
    ]
    figure = plot_overlays(sheet(*heats, without=("fc",), not_drawn=(NotDrawn("z", "it is a scalar"),)))
    assert len(overlays(figure)) == 3
    said = texts(figure)
    for part in ("3 layers", "constant 0.2", "stretched over the input", "no finite value (hatched)",
                 "left out: fc", "not drawn: z: it is a scalar", "Conv · 3 × 4 × 4"):  # fmt: skip
        assert part in said
    assert any(patch.get_hatch() for patch in overlays(figure)[2].patches)


def test_many_layers_become_a_spread() -> None:
    figure = plot_overlays(sheet(*(heat(f"l{i}", np.ones((4, 4)), *CELLS) for i in range(50))), rows=6)
    assert len(overlays(figure)) == 6
    assert "6 of 50 layers" in texts(figure)
    with pytest.raises(SelectionError):
        plot_overlays(sheet())


def test_strips_lie_under_the_signal() -> None:
    signal = RNG.normal(size=(2, 40)).astype(np.float32)
    strip = heat("conv", RNG.random((1, 10)), CellAxis(1.5, 4.0, 10))
    found = HeatSheet("net", Canvas("x", (40,), signal=signal), (strip, strip), "energy")
    figure = plot_overlays(found)
    strips = [axes for axes in figure.axes if axes.images]
    assert [axes.images[0].get_extent() for axes in strips] == [[-0.5, 39.5, 1.0, 0.0]] * 2
    lines = [axes for axes in figure.axes if any(len(line.get_xdata()) == 40 for line in axes.lines)]
    assert len(lines) == 2
    assert {axes.get_xlim() for axes in (*strips, *lines)} == {(-0.5, 39.5)}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_hostile_names_are_drawn_as_text(tmp_path: Path, ending: str) -> None:
    one = heat(EVIL, np.ones((4, 4)), *CELLS, note=f"placed as {EVIL}")
    for i, figure in enumerate((plot_overlays(sheet(one)), plot_overlays(sheet(one, one, without=(EVIL,))))):
        save_figure(figure, tmp_path / f"{i}.{ending}", dpi=50)
    if ending == "svg":
        assert b"</script>" not in (tmp_path / "1.svg").read_bytes()


def test_the_same_heat_gives_the_same_bytes(tmp_path: Path) -> None:
    one = heat("c", np.arange(16.0).reshape(4, 4), *CELLS)
    for name in ("a.svg", "b.svg"):
        save_figure(plot_overlays(sheet(one, one)), tmp_path / name, dpi=50)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_slices_of_a_channel_share_a_row_and_a_scale() -> None:
    block = RNG.normal(size=(1, 2, 5, 6, 6)).astype(np.float32)
    block[0, 1] *= 10
    fm = feature_maps(block, by="index", slices="strip")
    axes = plot_feature_maps(fm, scale="channel").axes[0]
    limits = [image.get_clim() for image in axes.images]
    assert len(set(limits[:5])) == len(set(limits[5:])) == 1
    assert limits[0] != limits[5]
    tops = [image.get_extent()[3] for image in axes.images]
    assert len(set(tops[:5])) == 1
    assert "0 · slice 4" in [t.get_text() for t in axes.texts]
    row = plot_feature_sheet([fm], per_layer=8).axes[0]
    assert len(row.images) == 5  # not a channel and a half


def token_maps() -> FeatureMaps:
    tokens = Tokens((TokenBlock("CLS", "learned", 0, 1), TokenBlock("image", "image", 1, 7, (2, 3))), ("CLS",) * 7)
    return feature_maps(RNG.normal(size=(1, 7, 4)).astype(np.float32), tokens=tokens)


def test_cls_is_a_square_above_each_tile_on_the_same_scale() -> None:
    fm = token_maps()
    axes = plot_feature_maps(fm).axes[0]
    squares = [image for image in axes.images if np.shape(image.get_array()) == (1, 1)]
    assert [float(s.get_array()[0, 0]) for s in squares] == fm.aside[0][1].tolist()
    assert {image.get_clim() for image in axes.images} == {(fm.scale.vmin, fm.scale.vmax)}


def test_lines_show_the_best_channels_above_the_image() -> None:
    signal = RNG.normal(size=(1, 12, 30)).astype(np.float32)
    fm = feature_maps(signal, layout="NCHW", across="time")
    figure = plot_feature_maps(fm)
    drawn = [line.get_ydata() for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 30]
    np.testing.assert_array_equal(drawn, signal[0, list(fm.best(5))])
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(drawn, signal[0, :5])
    assert figure.axes[0].get_xlabel() == "time (0 … 29)"
    assert len({axes.get_ylim() for axes in figure.axes[2:7]}) == 1


def test_nan_in_a_line_is_a_gap_and_long_lines_keep_their_peaks() -> None:
    signal = np.zeros((1, 1, 50_000), np.float32)
    signal[0, 0, 31_234], signal[0, 0, :100] = 7, np.nan
    figure = plot_feature_maps(feature_maps(signal, layout="NCHW"))
    (line,) = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) > 1000]
    assert np.nanmax(line.get_ydata()) == 7
    assert len(line.get_xdata()) <= 4000
    assert any(patch.get_hatch() for axes in figure.axes[2:] for patch in axes.patches)


def test_a_million_values_are_few_bars(tmp_path: Path) -> None:
    vector = np.zeros((1, 1_000_000), np.float32)
    vector[0, 777_777], vector[0, 5] = 3, -2
    figure = plot_feature_maps(feature_maps(vector))
    bars = [p for p in figure.axes[0].patches if isinstance(p, StepPatch)]
    assert max(len(p.get_data().values) for p in bars) <= 4096
    assert max(float(p.get_data().values.max()) for p in bars) == 3
    assert min(float(np.min(p.get_data().baseline)) for p in bars) == -2
    assert "at 777777" in texts(figure)
    save_figure(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size < 1_000_000


def test_each_channel_on_its_own_scale_on_the_sheet_too() -> None:
    array = np.maximum(RNG.normal(size=(1, 3, 5, 5)), 0).astype(np.float32) * np.array([1, 10, 100])[:, None, None]
    fm = feature_maps(array.astype(np.float32), by="index", name="relu")
    figure = plot_feature_sheet([fm], scale="channel", not_drawn=[NotDrawn("s", "it is a scalar")])
    limits = [image.get_clim()[1] for image in figure.axes[0].images]
    assert limits == [color_scale(channel).vmax for channel in fm.maps]
    assert "each channel on its own scale" in texts(figure)
    assert "not drawn: s: it is a scalar" in texts(figure)
    with pytest.raises(SelectionError, match="no scale"):
        plot_feature_sheet([fm], scale="row")  # type: ignore[arg-type]


def test_chosen_values_of_a_vector_carry_their_index() -> None:
    figure = plot_feature_maps(feature_maps(np.arange(40.0)[None], channels=[30, 7]))
    figure.canvas.draw()
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["30", "7"]
