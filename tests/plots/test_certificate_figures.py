"""Certificates as figures, by what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.api import attribute
from onnxviz.errors import SelectionError
from onnxviz.plots.attribution import plot_attributions
from onnxviz.plots.certificate import plot_certificates
from onnxviz.plots.save import save_figure
from tests.conftest import make_small_cnn

X = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
FAST = {"steps": 6, "stages": 2, "redraws": 2, "copies": 1, "perturbations": 4}


def of(name: str, **settings: object) -> Attribution:
    return attribute(make_small_cnn(), {"x": X}, method=name, providers="cpu", certify=FAST | settings)


def texts(figure: Figure) -> str:
    own = [t.get_text() for t in figure.texts]
    return "\n".join(own + [t.get_text() for axes in figure.axes for t in (*axes.texts, axes.title)])


def chart(figure: Figure, title: str) -> object:
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def test_curves_controls_layers_and_verdicts_are_drawn() -> None:
    one = of("saliency")
    figure = plot_certificates([one])
    certificate = one.certificate
    assert certificate is not None
    faith, weights = certificate.faithfulness, certificate.randomization  # type: ignore[attr-defined]
    for title, curves in (("Deletion", faith.deletion), ("Insertion", faith.insertion)):
        lines = chart(figure, title).get_lines()  # type: ignore[attr-defined]
        assert len(lines) == 1 + len(curves.controls)
        np.testing.assert_allclose(lines[-1].get_ydata(), curves.map.mean(axis=0))
        np.testing.assert_allclose(lines[-1].get_xdata(), faith.fractions)
    line = chart(figure, "Likeness").get_lines()[-1]  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [1.0, *weights.by_stage])
    text = texts(figure)
    for part in ("saliency", "deletion", "insertion", "weights", "sensitivity", "means over 3 samples", "seed 0"):
        assert part in text, part


def test_what_was_not_examined_is_said() -> None:
    figure = plot_certificates([of("saliency", stages=0)])
    assert "not examined" in texts(figure) + "".join(t.get_text() for axes in figure.axes for t in axes.texts)
    with pytest.raises(SelectionError, match="no attribution was examined"):
        plot_certificates([attribute(make_small_cnn(), {"x": X}, providers="cpu")])


def test_tables_have_no_picture_and_every_text_is_inside(tmp_path: Path) -> None:
    import onnx_ir as ir

    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[N, 2] y)
        <float[3, 2] w = {1, 2, -1, 0.5, 3, -2}> {y = MatMul(x, w)}"""
    )
    table = attribute(model, {"x": np.float32([[1, 2, 3]])}, method="saliency", certify=FAST, providers="cpu")
    figure = plot_certificates([table, of("grad-cam")])
    save_figure(figure, tmp_path / "a.svg")
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= width, text.get_text()
        assert 0 <= box.y0 <= box.y1 <= height, text.get_text()


def test_the_footer_of_a_map_has_what_was_found() -> None:
    figure = plot_attributions([of("saliency")])
    foot = figure.texts[-1].get_text()
    assert "certificate: passed map, gradient" in foot
    figure.draw_without_rendering()
    assert figure.texts[-1].get_window_extent().x1 <= figure.get_size_inches()[0] * figure.dpi
