"""A sweep finds what was planted, names it, and is silent on the clean twin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.analysis.axes import dimensions, sample_axis
from onnxviz.analysis.size_formulas import fit
from onnxviz.analysis.size_plan import Symbols, default_sizes, pairs_of_sizes
from onnxviz.analysis.size_rules import find_rule
from onnxviz.analysis.size_trials import SizeTrials, work_together
from onnxviz.analysis.sweep import sweep_sizes
from onnxviz.analysis.sweep_result import Sweep
from onnxviz.errors import CheckError, InputError
from onnxviz.graph.shapes import name_axes, open_dims
from onnxviz.runtime.inputs import load_inputs

OPSET = '<ir_version: 8, opset_import: ["": 17]>'


def swept(text: str, sizes: dict[str, list[int]] | None = None, **options: Any) -> Sweep:
    model = ir.from_onnx_text(f"{OPSET} {text}")
    dims = options.pop("dims", None)
    feeds = options.pop("feeds", ())
    return sweep_sizes(model, load_inputs(model, feeds, dims=dims), sizes=sizes, **options)


def verdicts(result: Sweep, name: str) -> dict[int, str]:
    dimension = next(d for d in result.dimensions if d.name == name)
    return {run.sizes[name]: run.verdict for run in dimension.runs}


BATCH = {"batch": [1, 2, 3, 5]}
RESHAPED = """g (float[batch, 2, 4] x) => (float[batch, 8] y) <int64[2] s = {%s}>
    { h = Relu(x) [flat] f = Reshape(h, s) y = Neg(f) }"""


def test_a_batch_baked_into_a_reshape_is_named_with_its_constant() -> None:
    result = swept(RESHAPED % "1, 8", BATCH)
    assert verdicts(result, "batch") == {1: "works", 2: "fails", 3: "fails", 5: "fails"}
    (failure,) = result.failures
    assert failure.node == "Reshape node 'flat'"
    assert failure.fixed == "Reshape node 'flat' has the constant [1, 8] where 'batch' should decide"
    assert "cannot be reshaped" in failure.error
    assert not result.passed


def test_a_reshape_that_follows_the_batch_is_silent() -> None:
    result = swept(RESHAPED % "-1, 8", BATCH)
    assert result.passed
    assert result.failures == result.changes == ()
    assert result.shape("y") == ["batch", "8"]
    assert any("1 of 1 outputs say of each sample" in note for note in result.notes)


def test_a_batch_that_a_reshape_folds_into_another_axis_contradicts_the_declaration() -> None:
    result = swept(RESHAPED.replace("float[batch, 8] y", "float[batch, k] y") % "1, -1", BATCH)
    assert set(verdicts(result, "batch").values()) == {"works", "changes"}
    change = next(change for change in result.changes if change.kind == "declared")
    assert change.message == "axis 0 is declared as 'batch', which is 2, and is 1 at batch=2"
    assert change.node is not None
    assert "Reshape node 'flat'" in change.node
    assert result.shape("y") == ["1", "8*batch"]


def test_a_reshape_that_puts_two_dimensions_into_one_is_named() -> None:
    text = (
        "g (float[batch, w, 4] x) => (float[batch, 4] y) <int64[2] s = {-1, 4}> { [flat] f = Reshape(x, s) y = Neg(f) }"
    )
    result = swept(text, {"w": [1, 2, 3], **BATCH}, dims={"w": 1})
    (change,) = result.changes
    assert change.why == "Reshape node 'flat' puts 'batch' and 'w' into one size"
    assert result.shape("y") == ["batch*w", "4"]
    assert verdicts(result, "w") == {1: "works", 2: "changes", 3: "changes"}
    assert set(verdicts(result, "batch").values()) == {"works"}


NORMALISED = """g (float[batch, 3, 4] x) => (float[batch, 3, 4] y)
    <float[3] scale = {1, 1, 1}, float[3] bias = {0, 0, 0}, float[3] mean = {0, 0, 0}, float[3] var = {1, 1, 1}>
    { h = Relu(x) %s z = Mul(n, n) y = Neg(z) }"""


def test_a_normalisation_in_training_mode_is_named_as_the_first_node_that_mixes_samples() -> None:
    training = "[norm] n, m, v = BatchNormalization<training_mode = 1>(h, scale, bias, mean, var)"
    result = swept(NORMALISED % training, BATCH)
    (change,) = result.changes
    assert (change.kind, change.output, change.node) == ("samples", "y", "BatchNormalization node 'norm'")
    assert change.evidence["relative_l2"] > 1e-3
    assert verdicts(result, "batch") == {1: "works", 2: "changes", 3: "changes", 5: "changes"}
    assert verdicts(swept(NORMALISED % training, {"batch": [2, 30]}), "batch")[30] == "changes"
    assert swept(NORMALISED % "n = BatchNormalization(h, scale, bias, mean, var)", BATCH).passed


MEAN = """g (float[batch, 4] x) => (float[batch, 4] y)
    { h = Exp(x) [mean] m = ReduceMean<axes = [%d]>(h) c = Sub(h, m) y = Neg(c) }"""


def test_a_mean_over_the_batch_is_named_and_not_what_reads_it() -> None:
    result = swept(MEAN % 0, BATCH)
    (change,) = result.changes
    assert change.node == "ReduceMean node 'mean'"
    assert swept(MEAN % 1, BATCH).passed


def test_samples_may_lie_in_turn_along_their_axis() -> None:
    text = "g (float[batch, 2] x) => (float[rows, 2] y) { h = Exp(x) y = Concat<axis = 0>(x, h) }"
    result = swept(text, BATCH)
    assert result.changes == ()
    assert result.shape("y") == ["2*batch", "2"]
    mixed = text.replace("{ h = Exp(x)", "{ [mean] m = ReduceMean<axes = [0]>(x) h = Sub(x, m)")
    (change,) = swept(mixed, BATCH).changes
    assert change.node == "ReduceMean node 'mean'"


def test_pairs_with_a_batch_whose_samples_mix_do_not_work() -> None:
    text = (MEAN % 0).replace("[batch, 4]", "[batch, w]")
    result = swept(text, {"batch": [1, 2], "w": [4, 8]}, dims={"w": 4})
    assert [(run.sizes, run.verdict) for run in result.pairs] == [({"batch": 2, "w": 8}, "changes")]
    assert verdicts(result, "w") == {4: "works", 8: "works"}


def test_noise_is_not_taken_for_samples_that_mix() -> None:
    result = swept("g (float[batch, 4] x) => (float[batch, 4] y) { r = RandomNormalLike(x) y = Add(x, r) }", BATCH)
    assert result.changes == ()
    assert any("two runs on the same input differ" in note for note in result.notes)


SKIP = """g (float[1, 1, height, 8] x) => (float[1, 1, h2, 8] y) <float[4] s = {1, 1, %d, 1}>
    { p = MaxPool<kernel_shape = [%d, 1], strides = [%d, 1]>(x) u = Resize<mode = "nearest">(p, , s) y = Add(u, x) }"""


def test_a_size_that_has_to_divide_by_32_is_told_as_a_rule() -> None:
    result = swept(SKIP % (32, 32, 32), dims={"height": 64})
    dimension = result.dimensions[0]
    assert dimension.stride == 32
    assert dimension.rule is not None
    assert (dimension.rule.step, dimension.rule.remainder, dimension.rule.slack) == (32, 0, 0)
    assert dimension.rule.simple
    assert str(dimension.rule).startswith("works only where it divides by 32")
    assert verdicts(result, "height")[80] == "fails"
    assert any("Add that writes 'y'" in failure.error for failure in result.failures)


def test_its_twin_without_strides_works_everywhere() -> None:
    result = swept(SKIP % (1, 1, 1), dims={"height": 64})
    assert result.passed  # but for the size of 0
    assert [set(failure.sizes[0].values()) for failure in result.failures] == [{0}]
    assert str(result.dimensions[0].rule) == "works from 1 up to the 1024 that was tried"


ROIS = """g (float[rois, 2] x) => (float[rois, 2] y) <float[%d, 2] table = {%s}, int64 zero = {0}, int64 one = {1}>
    { d = Shape<start = 0, end = 1>(x) n = Squeeze(d) i = Range(zero, n, one) [look] t = Gather(table, i) y = Add(x, t) }"""


def test_what_fails_from_five_is_found_by_bisection() -> None:
    result = swept(ROIS % (4, ", ".join("0" * 8)), {"rois": [1, 2, 16]})
    dimension = result.dimensions[0]
    assert str(dimension.rule) == "works up to 4, fails from 5"
    assert {4, 5} <= set(verdicts(result, "rois"))
    assert result.failures[0].node == "Gather node 'look'"
    assert swept(ROIS % (16, ", ".join("0" * 32)), {"rois": [1, 2, 16]}).passed


def test_dimensions_that_have_to_agree_change_together_and_sums_follow() -> None:
    result = swept("g (float[n, p] a, float[n, q] b) => (float[n, r] y) { y = Add(a, b) }", dims={"p": 8, "q": 8})
    assert result.passed
    assert [d.tied for d in result.dimensions] == [(), ("q",)]
    total = (
        "g (float[past] a, float[seq] b, float[total] m) => (float[t] y) { c = Concat<axis = 0>(a, b) y = Add(c, m) }"
    )
    result = swept(total, {"past": [2, 4], "seq": [3, 9]}, dims={"past": 2, "seq": 3, "total": 5})
    assert [(d.name, d.tied) for d in result.dimensions] == [("past", ("total",)), ("seq", ("total",))]
    assert result.passed
    assert len(result.pairs) == 1
    assert result.pairs[0].sizes == {"past": 4, "seq": 9, "total": 13}
    result = swept(total, {n: [4, 9] for n in ("past", "seq", "total")}, dims={"past": 2, "seq": 3, "total": 5})
    assert [(d.name, d.tied) for d in result.dimensions] == [("past", ("total",)), ("seq", ("total",))]
    assert result.passed
    assert any(note.startswith("total has to change with past") for note in result.notes)


def test_two_dimensions_that_fail_only_together_are_told_together() -> None:
    text = """g (float[n, 1] a, float[1, k] b) => (float[1] y) <float[8] table = {0, 1, 2, 3, 4, 5, 6, 7}>
    { s = Add(a, b) d = Shape(s) m = ReduceProd<keepdims = 1>(d) [look] y = Gather(table, m) }"""
    result = swept(text, {"n": [1, 2, 3], "k": [1, 2, 4]})
    assert all(str(d.rule).startswith("works at all") for d in result.dimensions)
    assert [failure.dimensions for failure in result.failures] == [("n", "k"), ("n", "k")]
    assert [str(failure).split(":")[0] for failure in result.failures] == ["n=2, k=4", "n=3, k=4"]
    assert result.failures[0].node == "Gather node 'look'"
    assert not result.passed


def test_masked_padding_is_compared() -> None:
    text = """g (int64[batch, tokens] ids, float[batch, tokens] attention_mask) => (float[batch, 1] y)
    { f = Cast<to = 1>(ids) w = Mul(f, %s) y = ReduceSum<keepdims = 1>(w, a) }"""
    body = text.replace("=> (float[batch, 1] y)", "=> (float[batch, 1] y) <int64[1] a = {1}, float one = {1}>")
    well = swept(body % "attention_mask", {"tokens": [4, 8]}, dims={"tokens": 4})
    assert well.passed
    assert "tokens: padding that attention_mask hides changes no output" in well.notes
    ignored = body.replace("w = Mul", "g = Exp(f) w = Mul").replace("Mul(f", "Mul(g")
    worse = swept(ignored % "one", {"tokens": [4, 8]}, dims={"tokens": 4})
    assert [change.kind for change in worse.changes] == ["padding"]
    assert not worse.passed


def test_nan_at_one_size_is_a_change() -> None:
    text = """g (float[n, 2] x) => (float[1, 2] y) <float one = {1}>
    { d = Shape<start = 0, end = 1>(x) f = Cast<to = 1>(d) k = Sub(f, one) m = ReduceMean<axes = [0]>(x)
      c = Sub(x, m) q = Mul(c, c) s = ReduceSum<keepdims = 1>(q, z) y = Div(s, k) }""".replace(
        "<float one", "<int64[1] z = {0}, float one"
    )
    result = swept(text, {"n": [1, 2, 4]}, dims={"n": 3})
    assert [(c.kind, c.output) for c in result.changes] == [("nonfinite", "y")]
    assert verdicts(result, "n") == {1: "changes", 2: "works", 3: "works", 4: "works"}


@pytest.mark.parametrize(
    ("declared", "wrong"),
    [("2*n", False), ("n + 1", True), ("n**9**9**9", False), ("(" * 5000 + "n", False), ("m", False)],
)
def test_declared_expressions_are_read_and_towers_of_them_are_not(declared: str, wrong: bool) -> None:
    model = ir.from_onnx_text(f"{OPSET} g (float[n, 2] x) => (float[a, 2] y) {{ y = Concat<axis = 0>(x, x) }}")
    model.graph.outputs[0].shape = ir.Shape([declared, 2])
    result = sweep_sizes(model, load_inputs(model), sizes={"n": [2, 3]})
    assert [change.kind for change in result.changes] == ["declared"] * wrong


def test_ranks_that_depend_on_the_size_are_told() -> None:
    result = swept("g (float[n, 2] x) => (float[m] y) { y = Relu(x) }", {"n": [1, 2]})
    assert [c.kind for c in result.changes] == ["rank"]


def test_a_model_without_open_dimensions_says_how_to_free_one() -> None:
    with pytest.raises(CheckError, match="no open dimension: x ") as caught:
        swept("g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    assert "--free" in str(caught.value)


def test_a_model_that_does_not_run_at_its_usual_sizes_is_an_error_with_the_way_out() -> None:
    with pytest.raises(CheckError, match="does not run at its usual sizes, n=1") as caught:
        swept("g (float[n, 4] x) => (float[n, 8] y) <int64[2] s = {3, 9}> { y = Reshape(x, s) }")
    assert "--dim" in str(caught.value)


def test_sizes_that_outputs_declare_are_tried_where_the_usual_ones_fail() -> None:
    text = "g (float[1, 3, h, w] x) => (float[1, 3, 48, 40] y) <float[1, 1, 48, 40] b = {%s}> { y = Add(x, b) }"
    result = swept(text % ", ".join("0" * (48 * 40)))
    assert any(note.startswith("the usual sizes fail") for note in result.notes)
    assert {d.name: d.usual for d in result.dimensions} == {"h": 48, "w": 40}


def test_unknown_and_negative_sizes_are_refused() -> None:
    text = "g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }"
    with pytest.raises(InputError, match="no open dimension 'k'; its open dimensions are n"):
        swept(text, {"k": [1]})
    with pytest.raises(InputError, match="cannot be -1"):
        swept(text, {"n": [1, -1]})


def test_what_is_left_when_the_time_is_over_is_not_tried_and_never_works() -> None:
    result = swept("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }", seconds=1e-9)
    assert result.counts()["not_tried"] == 9
    assert result.dimensions[0].told == "works at 1, the only size that was tried; 9 sizes not tried"
    assert result.counts()["works"] == 1
    assert not any(run.verdict == "works" and run.sizes["n"] != 1 for run in result.runs)
    assert not result.found
    assert not result.passed
    assert result.exit_code() == 3


def test_sizes_that_were_named_are_begun_with_where_the_usual_ones_fail() -> None:
    text = "g (float[1, w] x) => (float[1, 2, k] y) <int64[3] s = {1, 2, -1}, float[1, 2, 12] b = {%s}> { h = Reshape(x, s) y = Add(h, b) }"
    result = swept(text % ", ".join("0" * 24), {"w": [24, 25]}, dims={"w": 16})
    assert result.dimensions[0].usual == 24
    assert verdicts(result, "w") == {24: "works", 25: "fails"}
    assert result.exit_code() == 1


def test_a_crash_is_a_failure_and_the_sweep_goes_on() -> None:
    model = ir.from_onnx_text(f"{OPSET} g (float[n] x) => (float[n] y) {{ y = Relu(x) }}")
    with SizeTrials(model, {"x": np.ones(2, np.float32)}, dimensions(model)) as trials:
        assert trials.run({"n": 3}).ran
        worker = trials._trials._worker
        assert worker._process is not None
        worker._process.kill()
        worker._process.wait()
        assert trials.run({"n": 4}).shapes == {"y": (4,)}


def test_token_ids_stay_valid_and_names_may_be_anything() -> None:
    text = 'g (int64["b\\n</script>", tokens] ids) => (float[b, t, 2] y) <float[3, 2] table = {0, 1, 2, 3, 4, 5}> { y = Gather(table, ids) }'
    model = ir.from_onnx_text(f"{OPSET} {text}".replace('"b\\n</script>"', "batch"))
    named = name_axes(model, {"ids": {0: "b\n</script>", 1: "tokens"}})
    result = sweep_sizes(named, load_inputs(named), sizes={"tokens": [1, 40]})
    assert result.passed
    assert result.shape("y")[1:] == ["tokens", "2"]
    assert "\n</script>" not in str(result)
    assert "</script>" not in result._repr_html_()


def test_the_result_is_json_and_the_same_each_time() -> None:
    first, second = (swept(MEAN % 0, BATCH) for _ in range(2))
    data = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert data["schema"] == 1
    assert data["counts"]["changes"] == 3
    assert data["changes"][0]["node"] == "ReduceMean node 'mean'"
    assert [r.verdict for r in first.runs] == [r.verdict for r in second.runs]
    text = str(first)
    assert text.splitlines()[0] == "g: 1 open dimension, 4 sizes: 1 work, 3 change, 0 fail"
    assert "×1" in text
    assert "first at ReduceMean node 'mean'" in text


def test_numbers_that_json_cannot_hold_are_null() -> None:
    text = """g (float[batch, 2] x) => (float[batch, 2] y)
    { e = Exp(x) s = ReduceSum<keepdims = 1>(e, z) d = Sub(s, e) y = Log(d) }"""
    result = swept(text.replace("y)\n", "y) <int64[1] z = {0}>\n"), BATCH)
    (change,) = [change for change in result.changes if change.kind == "samples"]
    assert change.evidence["relative_l2"] is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_planned_sizes_hold_odd_ones_primes_and_neighbours_of_strides() -> None:
    sizes = default_sizes(224, stride=32)
    assert {1, 31, 32, 33, 223, 224, 225, 240, 449, 113} <= set(sizes)
    assert {1, 2, 3, 17, 512, 513} <= set(default_sizes(16))
    assert default_sizes(0, samples=True)[0] == 0
    pairs = pairs_of_sizes({"a": [1, 2, 4], "b": [1, 3, 9], "c": [1, 5]}, {"a": 1, "b": 1, "c": 1})
    assert len(pairs) == 8
    assert all(len(pair) == 2 for pair in pairs)


@pytest.mark.parametrize(
    ("works", "known", "stride", "told"),
    [
        (lambda n: n <= 512, {1: True, 16: True, 1024: False}, 1, "works up to 512, fails from 513"),
        (
            lambda n: n >= 11,
            {0: False, 1: False, 224: True, 225: True},
            2,
            "works from 11 up to the 675 that was tried",
        ),
        (
            lambda n: n % 8 == 1,
            {1: True, 8: False, 9: True, 16: False, 17: True, 32: False, 33: True},
            1,
            "works only where it leaves 1 when divided by 8 up to the 41 that was tried",
        ),
        (
            lambda n: n > 0 and -n % 32 <= 3,
            {31: True, 32: True, 33: False, 112: False, 224: True, 225: False, 240: False, 448: True},
            32,
            "works only where it divides by 32 or is up to 3 less, up to the 480 that was tried",
        ),
        (
            lambda n: n in (1, 16),
            {1: True, 2: False, 3: False, 16: True, 17: False},
            1,
            "works only at 1, 16, of 16 sizes",
        ),
        (
            lambda n: n == 0 or n >= 4,
            {0: True, 1: False, 3: False, 7: True, 9: True, 64: True},
            1,
            "works from 4 up to the 64 that was tried, and at 0",
        ),
        (lambda n: n > 0, {1: True, 2: True, 7: True}, 1, "works at all 3 sizes from 1 to 7"),
    ],
)
def test_rules(works: Any, known: dict[int, bool], stride: int, told: str) -> None:
    rule = find_rule(known, works, stride)
    assert str(rule).split(" of ")[0] == told.split(" of ")[0]


def test_a_boundary_that_cannot_be_reached_is_vague() -> None:
    rule = find_rule({1: True, 2: True, 3: True, 1000: False}, lambda size: None)
    assert rule is not None
    assert rule.vague
    assert str(rule) == "works up to 3, fails from 1000 (between them nothing was tried)"
    rule = find_rule({1: False, 700: True, 701: True, 702: True}, lambda size: None)
    assert str(rule).startswith("works from 700 (or from less: of the sizes below, 1 fails) up to")
    assert find_rule({3: False}, lambda size: False) is None


def test_formulas_are_fitted_and_wrong_ones_are_not_told() -> None:
    assert fit([({"n": n}, 5) for n in range(4)]) == "5"
    assert fit([({"n": n}, 3 * n + 1) for n in (1, 4, 9)]) == "3*n + 1"
    assert fit([({"n": n}, (n - 1) // 2) for n in (3, 4, 7, 64, 65)]) == "floor((n - 1)/2)"
    assert fit([({"n": n}, n * n % 7) for n in (1, 2, 3, 5, 9, 12)]) is None
    areas = [({"h": h, "w": w}, h * w // 64 + h * w // 256) for h in (32, 64, 96) for w in (32, 64, 128)]
    assert fit(areas) == "5/256*h*w"


def test_sizes_that_depend_on_data_have_no_formula() -> None:
    result = swept("g (float[n] x) => (int64[1, k] y) { r = Relu(x) y = NonZero(r) }", {"n": [4, 9, 20]}, dims={"n": 7})
    (size,) = [one for one in result.outputs if one.axis == 1]
    assert size.depends_on_data
    assert "depends on data" in str(size)


def test_strides_are_those_of_the_coarsest_tensor() -> None:
    model = ir.from_onnx_text(f"{OPSET} {SKIP % (8, 8, 8)}")
    assert Symbols(model, dimensions(model)).strides() == {"height": 8}


def test_opened_axes_are_symbolic_and_nothing_of_before_is_left() -> None:
    model = ir.from_onnx_text(f"{OPSET} g (float[1, 4] x) => (float[1, 4] y) {{ y = Relu(x) }}")
    opened = name_axes(model, {"x": {0: "batch"}})
    assert open_dims(opened) == {"batch": ("x", 0)}
    assert opened.graph.outputs[0].shape is None
    assert open_dims(model) == {}
    with pytest.raises(InputError, match="no axis 7"):
        name_axes(model, {"x": {7: "n"}})
    with pytest.raises(InputError, match="no input 'k'"):
        name_axes(model, {"k": {0: "n"}})


def test_dimensions_of_one_size_work_together() -> None:
    model = ir.from_onnx_text(f"{OPSET} g (float[p] a, float[q] b) => (float[r] y) {{ y = Add(a, b) }}")
    feeds = {name: np.ones(4, np.float32) for name in ("a", "b")}
    with SizeTrials(model, feeds, dimensions(model)) as trials:
        assert not trials.run({"p": 6}).ran
        assert work_together(trials, "p", 6)
        assert not work_together(trials, "p", 6, [])


def test_axes_that_grow_with_the_batch() -> None:
    assert sample_axis({1: (1, 4), 2: (2, 4), 8: (8, 4)}) == 0
    assert sample_axis({1: (1, 4), 2: (1, 4)}) is None
    assert sample_axis({1: (1,), 2: (2, 1)}) is None


@pytest.mark.corpus
def test_real_models_have_the_limits_that_they_are_known_for(corpus: Path) -> None:
    models = corpus / "models"
    voice = onnxviz.sweep(models / "audio/silero_vad_16k_op15.onnx", sizes={"sequence": [64, 256, 512, 1024]})
    assert str(voice.dimensions[0].rule) == "works from 192 up to 703, fails from 704"
    assert any("LSTM node '/model/decoder/rnn/LSTM'" in failure.error for failure in voice.failures)
    quantised = onnxviz.sweep(models / "quantized/tract-qlstm.onnx", sizes={"input:0": [1, 2, 3, 4]})
    assert [change.kind for change in quantised.changes] == ["samples"]  # one scale for the whole batch
    boxes = onnxviz.sweep(models / "detector/mtcnn-pnet.onnx", dims={"M2": 32}, sizes={"M1": [1, 12, 32, 64]})
    assert boxes.dimensions[0].rule is not None
    assert boxes.dimensions[0].rule.least == 11
    assert boxes.shape("softmax") == ["N", "floor((M1 + 1)/2) - 5", "floor((M2 + 1)/2) - 5", "2"]
