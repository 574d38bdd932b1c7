"""The hierarchy of a model, and which of its groups are folded."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz.errors import SelectionError
from onnxviz.graph.io import open_model
from onnxviz.graph.provenance import Provenance, set_provenance
from onnxviz.graph.scopes import CALLS, choose_groups, fold_patterns, named_scopes, scope_name, scopes


def chain(*names: str) -> ir.Graph:
    nodes = "\n".join(f"t{i + 1} = Relu(t{i})" for i in range(len(names)))
    graph = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1] t0) => (float[1] t{len(names)}) {{ {nodes} }}'
    ).graph
    for node, name in zip(graph, names, strict=True):
        node.name = name
    return graph


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["/enc/fc/MatMul", "/enc/act/Relu"], ["enc/fc", "enc/act"]),
        (["/seq/seq.0/conv/Conv", "/seq/seq.1/conv/Conv", "/seq/seq.1/seq.1.0/Relu"], ["seq/0/conv", "seq/1/conv", "seq/1/0"]),
        (["net/a/Conv", "net/b/Add", "Transpose__3"], ["net/a", "net/b", ""]),
        (["Conv_0", "Relu_1"], ["", ""]),
        (["once/Conv", "Relu"], ["", ""]),  # nothing shares its first step
        (["", "//", "/"], ["", "", ""]),
    ],
)  # fmt: skip
def test_names_as_paths(names: list[str], paths: list[str]) -> None:
    assert [scope_name(scope) for scope in scopes(chain(*names)).values()] == paths


def test_what_is_written_on_nodes_comes_before_their_names() -> None:
    graph = chain("/wrong/a/Relu", "/wrong/b/Relu", "/wrong/c/Relu")
    set_provenance(graph[0], Provenance("layers.0.act"))
    set_provenance(graph[1], Provenance("backbone/act"))
    assert list(scopes(graph).values()) == [("layers", "0", "act"), ("backbone", "act"), ("wrong", "c")]


def test_written_paths_come_before_everything_else() -> None:
    graph = chain("/a/x/Relu", "/a/y/Relu", "/a/z/Relu")
    set_provenance(graph[0], Provenance("b"))
    graph[0].metadata_props[CALLS] = '["Call_1", "in.ner/path"]'
    graph[1].metadata_props[CALLS] = "no JSON"
    graph[2].metadata_props[CALLS] = '{"not": "a list"}'
    assert list(scopes(graph).values()) == [("Call_1", "in.ner/path"), ("a", "y"), ("a", "z")]


def test_repeats_are_groups_only_where_most_nodes_have_no_name() -> None:
    body = " ".join(f"c{i} = MatMul(x{i}, w) x{i + 1} = Relu(c{i})" for i in range(4))
    graph = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[2, 2] x0) => (float[2, 2] x4) <float[2, 2] w = {{1, 2, 3, 4}}> {{ {body} }}'
    ).graph
    assert [scope_name(scope) for scope in scopes(graph).values()] == [
        f"Linear block ×4/{i // 2 + 1}" for i in range(8)
    ]
    assert set(named_scopes(graph).values()) == {()}
    for i in range(4):
        graph[i].name = f"/net/{i}/op"
    assert list(scopes(graph).values()) == [*(("net", str(i)) for i in range(4)), (), (), (), ()]
    graph[3].name = None  # now most are nameless: those, and only those, are searched
    assert [scope_name(scope) for scope in scopes(graph).values()][:4] == ["net/0", "net/1", "net/2", ""]
    assert [scope_name(scope) for scope in scopes(graph).values()][4:] == ["Linear block ×2/1"] * 2 + [
        "Linear block ×2/2"
    ] * 2


def conv_chain() -> ir.Graph:
    lines = "a = Conv(x, w) b = Relu(a) c = Conv(b, w) d = Sigmoid(c) e = Conv(d, w) f = Relu(e) y = Add(e, f)"
    graph = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {{2}}> {{ {lines} }}'
    ).graph
    for node, name in zip(graph, ["/s/0/C", "/s/0/R", "/s/1/C", "/t/S", "/t/C", "/t/R", "/t/A"], strict=True):
        node.name = name
    return graph


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fold": ("Conv > Relu",)}, ["s/0/Conv > Relu/1"] * 2 + [""] * 5),
        ({"fold": ("Conv > *",)}, ["s/0/Conv > Relu/1"] * 2 + ["Conv > Sigmoid/1"] * 2 + [""] * 3),
        ({"fold": ("Conv > Relu", "t")}, ["s/0/Conv > Relu/1"] * 2 + [""] + ["t"] * 4),
        ({"fold": ("Conv > *", "t")}, ["s/0/Conv > Relu/1"] * 2 + [""] + ["t"] * 4),
        ({"fold": ("Conv > Relu",), "depth": 1}, ["s"] * 3 + ["t"] * 4),
        ({"fold": ("Conv > Relu",), "depth": 1, "unfold": ("s", "s/*")}, ["s/0/Conv > Relu/1"] * 2 + [""] + ["t"] * 4),
    ],
)
def test_patterns_beside_groups(options: dict[str, object], expected: list[str]) -> None:
    graph = conv_chain()
    chosen = choose_groups(scopes(graph), options.pop("depth", None), **options)  # type: ignore[arg-type]
    assert [scope_name(chosen.get(node, ())) for node in graph] == expected


def test_a_hierarchy_with_patterns() -> None:
    found = fold_patterns(scopes(conv_chain()), ["s/*", "Conv > *"])
    assert [scope_name(scope) for scope in found.values()] == [
        "s/0/Conv > Relu/1", "s/0/Conv > Relu/1", "Conv > Sigmoid/1", "Conv > Sigmoid/1", "t", "t", "t"
    ]  # fmt: skip


def test_a_group_whose_name_has_an_angle_bracket_is_no_pattern() -> None:
    graph = chain("/<lambda>/a/A", "/<lambda>/a/B", "/<lambda>/b/C", "/<lambda>/b/D")
    assert set(choose_groups(scopes(graph), None, ["<lambda>/a"]).values()) == {("<lambda>", "a")}


def groups(depth: int | None = None, fold: tuple[str, ...] = (), unfold: tuple[str, ...] = ()) -> list[str]:
    names = ["/a/x/A", "/a/x/B", "/a/y/C", "/a/y/D", "/b/z/w/E", "/b/z/w/F", "/b/z/v/G", "/lone/H", "/lone/I", "free"]
    graph = chain(*names)
    chosen = choose_groups(scopes(graph), depth, fold, unfold)
    return [scope_name(chosen.get(node, ())) for node in graph]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [""] * 10),
        ({"depth": 1}, ["a"] * 4 + ["b"] * 3 + ["lone"] * 2 + [""]),
        ({"depth": 2}, ["a/x"] * 2 + ["a/y"] * 2 + ["b/z"] * 3 + [""] * 3),
        ({"depth": 3}, [""] * 4 + ["b/z/w"] * 2 + [""] * 4),
        ({"depth": 99}, [""] * 10),
        ({"fold": ("a/?",)}, ["a/x"] * 2 + ["a/y"] * 2 + [""] * 6),
        ({"fold": ("*/z", "b")}, [""] * 4 + ["b"] * 3 + [""] * 3),
        ({"depth": 1, "unfold": ("a",)}, ["a/x"] * 2 + ["a/y"] * 2 + ["b"] * 3 + ["lone"] * 2 + [""]),
        ({"depth": 1, "unfold": ("a", "a/*")}, [""] * 4 + ["b"] * 3 + ["lone"] * 2 + [""]),
        ({"depth": 1, "unfold": ("a",), "fold": ("a/y",)}, ["a/x"] * 2 + ["a/y"] * 2 + ["b"] * 3 + ["lone"] * 2 + [""]),
    ],
)
def test_depth_fold_and_unfold(options: dict[str, object], expected: list[str]) -> None:
    assert groups(**options) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["fold", "unfold"])
def test_a_glob_without_a_group_names_the_nearest(option: str) -> None:
    with pytest.raises(SelectionError, match="no group matches 'a/q'") as error:
        groups(depth=1, **{option: ("a/q",)})
    assert "a/x" in str(error.value.hint)


@pytest.mark.corpus
def test_models_of_the_corpus_have_a_hierarchy(corpus: Path) -> None:
    found = {}
    paths = (path for path in sorted((corpus / "models").glob("*/*.onnx")) if path.parent.name != "adversarial")
    for path in paths:
        try:
            found[path.name] = max(map(len, scopes(open_model(path).graph).values()), default=0)
        except Exception:  # noqa: BLE001 - damaged on purpose
            continue
    assert sum(depth > 1 for depth in found.values()) > 15
