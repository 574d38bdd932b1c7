"""Class selectivity against scikit-learn and the formula written out; each oracle sees a planted error."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from onnxviz.analysis.selectivity import class_selectivity, roc_auc
from onnxviz.errors import SelectionError

RNG = np.random.default_rng(3)
CLASSES = ("a", "b", "c")


def rectified(samples: int, units: int) -> np.ndarray:
    """Many zeros, and few levels: ties are the rule."""
    return np.maximum(RNG.integers(-3, 4, (samples, units)), 0) / 4.0


def by_formula(column: np.ndarray, labels: np.ndarray) -> float:
    means = sorted(column[labels == c].mean() for c in np.unique(labels))
    rest = float(np.mean(means[:-1]))
    return (means[-1] - rest) / (means[-1] + rest)


def test_roc_auc_is_that_of_scikit_learn_with_ties() -> None:
    scores, positive = rectified(40, 25), RNG.random((40, 25)) < 0.3
    expected = [roc_auc_score(positive[:, u], scores[:, u]) for u in range(25)]
    np.testing.assert_allclose(roc_auc(scores, positive), expected, rtol=1e-12)
    ties_lost = [np.mean(scores[positive[:, u], u][:, None] > scores[~positive[:, u], u][None]) for u in range(25)]
    with pytest.raises(AssertionError):  # an AUC that does not count ties half is seen
        np.testing.assert_allclose(ties_lost, expected, rtol=1e-12)


def test_roc_auc_of_one_side_is_not_defined() -> None:
    assert np.isnan(roc_auc(np.ones((3, 2)), np.array([[True, False]] * 3))).all()


def test_index_and_means() -> None:
    matrix, labels = rectified(60, 20), RNG.integers(0, 3, 60)
    found = class_selectivity(matrix, labels.tolist(), CLASSES)
    expected = np.array([by_formula(matrix[:, u], labels) for u in range(20)])
    np.testing.assert_allclose(found.index, expected, rtol=1e-12)
    np.testing.assert_allclose(found.means, [matrix[labels == c].mean(axis=0) for c in range(3)])
    np.testing.assert_array_equal(found.best, found.means.argmax(axis=0))
    auc = [roc_auc_score(labels == found.best[u], matrix[:, u]) for u in range(20)]
    np.testing.assert_allclose(found.auc, auc, rtol=1e-12)
    assert found.counts == tuple(np.bincount(labels))
    pooled = np.array([  # all other samples together, instead of the mean of the other classes' means
        (m := matrix[labels == b, u].mean(), r := matrix[labels != b, u].mean()) and (m - r) / (m + r)
        for u, b in enumerate(found.best)
    ])  # fmt: skip
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(pooled, expected, rtol=1e-12)


def test_what_is_not_defined() -> None:
    matrix = np.array([[0.0, -1, 2, 5], [0, 3, 0, 5], [0, 1, 0, 5], [0, 1, 0, 5]])
    found = class_selectivity(matrix, [0, 0, 1, 1], ["a", "b"])
    assert np.isnan(found.index).tolist() == [True, True, False, False]  # dead, negative
    assert found.index[2:].tolist() == [1.0, 0.0]
    assert found.best.tolist() == [-1, -1, 0, -1]
    assert np.isnan(found.auc).tolist() == [True, True, False, True]
    assert "2 of 4 units" in " ".join(found.notes())
    assert "few samples: a (2), b (2)" in found.notes()


def test_values_that_are_not_finite_and_samples_without_class_are_left_out() -> None:
    matrix, labels = rectified(50, 6), RNG.integers(-1, 3, 50)
    matrix[4, 2], matrix[9, 2] = np.nan, np.inf
    found = class_selectivity(matrix, labels.tolist(), CLASSES)
    for unit in range(6):
        has = (labels >= 0) & np.isfinite(matrix[:, unit])
        assert found.index[unit] == pytest.approx(by_formula(matrix[has, unit], labels[has]), rel=1e-12)
        expected = roc_auc_score(labels[has] == found.best[unit], matrix[has, unit])
        assert found.auc[unit] == pytest.approx(expected, rel=1e-12)


def test_one_class_is_refused() -> None:
    with pytest.raises(SelectionError, match="samples are of 1"):
        class_selectivity(np.ones((3, 2)), [1, 1, -1], CLASSES)


def test_blocks_of_columns_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, labels = rectified(30, 11), RNG.integers(0, 3, 30).tolist()
    whole = class_selectivity(matrix, labels, CLASSES)
    monkeypatch.setattr("onnxviz.analysis.selectivity._COLUMNS", 4)
    parts = class_selectivity(matrix, labels, CLASSES)
    for name in ("means", "best", "index", "auc"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
