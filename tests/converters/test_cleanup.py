"""Clean-up of exported graphs: what goes, that nothing changes, and that a wrong rewrite is taken back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.converters import cleanup
from onnxviz.converters.base import LayerCall
from onnxviz.converters.cleanup import clean
from onnxviz.converters.matching import claim_by_value
from onnxviz.graph import fold
from onnxviz.graph.model import to_proto
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.runtime.session import run_model

RNG = np.random.default_rng(4)


def keras_like() -> ir.Model:
    """What Keras on torch exports: every convolution between transposes, BatchNorm as arithmetic, idle nodes."""
    model = ir.from_onnx_text("""<ir_version: 9, opset_import: ["": 18]>
      net (float[batch, 6, 6, 2] x) => (float[batch, 4] y)
      <float[4, 2, 3, 3] w1 = {0}, float[4, 4, 1, 1] w2 = {0}, float[1, 1, 1, 4] m = {0.1, 0.2, 0.3, 0.4},
       float[1, 1, 1, 4] k = {1.5, 0.5, 2, 1}, float[1, 1, 1, 4] b = {1, 2, 3, 4}, int64[2] a = {1, 2}>
      {
        [t1] t1 = Transpose<perm = [0, 3, 1, 2]>(x)
        [c1] c1 = Conv(t1, w1)
        [t2] t2 = Transpose<perm = [0, 2, 3, 1]>(c1)
        [s] s = Sub(t2, m) [u] u = Mul(s, k) [v] v = Add(u, b)
        [i] i = Identity(v) [f] f = Cast<to = 1>(i)
        [r] r = Relu(f)
        [t3] t3 = Transpose<perm = [0, 3, 1, 2]>(r)
        [c2] c2 = Conv(t3, w2)
        [t4] t4 = Transpose<perm = [0, 2, 3, 1]>(c2)
        [r2] r2 = Relu(t4)
        [mean] y = ReduceMean<keepdims = 0>(r2, a)
      }""")
    for name, shape in (("w1", (4, 2, 3, 3)), ("w2", (4, 4, 1, 1))):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(RNG.standard_normal(shape).astype(np.float32), name=name)
        value.shape = ir.Shape(shape)
    layers = ["conv1"] * 3 + ["bn1"] * 3 + ["", "", "relu1"] + ["conv2"] * 3 + ["relu2", "pool"]
    for node, layer in zip(model.graph, layers, strict=True):
        set_provenance(node, Provenance(layer, f"keras.layers.{layer}"))
    return model


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.standard_normal((n, 6, 6, 2)).astype(np.float32)} for n in (2, 3)]


def test_what_exporters_leave_behind_goes() -> None:
    model = keras_like()
    before = to_proto(model).SerializeToString(deterministic=True)
    cleaned, notes = clean(model, feeds())
    assert notes == ()
    assert [node.op_type for node in cleaned.graph] == ["Transpose", "Conv", "Relu", "Conv", "Relu", "ReduceMean"]
    sources = [provenance_of(node) for node in cleaned.graph]
    assert [source and source.layer for source in sources][1:] == ["conv1", "relu1", "conv2", "relu2", "pool"]
    assert sources[1] is not None
    assert sources[1].folded == ("bn1",)
    assert to_proto(model).SerializeToString(deterministic=True) == before
    for feed in feeds():
        np.testing.assert_allclose(run_model(cleaned, feed)["y"], run_model(model, feed)["y"], rtol=1e-5, atol=1e-5)


def test_batchnorm_is_kept_on_request() -> None:
    def foldable(node: ir.Node) -> bool:
        source = provenance_of(node)
        return source is None or source.layer != "bn1"

    cleaned, _ = clean(keras_like(), feeds(), foldable=foldable)
    ops = [node.op_type for node in cleaned.graph]
    assert ops.count("Sub") == ops.count("Mul") == ops.count("Add") == 1
    assert "Identity" not in ops
    assert "Cast" not in ops


def test_a_wrong_rewrite_is_taken_back_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model, accept: object) -> int:
        value = model.graph.initializers["w2"]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.0001), name="w2")
        value.name = "w2_changed"
        return 1

    monkeypatch.setattr(cleanup, "fold_affine", wrong)
    cleaned, notes = clean(keras_like(), feeds())
    assert len(notes) == 1
    assert notes[0].startswith("folding BatchNorm was left out: output 'y' would differ by")
    assert [node.op_type for node in cleaned.graph].count("Sub") == 1


def test_a_wrong_scale_in_the_fold_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = fold._scaled
    monkeypatch.setattr(fold, "_scaled", lambda node, weight, scale: scaled(node, weight, scale) * 1.0001)
    model = keras_like()
    cleaned, notes = clean(model, feeds())
    assert len(notes) == 1
    assert notes[0].startswith("folding BatchNorm was left out: output 'y' would differ by ")
    assert [node.op_type for node in cleaned.graph].count("Sub") == 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda m: setattr(m.graph[2], "op_type", "Neg"), "would differ by"),
        (lambda m: m.graph[3].replace_input_with(1, m.graph.inputs[0]), "onnxruntime"),
    ],
)
def test_a_step_that_breaks_the_model_is_taken_back(damage, problem):
    model = keras_like()
    cleaned, notes = clean(model, feeds(), last=[("breaking it", damage)])
    assert len(notes) == 1
    assert notes[0].startswith("breaking it was left out: ")
    assert problem in notes[0]
    (feed, _) = feeds()
    np.testing.assert_allclose(run_model(cleaned, feed)["y"], run_model(model, feed)["y"], rtol=1e-5, atol=1e-5)


def test_outputs_that_are_not_finite_or_not_floats_are_compared() -> None:
    inf, nan = np.float32([1, np.inf, np.nan]), np.float32([1, np.nan, np.nan])
    assert cleanup._difference({"y": inf}, {"y": inf}) == ""
    assert "differ" in cleanup._difference({"y": inf}, {"y": nan})
    assert "differ" in cleanup._difference({"y": np.array([1, 2])}, {"y": np.array([1, 3])})
    assert cleanup._difference({"y": np.array(["a"])}, {"y": np.array(["a"])}) == ""
    assert cleanup._difference({"y": np.float32([1e6, 0])}, {"y": np.float32([1e6, 9])}) == ""
    assert "by 1.1e+01" in cleanup._difference({"y": np.float32([1e6, 0])}, {"y": np.float32([1e6, 11])})


def test_what_does_not_run_or_is_too_large_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras_like()
    same, notes = clean(model, [{"x": np.zeros((2, 2, 2, 2), np.float32)}])
    assert same is model
    assert notes[0].startswith("the graph was not cleaned up: it does not run: ")
    monkeypatch.setattr(cleanup, "weight_bytes", lambda model: 1 << 40)
    assert clean(model, feeds()) == (model, ("the graph was not cleaned up: it is larger than 2 GB",))


def test_operators_of_onnxruntime_do_not_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    original = cleanup.optimized_model
    monkeypatch.setattr(
        cleanup, "optimized_model",
        lambda model, providers, **options: original(model, providers, **{**options, "level": "all"}),
    )  # fmt: skip
    cleaned, _ = clean(keras_like(), feeds())
    assert {node.domain for node in cleaned.graph} == {""}
    assert set(cleaned.opset_imports) == {""}


def test_it_is_repeatable() -> None:
    model, inputs = keras_like(), feeds()
    first, second = (to_proto(clean(model, inputs)[0]).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_nodes_are_claimed_by_what_they_give() -> None:
    model = keras_like()
    for node in model.graph:
        set_provenance(node, Provenance("wrong" if node.name == "c2" else ""))
    (feed, _) = feeds()
    x = feed["x"]
    h = run_model(_with_output(model, "c2"), feed)["c2"]
    calls = [
        LayerCall("conv2", "keras.layers.Conv2D", (np.moveaxis(h, 1, -1),)),
        LayerCall("relu2", "keras.layers.ReLU", (np.maximum(np.moveaxis(h, 1, -1), 0),)),
        LayerCall("idle", "keras.layers.Dropout", (x,), (), hands_on=True),
    ]
    claim_by_value(model, calls, feed)
    found = {node.name: (source.layer if (source := provenance_of(node)) else None) for node in model.graph}
    assert found["c2"] == "conv2"
    assert found["r2"] == "relu2"
    assert found["t3"] == found["c1"] == "conv2"  # leads to nothing else
    assert "idle" not in found.values()


def _with_output(model: ir.Model, name: str) -> ir.Model:
    from onnxviz.graph.expose import expose

    return expose(model, name).model
