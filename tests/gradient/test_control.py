"""If, Loop and Scan against central differences in double precision, PyTorch, and themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.registry import Table, standard_table
from onnxviz.graph.expose import expose
from onnxviz.graph.io import open_model
from onnxviz.graph.model import from_proto, to_proto
from onnxviz.graph.shapes import model_inputs

HEAD = '<ir_version: 8, opset_import: ["": 18]> g '
TRUE = np.array(True)


def parse(text: str) -> onnx.ModelProto:
    """Return a model in double precision."""
    return onnx.parser.parse_model(HEAD + text)


def run(proto: onnx.ModelProto, names: list[str], feeds: dict[str, Any]) -> list[np.ndarray]:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()}
    return [np.asarray(r) for r in session.run(names, {n: np.asarray(a) for n, a in feeds.items() if n in given})]


def made(text: str, of: str, wrt: list[str] | None = None, **options: Any) -> tuple[GradientModel, onnx.ModelProto]:
    result = gradient_model(from_proto(parse(text)), of, wrt, **options)
    proto = to_proto(result.model)
    onnx.checker.check_model(proto, full_check=True)
    return result, proto


def worst(text: str, of: str, feeds: dict[str, Any], table: Table | None = None) -> float:
    """Return the largest relative error of a directional derivative."""
    wrt = [name for name, array in feeds.items() if array.dtype == np.float64]
    result, proto = made(text, of, wrt, table=table)
    rng, forward, errors = np.random.default_rng(3), parse(text), []
    seed = rng.normal(size=run(forward, [of], feeds)[0].shape)
    found = dict(zip(wrt, run(proto, list(result.gradients.values()), {**feeds, str(result.seed): seed}), strict=True))
    for name in wrt:
        v, h = rng.normal(size=feeds[name].shape), 1e-5
        ahead, behind = (run(forward, [of], {**feeds, name: feeds[name] + s * h * v})[0] for s in (1, -1))
        measured, terms = float((seed * (ahead - behind)).sum() / (2 * h)), found[name] * v
        assert found[name].shape == feeds[name].shape
        errors.append(abs(terms.sum() - measured) / max(np.abs(terms).sum(), abs(measured), 1e-6))
    return float(max(errors))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


LOOP = """(double[N, 2] x, double[2] s, int64 n, bool c) => (double[2] q, double[M, 2] z) {
  q, z = Loop(n, c, s) <body = b (int64 i, bool ci, double[2] v) => (bool co, double[2] w, double[2] o) {
    co = Identity(ci) r = Gather(x, i) p = Mul(v, r) w = Sin(p) o = Mul(w, v)}>}"""
STOPPED = """(double[2] s, double[2] k, int64 n, bool c) => (double[2] q) {
  q = Loop(n, c, s) <body = b (int64 i, bool ci, double[2] v) => (bool co, double[2] w) {
    p = Mul(v, k) w = Add(p, v) t = ReduceSum <keepdims = 0> (w) l = Constant <value = double {20}> () co = Less(t, l)
  }>}"""
SCAN = """(double[N, 2] x, double[2] s, double[2] w) => (double[2] y, double[M, 2] z) {
  y, z = Scan <num_scan_inputs = 1, body = b (double[2] a, double[2] r) => (double[2] d, double[2] e) {
    k = Tanh(a) l = Mul(k, w) d = Add(l, r) e = Mul(a, d)}>(s, x)}"""
TURNED = """(double[4, 3] x, double[2, 3] u, double[2] s, double[2] v) => (double[2] y, double[2] q, double[2, 3] z) {
  y, q, z = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1], scan_input_directions = [1, 0],
    scan_output_axes = [1], scan_output_directions = [1],
    body = b (double[2] a, double[2] a2, double[4] r, double[2] p) => (double[2] d, double[2] d2, double[2] e) {
      f, g = Split <num_outputs = 2> (r) h = Mul(f, a) d = Sin(h) i = Mul(a2, d) d2 = Add(i, p) e = Mul(a2, g)
    }>(s, v, x, u)}"""
BRANCH = """(double[2] x, double[2] w, bool c) => (double[2] y) {
  y = If(c) <then_branch = a () => (double[2] p) {p = Mul(x, w)}, else_branch = b () => (double[2] q) {q = Sin(x)}>}"""
NESTED = """(double[2] x, double[2] w, int64 n, bool c, bool b) => (double[2] y) {
  h = Mul(x, w)
  q = Loop(n, c, x) <body = l (int64 i, bool ci, double[2] v) => (bool co, double[2] u) {
    co = Identity(ci)
    k = Loop(n, , v) <body = m (int64 i2, bool ci2, double[2] v2) => (bool co2, double[2] u2) {
      co2 = Identity(ci2) o = Mul(v2, h) u2 = Sin(o)}>
    u = If(b) <then_branch = e () => (double[2] p) {p = Mul(k, h)}, else_branch = f () => (double[2] p2) {p2 = Cos(k)}>
  }>
  y = Mul(q, h)}"""


@pytest.mark.parametrize(("text", "outputs", "feeds"), [
    (LOOP, "qz", {"x": numbers(5, 2), "s": numbers(2), "n": np.int64(4), "c": TRUE}),
    (LOOP, "qz", {"x": numbers(5, 2), "s": numbers(2), "n": np.int64(1), "c": TRUE}),
    (LOOP, "qz", {"x": numbers(5, 2), "s": numbers(2), "n": np.int64(0), "c": TRUE}),
    (LOOP, "qz", {"x": numbers(5, 2), "s": numbers(2), "n": np.int64(3), "c": ~TRUE}),
    (STOPPED, "q", {"s": np.array([1.0, 2]), "k": np.array([0.5, 0.7]), "n": np.int64(99), "c": TRUE}),
    (SCAN, "yz", {"x": numbers(5, 2), "s": numbers(2), "w": numbers(2)}),
    (SCAN, "yz", {"x": numbers(1, 2), "s": numbers(2), "w": numbers(2)}),
    (TURNED, "qz", {"x": numbers(4, 3), "u": numbers(2, 3, seed=1), "s": numbers(2), "v": numbers(2, seed=2)}),
    (BRANCH, "y", {"x": numbers(2), "w": numbers(2, seed=1), "c": TRUE}),
    (BRANCH, "y", {"x": numbers(2), "w": numbers(2, seed=1), "c": ~TRUE}),
    (NESTED, "y", {"x": numbers(2), "w": numbers(2, seed=1), "n": np.int64(3), "c": TRUE, "b": TRUE}),
    (NESTED, "y", {"x": numbers(2), "w": numbers(2, seed=1), "n": np.int64(2), "c": TRUE, "b": ~TRUE}),
])  # fmt: skip
def test_against_central_differences(text: str, outputs: str, feeds: dict[str, Any]) -> None:
    assert max(worst(text, of, feeds) for of in outputs) < 1e-6


@pytest.mark.parametrize("text", [LOOP, SCAN])
def test_an_error_of_a_thousandth_in_a_body_is_caught(text: str) -> None:
    op = "Sin" if text is LOOP else "Tanh"
    rule = standard_table().rows["", op][0].rule
    off = standard_table().changed({("", op): lambda s, dy: s.ops.Mul(rule(s, dy), s.ops.scalar(1.001, dy))})
    feeds = {"x": numbers(5, 2), "s": numbers(2), "w": numbers(2), "n": np.int64(4), "c": TRUE}
    feeds = {name: array for name, array in feeds.items() if name in {v.name for v in parse(text).graph.input}}
    assert worst(text, "z", feeds) < 1e-6
    assert worst(text, "z", feeds, off) > 1e-4


def test_a_loop_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    feeds = {"x": numbers(5, 2), "s": numbers(2), "n": np.int64(4), "c": TRUE}
    x, state = (torch.tensor(feeds[name], requires_grad=True) for name in "xs")
    value = state
    for step in range(4):
        value = torch.sin(value * x[step])
    value.sum().backward()
    result, proto = made(LOOP, "q")
    found = run(proto, list(result.gradients.values()), {**feeds, "q.grad": np.ones(2)})
    np.testing.assert_allclose(found[0], x.grad, rtol=1e-12)
    np.testing.assert_allclose(found[1], state.grad, rtol=1e-12)


@pytest.mark.parametrize(("text", "feeds"), [
    (SCAN, {"x": numbers(4, 2), "s": numbers(2), "w": numbers(2, seed=1)}),
    (LOOP, {"x": numbers(4, 2), "s": numbers(2), "n": np.int64(3), "c": TRUE}),
    (BRANCH, {"x": numbers(2), "w": numbers(2, seed=1), "c": TRUE}),
])  # fmt: skip
def test_the_gradient_of_a_gradient(text: str, feeds: dict[str, Any]) -> None:
    of = parse(text).graph.output[-1].name
    once, first = made(text, of, ["x"])
    twice = gradient_model(once.model, "x.grad", ["x"])
    proto = to_proto(twice.model)
    rng = np.random.default_rng(4)
    seed, v, u = rng.normal(size=run(parse(text), [of], feeds)[0].shape), *rng.normal(size=(2, *feeds["x"].shape))
    given = {**feeds, str(once.seed): seed}
    found = run(proto, [twice.gradients["x"]], {**given, str(twice.seed): u})[0]
    h = 1e-5
    ahead, behind = (run(first, ["x.grad"], {**given, "x": feeds["x"] + s * h * v})[0] for s in (1, -1))
    measured = float((u * (ahead - behind)).sum() / (2 * h))
    assert abs(float((found * v).sum()) - measured) < 1e-6 * max(1, abs(measured))


def test_only_what_is_needed_is_kept() -> None:
    """A state that enters its own gradient nowhere has no tape; one that does has one."""
    linear = SCAN.replace("k = Tanh(a)", "k = Identity(a)")
    for text, tapes in ((linear, 0), (SCAN, 1)):
        result, _ = made(text, "y", ["x"])
        forward = next(node for node in result.model.graph if node.op_type == "Scan")
        assert len(forward.outputs) == 2 + tapes


def test_tensors_in_bodies_may_be_asked() -> None:
    """Their gradients have one entry an iteration, in the order of the iterations."""
    for text, name, feeds in (
        (SCAN, "k", {"x": numbers(4, 2), "s": numbers(2), "w": numbers(2, seed=1)}),
        (LOOP, "r", {"x": numbers(4, 2), "s": numbers(2), "n": np.int64(4), "c": TRUE}),
    ):
        whole = made(text, parse(text).graph.output[0].name, [name, "x"])
        seed = numbers(2, seed=5)
        found = run(whole[1], list(whole[0].gradients.values()), {**feeds, str(whole[0].seed): seed})
        assert found[0].shape == (4, 2)
        if name == "r":  # what is read of x in each iteration
            np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
        else:  # l = k w, d = l + x: the gradient of d is that of x
            np.testing.assert_allclose(found[0], found[1] * feeds["w"], rtol=1e-12)


def test_what_is_refused_and_cut() -> None:
    growing = """(double[2] s, double[2] k, int64 n, bool c) => (double[M] q) {
      q = Loop(n, c, s) <body = b (int64 i, bool ci, double[2] v) => (bool co, double[4] w) {
        co = Identity(ci) p = Mul(v, v) w = Concat <axis = 0> (p, k)}>}"""
    with pytest.raises(GradientError, match="Loop-.*the shape of its state 'v' changes from iteration to iteration"):
        gradient_model(from_proto(parse(growing)), "q", ["k", "s"])
    with pytest.raises(GradientError, match="w lies in the body of a node.*differentiate an output of that node"):
        gradient_model(from_proto(parse(LOOP)), "w", ["x"])
    rounded = BRANCH.replace("Sin", "Round")
    result, proto = made(rounded, "y", ["x"])
    assert [cut.op_type for cut in result.cuts] == ["Round"]
    feeds = {"x": numbers(2), "w": numbers(2, seed=1), "y.grad": np.ones(2)}
    assert run(proto, ["x.grad"], {**feeds, "c": ~TRUE})[0].tolist() == [0, 0]
    np.testing.assert_allclose(run(proto, ["x.grad"], {**feeds, "c": TRUE})[0], feeds["w"])


@pytest.mark.parametrize("opset", [13, 16, 19, 21, 24, 26])
@pytest.mark.parametrize(("text", "of"), [(LOOP, "z"), (SCAN, "z"), (BRANCH, "y")])
def test_every_version(opset: int, text: str, of: str) -> None:
    """What is written for one version is what is written for all, and runs in each."""
    feeds = {"x": numbers(5, 2), "s": numbers(2), "w": numbers(2), "n": np.int64(4), "c": TRUE}
    feeds["x"] = numbers(2) if text is BRANCH else feeds["x"]
    found = []
    for version in (18, opset):
        model = onnx.parser.parse_model(HEAD.replace('"": 18', f'"": {version}') + text)
        result = gradient_model(from_proto(model), of, ["x"])
        proto = to_proto(result.model)
        onnx.checker.check_model(proto, full_check=True)
        seed = numbers(*run(model, [of], feeds)[0].shape, seed=3)
        found.append(run(proto, ["x.grad"], {**feeds, str(result.seed): seed})[0])
    np.testing.assert_array_equal(*found)


CORPUS = [
    ("controlflow_functions/loop_sub_one.onnx", None),
    ("controlflow_functions/gh_issue_9671.onnx", None),
    ("contrib_ops/crop_and_resize.onnx", None),
    ("controlflow_functions/mobilenet_v3_small_excerpt.onnx", None),
    ("rnn/point_history_classifier_lstm.onnx", "Softmax"),
]


@pytest.mark.corpus
@pytest.mark.parametrize(("path", "op"), CORPUS)
def test_real_models(corpus: Path, path: str, op: str | None) -> None:
    """In single precision: two wide steps, without their error in h^2."""
    model = open_model(corpus / "models" / path)
    if op is not None:  # it returns whole numbers
        name = next(str(node.outputs[0].name) for node in model.graph if node.op_type == op)
        model = expose(model, [name]).model
    else:
        name = next(str(v.name) for v in model.graph.outputs if v.dtype == ir.DataType.FLOAT)
    forward = to_proto(model)
    rng, feeds = np.random.default_rng(0), {}
    for value in model_inputs(model):
        shape = [size if isinstance(size, int) else 1 for size in value.shape or ()]
        numbers = 0.5 * rng.normal(size=shape) + 0.3
        feeds[str(value.name)] = numbers.astype(np.float32) if value.dtype == ir.DataType.FLOAT else np.ones(
            shape, value.dtype.numpy() if value.dtype else None
        )  # fmt: skip
    base = run(forward, [name], feeds)[0]
    seed, checked = rng.normal(size=base.shape).astype(np.float32), 0
    for source in [n for n, array in feeds.items() if array.dtype == np.float32 and array.ndim]:
        made = gradient_model(model, name, [source])
        found = run(to_proto(made.model), [made.gradients[source]], {**feeds, str(made.seed): seed})[0]
        v, slopes = found / max(float(np.linalg.norm(found)), 1e-9) * np.sqrt(found.size), []
        for h in (2e-3, 1e-3):
            ahead, behind = (
                run(forward, [name], {**feeds, source: (feeds[source] + s * h * v).astype(np.float32)})[0].astype(float)
                for s in (1, -1)
            )
            slopes.append(float((seed * (ahead - behind)).sum()) / (2 * h))
        terms = found * v
        assert abs((4 * slopes[1] - slopes[0]) / 3 - terms.sum()) < 1e-2 * np.abs(terms).sum()
        checked += 1
    assert checked


def test_a_scan_that_gathers_nothing_is_written_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    text = """(double[2] s, double[3, 2] x) => (double[2] y) {
      y = Scan <num_scan_inputs = 1, body = b (double[2] a, double[2] r) => (double[2] d) {d = Mul(a, r)}>(s, x)}"""
    result, _ = made(text, "y", ["s"])
    backward = [node for node in result.model.graph if node.op_type == "Scan"][-1]
    assert "scan_output_axes" not in backward.attributes
    assert not caplog.records
