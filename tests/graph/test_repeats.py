"""Repeats in graphs without names: what is found, what is not, and what the blocks are called."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import OnnxvizError
from onnxviz.graph import canonical
from onnxviz.graph.canonical import canonical_line
from onnxviz.graph.io import open_model
from onnxviz.graph.repeats import find_runs, repeat_scopes
from onnxviz.graph.scopes import scopes


def graph_of(lines: list[str], output: str, weights: str, inputs: str = "float[1, 4, 8, 8] x0") -> ir.Graph:
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => (float[?] {output}) <{weights}> {{ {" ".join(lines)} }}'
    return ir.from_onnx_text(text).graph


def weight(name: str, *shape: int) -> str:
    return f"float[{', '.join(map(str, shape))}] {name} = {{{', '.join(['0'] * int(np.prod(shape)))}}}"


def residual(blocks: int, *, swapped: int | None = None, projection: bool = False, wide: int | None = None) -> ir.Graph:
    """A stem, then blocks of two convolutions and a skip connection.

    Args:
        blocks: How many.
        swapped: In this block the skip comes from the first activation instead of from the block's input.
        projection: Whether the first block has a convolution in its skip connection.
        wide: This block has kernels of another size.
    """
    lines = ["s = Conv(x0, w) b0 = Relu(s)"]
    for i in range(blocks):
        skip = f"r{i}" if i == swapped else f"b{i}"
        if projection and i == 0:
            lines.append("p0 = Conv(b0, w)")
            skip = "p0"
        w = "v" if i == wide else "w"
        lines.append(f"c{i} = Conv(b{i}, {w}) r{i} = Relu(c{i}) d{i} = Conv(r{i}, {w}) a{i} = Add(d{i}, {skip})")
        lines.append(f"b{i + 1} = Relu(a{i})")
    lines.append(f"e = GlobalAveragePool(b{blocks}) f = Flatten(e)")
    return graph_of(lines, "f", f"{weight('w', 4, 4, 1, 1)}, {weight('v', 4, 4, 3, 3)}")


def found(graph: ir.Graph) -> list[str]:
    """Return ``group/number`` for each node, empty where there is none."""
    named = repeat_scopes(graph, graph)
    return ["/".join(named.get(node, ())) for node in graph]


def test_eight_equal_blocks() -> None:
    blocks = [f"Residual block ×8/{i + 1}" for i in range(8) for _ in range(5)]
    assert found(residual(8)) == ["", "", *blocks, "", ""]


def test_the_order_in_which_nodes_are_listed_does_not_matter() -> None:
    expected = Counter(found(residual(6)))
    rng = np.random.default_rng(1)
    for _ in range(5):
        graph = residual(6)
        waiting = [graph[i] for i in rng.permutation(len(graph))]
        done: set[ir.Value] = {*graph.inputs, *graph.initializers.values()}
        order: list[ir.Node] = []
        while waiting:  # any topological order
            node = next(node for node in waiting if all(value in done for value in node.inputs))
            waiting.remove(node)
            order.append(node)
            done.update(node.outputs)
        graph.remove(order)
        graph.extend(order)
        assert Counter(found(graph)) == expected
        line, first = canonical_line(graph, graph), canonical_line(plain := residual(6), plain)
        assert [node.op_type for node in line.nodes] == [node.op_type for node in first.nodes]
        assert np.array_equal(line.source, first.source)


def test_commutative_inputs_may_come_in_any_order() -> None:
    graph = residual(4)
    for node in list(graph)[5:15:5]:
        assert node.op_type == "Add"
        first, second = node.inputs
        node.replace_input_with(0, second)
        node.replace_input_with(1, first)
    assert Counter(found(graph))["Residual block ×4/2"] == 5


def test_blocks_that_differ_only_in_their_wiring_are_not_the_same() -> None:
    """Labels are equal node by node: only the comparison of inputs tells these blocks apart."""
    graph = residual(7, swapped=3)
    line = canonical_line(graph, graph)
    assert len({tuple(line.exact[2 + 5 * i : 7 + 5 * i]) for i in range(7)}) == 1
    parts = Counter(path.partition("/")[0] for path in found(graph))
    assert parts == {"Residual block ×3": 15, "Residual block ×3 #2": 15, "": 9}
    assert found(graph)[17:22] == [""] * 5


class Colliding(tuple[object, ...]):
    """A key whose hash is that of every other."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 0


def test_colliding_hashes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(6, swapped=2, wide=5)
    honest = found(graph)
    keys = canonical._keys
    monkeypatch.setattr(canonical, "_keys", lambda node, moving: tuple(Colliding((key,)) for key in keys(node, moving)))
    assert found(graph) == honest
    monkeypatch.setattr(canonical, "_keys", lambda node, moving: (0, 0))  # labels that say nothing: the planted error
    assert found(graph) != honest


def test_what_is_read_of_the_block_before_counts() -> None:
    """The fourth block takes the activation inside the third one, as none of the others does."""
    lines = []
    for i in range(6):
        skip = "r2" if i == 3 else f"x{i}"
        lines.append(f"c{i} = Conv(x{i}, w) r{i} = Relu(c{i}) d{i} = Conv(r{i}, w) x{i + 1} = Add(d{i}, {skip})")
    graph = graph_of([*lines, "y = Relu(x6)"], "y", weight("w", 4, 4, 1, 1))
    numbers = [path for path in found(graph) if path]
    assert Counter(numbers) == {"Residual block ×3/1": 4, "Residual block ×3/2": 4, "Residual block ×3/3": 4} | {
        name: 4 for name in numbers if "×3/" not in name
    }
    assert found(graph)[8].partition("/")[0] != found(graph)[12].partition("/")[0]


def test_values_of_weights_do_not_count_and_sizes_do() -> None:
    graph = residual(6, wide=5)
    assert Counter(path.partition("/")[0] for path in found(graph))["Residual block ×5"] == 25
    for value in graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.Tensor(np.full(value.const_value.shape, 7, np.float32), name=value.name)
    assert Counter(path.partition("/")[0] for path in found(graph))["Residual block ×5"] == 25


def test_a_first_block_with_a_projection_joins_and_the_group_says_so() -> None:
    paths = found(residual(4, projection=True))
    assert paths[2:9] == ["Residual block ×4 (varied)/1"] * 6 + ["Residual block ×4 (varied)/2"]


def test_blocks_in_other_sizes_are_varied() -> None:
    lines = [
        f"c{i} = Conv(x{i}, w{i}) n{i} = InstanceNormalization(c{i}, s, s) x{i + 1} = Relu(n{i})" for i in range(4)
    ]
    sizes = ", ".join(weight(f"w{i}", 4, 4, 1 + i, 1) for i in range(4))
    graph = graph_of(lines, "x4", f"{sizes}, {weight('s', 4)}")
    assert found(graph)[::3] == [f"Conv block ×4 (varied)/{i + 1}" for i in range(4)]


def test_repeats_within_repeats() -> None:
    lines, x = [], "x0"
    for i in range(3):
        lines.append(
            f"t{i} = Transpose(Z)".replace("Z", x) + f" u{i} = Conv(t{i}, w) v{i} = Sigmoid(u{i}) h{i}_0 = Tanh(v{i})"
        )
        lines += [
            f"c{i}{j} = Conv(h{i}_{j}, w) r{i}{j} = Relu(c{i}{j}) h{i}_{j + 1} = Add(r{i}{j}, h{i}_{j})"
            for j in range(3)
        ]
        x = f"h{i}_3"
    graph = graph_of([*lines, f"y = Neg({x})"], "y", weight("w", 4, 4, 1, 1))
    paths = found(graph)
    assert paths[4] == "Residual block ×3/1/Residual block ×3/1"
    assert paths[13 + 4 + 3] == "Residual block ×3/2/Residual block ×3/2"
    assert paths[0] == "Residual block ×3/1"


def test_a_shared_mask_stays_outside() -> None:
    lines = ["n = Neg(m) k = Mul(n, w1)"]
    for i in range(4):
        lines.append(f"q{i} = MatMul(x{i}, w) s{i} = MatMul(q{i}, x{i}) a{i} = Add(s{i}, k) p{i} = Softmax(a{i})")
        lines.append(f"o{i} = MatMul(p{i}, x{i}) x{i + 1} = Add(o{i}, x{i})")
    graph = graph_of(
        [*lines, "y = Neg(x4)"], "y", f"{weight('w', 4, 4)}, {weight('w1', 1)}", "float[4, 4] x0, float[4, 4] m"
    )
    paths = found(graph)
    assert paths[:2] == ["", ""]
    assert paths[2:-1] == [f"Attention ×4/{i + 1}" for i in range(4) for _ in range(6)]


def test_constants_lie_where_they_are_used() -> None:
    lines = ["g = Constant<value_float = 2.0>()"]
    lines += [
        f"k{i} = Constant<value_float = 1.0>() c{i} = Conv(x{i}, w) m{i} = Mul(c{i}, k{i}) x{i + 1} = Div(m{i}, g)"
        for i in range(3)
    ]
    paths = found(graph_of(lines, "x3", weight("w", 4, 4, 1, 1)))
    assert paths[0] == "Conv block ×3"
    assert paths[1:5] == ["Conv block ×3/1"] * 4


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("c{i} = Conv(x{i}, w) x{j} = Relu(c{i})", "Conv block"),
        ("e{i} = Conv(x{i}, w) f{i} = Relu(e{i}) d{i} = Conv<group = 4>(f{i}, dw) g{i} = Relu(d{i}) p{i} = Conv(g{i}, w) x{j} = Add(p{i}, x{i})", "Inverted residual"),
        ("d{i} = Conv<group = 4>(x{i}, dw) g{i} = Relu(d{i}) p{i} = Conv(g{i}, w) x{j} = Relu(p{i})", "Separable convolution"),
        ("a{i} = Conv(x{i}, w) b{i} = Conv(x{i}, w) c{i} = MaxPool<kernel_shape=[1,1]>(x{i}) k{i} = Concat<axis = 1>(a{i}, b{i}, c{i}) x{j} = Conv(k{i}, w12)", "Inception block"),
        ("a{i} = Conv(x{i}, w) r{i} = Relu(a{i}) x{j} = Concat<axis = 1>(x{i}, r{i})", "Dense block"),
        ("s{i} = Conv(x{i}, w) a{i} = Conv(s{i}, w) b{i} = Conv(s{i}, w) x{j} = Concat<axis = 1>(a{i}, b{i})", "Fire module"),
        ("m{i} = MatMul(x{i}, w2) x{j} = Relu(m{i})", "Linear block"),
        ("m{i} = MatMul(x{i}, w2) r{i} = Relu(m{i}) x{j} = Add(r{i}, x{i})", "Residual block"),
        ("a{i} = MatMul(x{i}, w2) s{i} = Sigmoid(a{i}) b{i} = MatMul(x{i}, w2) t{i} = Sigmoid(b{i}) u{i} = Mul(s{i}, t{i}) x{j} = Tanh(u{i})", "Recurrent cell"),
        ("x{j}, h{i} = LSTM(x{i}, w, w)", "Recurrent layer"),
        ("a{i} = Sin(x{i}) x{j} = Relu(a{i})", "Block"),
    ],
)  # fmt: skip
def test_names_from_content(lines: str, name: str) -> None:
    text = [lines.format(i=i, j=i + 1) for i in range(3)]
    if name == "Recurrent layer":
        text = [
            f"{line} q{i} = Relu(x{i + 1})".replace(f"x{i + 1}", f"z{i}").replace(f"q{i}", f"x{i + 1}")
            for i, line in enumerate(text)
        ]
    weights = (
        f"{weight('w', 4, 4, 1, 1)}, {weight('dw', 4, 1, 3, 3)}, {weight('w12', 4, 12, 1, 1)}, {weight('w2', 8, 8)}"
    )
    graph = graph_of(text, "x3", weights)
    assert {path.split(" ×")[0] for path in found(graph) if path} == {name}


def test_names_are_told_apart() -> None:
    lines = [f"c{i} = Conv(x{i}, {'w' if i < 3 else 'v'}) x{i + 1} = Relu(c{i})" for i in range(6)]
    graph = graph_of(lines, "x6", f"{weight('w', 4, 4, 1, 1)}, {weight('v', 4, 4, 3, 3)}")
    assert found(graph)[::2] == [f"Conv block ×3{more}/{i + 1}" for more in ("", " #2") for i in range(3)]


@pytest.mark.parametrize("text", ["y = Relu(x0)", "a = Relu(x0) y = Neg(a)", ""])
def test_nothing_repeats(text: str) -> None:
    graph = graph_of([text], "y" if text else "x0", weight("w", 1))
    assert set(found(graph)) <= {""}


def test_bodies_are_compared_by_their_structure() -> None:
    def branch(op: str, i: int) -> str:
        return f"x{i + 1} = If(c) <then_branch = t{i} () => (float[4] p{i}) {{p{i} = {op}(x{i})}}, else_branch = e{i} () => (float[4] q{i}) {{q{i} = Abs(x{i})}}>"

    lines = [f"r{i} = MatMul(x{i}, w) ".replace("x", "z") + branch("Neg" if i < 3 else "Exp", i).replace("x", "z").replace(f"(z{i})", f"(r{i})").replace("ezp", "exp").replace("Ezp", "Exp") for i in range(5)]  # fmt: skip
    graph = graph_of(lines, "z5", weight("w", 4, 4), "float[4, 4] z0, bool c")
    assert [path.partition("/")[0] for path in found(graph)][:6] == ["Linear block ×3"] * 6
    assert "Linear block ×5" not in {path.partition("/")[0] for path in found(graph)}


def strip(model: ir.Model) -> ir.Graph:
    for node in model.graph:
        node.name = None
        node.metadata_props.clear()
    return model.graph


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("generated/hf_clip_vision_mini_dynamo.onnx", ["Transformer layer ×4"]),
        ("generated/hf_t5_encoder_mini_legacy_op17.onnx", ["Transformer layer ×4"]),
        ("generated/ort_resnet18_int8_qoperator.onnx", [
            "Residual block ×2", "Residual block ×2 #2 (varied)", "Residual block ×2 #3 (varied)",
            "Residual block ×2 #4 (varied)",
        ]),
        ("classifier/SqueezeNet_fp32.onnx", [
            "Fire module ×2 (varied)", "Fire module ×2 #2 (varied)", "Fire module ×4 (varied)"
        ]),
        ("generated/tv_mobilenet_v3_small_dynamo_op23.onnx", [
            "Inverted residual ×2 (varied)", "Inverted residual ×3 (varied)", "Inverted residual ×2 #2 (varied)",
            "Inverted residual ×3 #2 (varied)",
        ]),
    ],
)  # fmt: skip
def test_models_of_the_corpus_without_their_names(corpus: Path, path: str, groups: list[str]) -> None:
    graph = strip(open_model(corpus / "models" / path))
    assert list(dict.fromkeys(scope[0] for scope in scopes(graph).values() if scope)) == groups


@pytest.mark.corpus
def test_layers_found_are_the_true_ones(corpus: Path) -> None:
    """Every block lies within one layer of the model as it was named, and every layer within one block."""
    model = open_model(corpus / "models" / "generated" / "hf_clip_vision_mini_dynamo.onnx")
    true = {node: next((part for part in scope if part.isdigit()), "") for node, scope in scopes(model.graph).items()}
    named = repeat_scopes(model.graph, strip(model))
    pairs = {(true[node], scope[1]) for node, scope in named.items() if true[node]}
    assert len(pairs) == 4
    assert len({layer for layer, _ in pairs}) == 4
    assert len({block for _, block in pairs}) == 4


@pytest.mark.corpus
def test_every_model_of_the_corpus_is_searched_in_time(corpus: Path) -> None:
    slow = {}
    for path in sorted((corpus / "models").glob("*/*.onnx")):
        try:
            graph = open_model(path).graph
        except OnnxvizError:
            continue
        start = time.perf_counter()
        line = canonical_line(graph, graph)
        runs = find_runs(line)
        slow[path.name] = time.perf_counter() - start
        ends = [bound for run in runs for bound in (run.bounds[0], run.bounds[-1])]
        assert ends == sorted(ends), path.name  # no two runs overlap
    worst = max(slow, key=lambda name: slow[name])
    assert slow[worst] < 5.0, (worst, slow[worst])
