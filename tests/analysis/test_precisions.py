"""Ranges and rounding, against onnxruntime's own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.precisions import FLUSHED, CodeRounding, HalfRounding, ValueRange
from onnxviz.analysis.top_agreement import TopAgreement, row_agreement, top_agreement
from onnxviz.checks.observed import Observer
from onnxviz.runtime.session import run_model

RNG = np.random.default_rng(0)


def test_ranges_merge_in_any_split() -> None:
    values = np.concatenate([RNG.standard_normal(50) * 10.0 ** RNG.integers(-12, 7, 50), [0, 0, np.nan, np.inf]])
    values = values.astype(np.float32)
    whole = ValueRange.of(values)
    for at in (0, 1, 27, 53):
        merged = ValueRange.of(values[at:]).merge(ValueRange.of(values[:at]))
        assert merged.squares == pytest.approx(whole.squares)
        assert (merged.count, merged.low, merged.high, merged.odd, merged.nonzero) == (54, whole.low, whole.high, 2, 50)
        assert (merged.over, merged.subnormal, merged.flushed) == (whole.over, whole.subnormal, whole.flushed)


def test_what_a_range_counts_is_what_rounding_does() -> None:
    values = (RNG.standard_normal(2000) * 10.0 ** RNG.integers(-11, 7, 2000)).astype(np.float32)
    edges = np.float32([65504, 65519.996, 65520, -65520, 2.0**-25, 2.0**-14, 2.0**-25 * 1.001, 0])
    values = np.concatenate([values, edges])
    seen = ValueRange.of(values)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    assert seen.over == np.isinf(half).sum()
    assert seen.flushed == ((half == 0) & (values != 0)).sum()
    assert seen.subnormal == ((np.abs(values) < 2.0**-14) & (values != 0)).sum()


def test_constants_become_what_onnxruntimes_converter_makes_of_them() -> None:
    from onnxruntime.transformers.float16 import convert_np_to_float16

    array = np.float32([1e9, -1e9, 1e-12, -1e-12, 0, 1.0001, 70000, np.inf])
    np.testing.assert_array_equal(HalfRounding().constant(array), convert_np_to_float16(array).astype(np.float32))


@pytest.mark.parametrize(("low", "high"), [(-1.5, 2.5), (0.0, 6.0), (2.0, 3.0), (-4.0, -1.0), (0.0, 0.0)])
def test_codes_are_those_of_onnxruntimes_quantiser(low: float, high: float) -> None:
    from onnxruntime.quantization.quant_utils import compute_scale_zp

    zero, scale = compute_scale_zp(np.float32(low), np.float32(high), np.uint8(0), np.uint8(255))
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[64] x) => (float[64] y)
        <float s = {{{float(scale)!r}}}, uint8 z = {{{int(zero)}}}> {{
          q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}"""
    )
    x = np.linspace(low - 1, high + 1, 64).astype(np.float32)
    expected = run_model(model, {"x": x})["y"]
    np.testing.assert_allclose(CodeRounding({"x": (low, high)}).activation("x", x), expected, atol=1e-6 + scale * 1e-5)


def test_a_weight_has_a_scale_for_each_channel() -> None:
    weight = np.float32([[1, 0.5, 0], [100, 51, -100]])
    rounded = CodeRounding({}).weight(weight, 0)
    np.testing.assert_allclose(rounded, [[1, 64 / 127, 0], [100, 100 * 65 / 127, -100]], rtol=1e-6)
    assert CodeRounding({}).weight(weight, None)[0, 1] == 100 / np.float32(127) * 1
    assert CodeRounding({}).weight(np.zeros((2, 3), np.float32), 0).tolist() == [[0] * 3] * 2


def test_scalars_and_tensors_without_a_range_pass() -> None:
    rounding = CodeRounding({"x": (0.0, 1.0)})
    assert rounding.constant(np.array(0.3, np.float32)) == pytest.approx(0.3)
    assert rounding.activation("other", np.float32([0.1234567])).tolist() == np.float32([0.1234567]).tolist()


def test_best_classes_are_compared_row_by_row() -> None:
    a = np.float32([[1, 2, 3, 0], [9, 2, 1, 0], [1, 2, np.nan, 0]])
    b = np.float32([[1, 3, 2, 0], [8, 2, 1, 0], [1, 2, 3, 0]])
    found = top_agreement(a, b, 2)
    assert found is not None
    assert (found.samples, found.first, found.topk) == (3, 1, 2 / 3)
    assert top_agreement(a, b[:2]) is None
    assert top_agreement(a, a, 2) == TopAgreement(3, 3, 2, 3.0)  # NaN at the same place is the same answer
    assert top_agreement(np.zeros((1, 4, 7), np.float32), np.zeros((1, 4, 7), np.float32)) is None


def test_largest_of_rows_are_those_of_a_sort() -> None:
    """Against a stable sort of each row, with many ties; and a sort that takes the last of equal ones is told apart."""
    rng = np.random.default_rng(2)
    one = rng.integers(0, 4, (60, 9)).astype(np.float32)
    other = rng.integers(0, 4, (60, 9)).astype(np.float32)

    def by_sort(k: int, turned: int = 1) -> tuple[int, float]:
        best = [[np.argsort(-row[::turned], kind="stable")[:k] for row in rows] for rows in (one, other)]
        shared = sum(len({*a.tolist()} & {*b.tolist()}) for a, b in zip(*best, strict=True))
        return sum(int(a[0] == b[0]) for a, b in zip(*best, strict=True)), shared / k

    for k in (1, 3, 9):
        found = row_agreement(one, other, k)
        assert (found.first, found.overlap) == by_sort(k)
    assert (row_agreement(one, other, 3).first, row_agreement(one, other, 3).overlap) != by_sort(3, -1)


def test_a_bias_has_the_step_of_what_its_weight_is_multiplied_with() -> None:
    rounding = CodeRounding({"x": (0.0, 2.55)})
    weight = np.float32([[1.27, 0], [0, 12.7]])  # steps of 0.01 and 0.1
    bias = rounding.bias(np.float32([0.00014, 0.00014]), "x", weight, 1)
    assert bias == pytest.approx([0.0001, 0.0], abs=1e-9)
    assert rounding.bias(np.float32([0.00014] * 2), "other", weight, 1).tolist() == np.float32([0.00014] * 2).tolist()


def test_half_of_the_smallest_number_is_0_for_checks_too() -> None:
    """Ties go to even: 2⁻²⁵ itself is 0 in float16, and what follows it is not."""
    border = np.float32([FLUSHED, np.nextafter(np.float32(FLUSHED), np.float32(1))])
    assert (border.astype(np.float16) == 0).tolist() == [True, False]
    assert Observer()("x", border).flushed == ValueRange.of(border).flushed == 1
