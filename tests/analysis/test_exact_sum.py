"""Exact sums against fractions, in every order and grouping."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from onnxviz.analysis.exact_sum import ExactSum

RNG = np.random.default_rng(3)
TERMS = {
    "normal": RNG.standard_normal((40, 3)),
    "wide": RNG.standard_normal((40, 3)) * 10.0 ** RNG.uniform(-250, 250, (40, 3)),
    "cancelling": np.concatenate([a := RNG.standard_normal((20, 3)) * 1e200, [[1.0, 2.0, -3.0]], -a]),
    "tiny": RNG.integers(-9, 9, (40, 3)) * 5e-324,
    "ties": np.full((7, 3), 2.0**21),
    "zeros": np.zeros((4, 3)),
    "one": np.array([[1.0, -0.0, 0.1]]),
    "many": RNG.standard_normal((5000, 1)),
}


def fractions(sums: ExactSum) -> list[Fraction]:
    values, exponent = sums.integers()
    return [Fraction(value) * Fraction(2) ** exponent for value in values]


def check(what: str, total: Callable[[np.ndarray], ExactSum]) -> None:
    terms = TERMS[what]
    expected = [sum(map(Fraction, column), Fraction()) for column in terms.T.tolist()]
    assert fractions(total(terms)) == expected


def of(terms: np.ndarray) -> ExactSum:
    return ExactSum.of(terms.copy(), axis=0)


@pytest.mark.parametrize("what", TERMS)
def test_sums_are_exact(what: str) -> None:
    check(what, of)


@pytest.mark.parametrize("what", TERMS)
def test_order_and_grouping_do_not_show(what: str) -> None:
    terms = TERMS[what]
    whole = of(terms).integers()
    for seed in range(10):
        random = np.random.default_rng(seed)
        parts = np.split(terms[random.permutation(len(terms))], np.sort(random.integers(0, len(terms), 3)))
        left = right = ExactSum.zeros(terms.shape[1:])
        for part in parts:
            left, right = left + of(part), of(part) + right
        assert left.integers() == right.integers() == whole


@pytest.mark.parametrize("what", TERMS)
def test_integers_make_the_same_sums_again(what: str) -> None:
    sums = of(TERMS[what])
    values, exponent = sums.integers()
    assert ExactSum.from_integers(values, exponent, sums.limbs.shape[1:]).integers() == (values, exponent)


def test_a_rounded_sum_would_be_caught() -> None:
    with pytest.raises(AssertionError):
        check("cancelling", lambda terms: of(terms.sum(axis=0, keepdims=True)))


def test_total_and_placed_add_up() -> None:
    terms = TERMS["wide"]
    assert fractions(of(terms).total()) == [sum(map(Fraction, terms.reshape(-1).tolist()), Fraction())]
    placed = of(terms).placed((2, 4), (1, np.array([3, 0, 3])))
    columns = fractions(of(terms))
    assert fractions(placed) == [0, 0, 0, 0, columns[1], 0, 0, columns[0] + columns[2]]


def test_many_merges_do_not_overflow() -> None:
    sums = of(np.array([[2.0**21]]))
    for _ in range(60):
        sums = sums + sums
    assert fractions(sums) == [Fraction(2) ** 81]


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_what_has_no_sum_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no exact sum"):
        of(np.array([[value]]))


def test_a_foreign_exponent_is_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        ExactSum.from_integers([1], -21, (1,))
