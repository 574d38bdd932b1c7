"""Chains of operators by pattern: what they match, what they leave, what they say when there is nothing."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.errors import SelectionError
from onnxviz.graph.patterns import find_chains, is_pattern, next_in_chain


def graph_of(body: str, outputs: str = "float[1] y") -> ir.Graph:
    text = f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1] x, bool c) => ({outputs}) {{ {body} }}'
    return ir.from_onnx_text(text).graph


def chains(graph: ir.Graph, *patterns: str) -> list[str]:
    return [" ".join(str(node.outputs[0].name) for node in chain) for chain in find_chains(graph, patterns)]


STRAIGHT = "a = Neg(x) b = Relu(a) d = Neg(b) e = LeakyRelu(d) f = Neg(e) g = Relu(f) y = Abs(g)"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["Neg > Relu"], ["a b", "f g"]),
        (["Neg>Relu"], ["a b", "f g"]),
        (["Neg > *Relu"], ["a b", "d e", "f g"]),
        (["Neg > *Relu > Neg"], ["a b d"]),  # the next would begin in it
        (["* > *"], ["a b", "d e", "f g"]),
        (["*Relu > Neg", "Neg > *Relu"], ["b d", "e f"]),  # the first pattern comes first
        (["Relu > Neg", "Neg > *Relu"], ["b d", "f g"]),
        (["[NR]e* > Relu > Abs"], ["f g y"]),
    ],
)
def test_what_patterns_match(patterns: list[str], expected: list[str]) -> None:
    assert chains(graph_of(STRAIGHT), *patterns) == expected


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("a = Neg(x) b = Relu(a) y = Add(a, b)", "float[1] y"),  # two readers
        ("a = Neg(x) y = Relu(a)", "float[1] y, float[1] a"),  # a graph output
        ("a = Neg(x) p = Abs(a) y = If(c) <then_branch = t () => (float[1] q) {q = Relu(a)}, else_branch = e () => (float[1] r) {r = Relu(p)}>", "float[1] y"),
        ("a = Neg(x) y = If(c) <then_branch = t () => (float[1] q) {q = Relu(a)}, else_branch = e () => (float[1] r) {r = Relu(x)}>", "float[1] y"),
    ],
)  # fmt: skip
def test_what_goes_elsewhere_too_is_no_chain(body: str, outputs: str) -> None:
    with pytest.raises(SelectionError, match="no chain of operators matches 'Neg > Relu'"):
        chains(graph_of(body, outputs), "Neg > Relu")


def test_a_node_may_read_the_same_tensor_twice_and_other_outputs_may_be_unused() -> None:
    assert chains(graph_of("a, m = Dropout(x) y = Mul(a, a)"), "Dropout > Mul") == ["a y"]


def test_domains_may_be_named() -> None:
    graph = graph_of("a = com.microsoft.Gelu(x) b = Gelu(a) y = Relu(b)")
    assert chains(graph, "com.microsoft::Gelu > *") == ["a b"]
    with pytest.raises(SelectionError):
        chains(graph, "::Gelu > com.microsoft::*")


def test_only_free_nodes_are_taken() -> None:
    graph = graph_of(STRAIGHT)
    assert find_chains(graph, ["Neg > *Relu"], free=set(list(graph)[1:4])) == [(graph[2], graph[3])]
    assert find_chains(graph, ["Neg > Relu"], free=set()) == []


@pytest.mark.parametrize("pattern", ["Conv > Relu", "Neg > Relu > Relu"])
def test_nothing_matches(pattern: str) -> None:
    with pytest.raises(SelectionError) as error:
        chains(graph_of(STRAIGHT), pattern)
    assert "the most frequent chains of" in str(error.value.hint)
    if pattern == "Conv > Relu":
        assert "'Neg > Relu' (2×)" in str(error.value.hint)


def test_nothing_follows_alone() -> None:
    with pytest.raises(SelectionError) as error:
        chains(graph_of("y = Relu(x)"), "Neg > Relu")
    assert str(error.value.hint) == "no 2 operators follow one another alone; there are Relu"


@pytest.mark.parametrize("pattern", ["Conv >", "> Relu", ">", "Conv > > Relu"])
def test_a_step_without_an_operator(pattern: str) -> None:
    with pytest.raises(SelectionError, match="a step without an operator") as error:
        chains(graph_of(STRAIGHT), pattern)
    assert "Conv > BatchNormalization > Relu" in str(error.value.hint)


def test_a_cycle_is_no_endless_chain() -> None:
    graph = graph_of("a = Neg(x) b = Neg(a) y = Relu(x)")
    graph[0].replace_input_with(0, graph[1].outputs[0])
    assert chains(graph, "Neg > Neg") == ["a b"]
    with pytest.raises(SelectionError):
        chains(graph, "Neg > Neg > Neg")
    assert next_in_chain(graph[2]) is None


def test_patterns_and_globs() -> None:
    assert [is_pattern(text) for text in ("a/b*", "Conv > Relu", "Conv>Relu", "")] == [False, True, True, False]
