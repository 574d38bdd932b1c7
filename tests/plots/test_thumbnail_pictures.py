"""What the small pictures of a capture show."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.feature_maps import feature_maps
from onnxviz.diagram.architecture import architecture
from onnxviz.graph.io import open_model
from onnxviz.plots.thumbnails import map_thumbnail, picture_thumbnail, thumbnails
from onnxviz.runtime.capture import capture
from tests.diagram.scene_geometry import faults


def centre(tile: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in tile[tile.shape[0] // 2, tile.shape[1] // 2])


def rgb(name: str, at: float) -> tuple[int, ...]:
    return tuple(round(255 * v) for v in matplotlib.colormaps[name](at)[:3])


def test_channels_of_highest_energy_stand_first_on_one_scale() -> None:
    maps = np.zeros((1, 6, 8, 8), np.float32)
    for channel, value in enumerate((0.25, 1.0, 0.5, 0.75, 0.125, 0.0)):
        maps[0, channel] = value
        maps[0, channel, 0, 0] = 0  # not constant
    shown = map_thumbnail(feature_maps(maps, top=4))
    assert [centre(tile) for tile in shown.tiles] == [rgb("viridis", at) for at in (1.0, 0.75, 0.5, 0.25)]
    assert {tile.shape for tile in shown.tiles} == {(40, 40, 3)}, "eight cells of five pixels"
    assert shown.caption == "4 of 6 · 0 … 1"
    assert "4 of 6 channels, by energy" in shown.description


def test_signed_maps_are_diverging_and_white_at_zero() -> None:
    maps = np.array([[[[-1.0, -1.0], [-1.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    tiles = map_thumbnail(feature_maps(maps, by="index")).tiles
    off = (10, 4)  # beside the diagonal that marks constant maps
    found = [tuple(int(v) for v in tile[off]) for tile in tiles]
    assert found == [rgb("RdBu_r", at) for at in (0.0, 0.5, 1.0)]


def test_constant_maps_and_nan_are_marked() -> None:
    maps = np.ones((1, 2, 8, 8), np.float32)
    maps[0, 1, 2:6, 2:6] = np.nan
    constant, hatched = map_thumbnail(feature_maps(maps, by="index")).tiles
    assert np.array_equal(constant[20, 20], (154, 160, 166))
    inner = hatched[12:28, 12:28].reshape(-1, 3)
    assert {tuple(int(v) for v in pixel) for pixel in inner} >= {(0, 0, 0), (255, 255, 255)}


def test_large_maps_are_averaged_not_sampled() -> None:
    board = (np.indices((176, 176)).sum(axis=0) % 2).astype(np.float32)
    tile = map_thumbnail(feature_maps(board[None, None].repeat(3, axis=1))).tiles[0]
    assert centre(tile) == rgb("viridis", 0.5)


def test_vectors_are_bars_that_keep_their_peak() -> None:
    values = np.zeros((1, 1000), np.float32)
    values[0, 777] = 5.0
    values[0, 100] = -5.0
    picture = map_thumbnail(feature_maps(values)).tiles[0]
    coloured = (picture != 255).any(axis=2)
    heights = coloured.sum(axis=0)
    assert picture.shape[:2] == (36, 185)
    assert heights.argmax() in (777 * 185 // 1000, 100 * 185 // 1000)
    assert coloured[:17].any(axis=0).nonzero()[0].tolist() == [777 * 185 // 1000]
    assert coloured[19:].any(axis=0).nonzero()[0].tolist() == [100 * 185 // 1000]


def test_a_capture_gives_a_picture_a_layer_and_twice_the_same(small_cnn: ir.Model) -> None:
    rng = np.random.default_rng(0)
    run = capture(small_cnn, {"x": rng.standard_normal((1, 1, 8, 8)).astype(np.float32)}, providers="cpu")
    first, again = (thumbnails(small_cnn, run) for _ in range(2))
    assert list(first) == ["c", "r", "p", "y"]
    for name, shown in first.items():
        assert all(np.array_equal(a, b) for a, b in zip(shown.tiles, again[name].tiles, strict=True))
    assert set(thumbnails(small_cnn, run, every=True)) == {"c", "r", "p", "f", "y"}


def test_a_picture_stays_what_it_is() -> None:
    picture = np.zeros((184, 92, 3), np.uint8)
    picture[:92] = (200, 100, 50)
    small = picture_thumbnail(picture).tiles[0]
    assert small.shape == (92, 46, 3)
    assert small[10, 10].tolist() == [200, 100, 50]


@pytest.mark.corpus
def test_a_photograph_through_a_network(corpus: Path) -> None:
    model = open_model(corpus / "models" / "classifier" / "SqueezeNet_fp32.onnx")
    run = capture(model, [str(corpus / "images" / "skimage_chelsea.png")], providers="cpu")
    pictures = thumbnails(model, run)
    assert "data_0" in pictures
    drawing = architecture(model, thumbnails=pictures)
    assert not faults(drawing.scene)
    boxes = sum(any(type(item).__name__ == "Image" for item in group.items) for group in drawing.scene.groups)
    assert boxes == len(pictures)
