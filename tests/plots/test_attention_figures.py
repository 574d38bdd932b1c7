"""Attention figures, tested by what they draw: images, limits, texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.attention import AttentionMaps, LayerAttention
from onnxviz.analysis.head_distance import head_distances
from onnxviz.analysis.rollout import rollout
from onnxviz.analysis.tokens import TokenBlock, Tokens, name_texts, token_layout
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.token_streams import TokenStream
from onnxviz.plots.attention_grid import plot_attention_grid
from onnxviz.plots.attention_matrices import plot_attention_blocks, plot_attention_matrices, plot_head_distances
from onnxviz.plots.attention_rollout import plot_rollout
from onnxviz.plots.save import save_figure

RNG = np.random.default_rng(1)
PATCHES = token_layout(TokenStream(planes=("conv",), inputs=("x",)), 13, {"conv": (1, 8, 3, 4)})
WORDS = name_texts(token_layout(TokenStream(inputs=("i",), tokens=("i",)), 3, {}), ["[CLS]", "a$b$", "猫\n"])


def layer(queries: Tokens, keys: Tokens, order: int = 0, heads: int = 2) -> LayerAttention:
    weights = RNG.dirichlet(np.full(len(keys), 0.3), size=(heads, len(queries))).astype(np.float32)
    kind: Any = "self" if queries is keys else "cross"
    return LayerAttention(f"block.{order}", "w", kind, order, tuple(range(heads)), weights, queries, keys, 0.0, 0)


def maps(*layers: LayerAttention, picture: bool = True) -> AttentionMaps:
    shown = np.full((12, 16, 3), 200, np.uint8) if picture else None
    return AttentionMaps("model", layers, shown)


def texts(figure: Figure) -> str:
    found = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        found += [t.get_text() for t in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    return "\n".join(found)


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if any(t.get_text() == title for t in axes.texts))


def drawn(axes: Axes) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(axes.images[-1].get_array()), np.nan)


def test_a_tile_is_what_the_query_sees_of_the_patches() -> None:
    one = layer(PATCHES, PATCHES)
    figure = plot_attention_grid(maps(one))
    np.testing.assert_array_equal(drawn(panel(figure, "head 1")), one.weights[1, 0, 1:].reshape(3, 4))
    np.testing.assert_allclose(drawn(panel(figure, "mean")), one.weights[:, 0, 1:].mean(axis=0).reshape(3, 4))
    with pytest.raises(AssertionError):  # were CLS not set aside, all would be one patch off
        np.testing.assert_array_equal(drawn(panel(figure, "head 1")), one.weights[1, 0, :12].reshape(3, 4))
    limits = {axes.images[-1].get_clim() for axes in (panel(figure, t) for t in ("mean", "head 0", "head 1"))}
    assert len(limits) == 1
    assert limits.pop()[0] == 0
    mass = one.weights[1, 0, 1:].sum()
    assert f"{100 * mass:.0f} %" in [t.get_text() for t in panel(figure, "head 1").texts]
    assert "query: CLS" in texts(figure)


def test_a_chosen_patch_is_framed() -> None:
    one = layer(PATCHES, PATCHES)
    figure = plot_attention_grid(maps(one), query="1,2")
    axes = panel(figure, "head 0")
    np.testing.assert_array_equal(drawn(axes), one.weights[0, 1 + 6, 1:].reshape(3, 4))
    (frame,) = axes.patches
    assert frame.get_xy() == (1.5, 0.5)  # type: ignore[attr-defined]
    assert "patch 1,2 (row, column)" in texts(figure)


def test_attention_over_the_picture_is_the_more_opaque_the_larger() -> None:
    one = layer(PATCHES, PATCHES)
    figure = plot_attention_grid(maps(one), query="all")
    over = next(axes for axes in figure.axes if len(axes.images) == 2)
    opacity = np.asarray(over.images[1].get_array())[..., 3]
    mean = one.weights.mean(axis=(0, 1))[1:].reshape(3, 4)
    np.testing.assert_allclose(opacity / opacity.max(), mean / mean.max(), rtol=1e-5)


def test_without_a_picture_there_is_no_overlay() -> None:
    figure = plot_attention_grid(maps(layer(PATCHES, PATCHES), picture=False))
    assert all(len(axes.images) < 2 for axes in figure.axes)
    assert "over the picture" not in texts(figure)


def test_words_look_at_patches() -> None:
    one = layer(WORDS, PATCHES)
    figure = plot_attention_grid(maps(layer(WORDS, WORDS), one), query="a$b$")
    np.testing.assert_array_equal(drawn(panel(figure, "head 0")), one.weights[0, 1, 1:].reshape(3, 4))
    assert "layers without patches, left out: 1" in texts(figure).replace("\n", " ")


def test_a_query_of_a_finer_grid_is_framed_at_its_place() -> None:
    fine = token_layout(TokenStream(planes=("f",), inputs=("x",)), 48, {"f": (1, 8, 6, 8)})
    coarse = token_layout(TokenStream(planes=("c",), inputs=("x",)), 12, {"c": (1, 8, 3, 4)})
    weights = RNG.dirichlet(np.ones(12), size=(2, 48)).astype(np.float32)
    one = LayerAttention("l", "w", "self", 0, (0, 1), weights, fine, coarse, 0.0, 0)
    other = layer(PATCHES, PATCHES, 1)
    figure = plot_attention_grid(maps(one, other), query="5,7")
    (frame,) = panel(figure, "head 1").patches
    assert (*frame.get_xy(), frame.get_width()) == (3.0, 2.0, 0.5)  # type: ignore[attr-defined]
    assert "layers without this query, left out: 1" in texts(figure)


def test_a_grid_needs_patches_and_a_query_that_is_there() -> None:
    with pytest.raises(SelectionError, match="use --view matrix"):
        plot_attention_grid(maps(layer(WORDS, WORDS)))
    with pytest.raises(InputError, match="no query is named 'dog'"):
        plot_attention_grid(maps(layer(PATCHES, PATCHES)), query="dog")


def test_a_matrix_has_words_at_rows_and_columns() -> None:
    one = layer(WORDS, WORDS)
    figure = plot_attention_matrices(maps(one))
    np.testing.assert_array_equal(drawn(panel(figure, "head 1")), one.weights[1])
    axes = panel(figure, "mean")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["[CLS]", "a$b$", "\\u732b"]
    assert not any(t.get_parse_math() for t in axes.get_xticklabels())
    assert "special tokens get" in texts(figure)


def test_a_sink_is_marked() -> None:
    many = token_layout(TokenStream(inputs=("i",), tokens=("i",)), 9, {})
    weights = np.full((2, 9, 9), 0.5 / 8, np.float32)
    weights[:, :, 4] = 0.5
    one = LayerAttention("l", "w", "self", 0, (0, 1), weights, many, many, 0.0, 0)
    figure = plot_attention_matrices(maps(one))
    (mark,) = panel(figure, "mean").lines
    assert mark.get_xdata()[0] == 4  # type: ignore[index]
    assert "sink" in texts(figure)
    flat = LayerAttention("l", "w", "self", 0, (0,), np.full((1, 9, 9), 1 / 9, np.float32), many, many, 0.0, 0)
    assert "sink" not in texts(plot_attention_matrices(maps(flat)))


def test_blocks_print_their_mass() -> None:
    blocks = (TokenBlock("image", "image", 0, 4, (2, 2)), TokenBlock("text", "text", 4, 6))
    both = Tokens(blocks, tuple("abcdef"))
    one = layer(both, both)
    figure = plot_attention_blocks(maps(one))
    printed = [float(n) for n in re.findall(r"^(\d+) %$", texts(figure), re.M)]
    np.testing.assert_allclose(printed, 100 * one.block_mass().mean(axis=0).reshape(-1), atol=0.51)
    assert "image (4)" in texts(figure)


def test_rollout_over_the_picture_and_as_a_matrix() -> None:
    rolled = rollout([layer(PATCHES, PATCHES), layer(PATCHES, PATCHES, 1)])
    figure = plot_rollout(rolled, picture=np.zeros((12, 16, 3), np.uint8))
    tile = drawn(panel(figure, "rollout, 3 × 4 patches"))
    np.testing.assert_allclose(tile, rolled.matrix[0, 1:].reshape(3, 4), rtol=1e-6)
    words = rollout([layer(WORDS, WORDS)])
    figure = plot_rollout(words)
    np.testing.assert_allclose(drawn(figure.axes[0]), words.matrix)
    assert "residual 0.5" in texts(figure)


def test_distances_name_the_closest_heads() -> None:
    one = layer(WORDS, WORDS, heads=3)
    one.weights[2] = one.weights[0]
    figure = plot_head_distances(head_distances([one]))
    assert "closest: layer 0 head 0 and layer 0 head 2, 0 bits" in texts(figure)


def test_rows_that_are_nan_are_hatched() -> None:
    one = layer(WORDS, WORDS)
    one.weights[0, 1] = np.nan
    figure = plot_attention_matrices(maps(one))
    assert any(patch.get_hatch() for patch in panel(figure, "head 0").patches)


def test_more_layers_and_heads_than_a_sheet_holds() -> None:
    figure = plot_attention_matrices(maps(*(layer(WORDS, WORDS, i, heads=20) for i in range(26))))
    assert "24 of 26 layers · 16 of 20 heads" in texts(figure).replace("\n", " · ")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_bytes_every_time(tmp_path: Path, ending: str) -> None:
    one = layer(PATCHES, PATCHES)
    for name in ("a", "b"):
        save_figure(plot_attention_grid(maps(one)), tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_layers_with_more_keys_have_a_scale_of_their_own() -> None:
    figure = plot_attention_matrices(maps(layer(WORDS, WORDS), layer(WORDS, PATCHES, 1)))
    assert sum(hasattr(axes, "_colorbar") for axes in figure.axes) == 2
    assert "a scale a layer" in texts(figure)
    figure = plot_attention_matrices(maps(layer(WORDS, WORDS), layer(WORDS, WORDS, 1)))
    assert sum(hasattr(axes, "_colorbar") for axes in figure.axes) == 1
