"""The comparison of a converted model with its source, and that it catches planted errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.comparison import compare
from onnxviz.converters.base import Conversion
from onnxviz.converters.parity import check_parity, measure_parity, parity_feeds
from onnxviz.errors import ConversionError, ParityError

W = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)


def linear(weights: np.ndarray = W, output: str = "float[batch, 3] y") -> ir.Model:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 17]>
        net (float[batch, 4] x) => ({output}) <float[4, 3] w = {{0}}> {{ h = MatMul(x, w)  y = Identity(h) }}"""
    )
    model.graph.initializers["w"].const_value = ir.Tensor(weights, name="w")
    return model


@pytest.fixture
def conversion() -> Conversion:
    example = {"x": np.ones((2, 4), np.float32)}
    return Conversion(linear(), "by hand", "numpy", lambda feeds: [feeds["x"] @ W], example)


def test_equal_models_pass_on_three_batches(conversion):
    parity = check_parity(conversion)
    assert parity.passed
    assert parity.batches == (1, 2, 5)
    assert parity.outputs[0].relative_l2 < 1e-6
    assert parity.outputs[0].cosine == pytest.approx(1)
    assert parity.to_dict()["outputs"][0]["name"] == "y"
    assert "batch 1, 2, 5" in str(parity)


def test_figures_are_those_of_the_definition():
    a, b = np.array([3.0, 4.0]), np.array([3.0, 4.5])
    one = compare("y", a, b, tolerance=1)
    assert one.max_abs == 0.5
    assert one.max_relative == pytest.approx(0.5 / 4)
    assert one.relative_l2 == pytest.approx(0.5 / 5)
    assert one.cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))


def test_a_weight_perturbed_by_one_percent_is_caught(conversion):
    weights = W.copy()
    weights[1, 2] *= 1.01
    with pytest.raises(ParityError, match=r"output 'y' differs by .* relative .*tolerance of 1e-04"):
        check_parity(replace(conversion, model=linear(weights)))
    with pytest.raises(ParityError) as caught:
        check_parity(replace(conversion, model=linear(weights)))
    assert not caught.value.parity.passed


def test_one_wrong_element_among_many_is_caught():
    a = np.ones(1_000_000, np.float32)
    b = a.copy()
    b[7] += 1e-3  # 1e-6 in relative L2
    assert compare("y", a, b).problem is not None


@pytest.mark.parametrize(
    ("source", "onnx", "problem"),
    [
        ([1, np.nan], [1, 1], "is not NaN at 1 place where its source is"),
        ([1, 1], [1, np.nan], "is NaN at 1 place where its source is not"),
        ([1, np.inf], [1, -np.inf], r"is not \+inf at 1 place"),
        ([1, np.inf], [1, 3e38], r"is not \+inf"),
        ([[1, 1]], [1, 1], r"has shape \[2\], its source \[1, 2\]"),
        ([0, 0], [0, 1e-30], "differs by inf relative"),
    ],
)
def test_planted_errors(source, onnx, problem):
    import re

    result = compare("y", np.array(source, np.float32), np.array(onnx, np.float32))
    assert result.problem is not None
    assert re.search(problem, result.problem)


def test_nan_and_infinity_in_the_same_places_agree():
    a = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert compare("y", a, a.copy()).problem is None


def test_dtype_is_strict():
    a = np.ones(2, np.float32)
    assert compare("y", a, a.astype(np.float64)).problem == "has type float64, its source float32"


def test_integers_must_be_equal():
    assert compare("y", np.array([1, 2]), np.array([1, 2])).problem is None
    assert compare("y", np.array([1, 2]), np.array([1, 3])).problem is not None
    assert compare("y", np.array(["a"]), np.array(["b"])).problem == "differs at 1 of 1 elements"


def test_half_precision_has_a_wider_tolerance():
    a = np.ones(4, np.float16)
    assert compare("y", a, a * np.float16(1.002)).problem is None
    assert compare("y", a, a * np.float16(1.1)).problem is not None


def test_a_broadcastable_shape_from_the_source_is_caught(conversion):
    wrong = replace(conversion, reference=lambda feeds: [(feeds["x"] @ W)[None]])
    with pytest.raises(ParityError, match="has shape"):
        check_parity(wrong)


def test_a_failure_on_one_input_survives_the_others(conversion):
    def reference(feeds):
        y = feeds["x"] @ W
        return [y * 2 if len(y) == 2 else y]

    parity = measure_parity(replace(conversion, reference=reference))
    assert not parity.passed
    assert "differs" in str(parity)


def test_numbers_of_outputs_must_match(conversion):
    with pytest.raises(ConversionError, match="1 outputs, its source 2"):
        check_parity(replace(conversion, reference=lambda feeds: [feeds["x"], feeds["x"]]))


def test_a_source_that_fails_at_a_batch_is_no_pass(conversion):
    def reference(feeds):
        raise ValueError("cannot reshape")

    with pytest.raises(ConversionError, match=r"does not run at batch size 1: cannot reshape; .*--static"):
        check_parity(replace(conversion, reference=reference))


def test_a_model_that_fails_at_a_batch_is_no_pass():
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[batch, 4] x) => (float[2, 4] y) <int64[2] s = {2, 4}> { y = Reshape(x, s) }"""
    )
    conversion = Conversion(model, "by hand", "numpy", lambda feeds: [feeds["x"]], {"x": np.ones((2, 4), np.float32)})
    with pytest.raises(ConversionError, match=r"converted model does not run at batch size 1.*--static"):
        check_parity(conversion)


def test_feeds_are_seeded_and_stay_in_the_examples_range():
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        net (int64[batch, 3] t, bool[3] m) => (int64[batch, 3] y) { y = Identity(t) }"""
    )
    example = {"t": np.array([[2, 5, 9]]), "m": np.array([True, False, True])}
    conversion = Conversion(model, "by hand", "numpy", lambda feeds: [feeds["t"]], example)
    feeds = parity_feeds(conversion)
    assert [feed["t"].shape for feed in feeds] == [(1, 3), (2, 3), (5, 3)]
    assert all(feed["t"].min() >= 2 and feed["t"].max() <= 9 for feed in feeds)
    assert all(np.array_equal(a["t"], b["t"]) for a, b in zip(feeds, parity_feeds(conversion), strict=True))
    assert not np.array_equal(feeds[2]["t"], parity_feeds(conversion, seed=1)[2]["t"])


def test_nothing_to_compare_is_no_pass(conversion):
    with pytest.raises(ConversionError, match="nothing to compare"):
        check_parity(conversion, [])


def test_an_output_that_never_varies_is_told(conversion):
    assert check_parity(conversion).constant == ()
    blind = replace(conversion, model=linear(W * 0), reference=lambda feeds: [feeds["x"] @ (W * 0)])
    assert check_parity(blind).constant == ("y",)
