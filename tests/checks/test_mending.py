"""What is mended computes the same, bit by bit; what cannot be proven is left as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.checks import mending, repairs
from onnxviz.checks.mending import Mended, mend
from onnxviz.checks.subject import Options, Subject
from onnxviz.errors import OutputError
from onnxviz.runtime.session import run_model
from tests.checks.cases.given import net

_NUMBERS = ", ".join(str(number % 7) for number in range(256))


def mended(text: str, **options: object) -> Mended:
    model = ir.from_onnx_text(text)
    found = mend(Subject(model, Options(**options)))  # type: ignore[arg-type]
    onnx.checker.check_model(ir.to_proto(found.model), full_check=True)
    return found


def ops(found: Mended) -> list[str]:
    return [node.op_type for node in found.model.graph]


CASES = {
    "dead": (net("[a] h = Exp(x) [b] i = Neg(h) [c] y = Relu(x)", weights="float[2] w = {1, 2}"), ["Relu"]),
    "dead body": (
        net("[a] h = Exp(x) [i] z = If(c) <then_branch = a () => (float[2] p) {p = Neg(h)}, "
            "else_branch = b () => (float[2] q) {q = Abs(h)}> [c] y = Relu(x)", inputs="bool c, float[2] x"), ["Relu"],
    ),
    "identity": (net("[a] h = Identity(x) [b] i = Exp(h) [c] y = Identity(i)"), ["Exp"]),
    "identity of an input": (net("[a] y = Identity(x)"), ["Identity"]),
    "cast": (net("[a] h = Cast<to = 1>(x) [b] y = Exp(h)"), ["Exp"]),
    "casts": (net("[a] h = Cast<to = 11>(x) [b] i = Cast<to = 10>(h) [c] y = Cast<to = 1>(i)"), ["Cast", "Cast"]),
    "casts and back": (net("[a] h = Cast<to = 11>(x) [b] i = Cast<to = 1>(h) [c] y = Exp(i)"), ["Exp"]),
    "rounding casts": (net("[a] h = Cast<to = 10>(x) [b] y = Cast<to = 1>(h)"), ["Cast", "Cast"]),
    "transposes": (
        net("[a] t = Transpose<perm = [1, 2, 0]>(x) [r] r = Relu(t) [b] y = Transpose<perm = [2, 0, 1]>(r)",
            "float[2, 3, 4] x", "float[2, 3, 4] y"), ["Relu"],
    ),
    "transposes around numbers": (
        net("[a] t = Transpose<perm = [1, 2, 0]>(x) [r] r = Sub(k, t) [s] s = Mul(r, k) [b] y = Transpose<perm = [2, 0, 1]>(s)",
            "float[2, 3, 4] x", "float[2, 3, 4] y", "float k = {3}"), ["Sub", "Mul"],
    ),
    "transposes that turn all axes": (
        net("[a] t = Transpose(x) [b] u = Transpose(t) [c] y = Exp(u)", "float[2, 3] x", "float[2, 3] y"), ["Exp"],
    ),
    "cast like": (net("[a] h = CastLike(x, k) [b] y = Exp(h)", weights="float k = {3}"), ["Exp"]),
    "weights in nodes": (
        net(f"[u] u = Constant<value = float[256] {{{_NUMBERS}}}>() [a] h = Add(x, u) "
            f"[v] v = Constant<value = float[256] {{{_NUMBERS}}}>() [b] y = Mul(h, v)", "float[256] x", "float[256] y"),
        ["Constant", "Add", "Mul"],
    ),
    "transposes that make one": (
        net("[a] t = Transpose<perm = [1, 2, 0]>(x) [b] y = Transpose<perm = [1, 2, 0]>(t)",
            "float[2, 3, 4] x", "float[4, 2, 3] y"), ["Transpose"],
    ),
    "transpose read twice": (
        net("[a] t = Transpose<perm = [1, 0]>(x) [b] u = Transpose<perm = [1, 0]>(t) [c] y = Exp(u) [d] z = Exp(t)",
            "float[2, 3] x", "float[2, 3] y, float[3, 2] z"), ["Transpose", "Exp", "Exp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_left(name: str) -> None:
    text, left = CASES[name]
    found = mended(text)
    assert ops(found) == left
    assert found.left_out == ()
    before, after = ir.from_onnx_text(text), found.model
    assert [v.name for v in after.graph.outputs] == [v.name for v in before.graph.outputs]
    rng = np.random.default_rng(3)
    feeds = {v.name: np.array(True) if v.name == "c" else rng.standard_normal(v.shape.numpy()).astype(np.float32)
             for v in before.graph.inputs}  # fmt: skip
    one, other = run_model(before, feeds), run_model(after, feeds)
    assert all(one[key].tobytes() == other[key].tobytes() for key in one)
    assert not any("removed" in str(change) for change in mend(Subject(after)).changes), "once is enough"


def test_nodes_out_of_order_are_sorted_and_it_is_said(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(net("[a] h = Exp(x) [b] y = Neg(h)"))
    first, second = (onnx.NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([second, first])
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    found = onnxviz.mend(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert [str(change) for change in found.changes] == ["sorted the nodes, some of which stood before what they read"]
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_functions_are_mended_too() -> None:
    text = net("[k] y = l.F(x)", head=', "l": 1') + (
        '<opset_import: ["": 17], domain: "l"> F (a) => (c) { [lost] h = Exp(a) [b] e = Neg(a) [b] c = Abs(e) }'
    )
    found = mended(text)
    (function,) = found.model.functions.values()
    assert [(node.op_type, node.name) for node in function] == [("Neg", "b"), ("Abs", "b_1")]
    changes = ["named 'b' is now 'b_1'", "removed node 'lost'"]
    assert [str(change) for change in found.changes] == changes, "onnxruntime refuses it before it is named"
    assert found.proof == 1


def test_weights_are_shared() -> None:
    weights = f"float[256] a = {{{_NUMBERS}}}, float[256] b = {{{_NUMBERS}}}"
    found = mended(net("[p] h = Add(x, a) [q] y = Mul(h, b)", "float[256] x", "float[256] y", weights))
    assert list(found.model.graph.initializers) == ["a"]
    assert str(found.changes[0]) == "shared weight 'b', equal to 'a'"


def test_nodes_get_names_of_their_own() -> None:
    found = mended(net("[a] h = Exp(x) [a] i = Neg(h) j = Abs(i) y = Abs(j)"))
    assert [node.name for node in found.model.graph] == ["a", "a_1", "Abs_1", "Abs_2"]


def test_machine_paths_go() -> None:
    model = ir.from_onnx_text(net("[a] y = Relu(x)"))
    model.graph[0].metadata_props["stack_trace"] = 'File "/home/ann/net.py"'
    model.graph[0].metadata_props["namespace"] = "net/relu"
    model.doc_string = "made in /home/ann"
    found = mend(Subject(model))
    assert found.model.graph[0].metadata_props == {"namespace": "net/relu"}
    assert not found.model.doc_string
    assert model.doc_string, "the original stays as it was"


def test_functions_that_nothing_calls_go() -> None:
    text = net("[a] y = Relu(x)") + '<opset_import: ["": 17], domain: "acme"> Frob (a) => (c) { c = Relu(a) }'
    assert not mended(text).model.functions


def test_a_rewrite_that_changes_an_output_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model) -> list[str]:
        model.graph[0].op_type = "Abs"
        return ["everything"]

    monkeypatch.setattr(mending, "COMPUTING", {"ruined": wrong, **repairs.COMPUTING})
    found = mended(net("[a] y = Neg(x) [b] z = Exp(x)"))
    assert ops(found) == ["Neg"]
    assert found.left_out == ("not ruined everything: output 'y' differs",)


def test_nothing_is_proven_by_random_numbers() -> None:
    found = mended(net("[d] z = Exp(x) [r] h = RandomNormalLike(x) y = Add(x, h)"))
    assert ops(found) == ["Exp", "RandomNormalLike", "Add"]
    assert "differ" in found.left_out[0]


def test_a_model_that_cannot_be_run_keeps_its_nodes() -> None:
    text = net("[d] z = Exp(x) h = acme.Frob(x) [n] y = Neg(h)", head=', "acme": 1')
    found = mend(Subject(ir.from_onnx_text(text)))
    assert [node.op_type for node in found.model.graph] == ["Exp", "Frob", "Neg"]
    assert (found.proof, len(found.changes)) == (0, 1)
    assert "cannot be run" in found.left_out[0]


def test_the_models_of_the_project(models: Path, tmp_path: Path) -> None:
    for name in ("lenet5.onnx", "digits_cnn.onnx"):
        found = onnxviz.mend(models / name, tmp_path / name)
        assert found.left_out == ()
        feeds = Subject(models / name).inputs.feeds
        one, other = (run_model(ir.load(folder / name), feeds) for folder in (models, tmp_path))
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_the_model_itself_is_never_written(models: Path) -> None:
    with pytest.raises(OutputError, match="is the model itself"):
        onnxviz.mend(models / "lenet5.onnx", models / "lenet5.onnx")
