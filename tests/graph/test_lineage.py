"""What became of a tensor, told from two graphs alone: no runtime takes part."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.graph.lineage import Lineage, TensorLineage, not_in_production, trace_lineage

_HEAD = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "com.microsoft.nchwc": 1]>\n'
_SIGNATURE = "g (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y)\n"
_WEIGHTS = {"w": (8, 8, 1, 1), "v": (8, 8, 1, 1), "b": (8,)}


def _model(body: str, signature: str = _SIGNATURE, constants: str = "") -> ir.Model:
    proto = onnx.parser.parse_model(_HEAD + signature + constants + "{" + body + "}")
    for seed, (name, shape) in enumerate(_WEIGHTS.items()):
        values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(proto)


def _trace(original: str, optimized: str, *, to: str = _SIGNATURE) -> Lineage:
    return trace_lineage(_model(original, to), _model(optimized, to))


def test_fused_away_names_the_node_that_replaced_it() -> None:
    lineage = _trace(
        "c = Conv(x, w, b) y = Relu(c)", '[fused] y = com.microsoft.FusedConv<activation = "Relu">(x, w, b)'
    )
    entry = lineage.entries["c"]
    assert (entry.status, entry.by, entry.by_op) == ("fused", ("fused",), "FusedConv")
    assert entry.reason == "fused into 'fused' (FusedConv)"
    assert lineage.entries["y"].status == "survived"
    assert not_in_production(lineage) == {"c": "fused into 'fused' (FusedConv)"}


def test_a_node_without_a_name_is_told_by_what_it_writes() -> None:
    lineage = _trace("c = Conv(x, w, b) y = Relu(c)", 'y = com.microsoft.FusedConv<activation = "Relu">(x, w, b)')
    assert lineage.entries["c"].by == ("FusedConv of y",)


def test_two_readers_give_two_fused_nodes() -> None:
    lineage = _trace(
        "c = Conv(x, w, b) r = Relu(c) t = Tanh(c) y = Add(r, t)",
        """[one] r = com.microsoft.FusedConv<activation = "Relu">(x, w, b)
        [two] t = com.microsoft.FusedConv<activation = "Tanh">(x, w, b) y = Add(r, t)""",
    )
    assert lineage.entries["c"].by == ("one", "two")


def test_a_name_whose_meaning_changed_does_not_survive() -> None:
    """The fused node writes Relu's values under the convolution's name."""
    lineage = _trace(
        "c = Conv(x, w, b) r = Relu(c) y = Neg(r)",
        '[fused] c = com.microsoft.FusedConv<activation = "Relu">(x, w, b) y = Neg(c)',
    )
    assert lineage.entries["c"].status == "fused"
    assert "its name is now that of its Relu" in lineage.entries["c"].reason


def test_swapped_names_do_not_survive() -> None:
    to = "g (float[1, 8, 4, 4] x, float[1, 8, 4, 4] z) => (float[1, 8, 4, 4] y)\n"
    lineage = _trace("p = Exp(x) q = Exp(z) y = Sub(p, q)", "q = Exp(x) p = Exp(z) y = Sub(q, p)", to=to)
    assert [lineage.entries[name].status for name in "pq"] == ["fused", "fused"]
    assert "from other tensors than the original does" in lineage.entries["p"].reason


def test_another_scale_does_not_survive() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y)
        <float s = {SCALE}, uint8 z = {3}> {q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)}"""
    one, other = (ir.from_onnx_text(text.replace("SCALE", scale)) for scale in ("0.5", "0.25"))
    assert trace_lineage(one, one).counts["survived"] == 3
    lineage = trace_lineage(one, other)
    assert [lineage.entries[name].status for name in "qd"] == ["fused", "fused"]
    assert "another scale" in lineage.entries["q"].reason


def test_values_that_are_rounded_on_the_way_do_not_survive() -> None:
    """QuantizeLinear moved before a Transpose: what leaves the Transpose is rounded now."""
    lineage = trace_lineage(
        ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (uint8[3, 2] y) <float s = {0.5}, uint8 z = {3}>
            {t = Transpose(x) y = QuantizeLinear(t, s, z)}"""
        ),
        ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (uint8[3, 2] y) <float s = {0.5}, uint8 z = {3}>
            {q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) t = Transpose(d) y = QuantizeLinear(t, s, z)}"""
        ),
    )
    assert lineage.entries["t"].status == "fused"
    assert "rounded to a quantised type" in lineage.entries["t"].reason
    assert lineage.new == ("q", "d")


def test_identity_and_dropout_are_removed_and_equal_what_they_read() -> None:
    lineage = _trace("i = Identity(x) e = Exp(i) d = Dropout(e) y = Neg(d)", "e = Exp(x) y = Neg(e)")
    assert [(lineage.entries[n].status, lineage.entries[n].equals) for n in "id"] == [
        ("removed", "x"),
        ("removed", "e"),
    ]


def test_a_renamed_producer_equals_the_output_behind_its_identity() -> None:
    lineage = _trace("e = Exp(x) y = Identity(e)", "y = Exp(x)")
    assert (lineage.entries["e"].status, lineage.entries["e"].equals) == ("removed", "y")


def test_what_changes_nothing_is_removed_and_what_changes_something_is_not() -> None:
    kept = "e = Exp(x) y = Neg(e)"
    for noop in (
        "n = Cast<to = 1>(e)",
        "n = Transpose<perm = [0, 1, 2, 3]>(e)",
        "s = Constant<value = int64[4] {1, 8, 4, 4}>() n = Reshape(e, s)",
        "s = Constant<value = float {1}>() n = Mul(e, s)",
    ):
        entry = _trace(f"e = Exp(x) {noop} y = Neg(n)", kept).entries["n"]
        assert (entry.status, entry.equals) == ("removed", "e"), noop
    for change in ("s = Constant<value = float {2}>() n = Mul(e, s)", "n = Transpose<perm = [0, 1, 3, 2]>(e)"):
        assert _trace(f"e = Exp(x) {change} y = Neg(n)", kept).entries["n"].equals is None, change


def test_a_common_subexpression_equals_the_one_that_is_left() -> None:
    lineage = _trace("a = Exp(x) b2 = Exp(x) y = Add(a, b2)", "a = Exp(x) y = Add(a, a)")
    assert (lineage.entries["b2"].status, lineage.entries["b2"].equals) == ("removed", "a")
    random = "a = RandomNormalLike(x) b2 = RandomNormalLike(x) y = Add(a, b2)"
    assert _trace(random, "a = RandomNormalLike(x) y = Add(a, a)").entries["b2"].equals is None


def test_dead_code_is_removed() -> None:
    lineage = _trace("d = Exp(x) e = Neg(d) y = Relu(x)", "y = Relu(x)")
    assert [(lineage.entries[n].status, lineage.entries[n].reason) for n in "de"] == [
        ("removed", "no output depends on it")
    ] * 2


def test_constants_are_folded_with_what_only_they_needed() -> None:
    original = _model("k = Constant<value = float {2}>() n = Neg(k) e = Exp(n) y = Mul(x, e)")
    lineage = trace_lineage(original, _model("y = Mul(x, e)", constants="<float e = {0.135}>"))
    assert [lineage.entries[name].status for name in "kne"] == ["folded"] * 3
    assert "same name" in lineage.entries["e"].reason


def test_known_shapes_are_folded_where_nothing_works_on_shapes_any_more() -> None:
    lineage = _trace(
        "f = Flatten(x) s = Shape(x) r = Reshape(f, s) y = Relu(r)",
        "f = Flatten(x) k = Constant<value = int64[4] {1, 8, 4, 4}>() r = Reshape(f, k) y = Relu(r)",
    )
    assert lineage.entries["s"].status == "folded"


def test_a_blocked_convolution_holds_the_original_in_another_layout() -> None:
    lineage = _trace(
        "c = Conv(x, w, b) r = Relu(c) d = Conv(r, v) e = Add(d, r) y = Relu(e)",
        """[r_nchwc] t0 = com.microsoft.nchwc.Conv<activation = "Relu">(x, w, b)
        [d_nchwc] t1 = com.microsoft.nchwc.Conv<activation = "Relu">(t0, v, , t0)
        [out] y = com.microsoft.nchwc.ReorderOutput<channels = 8>(t1)""",
    )
    entries = lineage.entries
    assert (entries["r"].stored_as, entries["r"].by) == ("t0", ("r_nchwc",))
    assert entries["c"].by == ("r_nchwc",)
    assert entries["d"].by == entries["e"].by == ("d_nchwc",)
    assert lineage.new == ("t0", "t1")


def test_two_candidates_are_not_guessed_between() -> None:
    """Both convolutions of a sum could be the one that took in the other; without names nothing tells which."""
    original = "c = Conv(x, w) d = Conv(x, v) y = Add(c, d)"
    optimized = "t0 = com.microsoft.nchwc.Conv(x, w) t1 = com.microsoft.nchwc.Conv(x, v, , t0) y = com.microsoft.nchwc.ReorderOutput(t1)"
    entries = _trace(original, optimized).entries
    assert entries["c"].stored_as is entries["d"].stored_as is None
    assert set(entries["c"].by) == {"Conv of t0", "Conv of t1"}
    named = optimized.replace("t1 =", "[d_nchwc] t1 =", 1)
    assert _trace(original, named).entries["c"].stored_as == "t0"


def test_what_cannot_be_found_says_between_what_it_was_lost() -> None:
    lineage = _trace("a = Exp(x) m = Neg(a) n = Abs(m) y = Log(n)", "a = Exp(x) [odd] y = com.microsoft.Odd(x, a, x)")
    assert lineage.entries["m"].status == "fused"
    assert lineage.entries["m"].by == ("odd",)


def test_bodies_keep_what_keeps_its_name() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (bool c, float[2] x) => (float[2] y) {
        [choose] y = If(c) <then_branch = a () => (float[2] p) {BODY}, else_branch = b () => (float[2] q) {q = Abs(x)}>
    }"""
    original = ir.from_onnx_text(text.replace("BODY", "m = Exp(x) n = Neg(m) p = Relu(n)"))
    optimized = ir.from_onnx_text(text.replace("BODY", "m = Exp(x) p = Relu(m)"))
    entries = trace_lineage(original, optimized).entries
    assert {name: entry.status for name, entry in entries.items()} == {
        "m": "survived", "n": "fused", "p": "survived", "q": "survived", "y": "survived",
    }  # fmt: skip
    assert entries["n"].reason == "fused inside 'choose' (If)"


def test_a_branch_that_is_never_taken_is_replaced() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) <bool c = {1}> {
        [choose] y = If(c) <then_branch = a () => (float[2] p) {m = Exp(x) p = Relu(m)},
                            else_branch = b () => (float[2] q) {q = Abs(x)}>
    }"""
    optimized = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {m = Exp(x) y = Relu(m)}'
    entries = trace_lineage(ir.from_onnx_text(text), ir.from_onnx_text(optimized)).entries
    assert entries["y"].status == entries["m"].status == "survived"
    assert "the branch that is always taken" in entries["q"].reason


def test_functions_are_inlined_before_names_are_joined() -> None:
    original = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[2] x) => (float[2] y) {y = own.twice(x)}
        <domain: "own", opset_import: ["": 17]> twice (a) => (b) {h = Exp(a) b = Add(h, h)}"""
    )
    lineage = trace_lineage(original, original)
    assert len(lineage.entries) == 2
    assert "y" in lineage.entries


def test_results_are_plain_and_escaped() -> None:
    entry = TensorLineage('<b>"\n', "fused", ("n",), "Conv", reason="fused into '<i>' (Conv)")
    lineage = Lineage({entry.name: entry}, ("t",))
    assert json.loads(json.dumps(lineage.to_dict()))["tensors"][0]["by"] == ["n"]
    assert lineage.counts == {"survived": 0, "fused": 1, "folded": 0, "removed": 0}
    html = lineage._repr_html_()
    assert "<b>" not in html
    assert "&lt;i&gt;" in html


def test_every_tensor_has_one_entry_and_the_order_is_the_graphs() -> None:
    lineage = _trace("c = Conv(x, w, b) r = Relu(c) y = Neg(r)", "y = Neg(x)")
    assert list(lineage.entries) == ["c", "r", "y"]
