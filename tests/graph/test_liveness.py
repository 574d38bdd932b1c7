"""Liveness against a second implementation that looks at every node anew, on random graphs."""

from __future__ import annotations

import random

import onnx_ir as ir
import pytest

from onnxviz.graph import liveness
from onnxviz.graph.liveness import activation_timeline, last_readers, tensor_bytes
from onnxviz.graph.shapes import infer_shapes


def text(body: str, opset: int = 17) -> ir.Model:
    return infer_shapes(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> {body}'))


def random_graph(seed: int) -> ir.Model:
    """A graph of nodes with up to three inputs, of random sizes; some outputs are read by nothing."""
    rng = random.Random(seed)

    def value(name: str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([rng.randrange(1, 50)]))

    inputs = [value("in0"), value("in1")]
    known, nodes = list(inputs), []
    for number in range(rng.randrange(1, 30)):
        outputs = [value(f"t{number}_{i}") for i in range(rng.choice((1, 1, 2)))]
        chosen = [rng.choice(known) for _ in range(rng.randrange(1, 4))]
        nodes.append(ir.Node("", "Op", chosen, outputs=outputs))
        known += outputs
    made = known[2:]
    outputs = rng.sample(made, min(len(made), 2))
    return ir.Model(ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 17}), ir_version=8)


def brute_force(model: ir.Model, *, inputs: bool) -> list[set[str]]:
    """The tensors alive during each node, by asking of each tensor whether it exists and whether it is still needed."""
    nodes = list(model.graph)
    born = {str(v.name): at for at, node in enumerate(nodes) for v in node.outputs}
    if inputs:
        born |= {str(v.name): -1 for v in model.graph.inputs if v.uses()}
    ends = {str(v.name) for v in model.graph.outputs}
    alive = []
    for at, node in enumerate(nodes):
        later = {str(v.name) for other in nodes[at:] for v in other.inputs if v is not None}
        mine = {str(v.name) for v in node.outputs}
        alive.append({name for name, birth in born.items() if birth <= at and (name in later | ends | mine)})
    return alive


def check(model: ir.Model, *, inputs: bool) -> None:
    sizes = {str(v.name): tensor_bytes(v) for v in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs))}
    expected = brute_force(model, inputs=inputs)
    timeline = activation_timeline(model, inputs=inputs)
    totals = [sum(sizes[name] or 0 for name in names) for names in expected]
    assert list(timeline.bytes) == totals
    assert timeline.peak == max(totals)
    assert timeline.peak_index == totals.index(max(totals))
    assert set(timeline.alive) == expected[timeline.peak_index]


@pytest.mark.parametrize("inputs", [True, False])
def test_random_graphs_agree_with_brute_force(inputs: bool) -> None:
    for seed in range(200):
        check(random_graph(seed), inputs=inputs)


def test_the_comparison_catches_tensors_that_die_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    true = last_readers

    def wrong(graph: ir.Graph) -> dict[str, int]:
        return {name: at - 1 if 0 < at < len(graph) else at for name, at in true(graph).items()}

    monkeypatch.setattr(liveness, "last_readers", wrong)
    with pytest.raises(AssertionError):
        check(random_graph(3), inputs=True)


BODIES = """g (bool c, float[4] x) => (float[4] y) {
  early = Relu(x)
  outer = If(c) <then_branch = t () => (float[4] a) {
      inner = If(c) <then_branch = tt () => (float[4] p) {p = Exp(early)}, else_branch = te () => (float[4] q) {q = Neg(x)}>
      a = Relu(inner)
  }, else_branch = e () => (float[4] b) {b = Neg(x)}>
  y = Abs(outer)
}"""


def reads_of_bodies(readers: dict[str, int]) -> None:
    assert readers == {"c": 1, "x": 1, "early": 1, "outer": 2, "y": 3}


def test_what_bodies_read_is_read_by_the_node_that_holds_them() -> None:
    reads_of_bodies(last_readers(text(BODIES).graph))


def test_a_reader_that_ignores_bodies_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_bodies", lambda node: iter(()))
    with pytest.raises(AssertionError):
        reads_of_bodies(last_readers(text(BODIES).graph))


def test_a_value_that_a_body_hands_through_is_read() -> None:
    condition, x = ir.Value(name="c"), ir.Value(name="x")
    early = ir.node("Relu", inputs=[x], outputs=[ir.Value(name="early")])
    other = ir.node("Neg", inputs=[x], outputs=[ir.Value(name="other")])
    branches = [
        ir.Graph([], early.outputs, nodes=[], name="then"),
        ir.Graph([], other.outputs, nodes=[other], name="else"),
    ]
    attributes = [
        ir.AttrGraph(name, graph) for name, graph in zip(("then_branch", "else_branch"), branches, strict=True)
    ]
    choice = ir.Node("", "If", [condition], attributes, outputs=[ir.Value(name="y")])
    graph = ir.Graph([condition, x], choice.outputs, nodes=[early, choice])
    assert last_readers(graph)["early"] == 1


def test_the_largest_body_counts_while_its_node_runs() -> None:
    model = text(BODIES)
    # early 16 and x 16 live, c 1; the body holds inner and a (16 each); of these the If's output is one
    assert activation_timeline(model, dict.fromkeys(("inner", "a", "b", "p", "q", "outer"), 16)).bytes == (33, 65, 32)


def test_constants_weights_and_unread_outputs_do_not_stay() -> None:
    model = text(
        "g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {k = Constant<value = float[4] {1, 2, 3, 4}>() "
        "unread = Exp(x) a = Add(x, w) y = Add(a, k)}"
    )
    timeline = activation_timeline(model)
    assert timeline.bytes == (16, 32, 32, 32)
    assert timeline.alive == ("x", "unread")


def test_observed_sizes_overrule_and_unknown_ones_are_named() -> None:
    model = text("g (float[n] x) => (float[n] y) {a = Exp(x) y = Relu(a)}")
    assert activation_timeline(model).unknown == ("x", "a", "y")
    known = activation_timeline(model, {"x": 4, "a": 400, "y": 4})
    assert (known.bytes, known.peak_index, known.unknown) == ((404, 404), 0, ())


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("FLOAT", [2, 3], 24),
        ("INT4", [3, 3], 5),
        ("BOOL", [], 1),
        ("FLOAT16", [0, 4], 0),
        ("STRING", [2], None),
        ("FLOAT", ["n"], None),
        ("COMPLEX128", [2], 32),
    ],
)
def test_bytes_of_a_tensor(dtype: str, shape: list[int | str], size: int | None) -> None:
    assert tensor_bytes(ir.Value(name="x", type=ir.TensorType(ir.DataType[dtype]), shape=ir.Shape(shape))) == size


def test_bytes_of_what_is_no_tensor() -> None:
    kind = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    assert tensor_bytes(ir.Value(name="x", type=kind, shape=ir.Shape([2]))) is None
    assert tensor_bytes(ir.Value(name="x")) is None


def test_an_empty_graph() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=8)
    assert activation_timeline(model) == liveness.Timeline((), 0, None, (), ())
