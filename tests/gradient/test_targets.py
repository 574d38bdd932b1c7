"""Targets against PyTorch: the value of every form of an expression, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError, SelectionError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.targets import target_value
from onnxviz.graph.shapes import infer_shapes
from tests.gradient.rules_case import session
from tests.gradient.test_engine import run

torch = pytest.importorskip("torch")
F = torch.nn.functional

RNG = np.random.default_rng(4)
HEAD = '<ir_version: 8, opset_import: ["": 18]> g '
MATRIX, IMAGE = "N, 3", "N, 3, H, W"
ARRAYS = {
    MATRIX: RNG.normal(size=(4, 3)).astype(np.float32),
    IMAGE: RNG.normal(size=(4, 3, 2, 5)).astype(np.float32),
    "3": RNG.normal(size=3).astype(np.float32),
    "": np.array(0.7, np.float32),
    "4, 3": RNG.normal(size=(4, 3)).astype(np.float32),
}
LABELS = np.int64([2, 0, 1, 1])
DENSE = RNG.integers(0, 3, (4, 2, 5))
WANTED = RNG.normal(size=(4, 3)).astype(np.float32)

Case = tuple[str, str, Callable[[Any], Any], dict[str, np.ndarray]]
CASES: list[Case] = [
    # indices
    (MATRIX, "y[:, 1]", lambda y: y[:, 1], {}),
    (MATRIX, "y[:, -1]", lambda y: y[:, -1], {}),
    (MATRIX, "y[2, 1]", lambda y: y[2, 1], {}),
    (MATRIX, "y[2:, 1]", lambda y: y[2:, 1], {}),
    (MATRIX, "y[::2, 1]", lambda y: y[::2, 1], {}),
    (MATRIX, "y[..., 0]", lambda y: y[..., 0], {}),
    (MATRIX, "sum(y[:, 1:])", lambda y: y[:, 1:].sum(1), {}),
    (MATRIX, "sum(y[:, :-1])", lambda y: y[:, :-1].sum(1), {}),
    (MATRIX, "y[:, ::-1][:, 0]", lambda y: y.flip(1)[:, 0], {}),
    (MATRIX, "y[-1]", lambda y: y[-1], {}),
    (MATRIX, "y[argmax]", lambda y: y.max(1).values, {}),
    (MATRIX, "y[:, argmax]", lambda y: y.max(1).values, {}),
    (MATRIX, "y[..., argmax]", lambda y: y.max(1).values, {}),
    (IMAGE, "y[argmax]", lambda y: y.flatten(1).max(1).values, {}),
    (IMAGE, "sum(y[:, argmax])", lambda y: y.max(1).values.flatten(1).sum(1), {}),
    (IMAGE, "y[:, 1, 0, -2]", lambda y: y[:, 1, 0, -2], {}),
    (IMAGE, "y[:, 1, argmax, 2]", lambda y: y[:, 1, :, 2].max(1).values, {}),
    (IMAGE, "mean(y[:, 0])", lambda y: y[:, 0].flatten(1).mean(1), {}),
    (IMAGE, "sum(y[..., 1:4:2])", lambda y: y[..., 1:4:2].flatten(1).sum(1), {}),
    ("3", "y[1]", lambda y: y[1], {}),
    ("3", "y[argmax]", lambda y: y.max(), {}),
    ("3", "max(y[None])", lambda y: y.max().reshape(1), {}),
    ("3", "mean(y[None, :])", lambda y: y.mean().reshape(1), {}),
    # functions
    (MATRIX, "sum(y)", lambda y: y.sum(1), {}),
    (IMAGE, "mean(y)", lambda y: y.flatten(1).mean(1), {}),
    (IMAGE, "max(y)", lambda y: y.flatten(1).max(1).values, {}),
    (MATRIX, "min(y)", lambda y: y.min(1).values, {}),
    (IMAGE, "norm(y)", lambda y: y.flatten(1).norm(dim=1), {}),
    (MATRIX, "sum(abs(y))", lambda y: y.abs().sum(1), {}),
    (MATRIX, "sum(exp(y))", lambda y: y.exp().sum(1), {}),
    (MATRIX, "sum(log(y * y))", lambda y: (y * y).log().sum(1), {}),
    (MATRIX, "sum(sqrt(y ** 2 + 1))", lambda y: (y**2 + 1).sqrt().sum(1), {}),
    (MATRIX, "sum(tanh(y))", lambda y: y.tanh().sum(1), {}),
    (MATRIX, "sum(sigmoid(y))", lambda y: y.sigmoid().sum(1), {}),
    ("", "y", lambda y: y, {}),
    ("", "sum(y)", lambda y: y.reshape(1), {}),
    ("", "y ** 2 - y / 3", lambda y: y**2 - y / 3, {}),
    # arithmetic
    (MATRIX, "2 * y[:, 0] - y[:, 2] / 4", lambda y: 2 * y[:, 0] - y[:, 2] / 4, {}),
    (MATRIX, "-y[:, 0] * y[:, 1]", lambda y: -y[:, 0] * y[:, 1], {}),
    (MATRIX, "1 / (y[:, 0] ** 2 + 1)", lambda y: 1 / (y[:, 0] ** 2 + 1), {}),
    (MATRIX, "2 ** y[:, 0]", lambda y: 2 ** y[:, 0], {}),
    # losses
    (MATRIX, "cross_entropy(y, [2, 0, 1, 1])", lambda y: F.cross_entropy(y, torch.tensor(LABELS), reduction="none"), {}),
    (MATRIX, "cross_entropy(y, labels)", lambda y: F.cross_entropy(y, torch.tensor(LABELS), reduction="none"),
     {"labels": LABELS}),
    (MATRIX, "cross_entropy(y, 'the labels')", lambda y: F.cross_entropy(y, torch.tensor(LABELS), reduction="none"),
     {"the labels": LABELS}),
    (MATRIX, "cross_entropy(y, 1)", lambda y: F.cross_entropy(y, torch.full((4,), 1), reduction="none"), {}),
    (IMAGE, "cross_entropy(y, labels)",
     lambda y: F.cross_entropy(y, torch.tensor(DENSE), reduction="none").flatten(1).mean(1), {"labels": DENSE}),
    (IMAGE, "cross_entropy(y, 2)",
     lambda y: F.cross_entropy(y, torch.full((4, 2, 5), 2), reduction="none").flatten(1).mean(1), {}),
    (MATRIX, "cross_entropy(y, labels) + mse(y, wanted)",
     lambda y: F.cross_entropy(y, torch.tensor(LABELS), reduction="none") + ((y - torch.tensor(WANTED)) ** 2).mean(1),
     {"labels": LABELS, "wanted": WANTED}),
    (MATRIX, "mse(y, wanted)", lambda y: ((y - torch.tensor(WANTED)) ** 2).mean(1), {"wanted": WANTED}),
    (MATRIX, "mse(y, 0.5)", lambda y: ((y - 0.5) ** 2).mean(1), {}),
    (MATRIX, "mse(y, [1, 2, 3])", lambda y: ((y - torch.tensor([1.0, 2, 3])) ** 2).mean(1), {}),
    (IMAGE, "mse(y[:, 0], y[:, 1])", lambda y: ((y[:, 0] - y[:, 1]) ** 2).flatten(1).mean(1), {}),
]  # fmt: skip


def model_of(sizes: str) -> ir.Model:
    shape = f"[{sizes}]" if sizes else ""
    return ir.from_onnx_text(HEAD + f"(float{shape} x) => (float{shape} y) {{y = Identity(x)}}")


def value_of(sizes: str, expression: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Return what an expression gives."""
    model, added = model_of(sizes), []
    values = {"x": model.graph.inputs[0], "y": model.graph.outputs[0]}
    made = target_value(Ops(model.graph, {"x", "y"}, "target"), values, expression, added)
    model.graph.inputs.extend(added)
    model.graph.outputs.append(made)
    found = session(infer_shapes(model)).run([made.name], feeds)[0]
    return np.asarray(found)


@pytest.mark.parametrize(("sizes", "expression", "same", "more"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_values_and_gradients(sizes: str, expression: str, same: Any, more: dict[str, np.ndarray]) -> None:
    array = ARRAYS[sizes]
    x = torch.tensor(array, requires_grad=True)
    expected = same(x)
    expected.sum().backward()
    found = value_of(sizes, expression, {"x": array, **more})
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    made = gradient_model(model_of(sizes), target=expression)
    assert (made.seed, made.cuts) == (None, ())
    assert [v.name for v in made.model.graph.inputs] == ["x", *more]
    grads = run(made, {"x": array, **more})["x.grad"]
    np.testing.assert_allclose(grads, x.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_a_wrong_value_is_seen() -> None:
    with pytest.raises(AssertionError):
        test_values_and_gradients(MATRIX, "mean(y)", lambda y: y.mean(1) * 1.001, {})


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_what_a_loss_is_measured_against_becomes_an_input_of_its_type_and_batch(kind: str) -> None:
    model = ir.from_onnx_text(HEAD + f"({kind}[N, 3, H, W] x) => ({kind}[N, 3, H, W] y) {{y = Identity(x)}}")
    made = gradient_model(model, target="cross_entropy(y, labels) + mse(y, wanted)")
    labels, wanted = made.model.graph.inputs[1:]
    assert (labels.name, labels.dtype, str(labels.shape)) == ("labels", ir.DataType.INT64, "[N,H,W]")
    assert (wanted.name, wanted.dtype, wanted.shape) == ("wanted", model.graph.inputs[0].dtype, wanted.shape)
    assert str(wanted.shape) == "[N,3,H,W]"


def test_the_first_of_equals_is_the_largest_as_in_torch() -> None:
    made = gradient_model(model_of("4, 3"), target="y[argmax]")
    found = run(made, {"x": np.ones((4, 3), np.float32)})["x.grad"]
    assert found.tolist() == [[1, 0, 0]] * 4


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "'' is no target; write such as"), ("y[", "is no target"), ("y[:, 3]", "index 3 is out of range"),
        ("y[:, -4]", "index -4 is out of range for an axis of size 3"), ("y[:, 1.0]", "'1.0' is no whole number"),
        ("sum(y[:, 0.5:2])", "'0.5' is no whole number"), ("y[:, True]", "'True' is no index"),
        ("y[:, 'a']", "\"'a'\" is no index"), ("y[:, 99999999999999999999]", "is out of range"),
        ("y[0, 0, 0]", "has 3 indices, and the tensor 2 axes"), ("y[..., ..., 0]", "'...' may stand once"),
        ("y[:, ::0]", "cannot be 0"), ("y[[0, 1]]", r"'[0, 1]' is no index"), ("y[y]", "'y' is no index"),
        ("frob(y)", "there is no frob of 1 arguments; the functions are sum, mean"), ("sum(y, 1)", "no sum of 2"),
        ("sum(y, axis=1)", "it has 'sum(y, axis=1)'"), ("sum(*y)", "it has '*y'"), ("sum()", "no sum of 0 arguments"),
        ("__import__('os').system('x')", "it has"), ("y.T", "it has 'y.T', and a name that is no word is written in quotes"), ("y @ y", "it has 'y @ y'"),
        ("y > 0", "it has 'y > 0'"), ("y and y", "it has"), ("1 + 2", "it names no tensor"), ("7", "it names no tensor"),
        ("y", "gives a tensor of shape [N,3], not a number for each sample"), ("y[0]", None),
        ("y[:, 0] * 1j", "it has '1j'"), ("y[:, 0] * 1" + "0" * 400, "too large"), ("[x for x in y]", "it has"),
        ("sum(w)", "the model has no tensor 'w'"), ("sum(n)", "n is of type INT64, which has no gradient"),
        ("y[:, 0] + d[:, 0]", "it mixes FLOAT and DOUBLE"), ("mse(y, d)", "it mixes FLOAT and DOUBLE"),
        ("cross_entropy(y, [0, 3])", "labels lie in 0…2"), ("cross_entropy(y, [0.5, 1])", "labels are whole numbers"),
        ("cross_entropy(y, y)", "labels are of type INT64 or INT32, and y is FLOAT"),
        ("cross_entropy(y[:, 0], labels)", "cross_entropy takes scores (samples, classes, …)"),
        ("cross_entropy(y)", "there is no cross_entropy of 1 arguments"), ("sum(" * 300 + "y" + ")" * 300, "is no target"),
        ("-" * 5000 + "y", "is no target"), ("+".join(["sum(y)"] * 2500), "nests too deep"),
        ("q" * 10_000, "the model has no tensor"), ("q" * 30_000, "has 30,000 letters"), ("y[:, 0]\0", "is no target"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_is_no_target_is_told_in_one_line(expression: str, message: str | None) -> None:
    model = ir.from_onnx_text(
        HEAD + "(float[N, 3] x, double[N, 3] d, int64[N] n) => (float[N, 3] y, int64[N] m) "
        "{y = Identity(x) m = Identity(n)}"
    )
    if message is None:  # one row: an entry a class counts as a number a sample
        assert gradient_model(model, target=expression).gradients == {"x": "x.grad"}
        return
    with pytest.raises((GradientError, SelectionError)) as caught:
        gradient_model(model, target=expression)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 600


def test_a_target_begins_with_an_index_of_the_tensor_that_of_names() -> None:
    model = model_of("N, 3")
    assert gradient_model(model, "y", target="[:, 1]").target == "'y'[:, 1]"
    assert gradient_model(model, "y", target="sum(y)").target == "sum(y)"
    with pytest.raises(GradientError, match=r"the target 'sum\(x\)' does not name y; leave --of out"):
        gradient_model(model, "y", target="sum(x)")
    with pytest.raises(SelectionError, match="no tensor 'yy'; did you mean 'y'"):
        gradient_model(model, "yy", target="[:, 1]")


@pytest.mark.parametrize("name", ["fc/out:0", "it's", 'a "b"', "ü\nd</script>", "a\\d", "x" * 10_000, "‮abc", "1"])
def test_names_of_any_letters(name: str) -> None:
    model = model_of("N, 3")
    model.graph.outputs[0].name = name
    x = ARRAYS[MATRIX]
    for made in (gradient_model(model, target=f"{name!r}[:, 1]"), gradient_model(model, name, target="[:, 1]")):
        assert run(made, {"x": x})["x.grad"].tolist() == [[0, 1, 0]] * 4


def test_a_target_is_inferred_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own shapes are known when the target is appended: only its nodes are looked at."""
    from onnxviz.gradient import prepare

    seen, infer = [], prepare.infer_in_place
    monkeypatch.setattr(prepare, "infer_in_place", lambda model: (seen.append(len(model.graph)), infer(model)))
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3, h] x) => (float[n, 3, h] y) {
        a = Tanh(x) b = Sigmoid(a) y = Exp(b) }"""
    )
    made = gradient_model(model, target="sum(y[:, argmax]) - y[:, 1, 0]")
    assert seen[0] == 3
    assert len(seen) == 2
    shapes = {v.name: v.shape for node in made.model.graph for v in node.outputs if str(v.name).startswith("target.")}
    assert ir.Shape(["n", "h"]) in shapes.values()
    assert all(isinstance(size, int) or size.value in (None, "n", "h") for s in shapes.values() for size in s or ())
