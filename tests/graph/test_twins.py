"""Twins in two graphs: siblings are told apart, copies looked through, names trusted as far as weights bear them out."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.twin_keys import Fingerprints, Sources
from onnxviz.graph.twins import match_tensors, paired_inputs

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2, 8, 8] x) => (float[n, m, h, w] %s) %s {%s}'


def net(body: str, output: str = "y", weights: str = "") -> ir.Model:
    return ir.from_onnx_text(HEAD % (output, f"<{weights}>" if weights else "", body))


def twins(one: ir.Model, other: ir.Model) -> dict[str, str]:
    return {name: twin for name, (twin, _) in match_tensors(one, other).items()}


def test_siblings_are_told_apart_by_their_attributes() -> None:
    pools = "{a} = MaxPool<kernel_shape = [1, 1]>(x) {b} = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)"
    one = net(pools.format(a="a", b="b") + " y = Add(a, b)")
    other = net(
        "q = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x) p = MaxPool<kernel_shape = [1, 1]>(x) z = Add(q, p)",
        "z",
    )
    assert twins(one, other) == {"p": "a", "q": "b", "z": "y"}


def test_siblings_with_changed_weights_are_told_apart_by_likeness() -> None:
    layers = "{a} = Mul(x, k) {b} = Mul(x, j) {y} = Sub({a}, {b})"
    weights = "float[1, 1, 1, 8] k = {1, 2, 3, 4, 5, 6, 7, %s}, float[1, 1, 1, 8] j = {-1, 2, -3, 4, -5, 6, -7, %s}"
    one = net(layers.format(a="a", b="b", y="y"), weights=weights % (8, 8))
    swapped = "{b} = Mul(x, j) {a} = Mul(x, k) {y} = Sub({a}, {b})"
    other = net(swapped.format(a="p", b="q", y="z"), "z", weights % (8.1, 8.2))
    assert twins(one, other) == {"p": "a", "q": "b", "z": "y"}


def test_copies_and_quantisation_are_looked_through() -> None:
    one = net("a = Exp(x) y = Neg(a)")
    weights = "float s = {0.1}, uint8 k = {128}"
    other = net(
        "c = Cast<to = 10>(x) p = Exp(c) i = Identity(p) q = QuantizeLinear(i, s, k) d = DequantizeLinear(q, s, k) z = Neg(d)",
        "z", weights,
    )  # fmt: skip
    assert twins(one, other) == {"p": "a", "z": "y"}


def test_operands_that_must_not_be_exchanged_are_not() -> None:
    one, other = net("a = Exp(x) y = Sub(a, x)"), net("p = Exp(x) z = Sub(x, p)", "z")
    assert twins(one, other) == {"p": "a"}


def test_a_body_tells_an_if_from_another() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (bool c, float[2] x) => (float[2] {y}, float[2] {z}) {{
      {first} {second} }}"""
    branch = "{o} = If(c) <then_branch = t () => (float[2] {o}t) {{{o}t = {op}(x)}}, else_branch = e () => (float[2] {o}e) {{{o}e = Neg(x)}}>"
    a, b = branch.format(o="a", op="Exp"), branch.format(o="b", op="Abs")
    p, q = branch.format(o="p", op="Exp"), branch.format(o="q", op="Abs")
    one = ir.from_onnx_text(text.format(y="a", z="b", first=a, second=b))
    other = ir.from_onnx_text(text.format(y="p", z="q", first=q, second=p))
    assert twins(one, other) == {"p": "a", "q": "b"}


def test_names_that_contradict_the_weights_do_not_count() -> None:
    weights = "float[1, 1, 1, 4] k = {1, 2, 3, 4}, float[1, 1, 1, 4] j = {5, 6, 7, 8}"
    wide = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 1, 4] x) => (float[1, 1, 1, 4] y) <%s> {%s}'
    one = ir.from_onnx_text(wide % (weights, "conv_1 = Mul(x, k) conv_2 = Mul(conv_1, j) y = Neg(conv_2)"))
    other = ir.from_onnx_text(wide % (weights, "conv_2 = Mul(x, k) conv_1 = Mul(conv_2, j) y = Neg(conv_1)"))
    assert twins(one, other) == {"conv_2": "conv_1", "conv_1": "conv_2", "y": "y"}


def test_inputs_are_paired_by_name_else_in_order() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] %s, float[2] %s) => (float[2] y) {y = Sub(%s, %s)}'
    one = ir.from_onnx_text(text % ("a", "b", "a", "b"))
    assert paired_inputs(one, ir.from_onnx_text(text % ("b", "a", "b", "a"))) == {"b": "b", "a": "a"}
    assert paired_inputs(one, ir.from_onnx_text(text % ("p", "q", "p", "q"))) == {"p": "a", "q": "b"}


def test_constants_have_no_source_and_one_element_tells_nothing() -> None:
    model = net("c = Constant<value = float[1] {2}>() i = Identity(c) y = Mul(x, i)")
    sources = Sources()
    assert sources.of(model.graph.node(1).outputs[0]) is None
    assert sources.of(model.graph.outputs[0]) is model.graph.outputs[0]
    assert Fingerprints().weight(model.graph.node(2)) == "", "one element tells nothing"
