"""Pictures of norms, filters and spectra: what they draw, and that nothing breaks them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from onnxviz.analysis.weight_filters import filter_study
from onnxviz.analysis.weight_forms import study_weights
from onnxviz.analysis.weight_norms import kernel_norms
from onnxviz.analysis.weight_spectra import spectrum
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.plots.save import save_figure
from onnxviz.plots.weight_filters import plot_filters
from onnxviz.plots.weight_norms import plot_norms
from onnxviz.plots.weight_spectra import plot_spectra

RNG = np.random.default_rng(0)
STUDIES = {
    "norms": (kernel_norms, plot_norms),
    "filters": (filter_study, plot_filters),
    "spectra": (spectrum, plot_spectra),
}


def layer(weight: np.ndarray, name: str = "layer", groups: int = 1) -> LayerWeights:
    value = ir.Value(name="w")
    value.const_value = ir.Tensor(weight.astype(np.float32), name="w")
    op, attributes = ("Conv", {"group": groups}) if weight.ndim > 2 else ("Gemm", {"transB": 1})
    node = ir.node(op, [ir.Value(name="x"), value], attributes, name=name)
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 21}, name="g")
    return layer_weights(ir.Model(graph, ir_version=10))[0]


def drawn(kind: str, *layers: LayerWeights) -> Figure:
    study, plot = STUDIES[kind]
    figure: Figure = plot(study_weights(layers, study, "m"))  # type: ignore[operator, arg-type]
    return figure


def shown(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_a_norm_matrix_is_drawn_with_its_values() -> None:
    weight = RNG.normal(size=(6, 4, 3, 3)).astype(np.float32)
    figure = drawn("norms", layer(weight))
    (image,) = [image for axes in figure.axes for image in axes.images]
    np.testing.assert_allclose(image.get_array(), np.sqrt((weight.astype(np.float64) ** 2).sum(axis=(2, 3))))
    assert image.get_clim()[0] == 0
    line = next(line for axes in figure.axes for line in axes.lines if len(line.get_ydata()) == 6)
    assert (np.diff(line.get_ydata()) <= 0).all()


def test_groups_are_said_and_blank_beside_the_diagonal() -> None:
    figure = drawn("norms", layer(RNG.normal(size=(4, 2, 3, 3)), groups=2))
    (image,) = [image for axes in figure.axes for image in axes.images]
    assert np.ma.count(image.get_array()) == 8
    assert "2 groups of 2 input channels" in shown(figure).replace("\n", " ")


def test_clusters_dead_and_alike_filters_are_in_the_picture() -> None:
    pytest.importorskip("sklearn")
    weight = np.repeat(np.eye(2, 8) * 5, 12, axis=0) + 0.9 * RNG.normal(size=(24, 8))
    weight[3] = 0
    weight[5] = -2 * weight[7]
    figure = drawn("filters", layer(weight))
    text = shown(figure).replace("\n", " ")
    assert "dead: 1 (3)" in text
    assert "near-duplicates: 1 pairs of 2 filters: 5–7 (−1)" in text
    points = [one for one in figure.axes[0].collections if isinstance(one, PathCollection)]
    assert sum(len(one.get_offsets()) for one in points) == 24
    share = [bar.get_height() for bar in figure.axes[1].patches]
    values = np.linalg.svd(weight.astype(np.float32) - weight.astype(np.float32).mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(share, 100 * values / values.sum(), rtol=1e-5)


def test_a_spectrum_says_why_there_is_no_power_law_or_draws_it() -> None:
    wide = RNG.normal(size=(80, 120))
    figure = drawn("spectra", layer(wide, "wide"), layer(RNG.normal(size=(12, 40)), "small"))
    text = shown(figure).replace("\n", " ")
    assert "no power law: a power law needs at least 50 positive values, here are 12" in text
    assert "α = " in text
    want = np.linalg.svd(wide.astype(np.float32).astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), want, rtol=1e-6)


@pytest.mark.parametrize("kind", STUDIES)
def test_hostile_names_and_broken_layers(kind: str, tmp_path: Path) -> None:
    name = 'a"</script>$x_1$\n\u202e' + "n" * 10_000
    layers = [layer(RNG.normal(size=(8, 6)), name), layer(np.zeros(3)[:, None] * np.ones((1, 2)), "zero")]
    layers.append(layer(np.full((4, 4), np.nan), "nan"))
    figure = drawn(kind, *layers)
    if kind != "norms":
        assert "not drawn: zero:" in shown(figure)
        assert "not drawn: nan:" in shown(figure)
    for ending in ("png", "svg"):
        save_figure(figure, tmp_path / f"a.{ending}", dpi=40)
    again = drawn(kind, *layers)
    save_figure(again, tmp_path / "b.svg", dpi=40)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "</script>" not in (tmp_path / "a.svg").read_text().replace("&lt;/script&gt;", "")


@pytest.mark.parametrize("kind", STUDIES)
def test_extreme_shapes(kind: str, tmp_path: Path) -> None:
    layers = [layer(RNG.normal(size=(200_000, 3)), "a million"), layer(RNG.normal(size=(3, 50_000)), "wide")]
    save_figure(drawn(kind, *layers), tmp_path / "a.png", dpi=40)
