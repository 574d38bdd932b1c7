"""Attention found in graphs: plain products, masks, single operators, and what only looks like attention."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz.errors import ModelError, SelectionError
from onnxviz.graph.attention import find_attention
from onnxviz.graph.io import open_model


def masked(body: str, after: str = "d = Identity(w)") -> ir.Model:
    """A self-attention of 2 heads over 5 tokens of 8 numbers, with ``body`` between the scores ``s`` and ``t``."""
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 5, 8] x, bool[n, 1, 1, 5] pad, float[1, 1, 5, 5] bias) => (float[n, 2, 5, 4] y)
        <float[8, 8] wq = {{0}}, float[8, 8] wk = {{0}}, float[8, 8] wv = {{0}}, int64[4] heads = {{0, 0, 2, 4}}, float two = {{2}},
         float low = {{-10000}}>
        {{
          q0 = MatMul(x, wq) q1 = Reshape(q0, heads) q = Transpose<perm = [0, 2, 1, 3]>(q1)
          k0 = MatMul(x, wk) k1 = Reshape(k0, heads) k = Transpose<perm = [0, 2, 3, 1]>(k1)
          v0 = MatMul(x, wv) v1 = Reshape(v0, heads) v = Transpose<perm = [0, 2, 1, 3]>(v1)
          s = MatMul(q, k)
          {body}
          w = Softmax<axis = -1>(t)
          {after}
          y = MatMul(d, v)
        }}"""
    )


@pytest.mark.parametrize(
    "body",
    [
        "t = Div(s, two)",
        "a = Mul(s, two) t = Add(a, bias)",
        "a = Div(s, two) t = Where(pad, low, a)",
        "a = Add(bias, s) b = Cast<to = 1>(a) t = Where(pad, b, low)",
    ],
)
def test_scales_masks_and_casts_between_scores_and_softmax(body: str) -> None:
    (layer,) = find_attention(masked(body)).layers
    assert (layer.tensor, layer.kind, layer.op_type) == ("w", "self", "Softmax")
    assert layer.keys.inputs == ("x",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("s = MatMul(x, w) p = Softmax<axis = -1>(s) y = MatMul(p, x)", "a gate: one factor of the scores is fixed"),
        ("s = MatMul(x, x) p = Softmax<axis = -1>(s) y = MatMul(p, w)", "a classifier: weights times a fixed matrix"),
        ("s = MatMul(x, x) p = Softmax<axis = 1>(s) y = MatMul(p, x)", "not over the keys"),
        ("s = MatMul(x, x) y = Softmax<axis = -1>(s)", "nothing is averaged"),
    ],
)
def test_what_only_looks_like_attention_is_left_alone(text: str, why: str) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 4] x) => (float[1, 4, 4] y) <float[4, 4] w = {0}> '
        f"{{ {text} }}"
    )
    with pytest.raises(SelectionError, match=r"1 Softmax, none between two products"):
        find_attention(model)
    assert why


def test_a_model_without_softmax_is_told_in_one_line(models: Path) -> None:
    with pytest.raises(SelectionError, match=r"no attention in the model: it has no Softmax; onnxviz features"):
        find_attention(open_model(models / "lenet5.onnx"))


def test_the_projects_own_models(models: Path) -> None:
    vit = find_attention(open_model(models / "vit_digits.onnx"))
    assert [(layer.name, layer.kind) for layer in vit.layers] == [
        ("blocks.0.attention", "self"),
        ("blocks.1.attention", "self"),
    ]
    question = find_attention(open_model(models / "picture_question.onnx"))
    assert [layer.kind for layer in question.layers] == ["self", "cross", "self", "cross"]
    cross = question.layers[3]
    assert (cross.queries.kind, cross.keys.kind) == ("text", "image")
    assert cross.queries.inputs == ("tokens",)  # the picture, mixed in by layer 1, is not where these tokens come from


def test_learned_queries_are_cross_attention() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 9, 4] x) => (float[1, 2, 4] y) <float[1, 2, 4] probe = {0}>
        { k = Transpose<perm = [0, 2, 1]>(x) s = MatMul(probe, k) w = Softmax<axis = -1>(s) y = MatMul(w, x) }"""
    )
    (layer,) = find_attention(model).layers
    assert layer.kind == "cross"
    assert layer.queries.kind == "learned"


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("generated/hf_clip_vision_mini_dynamo.onnx", "ssss"),
        ("generated/hf_segformer_mini_dynamo.onnx", "s" * 8),  # fewer keys, made from the same tokens
        ("generated/hf_t5_encoder_mini_legacy_op17.onnx", "ssss"),
        ("generated/hf_wav2vec2_mini_dynamo.onnx", "ssss"),
        ("transformer/vespa-random_decoder.onnx", "sc"),
        ("transformer/TFBertForQuestionAnswering.onnx", "s" * 24),
        ("transformer/gpt2_embedlayer_one_attn_exp.onnx", "s"),
        ("quantized/attention_past_state.u8s8.onnx", "s"),
    ],
)
def test_real_models(corpus: Path, path: str, kinds: str) -> None:
    found = find_attention(open_model(corpus / "models" / path))
    assert "".join(layer.kind[0] for layer in found.layers) == kinds
    assert len({layer.name for layer in found.layers}) == len(kinds)


def test_the_attention_operator_is_made_to_give_its_weights() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1, 2, 5, 4] q) => (float[1, 2, 5, 4] y) '
        "{ y = Attention(q, q, q) }"
    )
    found = find_attention(model)
    node = found.model.graph[0]
    assert node.attributes["qk_matmul_output_mode"].as_int() == 3
    assert [v.name for v in node.outputs] == ["y", "", "", "y.weights"]
    assert len(model.graph[0].outputs) == 1  # the model that was given is as it was


def test_scores_that_the_model_itself_uses_are_not_turned_into_weights() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1, 2, 5, 4] q) => (float[1, 2, 5, 4] y, float[1, 2, 5, 5] s)'
        "{ y, a, b, s = Attention<qk_matmul_output_mode = 1>(q, q, q) }"
    )
    with pytest.raises(SelectionError, match=r"fourth output is in use with qk_matmul_output_mode = 1"):
        find_attention(model)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("GroupQueryAttention<num_heads = 2, kv_num_heads = 2>(q, q, q, , , n, n)", "does not return them"),
        ("MultiHeadAttention<num_heads = 2>(q, q, q, , many)", "a mask of one axis whose size is not known"),
        ("MultiHeadAttention<num_heads = 2>(q, q, q, , , , , , n)", "a past in a shared buffer"),
        ("MultiHeadAttention(q, q, q)", "does not say how many heads"),
        ("Attention<num_heads = 2>(q, q)", "the size of its weights is not known"),
        ("Attention<num_heads = 2, do_rotary = 1>(q, q)", "it is rotary"),
        ("QAttention<num_heads = 2>(q, q)", "lacks a scale"),
    ],
)
def test_fused_attention_that_cannot_be_read_is_named(call: str, why: str) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> '
        f"g (float[1, a, b] q, int32[1] n, int32[m] many) => (float[1, a, b] y) {{ [att] y = com.microsoft.{call} }}"
    )
    with pytest.raises(SelectionError, match=f"com.microsoft.*'att' keeps its weights: .*{why}.*before attention was"):
        find_attention(model)


def test_names_of_the_model_that_are_taken_are_not_taken_twice() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 23]> g (float[1, 2, 5, 4] q) => (float[1, 2, 5, 4] z) '
        '{ y = Attention(q, q, q) "y.weights" = Neg(y) z = Exp("y.weights") }'.replace('"y.weights"', "yw")
    )
    model.graph[1].outputs[0].name = "y.weights"
    assert find_attention(model).layers[0].tensor == "y.weights_2"


def test_weights_after_a_guard_against_masked_rows() -> None:
    model = masked("t = Div(s, two)", after="e = IsNaN(w) d = Where(e, two, w)")
    assert find_attention(model).layers[0].tensor == "d"


def test_attention_in_a_body_is_told_where() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (bool c, float[1, 4, 4] x) => (float[1, 4, 4] y) {
          [branch] y = If(c) <
            then_branch = a () => (float[1, 4, 4] p) { s = MatMul(x, x) w = Softmax<axis = -1>(s) p = MatMul(w, x) },
            else_branch = b () => (float[1, 4, 4] q) { q = Identity(x) }>
        }"""
    )
    with pytest.raises(SelectionError, match=r"no attention in the main graph; the bodies of branch hold Softmax"):
        find_attention(model)


@pytest.mark.parametrize(
    ("scores", "after"),
    [
        ('s = Einsum<equation = "aecd, abcd -> acbe">(k, q)', "t = Identity(s)"),
        ('s = Einsum<equation = "aecd,abcd">(k, q)', "t = Transpose<perm = [0, 2, 1, 3]>(s)"),  # implicit: abce
        ("a = Transpose<perm = [0, 2, 1, 3]>(k) b = Transpose<perm = [0, 2, 3, 1]>(q) s = MatMul(a, b)",
         "t = Transpose<perm = [0, 1, 3, 2]>(s)"),
    ],
)  # fmt: skip
def test_keys_that_stand_first_in_the_product_are_keys(scores: str, after: str) -> None:
    """tf.keras writes einsum(key, query); others multiply K by Qᵀ and turn the product round."""
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[1, 6, 2, 4] q0, float[1, 9, 2, 4] k0) => (float[1, 6, 2, 4] y) {{
          q = Neg(q0) k = Neg(k0) {scores} {after} w = Softmax<axis = -1>(t)
          y = Einsum<equation = "acbe,aecd->abcd">(w, k) }}"""
    )
    (layer,) = find_attention(model).layers
    assert (layer.queries.inputs, layer.keys.inputs) == (("q0",), ("k0",))


def test_queries_that_stand_first_stay_queries() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 6, 2, 4] q, float[1, 9, 2, 4] k) => (float[1, 6, 2, 4] y) {
          s = Einsum<equation = "abcd,aecd->acbe">(q, k) w = Softmax<axis = -1>(s)
          y = Einsum<equation = "acbe,aecd->abcd">(w, k) }"""
    )
    (layer,) = find_attention(model).layers
    assert (layer.queries.inputs, layer.keys.inputs) == (("q",), ("k",))


@pytest.mark.parametrize("attribute", ["axis = 1.5", 'axis = "last"', "axis = [1]"])
def test_an_attribute_of_another_type_is_told_with_its_node(attribute: str) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 4] x) => (float[1, 4, 4] y) '
        f"{{ s = MatMul(x, x) [soft] w = Softmax<{attribute}>(s) y = MatMul(w, x) }}"
    )
    with pytest.raises(ModelError, match=r"the attribute axis of soft is [A-Z]+, not INT"):
        find_attention(model)


def test_a_concat_without_an_axis_is_told_with_its_node() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 4] x) => (float[1, 8, 4] y) '
        "{ [both] c = Concat(x, x) t = Transpose<perm = [0, 2, 1]>(c) s = MatMul(c, t) w = Softmax(s) y = MatMul(w, c) }"
    )
    with pytest.raises(ModelError, match="both lacks the attribute axis"):
        find_attention(model)


def test_layers_that_keep_their_weights_are_counted() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1, 5, 8] x) => (float[1, 5, 8] y)
        <float[8, 24] w = {0}> {
          [rotary] a = com.microsoft.Attention<num_heads = 2, do_rotary = 1>(x, w)
          [plain] y = com.microsoft.Attention<num_heads = 2>(a, w)
        }"""
    )
    found = find_attention(model)
    assert [(layer.name, layer.order) for layer in found.layers] == [("plain", 1)]
    assert found.refusals() == (
        "1 of 2 attention layers keep their weights: rotary (it is rotary, which is not expanded)"
    )
    assert not [v for v in found.model.graph.initializers if v.startswith("a.")]


def test_a_softmax_at_the_root_has_a_name() -> None:
    model = masked("t = Div(s, two)")
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    softmax.name = "/Softmax"
    assert find_attention(model).layers[0].name == "/Softmax"


def test_layers_are_told_apart_by_the_stream_that_they_read() -> None:
    """Two towers: neither reads what the attention of the other gives."""
    text = " ".join(
        f"{t}1 = MatMul({t}, {t}) {t}2 = Softmax<axis = -1>({t}1) {t}3 = MatMul({t}2, {t}) {t}4 = Add({t}, {t}3) "
        f"{t}5 = MatMul({t}4, {t}4) {t}6 = Softmax<axis = -1>({t}5) {t}7 = MatMul({t}6, {t}4)"
        for t in "ab"
    )
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 4] a, float[1, 4, 4] b) => (float[1, 4, 4] y) '
        f"{{ {text} y = Add(a7, b7) }}"
    )
    assert [layer.after for layer in find_attention(model).layers] == [(), (0,), (), (2,)]
