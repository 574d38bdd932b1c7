"""The sections of the views: what they show of a run, what they refuse, and how the page links to them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from onnxviz.errors import InputError
from onnxviz.report import page as page_module
from onnxviz.report.page import build_report
from onnxviz.report.prepare import prepare, without_extras
from onnxviz.report.views import Card, Section, View
from onnxviz.runtime.capture import capture
from tests.report.conftest import Example
from tests.report.test_page import Parsed, policy_holds

HEAD = '<ir_version: 8, opset_import: ["": 17]> '


def text_model(text: str) -> ir.Model:
    return ir.from_onnx_text(HEAD + text)


def report_of(model: ir.Model, feeds: Any = None) -> Any:
    prepared = prepare(model)
    return build_report(model, capture(prepared.model, feeds, bodies=False, providers="cpu"), prepared=prepared)


def tiles(picture: dict[str, Any]) -> np.ndarray:
    """Give back the values of an atlas: ``(K, H, W)``."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["png"]))), np.float64)
    width, height = picture["tile"]
    found = []
    for place, (low, high) in enumerate(picture["ranges"]):
        row, column = divmod(place, picture["columns"])
        level = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        found.append(low + (level - 1) / 254 * (high - low))
    return np.stack(found)


def test_sections_are_in_the_navigation_only_where_there_is_something(example: Example) -> None:
    links = [a["href"] for t, a in Parsed(example.report.html).tags if t == "a"]
    assert "#activations" in links
    assert "#pooling" in links
    assert "#attention" not in links
    plain = Parsed(report_of(text_model("g (float[1, 2] x) => (float[1, 2] y) {y = Neg(x)}")).html)
    assert not {"activations", "pooling", "attention"} & set(plain.attributes("id"))


def test_findings_are_on_the_page_with_what_passed() -> None:
    model = text_model("g (float[2] x) => (float[2] y) {y = Neg(x) z = Exp(x)}")
    model.graph.node(1).name = "</script><b>"
    page = Parsed(report_of(model).html)
    assert {"findings", "findings-0", "findings-1"} <= set(page.attributes("id"))
    assert "1 of 2 nodes have no name: 1 Neg" in page.text
    assert "node '</script><b>'" in page.text
    assert "passed: D04 G01" in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    clean = Parsed(report_of(text_model("g (float[2] x) => (float[2] y) {[n] y = Neg(x)}")).html)
    assert "findings-0" not in clean.attributes("id")


def test_maps_before_and_after_are_the_values_of_the_run(example: Example) -> None:
    pictures = Parsed(example.report.html).data["atlases"]
    before, after = (tiles(pictures[f"activations-0-{i}"]) for i in (0, 1))
    order = [int(label) for label in pictures["activations-0-0"]["labels"]]
    truth = example.captured["c"].array[0][order]
    step = np.ptp(truth) / 254
    assert np.allclose(before, truth, atol=step)
    assert np.allclose(after, np.maximum(truth, 0), atol=step)
    assert not np.allclose(after, truth, atol=step)  # the oracle tells after from before
    assert pictures["activations-0-0"]["scale"] == pictures["activations-0-1"]["scale"]


def test_marks_are_where_the_largest_values_are(example: Example) -> None:
    picture = Parsed(example.report.html).data["atlases"]["pooling-0-0"]
    array = example.captured["r"].array[0]
    pooled = example.captured["p"].array[0]
    for marks, label in zip(picture["marks"], picture["labels"], strict=True):
        channel = int(label)
        values = [array[channel].reshape(-1)[m if m >= 0 else -1 - m] for m in marks]
        assert sorted(values) == sorted(pooled[channel].reshape(-1).tolist())
        moved = [array[channel].reshape(-1)[(m if m >= 0 else -1 - m) - 1] for m in marks]
        assert sorted(moved) != sorted(pooled[channel].reshape(-1).tolist())
        for mark in marks:  # hollow where the window holds its largest value twice
            y, x = divmod(mark if mark >= 0 else -1 - mark, 6)
            window = array[channel, y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2]
            assert (np.count_nonzero(window == window.max()) > 1) == (mark < 0)


@pytest.mark.parametrize("pads", ["", "pads = [1, 1, 1, 1],"])
def test_large_maps_are_cut_to_whole_windows(pads: str) -> None:
    model = text_model(
        f"g (float[1, 2, 90, 100] x) => (float[1, 2, n, m] y) "
        f"{{y = MaxPool<kernel_shape = [3, 3], {pads} strides = [2, 2]>(x)}}"
    )
    array = np.random.default_rng(2).standard_normal((1, 2, 90, 100)).astype(np.float32)
    array[0, :, 70, 80] = 9.0
    picture = Parsed(report_of(model, {"x": array}).html).data["atlases"]["pooling-0-0"]
    left, top = picture["origin"]
    width, height = picture["tile"]
    channels = [int(label) for label in picture["labels"]]
    part = array[0, channels, top : top + height, left : left + width]
    assert np.allclose(tiles(picture), part, atol=np.ptp(part) / 250)
    assert not np.allclose(
        tiles(picture), array[0, channels, top + 1 : top + 1 + height, left : left + width], atol=0.5
    )
    assert height < 40
    for tile, marks in zip(part, picture["marks"], strict=True):
        assert len(marks) == 14 * 14
        assert 9.0 in [tile.reshape(-1)[m if m >= 0 else -1 - m] for m in marks]


ATTENTION = """g (float[1, 2, 5, 4] q, float[1, 2, 7, 4] m) => (float[1, 2, 5, 4] y) {
  k = Transpose<perm = [0, 1, 3, 2]>(m) s = MatMul(q, k) w = Softmax<axis = -1>(s) y = MatMul(w, m) }"""


def test_attention_is_the_mean_and_every_head() -> None:
    model = text_model(ATTENTION)
    rng = np.random.default_rng(3)
    feeds = {"q": rng.standard_normal((1, 2, 5, 4), np.float32), "m": rng.standard_normal((1, 2, 7, 4), np.float32)}
    picture = Parsed(report_of(model, feeds).html).data["atlases"]["attention-0-0"]
    scores = feeds["q"][0].astype(np.float64) @ feeds["m"][0].transpose(0, 2, 1)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    assert picture["labels"] == ["mean", "head 0", "head 1"]
    assert np.allclose(tiles(picture), [weights.mean(axis=0), *weights], atol=1 / 250)
    assert not np.allclose(tiles(picture)[1:], weights[::-1], atol=1 / 250)  # heads that are swapped are noticed
    assert [len(side) for side in picture["tokens"]] == [5, 7]


def test_fused_attention_is_opened_and_its_extra_tensors_stay_off_the_table() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[1, 3, 4] q, float[1, 3, 4] k, float[1, 3, 4] v) => (float[1, 3, 4] y) {
          y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v) }"""
    )
    report = report_of(model)
    page = Parsed(report.html)
    assert "attention-0" in page.attributes("id")
    assert list(report.capture) == ["y"]


def test_a_function_that_reads_an_input_is_shown_and_its_input_stays_off_the_table() -> None:
    report = report_of(text_model("g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {y = Relu(x)}"))
    assert list(report.capture) == ["y"]
    assert "activations-0" in Parsed(report.html).attributes("id")


def test_a_run_of_the_model_itself_says_what_it_lacks() -> None:
    model = text_model("g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {y = Relu(x)}")
    page = Parsed(build_report(model, capture(model, providers="cpu")).html)
    assert "no activation function can be shown: y: it was not computed" in page.text
    assert "#activations" in page.attributes("href")


def test_nothing_is_taken_from_a_run_without_extras(example: Example) -> None:
    assert without_extras(example.captured, frozenset({"other"})) is example.captured


def test_nan_and_constants_are_drawn() -> None:
    model = text_model(
        "g (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y) {r = Relu(x) y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)}"
    )
    for array in (np.full((1, 2, 4, 4), np.nan, np.float32), np.zeros((1, 2, 4, 4), np.float32)):
        page = Parsed(report_of(model, {"x": array}).html)
        assert {"activations-0", "pooling-0"} <= set(page.attributes("id"))


def test_a_further_view_is_one_row(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(seen: Any) -> Section:
        raise InputError("three samples are too few", hint="give ten")

    views = (
        View("flow", "Flow", "flow", lambda seen: Section("What flows.", [Card("c</script>", tensors=("c",))])),
        View("none", "None", "none", lambda seen: None),
        View("broken", "Broken", "broken", failing),
    )
    monkeypatch.setattr(page_module, "VIEWS", views)
    report = build_report(example.model, example.captured)
    page = Parsed(report.html)
    assert {"#flow", "#broken"} <= set(page.attributes("href"))
    assert "none" not in page.attributes("id")
    assert "three samples are too few" in page.text
    assert page.data["views"] == {"node-c": [["flow", "flow-0"]]}
    assert policy_holds(report.html)


def test_links_from_blocks_and_feature_maps_lead_to_views(example: Example, lenet: Any) -> None:
    for html in (example.report.html, lenet.html):
        page = Parsed(html)
        ids = set(page.attributes("id"))
        assert page.data["views"]
        assert {where for links in page.data["views"].values() for _, where in links} <= ids
    assert Parsed(example.report.html).data["views"] == {
        "node-r": [["activation", "activations-0"]],
        "node-p": [["pooling", "pooling-0"]],
    }


def test_reports_of_views_are_the_same_every_time(models: Path) -> None:
    from onnxviz import api

    first, second = (
        api.report(models / "vit_digits.onnx", models / "samples" / "digit_3.png", providers="cpu") for _ in range(2)
    )
    assert first.html == second.html
    pictures = Parsed(first.html).data["atlases"]
    assert pictures["attention-0-0"]["over"] == 1
    rollout = tiles(pictures["attention-0-0"])
    assert 0 < rollout.sum() < 1


def test_a_picture_of_three_axes_is_one_sample(models: Path) -> None:
    from onnxviz import api

    model = text_model("g (float[3, 16, 16] image) => (float[3, 16, 16] y) {y = Relu(image)}")
    report = api.report(model, models / "samples" / "digit_3.png", providers="cpu")
    text = Parsed(report.html).text
    assert "over 1 sample" in text
    assert "over 3 samples" not in text
