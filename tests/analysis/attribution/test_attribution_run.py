"""How models are run for attributions: rows, batches, memory, several inputs, tokens, cuts, and what is kept."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.baselines import BASELINES
from onnxviz.analysis.attribution.case import Case, open_case
from onnxviz.analysis.attribution.methods import (
    METHODS,
    Found,
    attribution,
    broken_methods,
    find_method,
    known_methods,
    method,
)
from onnxviz.analysis.attribution.run import How, Runner
from onnxviz.api import attribute
from onnxviz.errors import GradientError, InputError, SelectionError
from onnxviz.runtime.batches import load_batches
from onnxviz.runtime.binding import BoundSession
from onnxviz.runtime.session import Session
from tests.conftest import make_small_cnn

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
RNG = np.random.default_rng(5)
X = RNG.standard_normal((5, 1, 8, 8)).astype(np.float32)


def small(batch: int | str, seed: int = 0) -> ir.Model:
    model = make_small_cnn(seed)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([batch, *value.shape[1:]])
    return model


@pytest.mark.parametrize("name", ["saliency", "smoothgrad", "integrated-gradients", "gradient-shap", "grad-cam"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_fixed_batch_and_any_chunk_give_the_same(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attribute(small("n"), {"x": X}, method=name, providers="cpu")
    fixed = attribute(small(batch), {"x": X}, method=name, providers="cpu")
    chunks = attribute(small("n"), {"x": X}, method=name, batch=2, providers="cpu")
    for other in (fixed, chunks):
        np.testing.assert_allclose(other.values, whole.values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(other.score, whole.score, rtol=1e-5)
        assert other.target == whole.target


def test_rows_of_a_run_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = Session.run
    monkeypatch.setattr(
        Session, "run", lambda self, feeds, outputs=None: sizes.append(len(feeds["x"])) or run(self, feeds, outputs)
    )
    attribute(small("n"), {"x": X}, method="smoothgrad", copies=40, max_memory=20_000, providers="cpu")
    few = max(sizes)
    sizes.clear()
    attribute(small("n"), {"x": X}, method="smoothgrad", copies=40, providers="cpu")
    assert 1 <= few < 40 <= max(sizes) <= 256
    assert How(row_bytes=0).rows(_feeding(), gradients=True) == 8


def _feeding() -> Any:
    return open_case(small("n"), load_batches(small("n"), {"x": X})).feeding


def test_the_gradient_model_is_built_once_for_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    init = Session.__init__
    monkeypatch.setattr(Session, "__init__", lambda self, *a, **k: opened.append(1) or init(self, *a, **k))
    found = attribute(small("n", 1), {"x": 3 * X}, method="integrated-gradients", providers="cpu")
    assert len(set(found.classes)) > 1
    assert len(opened) <= 3  # the scores once to find the target; gradients; scores of baselines


def test_several_inputs_share_the_score() -> None:
    text = HEAD + "g (float[N, 2] a, float[N, 2] b, float[2] c) => (float[N, 2] y) {m = Mul(a, b) y = Mul(m, c)}"
    feeds = {"a": np.float32([[1, 2]]), "b": np.float32([[3, 4]]), "c": np.float32([2, -1])}
    found = attribute(ir.from_onnx_text(text), feeds, method="integrated-gradients", target=0, providers="cpu")
    assert list(found.maps) == ["a", "b"]
    np.testing.assert_allclose(found.maps["a"], [[3, 0]], atol=1e-5)
    np.testing.assert_allclose(found.maps["b"], [[3, 0]], atol=1e-5)
    np.testing.assert_allclose(found.completeness, [0], atol=1e-5)


TEXT = (
    HEAD
    + """g (int64[N, 3] ids) => (float[N, 2] y)
<float[5, 2] table = {0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, float[2, 2] w = {1, 0, 0, 1}, int64[1] one = {1}>
{e = Gather(table, ids) s = ReduceSum<keepdims = 0>(e, one) y = MatMul(s, w)}"""
)


def test_texts_are_attributed_at_their_embeddings() -> None:
    ids = np.int64([[1, 2, 4], [0, 0, 3]])
    found = attribute(ir.from_onnx_text(TEXT), {"ids": ids}, method="integrated-gradients", target=1, providers="cpu")
    assert (found.tensor, found.axes[found.tensor]) == ("e", "NTC")
    np.testing.assert_allclose(found.values[..., 1], [[2, 4, 8], [0, 0, 6]], atol=1e-5)
    assert found.words == (("1", "2", "4"), ("0", "0", "3"))
    assert "which is inside the model" in found.notes[0]


def test_a_tensor_inside_the_model_is_attributed_where_it_is_named() -> None:
    found = attribute(small("n"), {"x": X}, method="input-x-gradient", layer="p", target=0, providers="cpu")
    model = small("n")
    bias = model.graph.initializers["fb"].const_value
    assert bias is not None
    np.testing.assert_allclose(found.values.reshape(5, -1).sum(1), found.score - bias.numpy()[0], rtol=1e-4)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_each_baseline_is_complete(name: str) -> None:
    found = attribute(small("n"), {"x": X}, method="integrated-gradients", baseline=name, steps=200, providers="cpu")
    assert np.abs(found.completeness).max() < 0.02 * np.abs(found.score).max()
    assert found.parameters["baseline"] == name


def test_baselines_of_files_and_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", X[:1])
    model = small("n")
    own = attribute(model, {"x": X}, method="integrated-gradients", baseline=str(tmp_path / "b.npy"), providers="cpu")
    array = attribute(model, {"x": X}, method="integrated-gradients", baseline=X[0], providers="cpu")
    np.testing.assert_array_equal(own.values, array.values)
    assert not own.values[0].any(), "the way from a sample to itself has no length"
    assert own.parameters["baseline"] == "b.npy"
    with pytest.raises(InputError, match="no baseline 'grey'; choose zeros"):
        attribute(model, {"x": X}, method="integrated-gradients", baseline="grey", providers="cpu")
    with pytest.raises(InputError, match="does not fit 'x'"):
        attribute(model, {"x": X}, method="integrated-gradients", baseline=np.zeros(3), providers="cpu")


def test_a_planted_error_in_the_path_shows_in_the_completeness(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attribute(small("n"), {"x": X}, method="integrated-gradients", steps=200, providers="cpu")
    lead = Runner.lead
    monkeypatch.setattr(Runner, "lead", lambda self, name, array, count: lead(self, name, array, count) * 1.1)
    wrong = attribute(small("n"), {"x": X}, method="integrated-gradients", steps=200, providers="cpu")
    assert np.abs(wrong.completeness).max() > 3 * np.abs(right.completeness).max()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        attribute(small("n"), {"x": X}, method="smoothgrad", seed=3, providers="cpu").save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    other = attribute(small("n"), {"x": X}, method="smoothgrad", seed=4, providers="cpu")
    with np.load(tmp_path / "a.npz") as kept:
        assert not np.array_equal(kept["0/map/0"], other.values)
        manifest = json.loads(str(kept["__onnxviz__"]))
        np.testing.assert_array_equal(kept["input/x"], X)
    row = manifest["attributions"][0]
    assert manifest["format"] == "onnxviz.attribution/1"
    assert row["parameters"] == {"copies": 50, "noise": 0.15, "seed": 3}
    assert (row["method"], row["tensors"], row["unit"]) == ("smoothgrad", ["x"], "score / input")


def test_cuts_are_told_and_refused_unless_allowed() -> None:
    text = HEAD + "g (float[N, 2] x) => (float[N, 2] y) {r = Round(x) a = Add(r, x) y = Neg(a)}"
    model, feed = ir.from_onnx_text(text), {"x": np.float32([[0.4, 2]])}
    found = attribute(model, feed, method="saliency", target=0, allow_cut=True, providers="cpu")
    assert found.values.tolist() == [[1, 0]]
    assert "Round" in found.cuts[0]


def test_what_leads_nowhere_is_refused() -> None:
    text = HEAD + "g (float[N, 2] x, float[N, 2] z) => (float[N, 2] y) {r = Round(x) y = Neg(r)}"
    feeds = {"x": np.ones((1, 2), np.float32), "z": np.ones((1, 2), np.float32)}
    with pytest.raises(GradientError, match="no gradient leads from y to x"):
        attribute(ir.from_onnx_text(text), feeds, method="saliency", target=0, providers="cpu")
    with pytest.raises(SelectionError, match="does not lie between"):
        attribute(small("n"), {"x": X}, method="saliency", layer="f", target="c:0", providers="cpu")


def test_a_picture_without_an_axis_of_samples() -> None:
    text = (
        HEAD
        + """g (float[1, 4, 4] x) => (float[1, 2] y) <float[2, 1, 1, 1] w = {1, 2}, int64[1] zero = {0}> {
      u = Unsqueeze(x, zero) c = Conv(u, w) p = GlobalAveragePool(c) y = Flatten(p)}"""
    )
    feed = {"x": np.arange(16, dtype=np.float32).reshape(1, 4, 4)}
    cam = attribute(ir.from_onnx_text(text), feed, target=1, providers="cpu")
    assert cam.values.shape == (1, 4, 4)
    assert attribute(ir.from_onnx_text(text), feed, method="saliency", target=1, providers="cpu").values.size == 16


def test_unknown_methods_and_parameters_list_the_known_ones() -> None:
    with pytest.raises(InputError, match="no method '漢字'; choose .*grad-cam"):
        attribute(small("n"), {"x": X}, method="漢字", providers="cpu")
    with pytest.raises(InputError, match=r"no method 'grad_cam\+'; the nearest are grad-cam"):
        attribute(small("n"), {"x": X}, method="grad_cam+", providers="cpu")
    with pytest.raises(InputError, match=r"saliency has no parameter 'steps'; it has absolute \(True\)"):
        attribute(small("n"), {"x": X}, method="saliency", steps=3, providers="cpu")


def test_a_method_of_somebody_else_is_one_row() -> None:
    try:

        @method("halves", "half of the input", source="this test", needs=())
        def halves(case: Case, *, part: float = 0.5) -> Found:
            return Found({name: part * case.value(name) for name in case.sources})

        found = attribute(small("n"), {"x": X}, method="halves", part=0.25, providers="cpu")
        np.testing.assert_allclose(found.values, X / 4)
        assert found.parameters == {"part": 0.25}
    finally:
        METHODS.pop("halves", None)


PLUGIN = """
from onnxviz.analysis.attribution.methods import Found, Method, method

@method("planted-thirds", "a third of the input", source="this test", needs=())
def thirds(case):
    return Found({name: case.value(name) / 3 for name in case.sources})

row = Method("planted-fifths", "a fifth", "this test", lambda case: Found({"x": case.value("x") / 5}), frozenset())
no_row = 3
"""
POINTS = """[onnxviz.attribution]
planted-thirds = planted_plugin:thirds
planted-fifths = planted_plugin:row
planted-number = planted_plugin:no_row
planted-absent = planted_absent:method
planted-raises = planted_raises:method
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution with two methods, and three entry points that bring none."""
    (tmp_path / "planted_plugin.py").write_text(PLUGIN)
    (tmp_path / "planted_raises.py").write_text("raise RuntimeError('broken\\nin two lines')\n")
    about = tmp_path / "planted-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in METHODS if name.startswith("planted")]:
        METHODS.pop(name)
    for name in ("planted_plugin", "planted_raises"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("plugin")
def test_methods_of_an_installed_package_are_found() -> None:
    for name, part in (("planted-thirds", 3), ("planted-fifths", 5)):
        found = attribute(small("n"), {"x": X}, method=name, providers="cpu")
        np.testing.assert_allclose(found.values, X / part, rtol=1e-6)
    assert {"planted-thirds", "planted-fifths"} <= set(known_methods())


@pytest.mark.usefixtures("plugin")
def test_a_broken_package_is_named_in_a_line_and_breaks_nothing_else() -> None:
    assert attribute(small("n"), {"x": X}, method="saliency", providers="cpu").values.shape == X.shape
    with pytest.raises(
        InputError, match="'planted-raises' of planted_raises:method cannot be loaded: .*broken"
    ) as raised:
        find_method("planted-raises")
    assert "\n" not in str(raised.value)
    lines = broken_methods()
    assert [line.split("'")[1] for line in lines] == ["planted-absent", "planted-number", "planted-raises"]
    assert "is none: the entry point has to name" in lines[1]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (
            "integrated-gradients",
            {"steps": "many"},
            "steps of integrated-gradients cannot be 'many'; give a whole number, 1",
        ),
        ("integrated-gradients", {"steps": 0}, "cannot be 0"),
        ("smoothgrad", {"copies": 2.5}, "cannot be 2.5"),
        ("smoothgrad", {"noise": float("nan")}, "noise of smoothgrad cannot be nan; give a number, 0 or more"),
        ("smoothgrad", {"seed": -1}, "a whole number, 0 or more"),
        ("grad-cam", {"relu": 1}, "relu of grad-cam cannot be 1; give true or false"),
        ("rise", {"share": 1.5, "masks": 2}, "a share of 1.5 cells is no chance"),
        ("occlusion", {"patch": 3.5}, "patch 3.5 does not fit 2 axes of positions; give a whole number"),
        ("lrp", {"composite": 5}, "there is no composite 5"),
    ],
)
def test_values_that_a_parameter_cannot_have_are_refused(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        attribute(small("n"), {"x": X}, method=name, providers="cpu", **given)


def test_every_row_of_the_registry_is_whole() -> None:
    model = small("n")
    case = open_case(model, load_batches(model, {"x": X}), how=How("cpu"))
    for name, row in known_methods().items():
        assert row.about
        assert row.source, name
        if row.needs <= {"gradient", "layer"}:
            found = attribution(case, name)
            assert len(found.values) == 5
            assert np.isfinite(found.values).all()
            assert found.describe(1)[0] == f"target {found.target[1]}"


def test_what_was_made_up_or_left_out_is_told() -> None:
    assert attribute(small("n"), method="saliency", providers="cpu").notes == ("random numbers for x",)
    found = attribute(small(2), {"x": X}, method="saliency", providers="cpu")
    assert found.samples == 4
    assert found.notes == ("1 samples fill no batch of the model and are left out",)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_drawn_as_such(bad: float) -> None:
    from onnxviz.plots.attribution import plot_attributions

    x = X.copy()
    x[0, 0, 2, 2] = bad
    found = [
        attribute(small("n"), {"x": x}, method=name, target=0, providers="cpu")
        for name in ("input-x-gradient", "grad-cam")
    ]
    assert not np.isfinite(found[0].values[0]).all()
    assert np.isfinite(found[0].values[1:]).all(), "the other samples are their own"
    assert plot_attributions(found).axes


def test_a_notebook_shows_a_table_with_names_escaped() -> None:
    found = attribute(small("n"), {"x": X}, method="saliency", labels=["<b>", "b", "c"], target=0, providers="cpu")
    shown = found._repr_html_()
    assert "&lt;b&gt; (class 0)" in shown
    assert "<b>" not in shown
    assert "saliency of net at x, (5, 1, 8, 8)" in shown


TURNED = (
    HEAD
    + """g (float[N, 3] x) => (float[N, 3] z, float[3, N] y, float s)
{z = Neg(x) y = Transpose<perm = [1, 0]>(x) s = ReduceSum<keepdims = 0>(x)}"""
)


@pytest.mark.parametrize(("target", "wanted"), [("y:1,0", [0, 1, 0]), ('sum("s")', [1, 1, 1])])
def test_targets_without_an_axis_of_samples_run_one_by_one(target: str, wanted: list[float]) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    if target.startswith("sum"):
        target = '"s" * 1'
    found = attribute(ir.from_onnx_text(TURNED), {"x": x}, method="saliency", target=target, providers="cpu")
    assert found.values.tolist() == [wanted] * 2
    assert found.score.tolist() == [1, 4] if target == "y:1,0" else [3, 12]
    fixed = ir.from_onnx_text(TURNED.replace("N,", "2,").replace("N]", "2]"))
    with pytest.raises(SelectionError, match="has no axis of samples, and the model runs 2 at once"):
        attribute(fixed, {"x": x}, method="saliency", target=target, providers="cpu")


@pytest.mark.parametrize(
    ("method", "options"),
    [("smoothgrad", {"copies": 64}), ("integrated-gradients", {"steps": 64}), ("gradient-shap", {"copies": 64}),
     ("rise", {"masks": 64})],
)  # fmt: skip
def test_copies_are_made_in_the_type_that_is_fed(method: str, options: dict[str, Any]) -> None:
    """All rows of a run in double, and once more to stack them, took more memory than the model."""
    text = """g (float[N, 3, 96, 96] x) => (float[N, 2] y) <float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}>
    {c = Conv(x, w) p = GlobalAveragePool(c) y = Flatten(p)}"""
    x = {"x": np.random.default_rng(0).random((1, 3, 96, 96), np.float32)}
    model = ir.from_onnx_text(HEAD + text)
    attribute(model, x, method=method, providers="cpu", **options)  # what is imported does not count
    tracemalloc.start()
    attribute(model, x, method=method, providers="cpu", **options)
    most = tracemalloc.get_traced_memory()[1] / (64 * x["x"].nbytes)
    tracemalloc.stop()
    assert most < 3.7


def test_on_a_device_inputs_are_bound_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of CUDA, with the processor as its device: each run of a gradient method goes through the binding."""
    options: dict[str, Any] = {"method": "smoothgrad", "copies": 5, "batch": 2, "providers": "cpu"}
    plain = attribute(small("n"), {"x": X}, **options)
    bound: list[set[str]] = []
    run = BoundSession.run

    def counted(self: BoundSession, feeds: Any, outputs: Any) -> Any:
        bound.append(set(feeds))
        return run(self, feeds, outputs)

    def run_again(self: Session, feeds: Any) -> Any:
        self._binding = self._binding or BoundSession(self._session, "cpu")
        return self._binding.run(feeds, list(self.outputs))

    monkeypatch.setattr(BoundSession, "run", counted)
    monkeypatch.setattr(Session, "run_again", run_again)
    found = attribute(small("n"), {"x": X}, **options)
    np.testing.assert_array_equal(found.values, plain.values)
    gradients = [fed for fed in bound if len(fed) > 1]
    assert len(gradients) == 3 * len(X), "two, two and one copies of each sample, with what enters beside the input"
