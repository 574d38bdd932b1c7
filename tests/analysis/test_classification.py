"""A classifier's answer: which outputs are one, the ranking, the probabilities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxviz.analysis.classification import load_labels, top_classes
from onnxviz.errors import InputError


def test_logits_get_a_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 10)).astype(np.float32)
    answer = top_classes(logits, k=3)
    assert answer is not None
    assert answer.softmax
    expected = np.exp(logits[0].astype(float)) / np.exp(logits[0].astype(float)).sum()
    assert [c.index for c in answer.ranked] == np.argsort(-logits[0])[:3].tolist()
    assert [c.probability for c in answer.ranked] == pytest.approx(np.sort(expected)[::-1][:3].tolist())
    assert answer.best.score == logits.max()
    assert answer.classes == 10


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_distribution_is_left_alone(dtype: type) -> None:
    scores: np.ndarray = np.full(1000, 1e-4, dtype)
    scores[7] = 1 - scores[1:].astype(float).sum()
    answer = top_classes(scores[None])
    assert answer is not None
    assert not answer.softmax
    assert answer.best.probability == pytest.approx(0.9, abs=1e-2)


def test_large_logits_do_not_overflow() -> None:
    answer = top_classes(np.array([[1e4, 0.0]]))
    assert answer is not None
    assert answer.best.probability == 1


def test_log_probabilities_come_back_as_probabilities() -> None:
    answer = top_classes(np.log(np.array([[0.2, 0.8]])))
    assert answer is not None
    assert answer.best.probability == pytest.approx(0.8)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 4420, 2)), np.zeros((2, 10)), np.zeros((1, 1)), np.zeros(()), np.zeros((1, 3, 2, 2)),
        np.zeros((1, 10), np.int64), np.full((1, 3), np.nan), np.array([["a", "b"]]), np.zeros((1, 0)),
    ],
)  # fmt: skip
def test_what_is_no_classifier(array: np.ndarray) -> None:
    assert top_classes(array) is None


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 1, 1)])
def test_accepted_shapes_and_ties(shape: tuple[int, ...]) -> None:
    answer = top_classes(np.zeros(shape), labels=["a", "b", "c"])
    assert answer is not None
    assert [c.label for c in answer.ranked] == ["a", "b", "c"]


def test_labels_that_do_not_match_are_told() -> None:
    with pytest.raises(InputError, match="2 labels were given for 3 classes"):
        top_classes(np.zeros((1, 3)), labels=["a", "b"])


def test_labels_are_read_from_text_and_json(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    for text in ("cat\n\ndog\n", json.dumps(["cat", "dog"]), json.dumps({"1": "dog", "0": "cat"})):
        file.write_text(text, encoding="utf-8")
        assert load_labels(file) == ["cat", "dog"]


@pytest.mark.parametrize("text", ["", "[]", '{"a": "b"}', "3"])
def test_bad_labels_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels").write_text(text)
    with pytest.raises(InputError, match="holds no class names"):
        load_labels(tmp_path / "labels")


def test_unreadable_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(b"\xff\xfe\x00")
    for name in ("labels", "none"):
        with pytest.raises(InputError, match="cannot read the labels"):
            load_labels(tmp_path / name)


def test_indices_and_ids_are_taken_off(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("n01440764 tench, Tinca tinca\n{1: 'goldfish',\n")
    assert load_labels(tmp_path / "labels") == ["tench, Tinca tinca", "goldfish"]
