"""Shapes, indices and products: open sizes, attributes that the node tests lack, PyTorch as a second opinion."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.registry import standard_table
from onnxviz.graph.model import to_proto
from tests.gradient.numeric import compare
from tests.gradient.test_engine import run

RNG = np.random.default_rng(2)
HEAD = '<ir_version: 10, opset_import: ["": %d]> g '


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


# name: inputs and their sizes (letters are open), the output, constants, nodes, inputs of integers
CASES: dict[str, tuple[dict[str, str], str, str, dict[str, Any], str]] = {
    "Slice between": ({"x": "A,B"}, "P,Q", "y = Slice(x, b, e, a)", {"b": [1, -3], "e": [-1, 99], "a": [0, 1]}, ""),
    "Slice backwards": (
        {"x": "A,B"}, "P,Q", "y = Slice(x, b, e, a, t)",
        {"b": [-1, 9], "e": [-99, 0], "a": [-1, 0], "t": [-2, -1]}, "",
    ),
    "Slice strided": ({"x": "A,B"}, "P,Q", "y = Slice(x, b, e, a, t)", {"b": [1], "e": [9], "a": [1], "t": [2]}, ""),
    "Slice of what an input says": (
        {"x": "A,B"}, "P,Q", "n = Shape<start = 0, end = 1>(x) h = Div(n, t) y = Slice(x, h, n, a)",
        {"t": [2], "a": [0]}, "",
    ),
    "Slice of nothing": ({"x": "A,B"}, "P,Q", "z = Slice(x, b, e) y = Concat<axis = 0>(z, x)", {"b": [3], "e": [1]}, ""),
    "Gather last": ({"x": "A,B"}, "P", "y = Gather<axis = 1>(x, i)", {"i": -1}, ""),
    "Gather first of a vector": ({"x": "A,B"}, "P,Q", "y = Gather<axis = 0>(x, i)", {"i": [2]}, ""),
    "Gather middle, twice": (
        {"x": "A,B,C"}, "P,Q,R,S", "y = Gather<axis = 1>(x, i)", {"i": [[0, 1, 1], [1, 0, -1]]}, "",
    ),
    "GatherND of a batch": ({"x": "A,B,C"}, "P,Q,R", "y = GatherND<batch_dims = 1>(x, i)", {"i": [[[0], [1]]] * 3}, ""),
    "ScatterElements, product": (
        {"x": "A,B", "u": "2,2"}, "P,Q", 'y = ScatterElements<axis = 1, reduction = "mul">(x, i, u)',
        {"i": [[0, 0], [1, 0]]}, "",
    ),
    "ScatterND, largest": (
        {"x": "A,B", "u": "2,B"}, "P,Q", 'y = ScatterND<reduction = "max">(x, i, u)', {"i": [[0], [0]]}, "",
    ),
    "Pad reflected": ({"x": "A,B"}, "P,Q", 'y = Pad<mode = "reflect">(x, p)', {"p": [2, 0, 1, 2]}, ""),
    "Pad edges of an axis": ({"x": "A,B"}, "P,Q", 'y = Pad<mode = "edge">(x, p, , a)', {"p": [2, 3], "a": [-1]}, ""),
    "Pad around": ({"x": "A,B"}, "P,Q", 'y = Pad<mode = "wrap">(x, p)', {"p": [1, 2, 2, 0]}, ""),
    "Pad less": ({"x": "A,B", "c": ""}, "P,Q", "y = Pad(x, p, c)", {"p": [-1, 2, 1, -1]}, ""),
    "Tile": ({"x": "A,B"}, "P,Q", "y = Tile(x, r)", {"r": [2, 3]}, ""),
    "Expand": ({"x": "A,1"}, "P,Q,R", "y = Expand(x, r)", {"r": [2, 1, 4]}, ""),
    "Concat and Split": (
        {"x": "A,B", "u": "A,C"}, "P,Q",
        "j = Concat<axis = -1>(x, u) p, q, r = Split<axis = 1, num_outputs = 3>(j) y = Mul(p, q)", {}, "",
    ),
    "Squeeze and Unsqueeze": ({"x": "A,B"}, "P,Q", "u = Unsqueeze(x, a) v = Exp(u) y = Squeeze(v, a)", {"a": [0, -1]}, ""),
    "Flatten": ({"x": "A,B,C"}, "P,Q", "f = Flatten<axis = 2>(x) y = Exp(f)", {}, ""),
    "Transpose": ({"x": "A,B,C"}, "P,Q,R", "y = Transpose<perm = [2, 0, 1]>(x)", {}, ""),
    "TopK smallest": ({"x": "A,B"}, "P,Q", "y, i = TopK<axis = 0, largest = 0>(x, k)", {"k": [2]}, ""),
    "Trilu": ({"x": "A,B"}, "P,Q", "y = Trilu<upper = 0>(x, k)", {"k": 1}, ""),
    "Compress": ({"x": "A,B"}, "P,Q", "b = Cast<to = 9>(c) y = Compress<axis = 1>(x, b)", {"c": [0, 1, 1]}, ""),
    "CumProd": ({"x": "A,B"}, "P,Q", "y = CumProd<reverse = 1>(x, a)", {"a": 1}, ""),
    "MatMul of a batch and a matrix": ({"x": "A,B,C", "w": "C,D"}, "P,Q,R", "y = MatMul(x, w)", {}, ""),
    "MatMul broadcast": ({"x": "A,1,B,C", "w": "D,C,B"}, "P,Q,R,S", "y = MatMul(x, w)", {}, ""),
    "MatMul row": ({"x": "C", "w": "A,C,B"}, "P,Q", "y = MatMul(x, w)", {}, ""),
    "MatMul column": ({"x": "A,B,C", "w": "C"}, "P,Q", "y = MatMul(x, w)", {}, ""),
    "MatMul dot": ({"x": "A", "w": "A"}, "", "y = MatMul(x, w)", {}, ""),
    "Gemm turned": (
        {"x": "A,B", "w": "C,A", "c": "C"}, "P,Q",
        "y = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(x, w, c)", {}, "",
    ),
    "Gemm plain": ({"x": "A,B", "w": "B,C", "c": "A,1"}, "P,Q", "y = Gemm<alpha = 0.5, beta = 0.3>(x, w, c)", {}, ""),
    "Gemm half": ({"x": "A,B", "w": "B,C"}, "P,Q", "y = Gemm<transA = 0>(x, w)", {}, ""),
    "Einsum three": (
        {"x": "A,B", "w": "B,C", "u": "C"}, "P,Q", 'y = Einsum<equation = "ij,jk,k->ki">(x, w, u)', {}, "",
    ),
    "Einsum summed away": ({"x": "A,B,C", "w": "A"}, "P", 'y = Einsum<equation = "abc,a->a">(x, w)', {}, ""),
    "Einsum implicit": ({"x": "A,B", "w": "B,C"}, "P,Q", 'y = Einsum<equation = " ij , jk ">(x, w)', {}, ""),
    "Einsum diagonal": ({"x": "A,B,A"}, "P,Q", 'y = Einsum<equation = "iji->ji">(x)', {}, ""),
    "Einsum trace": ({"x": "A,A", "w": "B"}, "P", 'y = Einsum<equation = "ii,j->j">(x, w)', {}, ""),
    "Einsum ellipsis": (
        {"x": "A,B,C", "w": "A,C,D"}, "P,Q,R", 'y = Einsum<equation = "...ij,...jk->...ki">(x, w)', {}, "",
    ),
    "Einsum of a size of 1": ({"x": "A,B", "w": "1,C"}, "P,Q,R", 'y = Einsum<equation = "...i,...k->...ki">(x, w)', {}, ""),
    "Range": ({"x": "A"}, "P", "s = ReduceMean<keepdims = 0>(x) t = Add(s, c) u = Mul(s, s) y = Range(s, t, d)",
              {}, "<float c = {5.2}, float d = {1}>"),
}  # fmt: skip
SIZES = [dict(zip("ABCD", sizes, strict=True)) for sizes in ((3, 3, 2, 4), (3, 3, 2, 1), (5, 3, 4, 2))]


def case(name: str, sizes: dict[str, int] | None) -> str:
    """Return the text of a model; with sizes they are written into it."""
    inputs, output, body, constants, more = CASES[name]

    def shape(text: str) -> str:
        parts = [str(sizes[part]) if sizes and part in sizes else part for part in text.split(",")] if text else []
        return f"[{', '.join(parts)}]" if parts else ""

    declared = ", ".join(f"float{shape(text)} {name}" for name, text in inputs.items())
    held = []
    for key, numbers in constants.items():
        array = np.asarray(numbers)
        dims = f"[{', '.join(map(str, array.shape))}]" if array.ndim else ""
        held.append(f"int64{dims} {key} = {{{', '.join(map(str, array.ravel()))}}}")
    listed = f"<{', '.join(held)}>" if held else more
    out = f"float{'[' + output.replace(',', ', ') + ']' if output else ''} y"
    opset = 26 if "CumProd" in body else 19
    return HEAD % opset + f"({declared}) => ({out}) {listed} {{{body}}}"


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("known", [False, True])
def test_gradients_with_open_and_with_known_sizes(name: str, known: bool) -> None:
    for sizes in SIZES if not known else SIZES[:1]:
        if "of a batch" in name and sizes["A"] != 3:
            continue
        feeds = {
            key: floats(*(sizes.get(part) or int(part) for part in text.split(",") if text))
            for key, text in CASES[name][0].items()
        }
        model = onnx.parser.parse_model(case(name, sizes if known else None))
        results = compare(model, feeds, "y", list(feeds))
        assert max(result.relative for result in results) < 1e-3, (sizes, results)


@pytest.mark.parametrize("attributes", ["", "<exclusive = 1>", "<reverse = 1>", "<exclusive = 1, reverse = 1>"])
def test_running_products_with_zeros(attributes: str) -> None:
    text = HEAD % 26 + f"(float[4, 5] x) => (float[4, 5] y) <int64 a = {{1}}> {{y = CumProd{attributes}(x, a)}}"
    x = floats(4, 5)
    x[0, 2] = x[1, 0] = x[1, 3] = x[2, 4] = x[3, 1] = x[3, 2] = 0
    results = compare(onnx.parser.parse_model(text), {"x": x}, "y", ["x"], directions=4)
    assert max(result.relative for result in results) < 1e-4


def test_what_is_known_takes_no_look_at_run_time() -> None:
    for name in CASES:
        if name in ("Slice of what an input says", "CumProd", "Range"):
            continue
        made = gradient_model(ir.from_onnx_text(case(name, SIZES[0])), "y")
        looks = [node for node in made.model.graph if node.op_type == "Shape"]
        seed = ("y", "y.grad")  # the shape of the seed is compared with that of y
        assert not [node for node in looks if node.inputs[0].name not in seed], name


def test_rank_is_not_needed_where_positions_are_traced() -> None:
    text = HEAD % 18 + "(float[A, B] x, int64[R] s) => (float y) <int64[1] i = {1}> " + (
        "{r = Reshape(x, s) a = Gather<axis = 1>(r, i) b = Slice(r, i, i, i) c = Tile(r, s) d = MatMul(r, r)"
        " e = ReduceSum<keepdims = 0>(c) f = ReduceSum<keepdims = 0>(d) g = ReduceSum<keepdims = 0>(a) h = Add(e, f)"
        " k = ReduceSum<keepdims = 0>(b) l = Add(h, k) y = Add(g, l)}"
    )  # fmt: skip
    x = floats(2, 2)
    results = compare(onnx.parser.parse_model(text), {"x": x, "s": np.int64([2, 2])}, "y", ["x"])
    assert max(result.relative for result in results) < 1e-5


@pytest.mark.parametrize("ops", ["Slice", "Gather", "Einsum", "ScatterElements", "CumProd", "Gemm", "MatMul"])
def test_a_thousandth_too_much_is_seen(ops: str) -> None:
    name = next(n for n in CASES if n.startswith(ops))
    table = standard_table()
    right = table.rows["", ops][-1].rule

    def wrong(s: Any, *grads: Any) -> Any:
        made = right(s, *grads)
        first = made[0] if isinstance(made, tuple) else made
        return (s.ops.Mul(first, s.ops.scalar(1.001, grads[0])), *(made[1:] if isinstance(made, tuple) else ()))

    feeds = {
        key: floats(*(SIZES[0].get(part) or int(part) for part in text.split(",") if text))
        for key, text in CASES[name][0].items()
    }
    model = onnx.parser.parse_model(case(name, None))
    measured = [compare(model, feeds, "y", ["x"], table=t) for t in (table, table.changed({("", ops): wrong}))]
    good, bad = (max(result.relative for result in results) for results in measured)
    assert good < 1e-5 < 1e-4 < bad


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_losses_are_those_of_pytorch(reduction: str, weighted: bool, ignored: bool) -> None:
    torch = pytest.importorskip("torch")
    attributes = f'reduction = "{reduction}"' + (", ignore_index = -7" if ignored else "")
    out = "float[N, L] y" if reduction == "none" else "float y"
    weight = ", float[5] w" if weighted else ""
    text = HEAD % 18 + (
        f"(float[N, 5, L] x, int64[N, L] t{weight}) => ({out})"
        f"{{y = SoftmaxCrossEntropyLoss<{attributes}>(x, t{', w' if weighted else ''})}}"
    )
    x, labels, weights = floats(3, 5, 4), RNG.integers(0, 5, (3, 4)), np.abs(floats(5)) + 0.1
    if ignored:
        labels[0, 1:3] = -7
    given = torch.tensor(x, requires_grad=True)
    heavy = torch.tensor(weights) if weighted else None
    loss = torch.nn.functional.cross_entropy(
        given, torch.tensor(labels), heavy, reduction=reduction, **({"ignore_index": -7} if ignored else {})
    )
    seed = floats(*loss.shape)
    loss.backward(torch.tensor(seed))
    wrt = ["x", "w"] if weighted else ["x"]
    feeds = {"x": x, "t": labels, "y.grad": seed, **({"w": weights} if weighted else {})}
    found = run(gradient_model(ir.from_onnx_text(text), "y", wrt), feeds)
    np.testing.assert_allclose(found["x.grad"], given.grad.numpy(), rtol=1e-4, atol=1e-6)
    # PyTorch gives no gradient of class weights: central differences in double precision do
    if weighted:
        results = compare(onnx.parser.parse_model(text), {"x": x, "t": labels, "w": weights}, "y", ["w"])
        assert max(result.relative for result in results) < 1e-4


@pytest.mark.parametrize(("dtype", "kind"), [("float16", np.float16), ("double", np.float64)])
def test_other_precisions(dtype: str, kind: type) -> None:
    text = HEAD % 18 + f"({dtype}[4, 6] x, {dtype}[3, 5] w) => ({dtype}[4, 5] y)" + (
        "<int64[2] i = {2, 0}, int64[1] b = {1}, int64[1] e = {9}, int64[1] a = {1}, int64[1] t = {2}>"
        "{p = Slice(x, b, e, a, t) q = Gemm(p, w) g = Gather<axis = 0>(q, i) h = Concat<axis = 0>(g, g) y = Mul(h, q)}"
    )  # fmt: skip
    x, w = floats(4, 6), floats(3, 5)
    seed = floats(4, 5)
    found = run(gradient_model(ir.from_onnx_text(text), "y"), {"x": x.astype(kind), "w": w.astype(kind),
                                                              "y.grad": seed.astype(kind)})  # fmt: skip
    single = run(gradient_model(ir.from_onnx_text(text.replace(dtype, "float")), "y"), {"x": x, "w": w, "y.grad": seed})
    for name in ("x.grad", "w.grad"):
        assert found[name].dtype == kind
        scale = np.abs(single[name]).max()
        np.testing.assert_allclose(found[name], single[name], atol=(5e-3 if kind is np.float16 else 1e-5) * scale)


def test_the_gradient_of_a_gradient_of_indices_and_products() -> None:
    text = HEAD % 18 + (
        "(float[3, 4] x, float[4, 4] w) => (float s) <int64[2] i = {2, 0}, int64[1] b = {1}, int64[1] e = {3}>"
        '{p = MatMul(x, w) g = Gather<axis = 1>(p, i) q = Slice(g, b, e) r = Einsum<equation = "ij,ij->i">(q, q)'
        " t = Mul(r, r) s = ReduceSum<keepdims = 0>(t)}"
    )
    once = gradient_model(ir.from_onnx_text(text), "s", ["x"])
    proto = to_proto(once.model)
    x, w = floats(3, 4), floats(4, 4)
    kept = [o for o in proto.graph.output if o.name == "x.grad"]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    results = compare(proto, {"x": x, "w": w, "s.grad": np.float32(1)}, "x.grad", ["x", "w"])
    assert max(result.relative for result in results) < 1e-4


def test_forms_that_are_refused_name_themselves() -> None:
    text = HEAD % 18 + (
        '(float[A, B] x, int64[R] s) => (float[P] y) {r = Reshape(x, s) y = Einsum<equation = "...i->i">(r)}'
    )
    with pytest.raises(GradientError, match=r"no gradient of Einsum-12 at 'y': the rank of input 0 is not known"):
        gradient_model(ir.from_onnx_text(text), "y", ["x"])
    with pytest.raises(GradientError, match="no gradient leads from y to x"):
        gradient_model(ir.from_onnx_text(text), "y", ["x"], allow_cut=True)
