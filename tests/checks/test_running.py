"""What checks that run the model say of harder cases, and what they leave alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from onnxviz.analysis.axes import batch_dimension, row_axis, varied
from onnxviz.checks.finding import Finding
from onnxviz.checks.latency import measure, save_latency
from onnxviz.checks.placement import copies_in
from onnxviz.checks.run import run_checks
from onnxviz.checks.running import tolerance
from onnxviz.checks.subject import Options, Subject
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.providers import provider_problems
from onnxviz.runtime.session import Session
from onnxviz.runtime.trial import source_of, trial
from tests.checks.cases.given import net


def found(id: str, source: str | ir.Model, **options: Any) -> list[Finding]:
    model = ir.from_onnx_text(source) if isinstance(source, str) else source
    return list(run_checks(Subject(model, Options(**options)), only=[id]).findings)


def verdicts(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(f.verdict, f.cause or f.severity) for f in findings]


def fed(*numbers: float) -> dict[str, Any]:
    return {"inputs": {"x": np.float32(numbers)}}


LOG = net("h = Log(x) y = Neg(h)")


def test_findings_say_when_the_inputs_were_random() -> None:
    (made_up,) = found("N01", LOG)
    assert made_up.evidence["random_inputs"] == ["x"]
    (given,) = found("N01", LOG, **fed(1, -1))
    assert "random_inputs" not in given.evidence


def test_nan_that_only_random_numbers_cause_is_a_warning_and_one_that_always_comes_an_error() -> None:
    assert verdicts(found("N01", LOG)) == [("fail", "warning")]
    assert verdicts(found("N01", net("h = Sub(x, x) y = Div(h, h)"))) == [("fail", "error")]


def test_operators_with_domains_apart_are_a_warning_on_random_numbers() -> None:
    source = net("y = Acosh(x) z = Atanh(x)", outputs="float[2] y, float[2] z")
    assert verdicts(found("N01", source)) == [("fail", "warning")]


def test_minus_infinity_as_a_mask_is_nothing_and_nan_that_is_masked_a_warning() -> None:
    mask = net("h = Log(z) k = Mul(h, c) s = Add(x, k) y = Softmax(s)", weights="float[2] z = {0, 1}, float c = {1}")
    assert verdicts(found("N01", mask, **fed(1, 2))) == [("pass", "error")]
    masked = net("h = Log(x) b = IsNaN(h) y = Where(b, x, h)")
    assert verdicts(found("N01", masked, **fed(1, -1))) == [("fail", "warning")]


def test_the_first_node_with_nan_is_written_as_a_model_that_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "N01-1.onnx"
    (finding,) = found("N01", net("a = Abs(x) b = Sub(x, a) h = Sqrt(b) y = Neg(h)"), repro=tmp_path, **fed(4, -1))
    assert finding.where[1].name == "h"
    assert "-2" in finding.evidence["read"][0]
    feeds = dict(np.load(path.with_suffix(".npz")))
    proto = onnx.load(path)
    assert [node.op_type for node in proto.graph.node] == ["Sqrt"]
    (result,) = Session(ir.from_proto(proto), "cpu").run(feeds).values()
    assert np.isnan(result).tolist() == [False, True]


def test_the_first_overflow_is_told_and_an_epsilon_that_vanishes() -> None:
    findings = found("N03", net("h = Mul(x, x) k = Mul(h, c) y = Sqrt(k)", weights="float c = {2}"), **fed(300, 1))
    assert [f.where[0].name for f in findings] == ["h"]
    (epsilon,) = found("N03", net("h = Add(x, e) y = Div(x, h)", weights="float e = {1e-12}"), **fed(1, 2))
    assert "is 0 in float16" in epsilon.message


def test_inf_in_float16_is_an_error() -> None:
    half = net("h = Mul(x, x) y = Neg(h)", "float16[2] x", "float16[2] y")
    (finding,) = found("N03", half, inputs={"x": np.float16([300, 1])})
    assert finding.severity == "error"
    assert finding.evidence["inf"] == 1


def test_a_model_of_whole_numbers_has_nothing_to_overflow() -> None:
    whole = net("y = Neg(x)", "int32[2] x", "int32[2] y")
    assert verdicts(found("N03", whole)) == [("not_checked", "left_out")]


def test_constant_masks_and_shapes_are_not_lifeless() -> None:
    shapes = net("s = Shape(x) f = Cast<to = 1>(s) k = ReduceSum(f) h = Expand(k, t) y = Mul(x, h)",
                 "float[32] x", "float[32] y", "int64[1] t = {32}", 13)  # fmt: skip
    assert verdicts(found("N06", shapes)) == [("pass", "warning")]


def test_a_tensor_that_no_sample_changes_has_collapsed() -> None:
    collapsed = net("h = Mul(x, z) s = Add(h, c) y = Neg(s)", "float[1, 32] x", "float[1, 32] y",
                    f"float z = {{0}}, float[32] c = {{{', '.join(map(str, range(32)))}}}")  # fmt: skip
    samples = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    findings = found("N06", collapsed, inputs={"x": samples})
    assert [(f.where[0].name, f.evidence["samples"]) for f in findings] == [("h", 4)]


def test_few_values_a_channel_say_nothing() -> None:
    dead = net("c = Gemm(x, w, b) y = Relu(c)", "float[1, 2] x", "float[1, 2] y",
               "float[2, 2] w = {1, 0, 0, 1}, float[2] b = {-100, 0}")  # fmt: skip
    (finding,) = found("N05", dead, inputs={"x": np.float32([[1, 2]])})
    assert (finding.verdict, finding.evidence["judged"]) == ("pass", 0)
    many = np.abs(np.random.default_rng(0).standard_normal((64, 2))).astype(np.float32)
    (finding,) = found("N05", dead, inputs={"x": many})
    assert finding.evidence["dead"] == 1
    assert finding.evidence["samples"] == 64


def test_what_a_dimension_is_called_tells_the_batch() -> None:
    def batch(inputs: str) -> Any:
        dimension = batch_dimension(ir.from_onnx_text(net("y = Identity(a)", inputs, "float[k] y")))
        return None if dimension is None else (dimension.axes, dimension.guessed)

    assert batch("float[5, batch_size] a") == ({"a": 1}, False)
    assert batch("float[n, 4] a, float[n] b") == ({"a": 0, "b": 0}, False)
    assert batch("float[?, 4] a") == ({"a": 0}, True)
    assert batch("float[seq_len, 4] a") is None
    assert batch("float[rows, 4] a, float[columns, 4] b") is None
    assert batch("float[1, 4] a") is None


def test_the_axis_of_an_output_that_grows_with_the_batch() -> None:
    assert row_axis((5, 1, 3), (5, 2, 3), (5, 3, 3)) == 1
    assert row_axis((2, 3), (4, 3), (6, 3)) == 0
    assert row_axis((7,), (9,), (4,)) is None


def test_samples_that_are_made_differ() -> None:
    model = ir.from_onnx_text(net("y = Relu(x)", "float[n, 2, 3] x", "float[n, 2, 3] y"))
    dimension = batch_dimension(model)
    assert dimension is not None
    x = varied({"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}, dimension)["x"]
    assert x.shape == (3, 2, 3)
    assert len({row.tobytes() for row in x}) == 3
    assert len({row.mean() for row in x}) == len({row.max() for row in x}) == 3, "or a scale of the batch is not seen"
    assert x.min() == 0, "what lies between 0 and the numbers that were given"
    assert x.max() == 5
    ids = varied({"x": np.arange(1, 7).reshape(1, 2, 3)}, dimension)["x"]
    assert len({row.mean() for row in ids}) == 3
    assert set(ids.ravel()) <= set(range(1, 7)), "indices that were given"


@pytest.mark.parametrize("statistic", ["ReduceMean", "ReduceMax", "ReduceL2"])
def test_one_scale_for_all_samples_mixes_them(statistic: str) -> None:
    (finding,) = found("D02", net(f"m = {statistic}<keepdims = 0>(x) y = Sub(x, m)", *BATCH))
    assert finding.verdict == "fail"


BATCH = "float[batch, 4] x", "float[batch, 4] y"


def test_a_batch_that_a_reshape_hides_in_another_axis_is_found_by_the_output() -> None:
    baked = net("y = Reshape(x, s)", *BATCH, "int64[2] s = {1, -1}")
    (finding,) = found("D01", baked)
    assert finding.severity == "error"
    assert finding.evidence["sizes"] == {"1": 1, "2": 1, "3": 1}


def test_a_batch_that_only_the_declaration_fixes_is_information() -> None:
    (finding,) = found("D01", net("y = Relu(x)", "float[1, 4] x", "float[1, 4] y"))
    assert (finding.severity, finding.evidence["batch"]) == ("info", 1)
    (finding,) = found("D01", net("y = Reshape(x, s)", "float[1, 4] x", "float[2, 2] y", "int64[2] s = {2, 2}"))
    assert finding.verdict == "pass"


def test_samples_are_told_apart_along_other_axes_too() -> None:
    time_first = net("m = ReduceMean<axes = [1]>(x) y = Sub(x, m)", "float[4, batch, 3] x", "float[4, batch, 3] y")
    assert verdicts(found("D02", time_first)) == [("fail", "error")]
    assert verdicts(found("D02", time_first.replace("[1]>", "[0]>"))) == [("pass", "error")]


def test_noise_is_not_taken_for_influence() -> None:
    noisy = net("r = RandomNormalLike(x) y = Add(x, r)", *BATCH)
    (finding,) = found("D02", noisy)
    assert (finding.verdict, finding.cause) == ("not_checked", "refused")
    assert "two runs" in finding.message


def test_dimensions_that_have_to_agree_are_changed_together() -> None:
    tied = net("y = Add(a, b)", "float[n, p] a, float[n, q] b", "float[n, r] y")
    (finding,) = found("D03", tied, dims={"p": 8, "q": 8})
    assert finding.verdict == "pass", finding
    assert finding.evidence["only_together"] == ["p", "q"]


def test_what_fails_at_size_0_alone_is_information() -> None:
    model = net("m = ReduceMax<axes = [1], keepdims = 0>(x) y = Neg(m)", "float[2, k] x", "float[2] y")
    findings = found("D03", model)
    assert {f.severity for f in findings if f.verdict == "fail"} <= {"info"}


def test_a_crash_of_a_trial_is_told_and_the_next_one_goes_on() -> None:
    model = ir.from_onnx_text(net("y = Neg(x)"))
    with source_of(model) as source:
        results = trial(source, [{"x": np.zeros(3, np.float32)}, {"x": np.ones(2, np.float32)}])
    assert isinstance(results[0], str)
    assert not isinstance(results[1], str)
    assert results[1]["y"].tolist() == [-1, -1]


def test_a_reference_that_gives_nan_elsewhere_differs() -> None:
    reference = ir.from_onnx_text(net("y = Log(x)"))
    same = found("C01", net("y = Log(x)"), reference=reference, **fed(1, -1))
    assert verdicts(same) == [("pass", "error")]
    (other,) = found("C01", net("a = Abs(x) y = Log(a)"), reference=reference, **fed(1, -1))
    assert "NaN" in other.message


def test_a_quantised_model_on_numbers_that_it_was_not_calibrated_for_is_a_warning() -> None:
    source = ir.from_onnx_text(net("y = Neg(x)"))
    codes = net(
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)",
        weights="float s = {0.001}, uint8 z = {0}",
    )
    assert verdicts(found("C01", codes, reference=source)) == [("fail", "warning")]
    assert verdicts(found("C01", codes, reference=source, **fed(0.1, -1))) == [("fail", "error")]
    assert verdicts(found("C01", net("y = Abs(x)"), reference=source)) == [("fail", "error")]


def test_a_reference_of_another_shape_is_never_broadcast() -> None:
    reference = ir.from_onnx_text(net("m = ReduceSum<keepdims = 1>(x) y = Mul(m, m)", outputs="float[1] y"))
    (finding,) = found("C01", net("m = ReduceSum<keepdims = 1>(x) k = Mul(m, m) y = Expand(k, s)", weights="int64[1] s = {2}"),
                       reference=reference, **fed(1, 2))  # fmt: skip
    assert "shape" in finding.message


def test_the_tolerance_follows_types_and_depth() -> None:
    one = ir.from_onnx_text(net("y = Neg(x)"))
    deep = ir.from_onnx_text(
        net(" ".join(f"h{i} = Neg({f'h{i - 1}' if i else 'x'})" for i in range(400)) + " y = Neg(h399)")
    )
    quantised = ir.from_onnx_text(net("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", weights="float s = {0.1}"))
    assert tolerance(one, "float32") == 1e-4
    assert tolerance(deep, "float32") == pytest.approx(2e-4, rel=0.01)
    assert tolerance(quantised, "float32") == 5e-2
    assert tolerance(one, "int64") == 0


def test_without_cuda_it_says_so() -> None:
    if not provider_problems(["cuda"]):
        pytest.skip("CUDA loads here")
    (finding,) = found("C03", net("y = Neg(x)"))
    assert (finding.verdict, finding.cause) == ("not_checked", "left_out")
    assert "CUDA does not load" in finding.message


def test_copies_are_counted_in_bodies_too() -> None:
    model = ir.from_onnx_text(net("h = MemcpyFromHost(x) k = Neg(h) y = MemcpyToHost(k)"))
    assert copies_in(model.graph) == {"x": "from the host", "k": "to the host"}


def test_times_of_another_machine_are_refused(tmp_path: Path) -> None:
    model = ir.from_onnx_text(net("y = Neg(x)"))
    path = tmp_path / "times.json"
    save_latency(Subject(model), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))
    (finding,) = found("P05", model, latency_baseline=path)
    assert (finding.verdict, finding.cause) == ("not_checked", "refused")
    path.write_text("[]")
    (finding,) = found("P05", model, latency_baseline=path)
    assert "no file of times" in finding.message


def test_times_are_medians_within_their_interval() -> None:
    times = measure(Subject(ir.from_onnx_text(net("y = Neg(x)"))))
    assert times["interval"][0] <= times["median"] <= times["interval"][1]


QDQ = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"


def test_activations_that_are_clipped_are_found_on_data() -> None:
    source = net(QDQ, "float[512] x", "float[512] y", "float s = {0.01}, uint8 z = {128}")
    wide = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    (finding,) = found("Q02", source, inputs={"x": wide})
    assert finding.evidence["clipped"] == int(((wide < -1.285) | (wide > 1.275)).sum())
    (finding,) = found("Q02", source, inputs={"x": wide / 10})
    assert finding.verdict == "pass"


def test_a_model_of_codes_throughout_needs_a_reference() -> None:
    codes = net("q = QuantizeLinear(x, s, z) r = QLinearSigmoidLike(q)".replace("r = QLinearSigmoidLike(q)", "y = Neg(q)"),
                outputs="int8[2] y", weights="float s = {0.1}, int8 z = {0}")  # fmt: skip
    assert verdicts(found("Q01", codes)) == [("not_checked", "left_out")]


def test_a_declaration_that_no_inference_contradicts_is_caught_by_the_run() -> None:
    source = net("n = NonZero(x) y = Cast<to = 1>(n)", "float[2] x", "float[1, 5] y")
    (finding,) = found("G02", source, **fed(1, 2))
    assert (finding.severity, finding.evidence["ran"]) == ("error", [1, 2])
    (finding,) = found("G02", source)
    assert finding.severity == "warning"
    (finding,) = found("G02", source, static=True)
    assert finding.verdict == "pass"


def test_a_model_that_does_not_run_has_not_passed() -> None:
    broken = net("y = MatMul(x, w)", "float[n, k] x", "float[n, 2] y", "float[3, 2] w = {1, 2, 3, 4, 5, 6}")
    for id in ("N01", "N03", "N07", "C02", "D01", "D03"):
        assert verdicts(found(id, broken, dims={"n": 1, "k": 4})) == [("not_checked", "refused")], id


def test_a_folder_of_samples_is_taken(tmp_path: Path) -> None:
    for place in range(3):
        np.save(tmp_path / f"{place}.npy", np.float32([[place + 1, -1 if place == 2 else 1]]))
    rows = net("h = Log(x) y = Neg(h)", "float[1, 2] x", "float[1, 2] y")
    (finding,) = found("N01", rows, inputs=[str(tmp_path)])
    assert finding.evidence["samples"] == 3


def test_a_picture_that_is_scaled_otherwise_than_in_training_is_told_by_the_first_normalisation(tmp_path: Path) -> None:
    source = net("c = Conv<kernel_shape = [1, 1]>(x, w) y = BatchNormalization(c, s, b, m, v)", "float[1, 3, 16, 16] x",
                 "float[1, 1, 16, 16] y", "float[1, 3, 1, 1] w = {1, 1, 1}, float[1] s = {1}, float[1] b = {0}, "
                 "float[1] m = {380}, float[1] v = {16000}")  # fmt: skip
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    (finding,) = found("C04", source, inputs=[str(path)])
    assert finding.evidence["best"] == "scaled to 0 … 255"
    (finding,) = found("C04", source, inputs=[str(path)], preprocessing=Preprocessing(scale=1.0))
    assert finding.verdict == "pass"


def test_a_reference_may_be_the_coarser_one() -> None:
    half = net("h = Cast<to = 10>(x) e = Exp(h) y = Cast<to = 1>(e)")
    for model, reference in ((half, net("y = Exp(x)")), (net("y = Exp(x)"), half)):
        options = Options(reference=ir.from_onnx_text(reference), inputs={"x": np.float32([1.23456, 2.34567])})
        (finding,) = run_checks(Subject(ir.from_onnx_text(model), options), only=["C01"]).findings
        assert finding.verdict == "pass", finding.message


def test_sizes_that_nobody_gave_are_told_where_the_model_does_not_run_at_them() -> None:
    baked = net("f = Reshape(x, s) y = Relu(f)", "float[batch, seq] x", "float[batch, seq] y", "int64[2] s = {-1, 9}")
    model = ir.from_onnx_text(baked.replace("y = Relu(f)", "y = Add(x, f)"))
    result = run_checks(Subject(model), only=["N01"])
    assert result.unchecked
    assert "batch=1, seq=512: give --input, or sizes with --dim NAME=N" in result.notes[0]
    assert run_checks(Subject(model, Options(dims={"seq": 9})), only=["N01"]).notes == ()


def test_an_optimiser_that_crashes_is_a_finding_and_ends_nothing() -> None:
    subject = Subject(ir.from_onnx_text(net("y = Neg(x)")))
    subject.shared("optimised in a process of its own", lambda: "onnxruntime crashed (SIGSEGV) while running the model")
    (finding,) = run_checks(subject, only=["C02"]).findings
    assert (finding.verdict, finding.severity) == ("fail", "error")
    assert finding.message == "optimised, it does not run: onnxruntime crashed (SIGSEGV) while running the model"
    model = ir.from_onnx_text(net("h = Relu(x) y = Relu(h)"))
    with source_of(model) as source:
        (result,) = trial(source, [{"x": np.float32([-1, 2])}], optimize=True)
    assert not isinstance(result, str)
    assert result["y"].tolist() == [0, 2]
