"""Calls of functions, opened: which groups their nodes lie in."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from onnxviz.errors import ModelError
from onnxviz.graph.calls import inline_with_scopes
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import to_proto
from onnxviz.graph.scopes import CALLS, scope_name, scopes
from onnxviz.graph.shapes import infer_shapes

FUNCTIONS = """
<opset_import: ["": 17], domain: "local"> Act (a) => (c) { b = Neg(a) c = Relu(b) }
<opset_import: ["": 17, "local": 1], domain: "local"> Layer (p) => (s) { q = Abs(p) r = local.Act(q) s = local.Act(r) }
"""


def model_of(body: str, functions: str = FUNCTIONS) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17, "local": 1]> g (float[1] x, bool k) => (float[1] y) {{ {body} }} {functions}'
    )


def paths(model: ir.Model) -> list[str]:
    return [scope_name(scope) for scope in scopes(inline_with_scopes(model).graph).values()]


def test_a_call_is_a_group_and_calls_within_it_are_groups_in_it() -> None:
    assert paths(model_of("a = Exp(x) b = local.Layer(a) y = local.Layer(b)")) == ["", *(
        f"Layer_{i}{inner}" for i in (1, 2) for inner in ("", "/Act_1", "/Act_1", "/Act_2", "/Act_2")
    )]  # fmt: skip


def test_the_group_around_a_call_and_its_name() -> None:
    model = model_of("a = local.Act(x) b = local.Act(a) y = Exp(b)")
    model.graph[0].name, model.graph[1].name, model.graph[2].name = "/enc/0/Act_7", "/enc/0/n1", "/enc/Exp"
    assert paths(model) == ["enc/0/Act_7"] * 2 + ["enc/0/Act n1"] * 2 + ["enc"]


def test_calls_of_one_name_stay_apart() -> None:
    model = model_of("a = local.Act(x) y = local.Act(a)")
    model.graph[0].name = model.graph[1].name = "Act"
    assert paths(model) == ["Act_1"] * 2 + ["Act_2"] * 2


def test_groups_within_a_function() -> None:
    model = model_of("y = local.Layer(x)")
    layer = next(function for function in model.functions.values() if function.name == "Layer")
    for node, name in zip(layer, ("/pre/Abs", "/post/Act_a", "/post/Act_b"), strict=True):
        node.name = name
    layer[0].name, layer[1].name = "/post/Abs", "/post/Act_a"
    assert paths(model) == ["Layer_1/post"] + ["Layer_1/post/Act_a"] * 2 + ["Layer_1/post/Act_b"] * 2


def test_calls_in_bodies() -> None:
    model = model_of(
        "y = If(k) <then_branch = t () => (float[1] p) {p = local.Act(x)}, else_branch = e () => (float[1] q) {q = Abs(x)}>"
    )
    body = next(node for node in inline_with_scopes(model).graph).attributes["then_branch"].as_graph()
    assert [node.metadata_props[CALLS] for node in body] == ['["Act_1"]'] * 2


def test_the_graph_is_that_of_plain_inlining() -> None:
    model = model_of("a = local.Layer(x) b = Neg(a) y = local.Layer(b)")
    opened, plain = inline_with_scopes(model), inline_functions(model)
    for node in opened.graph:
        node.metadata_props.clear()
    assert to_proto(opened).SerializeToString() == to_proto(plain).SerializeToString()
    names = [value.name for node in plain.graph for value in node.outputs]
    assert len(set(names)) == len(names)
    onnx.checker.check_model(to_proto(opened))
    assert not any(node.metadata_props for node in model.graph)
    assert not any(node.metadata_props for function in model.functions.values() for node in function)


def test_paths_survive_inference_and_the_file() -> None:
    opened = infer_shapes(inline_with_scopes(model_of("y = local.Act(x)")))
    assert [scope_name(scope) for scope in scopes(opened.graph).values()] == ["Act_1"] * 2


def test_nothing_to_open() -> None:
    model = model_of("y = Exp(x)", "")
    assert inline_with_scopes(model) is model


def test_a_function_that_calls_itself() -> None:
    model = model_of(
        "y = local.Act(x)", '<opset_import: ["": 17, "local": 1], domain: "local"> Act (a) => (b) { b = local.Act(a) }'
    )
    with pytest.raises(ModelError, match="a function of the model cannot be inlined"):
        inline_with_scopes(model)
