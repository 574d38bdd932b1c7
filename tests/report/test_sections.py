"""The sections on the flow, on layers over the picture, on weights, and on several samples."""

from __future__ import annotations

import base64
import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxviz import api
from onnxviz.analysis.weight_table import weight_table
from onnxviz.analysis.weights import layer_weights
from onnxviz.graph.io import open_model
from onnxviz.report.flow_chart import places_of
from onnxviz.report.page import Report
from onnxviz.report.prepare import prepare
from onnxviz.report.views import Seen
from onnxviz.report.weight_charts import weight_charts
from onnxviz.report.weight_rows import csv_url, weight_cells
from onnxviz.runtime.capture import capture
from tests.report.conftest import Example
from tests.report.test_page import Parsed, policy_holds
from tests.report.test_views import report_of, text_model, tiles


def test_the_flow_tells_each_layer_and_marks_what_dies_out() -> None:
    text = "".join(f"h{i} = MatMul(h{i - 1}, w) " for i in range(1, 7))
    model = text_model(
        f"g (float[N, 2] h0) => (float[N, 2] y) <float[2, 2] w = {{0.1, 0, 0, 0.1}}> {{{text} y = Neg(h6)}}"
    )
    text = Parsed(report_of(model, {"h0": np.ones((1, 2), np.float32)}).html).text
    assert "vanishing activations" in text
    assert "RMS 0.01, std 0" in text  # of h2
    assert "RMS 0.02, std" not in text
    assert "one sample cannot tell" in text


def test_a_healthy_flow_has_no_marks(example: Example) -> None:
    assert "no stretch passes a threshold" in Parsed(example.report.html).text
    assert places_of(3000) == 375


def test_layers_lie_over_the_picture_where_their_cells_do(lenet: Report, models: Path) -> None:
    page = Parsed(lenet.html)
    picture = page.data["atlases"]["heat-0-0"]
    assert picture["over"] == len(picture["labels"])
    place = picture["labels"].index("conv1")
    width, height = picture["tile"]
    sheet = tiles({**picture, "ranges": [[0, 254]] * len(picture["labels"])})[place]
    hidden = sheet < 0  # a level of 0: no cell is there
    assert hidden[0].all()
    assert not hidden[height // 2, width // 2]
    energy = np.square(lenet.capture["conv1"].array[0].astype(np.float64)).mean(axis=0)
    assert picture["ranges"][place][1] == pytest.approx(energy.max(), rel=0.05)
    assert picture["ranges"][place][1] != pytest.approx(2 * energy.max(), rel=0.05)


def test_without_a_picture_nothing_is_laid_over_it(example: Example) -> None:
    assert "heat" not in Parsed(example.report.html).attributes("id")


def test_the_csv_of_the_page_is_the_table(lenet: Report, models: Path) -> None:
    link = next(a for t, a in Parsed(lenet.html).tags if t == "a" and a.get("download"))
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link["href"].split(",")[1]).decode())))
    truth = weight_table(layer_weights(open_model(models / "lenet5.onnx")), "lenet5").rows
    assert [(r["layer"], float(r["l2"])) for r in rows] == [(r.layer, r.l2) for r in truth]
    assert policy_holds(lenet.html)


def test_a_long_table_gives_no_csv(monkeypatch: pytest.MonkeyPatch, example: Example) -> None:
    table = weight_table(layer_weights(example.model), "m")
    assert csv_url(table).startswith("data:text/csv")
    monkeypatch.setattr("onnxviz.report.weight_rows._LARGEST_CSV", 10)
    assert csv_url(table) == ""
    assert len(weight_cells(table.rows[0])) == 21


def test_norms_of_kernels_are_those_of_numpy(lenet: Report, models: Path) -> None:
    position, lw = next((i, w) for i, w in enumerate(layer_weights(open_model(models / "lenet5.onnx")))
                        if w.layer == "conv3" and w.role == "weight")  # fmt: skip
    picture = Parsed(lenet.html).data["atlases"][f"weights-{position}-norms"]
    norms = np.sqrt(np.square(lw.kernel.astype(np.float64)).sum(axis=(2, 3))).T  # the longer axis across
    assert np.allclose(tiles(picture)[0], norms, atol=np.ptp(norms) / 250)
    assert not np.allclose(tiles(picture)[0], norms[::-1], atol=np.ptp(norms) / 250)


def test_a_weight_that_cannot_be_studied_says_why() -> None:
    zero = text_model("g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {0, 0, 0, 0}> {y = MatMul(x, w)}")
    found = weight_charts(layer_weights(zero)[0])
    assert found.captions == (
        "spectrum: all its values are 0: it has no spectrum", "filters: 2 finite filters: a projection needs 3"
    )  # fmt: skip
    assert found.charts == ""


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits")
    for digit in range(6):
        inside = path / ("even" if digit % 2 == 0 else "odd")
        inside.mkdir(exist_ok=True)
        shutil.copy(models / "samples" / f"digit_{digit}.png", inside)
    return path


def test_a_folder_gives_neurons_and_a_projection(models: Path, folder: Path, tmp_path: Path) -> None:
    report = api.report(models / "lenet5.onnx", folder, providers="cpu")
    page = Parsed(report.html)
    assert {"neurons-0", "projection-0"} <= set(page.attributes("id"))
    assert "6 samples" in page.text
    assert "one sample cannot tell" not in page.text
    assert policy_holds(report.html)
    labels = tmp_path / "classes.csv"
    labels.write_text("nothing.png,a\n", encoding="utf-8")
    wrong = Parsed(api.report(models / "lenet5.onnx", folder, labels=labels, providers="cpu").html)
    assert "names none of the 6 samples" in wrong.text
    assert "neurons-0" not in wrong.attributes("id")


def test_one_sample_has_neither(lenet: Report) -> None:
    assert not {"neurons", "projection"} & set(Parsed(lenet.html).attributes("id"))


def test_weights_are_looked_for_once(example: Example) -> None:
    seen: Any = Seen(example.model, prepare(example.model), capture(example.model, providers="cpu"))
    assert seen.weights is seen.weights


def test_small_models_have_gradients_and_larger_ones_say_why_not(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxviz.report import view_flow

    made = api.report(models / "lenet5.onnx", models / "samples" / "digit_3.png", providers="cpu").html
    assert "Activations, weights and gradients" in made
    assert '<g class="gradients"' in made
    assert "largest class in &#39;output&#39;" in made
    monkeypatch.setattr(view_flow, "_MOST_NODES", 5)
    made = api.report(models / "lenet5.onnx", models / "samples" / "digit_3.png", providers="cpu").html
    assert "gradients are left out" in made
    assert '<g class="gradients"' not in made
