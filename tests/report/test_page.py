from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import OutputError
from onnxviz.report import links
from onnxviz.report import page as page_module
from onnxviz.report.page import Report, build_report
from onnxviz.runtime.capture import capture
from onnxviz.runtime.record import Capture
from tests.conftest import make_small_cnn
from tests.report.conftest import HOSTILE, Example

VOID = {"meta", "img", "br", "input", "rect", "path"}


class Parsed(HTMLParser):
    """The elements of a page, with their text, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.raw: list[tuple[str, str]] = []  # what scripts and styles hold
        self.text = ""
        self._open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag
        if tag in ("script", "style"):
            self.raw.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.raw[-1] = (self._open, self.raw[-1][1] + data)
        else:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    @property
    def data(self) -> Any:
        return json.loads(next(text for tag, text in self.raw if tag == "script"))


def run(text: str, feeds: dict[str, Any] | None = None, labels: list[str] | None = None) -> Report:
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    return build_report(model, capture(model, feeds, providers="cpu"), labels=labels)


def policy_holds(html: str) -> bool:
    """Whether the page's policy allows exactly the scripts and styles that are on it, and nothing from a network."""
    page = Parsed(html)
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    rules = {words[0]: words[1:] for words in (rule.split() for rule in policy.split(";"))}
    if rules.pop("default-src") != ["'none'"] or rules.pop("img-src") != ["data:"]:
        return False
    places = [attributes for tag, attributes in page.tags if tag in ("script", "style")]
    raw = zip(page.raw, places, strict=True)
    code = [text for (tag, text), attributes in raw if tag == "script" and "type" not in attributes]
    styles = [text for tag, text in page.raw if tag == "style"]
    found = {
        "script-src": [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in code
        ],
        "style-src": [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in styles
        ],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return rules == found and not page.attributes("style")


def unpacked(page: Parsed, identity: str) -> Any:
    """Return what a page's viewer gets from one of its parts."""
    places = [attributes for tag, attributes in page.tags if tag in ("script", "style")]
    text = next(raw for (_, raw), place in zip(page.raw, places, strict=True) if place.get("id") == identity)
    return json.loads(zlib.decompress(base64.b64decode(text)))


def test_lenet_reads_the_digit(lenet: Report) -> None:
    assert re.fullmatch(r"class 3, probability 0\.\d{3}", lenet.answer)
    page = Parsed(lenet.html)
    assert "class 3" in page.text
    assert "the picture as the model sees it" in page.text
    assert "61,706" in page.text
    assert "416,520 at batch = 1" in page.text
    assert any(t == "img" and a["src"].startswith("data:image/png;base64,") for t, a in page.tags)
    assert lenet.notes == ()


def test_the_policy_allows_what_is_on_the_page_and_nothing_else(example: Example) -> None:
    assert policy_holds(example.report.html)
    addresses = [a for name in ("src", "href") for a in Parsed(example.report.html).attributes(name)]
    assert all(a.startswith(("#", "data:")) for a in addresses)


def test_a_changed_script_breaks_the_policy(example: Example) -> None:
    html = example.report.html
    assert not policy_holds(html.replace('"use strict";', '"use strict"; fetch("x");', 1))
    assert not policy_holds(html.replace("</main>", "<script>1</script></main>"))


def test_same_input_same_bytes(example: Example) -> None:
    picture = np.random.default_rng(1).standard_normal((1, 1, 8, 8)).astype(np.float32)
    again = make_small_cnn()
    assert build_report(again, capture(again, {"x": picture}, providers="cpu")).html == example.report.html


def test_every_link_leads_somewhere_and_ids_are_unique(example: Example, hostile: Example) -> None:
    for report in (example.report, hostile.report):
        page = Parsed(report.html)
        ids = page.attributes("id")
        assert len(ids) == len(set(ids))
        targets = {a[1:] for a in page.attributes("href") if a[0] == "#"} | set(page.data["blocks"].values())
        blocks = set(unpacked(page, "graph-data")["boxes"]["id"])
        assert targets <= set(ids) | blocks
        assert set(page.data["blocks"]) <= blocks
        assert not blocks & set(ids)
        assert set(page.data["atlases"]) == set(page.attributes("data-atlas")) == set(page.attributes("data-key"))


def test_blocks_lead_to_the_layers_they_make(example: Example) -> None:
    page = Parsed(example.report.html)
    layers = {a["id"]: a["data-find"].split()[0] for t, a in page.tags if t == "article" and "data-find" in a}
    rows = {a["id"]: a["data-find"].split()[0] for t, a in page.tags if t == "tr" and "id" in a}
    blocks = page.data["blocks"]
    assert {layers[blocks[f"node-{name}"]] for name in "crpy"} == {"c", "r", "p", "y"}
    assert rows[blocks["node-f"]] == "f"  # Flatten is no layer: its block leads to the table
    assert blocks["input-x"] == "answer"
    assert layers[blocks["output-y"]] == "y"


def test_hostile_names_stay_text(hostile: Example) -> None:
    page = Parsed(hostile.report.html)
    assert policy_holds(hostile.report.html)
    assert [tag for tag, _ in page.raw] == ["style"] + 8 * ["script"]  # data, graph, details, five of code
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert [attrs["src"][:5] for tag, attrs in page.tags if tag == "img"] == []
    assert "alert(1)" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in hostile.report.html
    assert "\x07" not in hostile.report.html
    assert "line one\\nline two" in page.text


def test_long_names_are_cut_with_more_of_them_in_the_tooltip(hostile: Example) -> None:
    long = HOSTILE[4]
    assert len(long) == 10_000
    html = hostile.report.html
    assert len(html) < 170_000
    titles = [t for t in Parsed(html).attributes("title") if "longlong" in t]
    assert titles
    assert max(map(len, titles)) <= 500
    assert max(len(word) for word in re.findall(r"(?:long)+", Parsed(html).text)) < 500


def test_hostile_labels_are_escaped_and_shortened_in_the_answer(hostile: Example) -> None:
    assert len(hostile.report.answer) < 200
    assert "\n" not in hostile.report.answer


@pytest.mark.parametrize(
    ("outputs", "tensors"), [(["x"], []), (["w"], ["w"]), ([], [])], ids=["passed through", "a constant", "no outputs"]
)
def test_a_model_without_nodes(outputs: list[str], tensors: list[str]) -> None:
    weights = " ".join(f"<float[1, 2] {name} = {{1, 2}}>" for name in tensors)
    declared = ", ".join(f"float[1, 2] {name}" for name in outputs)
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => ({declared}) {weights} {{}}'
    )
    report = build_report(model, Capture({}, (), "g", ("cpu",), tuple(outputs)))
    page = Parsed(report.html)
    assert "the model has no tensors to draw" in page.text
    assert ("no node computes it" in page.text) == bool(outputs)
    assert report.notes == ()


def test_a_model_without_inputs_and_weights() -> None:
    report = run("g () => (float[2] y) {y = Constant<value = float[2] {1.5, -2.0}>()}")
    page = Parsed(report.html)
    assert "The model takes no input." in page.text
    assert "1.5, −2" in page.text
    assert "weights" not in page.attributes("id")


def test_weights_without_a_run() -> None:
    report = build_report(make_small_cnn(), Capture({}, (), "net", ("cpu",), ("y",)))
    assert {"weights-0", "weights-2"} <= set(Parsed(report.html).data["atlases"])


def test_outputs_that_are_no_classification_are_listed_with_their_values() -> None:
    report = run(
        "g (float[2, 3] x) => (float[2, 3] y) {y = Neg(x)}", {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    )
    page = Parsed(report.html)
    assert report.answer == ""
    assert "0, −1, −2, −3, −4, −5" in page.text
    assert "mean −2.5" in page.text


def test_an_embedding_after_a_normalisation_is_no_answer() -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) <float[4] s = {1, 1, 1, 1}> {y = LayerNormalization<axis = -1>(x, s)}"
    assert run(text).answer == ""
    assert run(text, labels=list("abcd")).answer.startswith("class ")


def test_a_score_for_each_of_many_boxes_is_no_answer() -> None:
    scores = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 8, 1)
    assert run("g (float[1, 8, 1] x) => (float[1, 8, 1] y) {y = Neg(x)}", {"x": scores}).answer == ""


def test_labels_that_do_not_fit_are_left_aside_and_that_is_said(example: Example) -> None:
    report = build_report(example.model, example.captured, labels=["only", "two"])
    assert "the labels do not fit in number" in Parsed(report.html).text
    assert "only" not in report.answer


def test_text_and_empty_outputs() -> None:
    report = run(
        'g (float[0, 2] x, int64[1] i) => (float[0, 2] y, string[1] s) <string[2] names = {"<i>", "b"}> '
        "{y = Neg(x) s = Gather(names, i)}",
        {"x": np.zeros((0, 2), np.float32), "i": np.int64([0])},
    )
    page = Parsed(report.html)
    assert "empty" in page.text
    assert "<i>" in page.text
    assert "i" not in [tag for tag, _ in page.tags]


def test_nan_is_counted_where_a_reader_looks() -> None:
    report = run("g (float[1, 4] x) => (float[1, 4] y) {y = Sqrt(x)}", {"x": np.float32([[-1, 4, np.inf, 0]])})
    assert "1 NaN, 1 Inf" in Parsed(report.html).text


def test_inputs_that_nobody_gave_are_called_out() -> None:
    assert (
        "nobody gave this input a value" in Parsed(run("g (float[1, 4] x) => (float[1, 4] y) {y = Neg(x)}").html).text
    )


def test_a_small_budget_is_kept_and_what_it_cost_is_said(
    models: Path, lenet: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = len(lenet.html.encode()) - 15_000
    monkeypatch.setattr(page_module, "_SLACK", 2000)
    monkeypatch.setattr(page_module, "_PANEL_SLACK", 300)
    monkeypatch.setattr(page_module, "_BUDGET", limit)
    report = build_report(ir.load(models / "lenet5.onnx"), lenet.capture)
    pictures = Parsed(report.html).data["atlases"]
    assert len(report.html.encode()) <= limit
    assert re.fullmatch(r"\d+ of 33 pictures show fewer channels or less detail, .*", report.notes[0])
    whole = {name for name in Parsed(lenet.html).data["atlases"] if not name.startswith("attribution")}
    assert set(pictures) == whole, "no explanation is asked for here"
    assert report.notes[0] in Parsed(report.html).text


def test_a_budget_too_small_for_any_picture_drops_them_all(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "_BUDGET", 60_000)
    report = build_report(example.model, example.captured)
    page = Parsed(report.html)
    assert report.notes == ("10 of 10 pictures are left out, to keep the page small",)
    assert page.data["atlases"] == {}
    assert page.text.count("no picture here") == 10
    assert not [a for t, a in page.tags if t == "canvas"]


def test_long_tables_are_cut_and_that_is_said(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "_TABLE_ROWS", 2)
    report = build_report(example.model, example.captured)
    assert "the table of tensors shows 2 of 5 rows" in report.notes
    assert "tensor-2" not in Parsed(report.html).attributes("id")


def test_a_diagram_too_large_is_left_out_and_that_is_said(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit, size in (("_BLOCKS", 4, "5 nodes"), ("_LIMIT", 3000, "0.0 MB")):
        with monkeypatch.context() as patch:
            patch.setattr(links, name, limit)
            report = build_report(example.model, example.captured)
        note = f"the architecture ({size}) is left out: draw it with `onnxviz graph`"
        page = Parsed(report.html)
        assert report.notes == (note,)
        assert page.text.count(note) == 2
        assert page.data["blocks"] == {}
        assert {a[1:] for a in page.attributes("href") if a[0] == "#"} <= set(page.attributes("id"))


def test_save_needs_the_ending(example: Example, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"end the name in \.html"):
        example.report.save(tmp_path / "page.pdf")
    example.report.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == example.report.html


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "generated/ort_resnet18_int8_qoperator", "audio/dtln-model_1", "sklearn_ml/gen_mlp_wine",
        "controlflow_functions/30_nested_loops", "adversarial/tensor_all_nan_4m", "adversarial/str_name_1mb",
        "adversarial/str_unicode_names", "transformer/vespa-random_decoder",
    ],
)  # fmt: skip
def test_corpus_models_make_small_sound_pages(corpus: Path, name: str) -> None:
    from onnxviz import api

    report = api.report(corpus / "models" / f"{name}.onnx", providers="cpu")
    page = Parsed(report.html)
    ids = page.attributes("id")
    assert len(report.html.encode()) < 3_000_000
    assert policy_holds(report.html)
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in page.attributes("href") if a[0] == "#"} <= set(ids) | set(
        unpacked(page, "graph-data")["boxes"]["id"]
    )


@pytest.mark.corpus
def test_a_thousand_nodes_stay_within_ten_megabytes(corpus: Path) -> None:
    from onnxviz import api

    report = api.report(corpus / "models" / "generated" / "tv_raft_small_legacy_op16.onnx", providers="cpu")
    assert 5_000_000 < len(report.html.encode()) <= 10_000_000
    assert any("to keep the page small" in note for note in report.notes)
