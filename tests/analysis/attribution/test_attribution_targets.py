"""What is explained: classes, names, neurons, expressions, and the targets that do not exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.scores import class_names
from onnxviz.api import attribute
from onnxviz.errors import GradientError, InputError, SelectionError

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
LINEAR = HEAD + "g (float[N, 2] x) => (float[N, 3] y) <float[2, 3] w = {1, 2, 3, -1, 0, 1}> {y = MatMul(x, w)}"
X = np.float32([[1, 0], [0, -1]])


def explained(text: str, target: Any = None, method: str = "saliency", x: np.ndarray = X, **options: Any) -> Any:
    return attribute(ir.from_onnx_text(text), {"x": x}, target=target, method=method, providers="cpu", **options)


def test_by_default_each_sample_has_its_own_highest_class() -> None:
    found = explained(LINEAR, absolute=False)
    assert (found.classes, found.target) == ((2, 0), ("class 2", "class 0"))
    assert found.score.tolist() == [3, 1]
    assert found.values.tolist() == [[3, 1], [1, -1]]


@pytest.mark.parametrize("target", [1, "1", "dog", "DOG", "og"])
def test_a_class_by_index_or_name(target: int | str) -> None:
    found = explained(LINEAR, target, labels=["cat", "dog", "catfish"])
    assert found.target == ("dog (class 1)",) * 2
    assert found.score.tolist() == [2, 0]


def test_a_name_is_whole_before_it_is_a_part() -> None:
    assert explained(LINEAR, "cat", labels=["cat", "dog", "catfish"]).classes == (0, 0)
    assert explained(LINEAR, "queue", labels=["cat", "a, queue", "queue up"]).classes == (1, 1)


def test_names_from_the_metadata() -> None:
    model = ir.from_onnx_text(LINEAR)
    model.metadata_props["names"] = "{0: 'a', 1: 'b', 2: 'c'}"
    assert attribute(model, {"x": X}, method="saliency", target="c", providers="cpu").classes == (2, 2)
    for text, wanted in (('["a", "b"]', ["a", "b"]), ("a,b\n", ["a", "b"]), ("[[[[", None), ("one", None)):
        model.metadata_props["names"] = text
        assert class_names(model) == wanted


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (3, SelectionError, "there is no class 3; y has 3, counted from 0"),
        ("bird", SelectionError, "no class is named 'bird'"),
        ("cat", SelectionError, "names several classes: cat a (0), cat b (2); give the index"),
        ("y:5", SelectionError, "y has no neuron 5; a sample of it is 3 (its units), counted from 0"),
        ("y:1,1", SelectionError, "no neuron 1,1"),
        ("nothing[:, 1]", SelectionError, "the model has no tensor 'nothing'"),
        ("y[:, 1:]", GradientError, "not a number for each sample"),
        ("y[:, 1] +", SelectionError, "no class is named"),
        ("cross_entropy(y, z)", GradientError, "the target needs z"),
    ],
)
def test_what_does_not_exist_is_one_line(target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        explained(LINEAR, target, labels=["cat a", "dog", "cat b"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_must_be_as_many_as_classes() -> None:
    with pytest.raises(InputError, match="2 labels were given for 3 classes"):
        explained(LINEAR, labels=["a", "b"])


def test_a_class_without_names_says_how_to_name_it() -> None:
    with pytest.raises(SelectionError, match="names of the classes are not known"):
        explained(LINEAR, "cat")


@pytest.mark.parametrize(
    ("end", "what"),
    [("Softmax(s)", "softmax"), ("LogSoftmax(s)", "log-softmax"), ("Sigmoid(s)", "sigmoid")],
)
def test_the_score_before_a_softmax_is_explained_and_said_so(end: str, what: str) -> None:
    text = LINEAR.replace("{y = MatMul(x, w)}", f"{{s = MatMul(x, w) p = {end} y = Identity(p)}}")
    found = explained(text, 2, absolute=False)
    assert found.values.tolist() == [[3, 1], [3, 1]]
    assert found.notes == (f"score before the {what}",)
    own = explained(text, "y[:, 2]", absolute=False)
    assert own.notes == ()
    assert np.abs(own.values - [[3, 1], [3, 1]]).max() > 0.1


def test_a_softmax_that_cannot_be_undone_says_so() -> None:
    text = LINEAR.replace(
        "{y = MatMul(x, w)}", "{s = MatMul(x, w) e = Exp(s) t = ReduceSum<keepdims = 1>(e, one) y = Div(e, t)}"
    ).replace("> {s", ", int64[1] one = {1}> {s")
    found = explained(text, 2)
    assert "no softmax that could be undone" in found.notes[0]
    assert float(found.score.max()) <= 1


MAP = (
    HEAD
    + """g (float[N, 1, 3, 3] x) => (float[N, 2, 2, 2] y, float[N, 2, 2, 2] z)
<float[2, 1, 2, 2] w = {1, 0, 0, 0, 0, 0, 0, 1}> {y = Conv(x, w) z = Transpose<perm = [0, 2, 3, 1]>(y)}"""
)
PICTURE = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)


@pytest.mark.parametrize(
    ("target", "score", "at"),
    [("y:1,0,1", 5.0, [5]), ("z:1,0,1", 5.0, [5]), ("y:0", 2.0, [0, 1, 3, 4]), ("z:0", 2.0, [0, 1, 3, 4]),
     ("z:0,1", 3.5, [3, 4]), ('"y"[:, 1, 0, 1]', 5.0, [5]), ("max(y)", 8.0, [8])],
)  # fmt: skip
def test_neurons_are_named_channels_first_whatever_the_layout(target: str, score: float, at: list[int]) -> None:
    found = explained(MAP, target, x=PICTURE)
    assert found.score.tolist() == [score]
    assert np.flatnonzero(found.values).tolist() == at


def test_without_classes_the_user_must_say_and_the_candidates_are_listed() -> None:
    with pytest.raises(
        SelectionError, match=r"they are y \(N, 2, 2, 2\), z \(N, 2, 2, 2\); say it with --target"
    ) as error:
        explained(MAP, x=PICTURE)
    assert "'y:0,0,0'" in str(error.value)
    with pytest.raises(SelectionError, match="no tensor 'q' of real numbers; its outputs are y, z"):
        explained(MAP, x=PICTURE, output="q")


def test_the_argmax_of_an_expression_stays_that_of_the_unchanged_sample() -> None:
    text = HEAD + "g (float[N, 2] x) => (float[N, 2] y) {y = Identity(x)}"
    x = np.float32([[1.0, 0.9], [0.2, 0.3]])
    free = explained(text, "y[argmax]", "smoothgrad", x=x, noise=5.0, copies=40)
    assert free.values.tolist() == [[1, 0], [0, 1]]
    assert "its argmax is that of the unchanged input, at 0, 1" in free.notes
    moving = explained(text, "max(y)", "smoothgrad", x=x, noise=5.0, copies=40)
    assert 0 < moving.values[0, 1] < 1, "where the largest is taken anew in each copy, both count"


def test_an_expression_in_an_old_opset() -> None:
    text = LINEAR.replace('"": 17', '"": 9').replace("y = MatMul(x, w)", "a = MatMul(x, w) y = Relu(a)")
    found = explained(text, "a[:, 0] * 2 - a[:, 1]", absolute=False)
    np.testing.assert_allclose(found.values, [[0, -2], [0, -2]])


def test_scores_that_are_nan_have_no_highest() -> None:
    with pytest.raises(SelectionError, match="NaN"):
        explained(LINEAR, x=np.float32([[np.nan, 0]]))


def test_names_in_a_model_are_escaped() -> None:
    model = ir.from_onnx_text(LINEAR)
    model.graph.outputs[0].name = "y\x1b[31m"
    with pytest.raises(SelectionError) as caught:
        attribute(model, {"x": X}, target="y\x1b[31m:9", method="saliency", providers="cpu")
    assert "\x1b" not in str(caught.value)


def test_scores_behind_labels_alone_are_found_and_told() -> None:
    text = """g (float[N, 3] x) => (int64[N] label) <float[3, 2] w = {1, 0, 0, 1, 0, 0}>
    { s = MatMul(x, w) p = Softmax(s) a = ArgMax<axis = 1, keepdims = 0>(p) label = Identity(a) }"""
    found = attribute(
        ir.from_onnx_text(HEAD + text), {"x": np.float32([[1, 5, 2]])}, method="saliency", providers="cpu"
    )
    assert (found.classes, found.score.tolist()) == ((1,), [5])
    assert found.notes == ("score before the softmax", "the model gives labels alone: its scores are p")
    with pytest.raises(SelectionError, match="there is no class -1; p has 2, counted from 0"):
        attribute(ir.from_onnx_text(HEAD + text), {"x": np.ones((1, 3), np.float32)}, target=-1, providers="cpu")
