"""Several targets contrasted: the difference of maps, and one scale for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.contrast import contrast, contrasts
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.attribution.views import attribution_view, shared_scale
from onnxviz.api import attribute, explain
from onnxviz.errors import SelectionError
from tests.conftest import make_small_cnn

X = np.random.default_rng(0).random((2, 1, 8, 8)).astype(np.float32)


def of(target: Any, method: str = "input-x-gradient", **options: Any) -> Attribution:
    return attribute(make_small_cnn(), {"x": X}, method=method, target=target, providers="cpu", **options)


def test_the_difference_of_gradients_is_the_gradient_of_the_difference() -> None:
    made = contrast(of(0), of(1))
    direct = of("y[:, 0] - y[:, 1]")
    np.testing.assert_allclose(made.values, direct.values, atol=1e-6)
    np.testing.assert_allclose(made.score, direct.score, rtol=1e-5)
    assert made.target == ("class 0 − class 1",) * 2
    assert made.contrast
    assert np.abs(contrast(of(1), of(0)).values - direct.values).max() > 1e-3, "the oracle tells A − B from B − A"


def test_what_was_cut_off_at_zero_stays_cut_off_and_the_difference_has_a_sign() -> None:
    made = contrast(of(0, "grad-cam"), of(0, "grad-cam"))
    assert not made.values.any()
    view = attribution_view(made, made.tensor, 0)
    assert view.scale.kind == "diverging"


def test_maps_of_different_layers_have_no_difference_and_it_is_told() -> None:
    pair = [of(0, "grad-cam")], [of(1, "grad-cam", layer="c")]
    with pytest.raises(SelectionError, match="name one layer for both"):
        contrast(pair[0][0], pair[1][0])
    made, notes = contrasts(pair)
    assert made == []
    assert "no difference is drawn" in notes[0]
    assert contrasts([[of(0)]]) == ([], [])


def test_one_limit_for_all() -> None:
    views = [attribution_view(one, "x", 0) for one in (of(0), of(1))]
    most = max(view.scale.vmax for view in views)
    assert views[0].scale.vmax != views[1].scale.vmax
    for view in shared_scale(views):
        assert (view.scale.vmin, view.scale.vmax) == (-most, most)
        assert view.spatial is not None
        assert view.spatial.scale == view.scale


def test_two_targets_are_a_row_a_method_with_their_difference_last(tmp_path: Path) -> None:
    figure = explain(
        make_small_cnn(), {"x": X[:1]}, ["grad-cam", "saliency"], target=[0, 1], data=tmp_path / "a.npz",
        contours=(0.25, 0.5), providers="cpu",
    )  # fmt: skip
    texts = [text.get_text() for text in figure.texts]
    for said in ("grad-cam · A", "grad-cam · B", "grad-cam · A−B", "saliency · A−B"):
        assert said in texts
    assert any(text.startswith("B   class 1 · score") for text in texts)
    assert any("each method on one scale for all targets" in text for text in texts)
    assert "lines at 25, 50 % of the largest" in "\n".join(texts)
    bars = [axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.get_position().height < 0.02]
    assert len(bars) == 6
    assert len({high for _, high in bars[:3]}) == 1
    with np.load(tmp_path / "a.npz") as data:
        rows = json.loads(str(data["__onnxviz__"]))["attributions"]
        assert [row["contrast"] for row in rows] == [False] * 4 + [True] * 2
        np.testing.assert_allclose(data["4/map/0"], data["0/map/0"] - data["2/map/0"])


def test_contours_are_at_shares_of_the_shared_scale() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 9, 9] x) => (float[1, 2] y) '
        "<float[2, 1, 1, 1] w = {1, 4}> {c = Conv(x, w) r = Relu(c) m = GlobalAveragePool(r) y = Flatten(m)}"
    )
    x = np.zeros((1, 1, 9, 9), np.float32)
    x[0, 0, 4, 4] = 1
    lines = []
    for targets in ([0], [0, 1]):
        figure = explain(model, {"x": x}, "hires-cam", target=targets, providers="cpu")
        lines.append([bool(axes.collections) for axes in figure.axes if len(axes.images) == 2])
    assert lines[0] == [True]
    assert lines[1][:2] == [False, True], "a quarter of the other's height is below the line at half"
