"""The section on attribution: what it shows, when it is left out, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxviz import api
from onnxviz.report import view_attribution
from tests.report.test_page import Parsed
from tests.report.test_views import tiles


def test_the_answer_is_explained_over_the_picture(models: Path) -> None:
    sample = models / "samples" / "digit_3.png"
    page = Parsed(api.report(models / "lenet5.onnx", sample, providers="cpu").html)
    assert "attribution" in page.attributes("id")
    pictures = page.data["atlases"]
    assert pictures["attribution-0-0"]["labels"] == ["grad-cam", "grad-cam"]
    found = api.attribute(models / "lenet5.onnx", [sample], method="input-x-gradient", providers="cpu")
    shown = tiles(pictures["attribution-1-0"])[0]
    assert np.allclose(shown, found.values[0, 0], atol=np.ptp(found.values) / 200)
    assert not np.allclose(shown, -found.values[0, 0], atol=np.ptp(found.values) / 200)


def test_large_models_say_that_it_is_left_out(models: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(view_attribution, "_MOST_NODES", 3)
    html = api.report(models / "lenet5.onnx", models / "samples" / "digit_3.png", providers="cpu").html
    assert "nodes, and up to 3 are run backward here; onnxviz explain draws them" in html


def test_without_a_picture_there_is_no_section(models: Path) -> None:
    page = api.report(models / "signal_cnn_lstm.onnx", models / "samples" / "signals" / "chirp.npy", providers="cpu")
    assert "attribution" not in Parsed(page.html).attributes("id")
