"""The reverse walk: paths, sums, shapes, cuts, targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import GradientError, SelectionError
from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.registry import standard_table
from onnxviz.graph.model import to_proto
from tests.gradient.numeric import compare

RNG = np.random.default_rng(0)
HEAD = '<ir_version: 8, opset_import: ["": 18]> g '


def run(made: GradientModel, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    proto = to_proto(made.model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def test_fan_out_is_summed_and_broadcasting_undone() -> None:
    text = (
        HEAD
        + """(float[N, 4] x, float[4, 3] w, float[3] b, float s) => (float[N, 3] y)
      {p = MatMul(x, w) q = Add(p, b) r = Tanh(q) z = Relu(p) t = Mul(r, z) u = Mul(t, s) y = Add(u, p)}"""
    )
    feeds = {"x": RNG.normal(size=(5, 4)), "w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=3), "s": np.array(0.7)}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    results = compare(onnx.parser.parse_model(text), feeds, "y", list(feeds))
    assert {r.name for r in results} == set(feeds)
    assert max(r.relative for r in results) < 1e-5
    wrong = standard_table().changed({("", "Tanh"): lambda s, dy: s.ops.Mul(dy, s.ops.scalar(1.001, dy))})
    assert max(r.relative for r in compare(onnx.parser.parse_model(text), feeds, "y", ["x"], table=wrong)) > 1e-3


def test_a_rule_off_by_a_thousandth_is_caught() -> None:
    text = HEAD + "(float[6] x) => (float[6] y) {y = Exp(x)}"
    feeds = {"x": RNG.normal(size=6).astype(np.float32)}
    off = standard_table().changed({("", "Exp"): lambda s, dy: s.ops.Mul(s.ops.Mul(dy, s.y), s.ops.scalar(1.001, dy))})
    assert max(r.relative for r in compare(onnx.parser.parse_model(text), feeds, "y", ["x"])) < 1e-6
    assert max(r.relative for r in compare(onnx.parser.parse_model(text), feeds, "y", ["x"], table=off)) > 3e-4


@pytest.mark.parametrize("shapes", [((2, 1, 3), (4, 1)), ((1,), (2, 3)), ((2, 3), ()), ((1, 1), (1, 1)), ((3,), (3,))])
@pytest.mark.parametrize("symbolic", [False, True])
def test_broadcasting_of_any_shapes(shapes: tuple[tuple[int, ...], ...], symbolic: bool) -> None:
    feeds = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in zip("ab", shapes, strict=True)}
    sizes = [
        f"[{', '.join(f'{name}{i}' if symbolic else str(n) for i, n in enumerate(shape))}]" if shape else ""
        for name, shape in zip("ab", shapes, strict=True)
    ]
    whole = np.broadcast_shapes(*shapes)
    out = ", ".join(f"y{i}" for i in range(len(whole)))
    text = HEAD + f"(float{sizes[0]} a, float{sizes[1]} b) => (float[{out}] y) {{y = Mul(a, b)}}"
    made = gradient_model(ir.from_onnx_text(text), "y")
    seed = RNG.normal(size=whole).astype(np.float32)
    found = run(made, {**feeds, "y.grad": seed})
    for name, other in ("ab", "ba"):
        wide = seed * feeds[other]
        shape = feeds[name].shape
        lead = wide.ndim - len(shape)
        axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1))
        np.testing.assert_allclose(found[f"{name}.grad"], wide.sum(axes).reshape(shape), rtol=1e-5, atol=1e-6)


def test_inputs_outputs_and_names_stay() -> None:
    model = ir.from_onnx_text(
        HEAD + '(float[2] x, float[2] "y.grad") => (float[2] y, float[2] z) {y = Neg(x) z = Exp(x)}'
    )
    made = gradient_model(model, "y", ["x"])
    assert [v.name for v in made.model.graph.inputs] == ["x", "y.grad", "y.grad_2"]
    assert [v.name for v in made.model.graph.outputs] == ["y", "z", "x.grad"]
    assert (made.seed, len(model.graph)) == ("y.grad_2", 2)


def test_only_the_span_is_walked_and_intermediate_tensors_may_be_asked() -> None:
    text = HEAD + "(float[2] x) => (float[2] y) {a = Round(x) b = Mul(a, a) c = Neg(b) y = Exp(c)}"
    made = gradient_model(ir.from_onnx_text(text), "c", ["b", "a"])
    assert made.cuts == ()
    found = run(made, {"x": np.float32([1.2, 3]), "c.grad": np.float32([1, 2])})
    assert (found["b.grad"].tolist(), found["a.grad"].tolist()) == ([-1, -2], [-2, -12])
    with pytest.raises(GradientError, match=r"no gradient leads from y to x: all paths are cut \(Round-11 at 'a'"):
        gradient_model(ir.from_onnx_text(text), "y")
    with pytest.raises(GradientError, match="b does not depend on it"):
        gradient_model(ir.from_onnx_text(text), "b", ["c"])


def test_a_way_of_truth_values_alone_is_told_from_none() -> None:
    text = HEAD + (
        "(float[2] x, float[2] z) => (float[2] y, float[1] n) {b = Less(x, z) f = Cast <to = 1> (b) y = Neg(f)"
        " s = Shape(x) n = Cast <to = 1> (s)}"
    )
    model = ir.from_onnx_text(text)
    with pytest.raises(GradientError, match=r"nodes such as Less at 'b' \(its result is of truth values\); ask for"):
        gradient_model(model, "y", ["x"])
    with pytest.raises(GradientError, match=r"nodes such as Shape at 's' \(it reads the shape alone\)"):
        gradient_model(model, "n", ["x"])
    with pytest.raises(GradientError, match=r"n does not depend on it; name a tensor"):
        gradient_model(model, "n", ["z"])


def test_a_seed_of_another_batch_does_not_broadcast() -> None:
    model = ir.from_onnx_text(HEAD + "(float[N, 3] x) => (float[N, 3] y) {y = Tanh(x)}")
    made = gradient_model(model, "y")
    with pytest.raises(Exception, match="y.grad has the shape of y"):
        run(made, {"x": np.ones((2, 3), np.float32), "y.grad": np.ones((1, 3), np.float32)})
    fixed = gradient_model(ir.from_onnx_text(HEAD + "(float[2, 3] x) => (float[2, 3] y) {y = Tanh(x)}"), "y")
    assert "Reshape" not in [node.op_type for node in fixed.model.graph]


def test_inputs_to_which_no_gradient_leads_are_left_out_unless_they_are_named() -> None:
    text = (
        HEAD
        + "(float[2] x, float[2] z, float[2] r) => (float[2] y, float[2] q) {f = Round(r) y = Mul(x, f) q = Neg(z)}"
    )
    made = gradient_model(ir.from_onnx_text(text), "y")
    assert (made.gradients, made.left_out) == ({"x": "x.grad"}, ("z", "r"))
    assert [str(cut) for cut in made.cuts] == ["Round-11 at 'f': it is constant between its steps"]
    with pytest.raises(GradientError, match="no gradient leads from y to z"):
        gradient_model(ir.from_onnx_text(text), "y", ["x", "z"])


@pytest.mark.parametrize(("of", "wrt", "gradients"), [
    ("y", ["y"], {"y": "y.grad_2"}), ("x", ["x"], {"x": "x.grad_2"}), ("y", ["x", "x"], {"x": "x.grad"}),
])  # fmt: skip
def test_a_tensor_with_respect_to_itself_and_twice_the_same(of: str, wrt: list[str], gradients: dict[str, str]) -> None:
    made = gradient_model(ir.from_onnx_text(HEAD + "(float[2] x) => (float[2] y) {y = Neg(x)}"), of, wrt)
    assert made.gradients == gradients
    found = run(made, {"x": np.ones(2, np.float32), f"{of}.grad": np.float32([1, 2])})[next(iter(gradients.values()))]
    assert found.tolist() == ([1, 2] if wrt == [of] else [-1, -2])


def test_what_is_cut_is_reported_where_another_path_is_open() -> None:
    text = HEAD + "(float[2] x) => (float[2] y) {a = Floor(x) y = Mul(a, x)}"
    made = gradient_model(ir.from_onnx_text(text), "y")
    assert [(cut.op_type, cut.version, cut.tensor) for cut in made.cuts] == [("Floor", 13, "x")]
    assert run(made, {"x": np.float32([1.5, 2.5]), "y.grad": np.float32([1, 1])})["x.grad"].tolist() == [1, 2]


def test_an_operator_without_a_rule_is_named() -> None:
    text = '<ir_version: 8, opset_import: ["": 18, "my.ops": 1]> g ' + (
        "(float[2] x) => (float[2] y) {a = my.ops.Twist(x) b = Add(a, x) y = Neg(b)}"
    )
    with pytest.raises(GradientError, match=r"no gradient rule for my.ops::Twist \(version 1\).*at 'a'; --allow-cut"):
        gradient_model(ir.from_onnx_text(text), "y")
    made = gradient_model(ir.from_onnx_text(text), "y", allow_cut=True)
    assert [cut.op_type for cut in made.cuts] == ["my.ops::Twist"]


def test_the_gradient_of_a_gradient() -> None:
    model = ir.from_onnx_text(HEAD + "(float[3] x) => (float[3] y) {s = Sigmoid(x) y = Mul(s, x)}")
    once = gradient_model(model, "y")
    twice = gradient_model(once.model, "x.grad", ["x"])
    x = np.float32([-1, 0.5, 2])
    ones = np.ones(3, np.float32)
    found = run(twice, {"x": x, "y.grad": ones, "x.grad.grad": ones})["x.grad_2"]
    s = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(found, s * (1 - s) * (2 + x * (1 - 2 * s)), rtol=1e-5)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("y[:, 1]", lambda y: np.eye(3)[[1, 1]]),
        ("y[argmax]", lambda y: np.eye(3)[y.argmax(1)]),
        ("y[:, argmax]", lambda y: np.eye(3)[y.argmax(1)]),
        ("y[..., -1]", lambda y: np.eye(3)[[2, 2]]),
        ("sum(y[:, ::2])", lambda y: np.array([[1, 0, 1]] * 2)),
        ("sum(y[:, ::-1])", lambda y: np.ones((2, 3))),
        ("2 * y[:, 0] - y[:, 2] / 4", lambda y: np.array([[2, 0, -0.25]] * 2)),
        ("-mean(y ** 2)", lambda y: -2 * y / 3),
        ("norm(y)", lambda y: y / np.linalg.norm(y, axis=1, keepdims=True)),
        ("cross_entropy(y, [2, 0])", lambda y: softmax(y) - np.eye(3)[[2, 0]]),
        ("cross_entropy(y, labels)", lambda y: softmax(y) - np.eye(3)[[1, 0]]),
        ("mse(y, wanted)", lambda y: 2 / 3 * (y - 1)),
        ("mse(y, 1)", lambda y: 2 / 3 * (y - 1)),
        ("'y'[0, 1]", lambda y: np.array([[0, 1, 0], [0, 0, 0]])),
    ],
)
def test_targets(expression: str, expected: Any) -> None:
    model = ir.from_onnx_text(HEAD + "(float[N, 3] x) => (float[N, 3] y) {y = Identity(x)}")
    made = gradient_model(model, target=expression, wrt=["x"])
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    given = {"x": x, "labels": np.int64([1, 0]), "wanted": np.ones((2, 3), np.float32)}
    inputs = {str(v.name) for v in made.model.graph.inputs}
    assert made.seed is None
    found = run(made, {name: array for name, array in given.items() if name in inputs})
    np.testing.assert_allclose(found["x.grad"], expected(x.astype(np.float64)), rtol=1e-5, atol=1e-6)


def softmax(y: np.ndarray) -> np.ndarray:
    e = np.exp(y - y.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


@pytest.mark.parametrize(
    ("expression", "error", "message"),
    [
        ("y", GradientError, r"gives a tensor of shape \[N,3\], not a number for each sample; take one entry"),
        ("z[:, 0]", SelectionError, "the model has no tensor 'z'"),
        ("y[:, 'a']", GradientError, "is no index"),
        ("__import__('os')", GradientError, "there is no __import__ of 1 arguments"),
        ("y.shape", GradientError, "it has 'y.shape'"),
        ("y[", GradientError, "is no target; write such as"),
        ("1 + 2", GradientError, "it names no tensor"),
        ("lambda: 0", GradientError, "it has 'lambda: 0'"),
    ],
)
def test_what_is_no_target(expression: str, error: type[Exception], message: str) -> None:
    model = ir.from_onnx_text(HEAD + "(float[N, 3] x) => (float[N, 3] y) {y = Identity(x)}")
    with pytest.raises(error, match=message):
        gradient_model(model, target=expression)


def test_bad_names() -> None:
    model = ir.from_onnx_text(HEAD + "(float[3] x) => (float[3] y, int64[1] n) {y = Neg(x) n = Shape(x)}")
    with pytest.raises(SelectionError, match="no tensor 'q'"):
        gradient_model(model, "q")
    with pytest.raises(SelectionError, match="n is of type INT64, which has no gradient"):
        gradient_model(model, "n")
    with pytest.raises(GradientError, match="nothing is differentiated"):
        gradient_model(model)
    with pytest.raises(GradientError, match="no tensor is named whose gradient is asked for"):
        gradient_model(model, "y", [])


def test_a_node_that_lacks_an_input_is_refused() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 18]>
      g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {y = Conv (x)}""")
    with pytest.raises(GradientError, match=r"Conv-11 at 'y': it has no input 1"):
        gradient_model(model, "y")


def test_a_seed_of_other_sizes_and_as_many_elements_is_refused() -> None:
    model = ir.from_onnx_text(HEAD + "(float[N, M] x) => (float[N, M] y) {y = Tanh (x)}")
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(to_proto(gradient_model(model, "y").model).SerializeToString(), settings)
    feeds = {"x": np.zeros((3, 2), np.float32)}
    np.testing.assert_array_equal(session.run(["x.grad"], {**feeds, "y.grad": np.ones((3, 2), np.float32)})[0], 1)
    with pytest.raises(Exception, match=r"y\.grad has the shape of y"):
        session.run(["x.grad"], {**feeds, "y.grad": np.ones((2, 3), np.float32)})
