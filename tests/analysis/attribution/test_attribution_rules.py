"""Rules other than the gradient's as attributions, and attention: sums, notes, baselines, tokens; without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.families import overrides
from onnxviz.analysis.attribution.families.overrides import COMPOSITES
from onnxviz.api import attribute
from onnxviz.errors import SelectionError
from onnxviz.gradient.overrides.names import rules_table
from onnxviz.graph.io import as_model
from tests.conftest import ROOT, make_small_cnn
from tests.gradient.overrides_nets import carried, planted

X = np.random.default_rng(5).standard_normal((3, 1, 8, 8)).astype(np.float32)
HEAD = '<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]> '


@pytest.mark.parametrize("composite", COMPOSITES)
def test_relevance_is_that_of_the_rules_and_its_sum_is_told(composite: str) -> None:
    found = attribute(make_small_cnn(), {"x": X}, method="lrp", composite=composite, target=1, providers="cpu")
    (wanted,), delta, _ = carried(make_small_cnn(), f"lrp-{composite}", {"x": X}, "y[:, 1]")
    np.testing.assert_allclose(found.values, wanted, rtol=1e-3, atol=1e-5)
    assert delta is not None
    np.testing.assert_allclose(found.completeness, -delta, rtol=1e-3, atol=1e-4)
    assert found.parameters["composite"] == composite
    assert found.parameters["epsilon"] == 1e-6


def test_relevance_of_a_mean_of_entries_and_of_an_expression() -> None:
    for target, wanted in (("r:1", 'mean("r"[:, 1])'), ("y[:, 0] - y[:, 2]", "y[:, 0] - y[:, 2]")):
        found = attribute(make_small_cnn(), {"x": X}, method="lrp", composite="epsilon", target=target, providers="cpu")
        (map_,), _, _ = carried(make_small_cnn(), "lrp-epsilon", {"x": X}, wanted.replace('"', ""))
        np.testing.assert_allclose(found.values, map_, rtol=1e-3, atol=1e-5)


def test_contributions_sum_to_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"method": "deeplift", "target": 1, "providers": "cpu"}
    found = attribute(make_small_cnn(), {"x": X}, baseline="mean", **options)
    (_,), delta, _ = carried(
        make_small_cnn(), "deeplift",
        {"x": X, "x.baseline": np.broadcast_to(X.mean((2, 3), keepdims=True), X.shape)}, "y[:, 1]",
    )  # fmt: skip
    np.testing.assert_allclose(found.completeness, -np.float64(delta), atol=1e-4)
    assert np.abs(found.completeness).max() < 1e-4 * np.abs(found.score).max()
    parts = [attribute(make_small_cnn(), {"x": X}, baseline=name, **options) for name in ("zeros", "mean")]
    both = attribute(make_small_cnn(), {"x": X}, baseline="zeros,mean", **options)
    np.testing.assert_allclose(both.values, np.mean([one.values for one in parts], axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both.baseline_score, np.mean([one.baseline_score for one in parts], axis=0))
    monkeypatch.setattr(overrides, "rules_table", lambda rules: planted(rules_table(rules), "Relu", 1.01))
    wrong = attribute(make_small_cnn(), {"x": X}, baseline="mean", **options)
    assert np.abs(wrong.completeness).max() > 20 * np.abs(found.completeness).max()


def test_deeplift_of_embeddings_and_of_two_inputs() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] a, float[N, 2] b) => (float[N, 2] y) {
      m = Mul(a, b) y = Tanh(m)}"""
    feeds = {"a": np.float32([[0.1, 0.2]]), "b": np.float32([[0.3, 0.4]])}
    found = attribute(ir.from_onnx_text(text), feeds, method="deeplift", target=1, providers="cpu")
    np.testing.assert_allclose(found.maps["a"], [[0, np.tanh(0.08) / 2]], rtol=1e-5)
    np.testing.assert_allclose(found.maps["b"], found.maps["a"], rtol=1e-5)
    inner = attribute(ir.from_onnx_text(text), feeds, method="deeplift", layer="m", target=1, providers="cpu")
    np.testing.assert_allclose(inner.values, [[0, np.tanh(0.08)]], rtol=1e-5)


def test_notes_say_where_rules_do_not_reach() -> None:
    smooth = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y) {a = Elu(x) y = Neg(a)}"""
    )
    plain = attribute(smooth, {"x": np.ones((1, 2), np.float32)}, method="deconvnet", target=0, providers="cpu")
    assert plain.notes == ("the model has no rectifier: this is the true gradient",)
    mixed = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y) {
          a = Elu(x) b = Elu(a) c = Elu(b) d = Relu(c) y = Neg(d)}"""
    )
    found = attribute(mixed, {"x": np.ones((1, 2), np.float32)}, method="guided-backprop", target=0, providers="cpu")
    assert [note.split(" at ")[0] for note in found.notes] == ["Elu", "Elu", "the same"]


def test_redirected_gradients_pass_dead_rectifiers() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y) {y = Relu(x)}"""
    )
    dead = {"x": np.float32([[-1, -2]])}
    assert attribute(model, dead, method="saliency", target=0, providers="cpu").values.tolist() == [[0, 0]]
    found = attribute(model, dead, method="redirected-gradient", target=0, providers="cpu")
    assert found.values.tolist() == [[1, 0]]


def transformer(attention: str) -> ir.Model:
    """Return one layer of attention over 5 tokens, with seeded weights, the first token read."""
    model = ir.from_onnx_text(
        HEAD
        + """g (float[N, 5, 8] x) => (float[N, 3] y)
        <float[8, 8] wq = {0}, float[8, 8] wk = {0}, float[8, 8] wv = {0}, float[8, 3] w = {0}, int64 zero = {0},
         int64[4] sh = {0, 5, 2, 4}, int64[3] back = {0, 5, 8}, float half = {0.5}>
        { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) """
        + attention
        + " r = Add(x, a) t = Gather<axis = 1>(r, zero) y = MatMul(t, w) }"
    )
    rng = np.random.default_rng(1)
    for name, shape in (("wq", (8, 8)), ("wk", (8, 8)), ("wv", (8, 8)), ("w", (8, 3))):
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(rng.standard_normal(shape).astype(np.float32) / 2, name=name)
        value.shape = ir.Shape(shape)
    return model


PLAIN = """q4 = Reshape(q, sh) qt = Transpose<perm = [0, 2, 1, 3]>(q4) k4 = Reshape(k, sh)
 kt = Transpose<perm = [0, 2, 3, 1]>(k4) v4 = Reshape(v, sh) vt = Transpose<perm = [0, 2, 1, 3]>(v4)
 s0 = MatMul(qt, kt) s = Mul(s0, half) p = Softmax<axis = -1>(s) o4 = MatMul(p, vt)
 ot = Transpose<perm = [0, 2, 1, 3]>(o4) a = Reshape(ot, back)"""
TOKENS = {"x": np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)}


@pytest.mark.parametrize("method", ["attention-rollout", "gradient-attention"])
@pytest.mark.parametrize(
    "fused",
    [
        "a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v)",
        "a = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v)",
    ],
)
def test_fused_attention_has_the_maps_of_its_parts(method: str, fused: str) -> None:
    wanted = attribute(transformer(PLAIN), TOKENS, method=method, target=1, providers="cpu")
    found = attribute(transformer(fused), TOKENS, method=method, target=1, providers="cpu")
    assert (wanted.values.shape, wanted.axes) == ((2, 5), {"tokens": "NT"})
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)
    one = attribute(transformer(fused), {"x": TOKENS["x"][1:]}, method=method, target=1, providers="cpu")
    np.testing.assert_allclose(one.values[0], wanted.values[1], atol=1e-6)


def test_whose_row_it_is() -> None:
    read = attribute(transformer(PLAIN), TOKENS, method="gradient-attention", target=1, providers="cpu")
    assert read.notes == ("row of token 0",)
    mean = attribute(transformer(PLAIN), TOKENS, method="gradient-attention", token="mean", target=1, providers="cpu")
    np.testing.assert_allclose(mean.values, read.values / 5, rtol=1e-5)
    last = attribute(transformer(PLAIN), TOKENS, method="gradient-attention", token="last", target=1, providers="cpu")
    assert not last.values.any(), "the score does not change with what the last token attends to"


def test_a_question_about_a_picture_has_a_map_of_each() -> None:
    """Equations 6, 7 and 10 of Chefer et al., by hand from the weights and gradients of the model."""
    from onnxviz.gradient.model import gradient_model
    from onnxviz.runtime.session import Session

    model = as_model(ROOT / "models" / "picture_question.onnx")
    rng = np.random.default_rng(3)
    feeds = {"image": rng.random((1, 1, 28, 28), np.float32), "tokens": np.int64([[1, 4, 5, 6, 7, 2, 0]])}
    names = [f"blocks.{i}.{kind}_attention.softmax" for i in (0, 1) for kind in ("self", "cross")]
    made = gradient_model(model, wrt=names, target="output[:, 2]")
    made.model.graph.outputs.extend(v for node in made.model.graph for v in node.outputs if v.name in names)
    given = Session(made.model, "cpu").run(feeds)
    qq, qk = np.eye(7), np.zeros((7, 49))
    for name in names:
        mean = np.maximum(given[name] * given[made.gradients[name]], 0)[0].mean(axis=0)
        if "self" in name:
            qq, qk = qq + mean @ qq, qk + mean @ qk
        else:
            rest = qq - np.eye(7)
            total = rest.sum(axis=1, keepdims=True)
            qk = qk + (rest / np.where(total > 0, total, 1) + np.eye(7)).T @ mean
    found = attribute(model, feeds, method="gradient-attention", target=2, providers="cpu")
    assert list(found.axes.values()) == ["NT", "NHW"]
    text, picture = found.maps.values()
    np.testing.assert_allclose(text[0], (qq - np.eye(7))[0], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(picture[0], qk[0].reshape(7, 7), rtol=1e-3, atol=1e-7)
    rolled = attribute(model, feeds, method="attention-rollout", target=2, providers="cpu")
    assert any("2 of 4 layers left out" in note for note in rolled.notes)


def test_windows_and_what_has_no_attention_are_refused() -> None:
    windowed = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 16, 4] x) => (float[1, 4] y)
        <int64[4] cut = {4, 1, 4, 4}, int64[3] back = {1, 16, 4}> {
          w = Reshape(x, cut) t = Transpose<perm = [0, 1, 3, 2]>(w) s = MatMul(w, t) p = Softmax<axis = -1>(s)
          o = MatMul(p, w) r = Reshape(o, back) y = ReduceMean<axes = [1], keepdims = 0>(r)}"""
    )
    fed = {"x": np.random.default_rng(0).random((1, 16, 4), np.float32)}
    for method in ("attention-rollout", "gradient-attention"):
        with pytest.raises(SelectionError, match="is in windows"):
            attribute(windowed, fed, method=method, target=0, providers="cpu")
