"""The probability of a class where the target is its score, for methods that are defined by probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.case import Case

__all__ = ["Scorer"]

Array = npt.NDArray[Any]
_UNDONE = "score before the "


class Scorer:
    """Scores of rows: as the target is, or the probability of its class.

    The probability is by what the model ends in, softmax or sigmoid, which targets leave out; where it ends in neither
    and its scores are no probabilities already, by a softmax.

    Args:
        case: What is explained.
        probability: Whether a class's probability is wanted; other targets are scored as they are.

    Attributes:
        by: What makes probabilities of the scores: ``"softmax"``, ``"sigmoid"``, or nothing.
        notes: How probabilities were made.
        unit: Of the scores: ``"probability"`` or ``"score"``.
    """

    def __init__(self, case: Case, probability: bool) -> None:
        self.case, self.unit, self.by = case, "score", ""
        self.notes: tuple[str, ...] = ()
        if not probability or case.target.classes is None:
            return
        undone = next((n.removeprefix(_UNDONE) for n in case.target.notes if n.startswith(_UNDONE)), None)
        values = case.forward(case.feeds, case.everything).values[case.target.tensor].reshape(case.samples, -1)
        whole = (values >= 0).all() and np.abs(values.sum(axis=1, dtype=np.float64) - 1).max() < 1e-3
        if undone is not None:
            self.by = "sigmoid" if undone == "sigmoid" else "softmax"
        elif values.shape[1] > 1 and not whole:
            self.by = "softmax"
        if self.by:
            self.notes = (f"probabilities are the {self.by} of {case.target.tensor}",)
        if self.by or values.shape[1] > 1:
            self.unit = "probability"

    def __call__(self, rows: Mapping[str, Any], samples: Sequence[int] | Array) -> npt.NDArray[np.float64]:
        """Return the score of rows, ``(R,)``, as :class:`onnxviz.analysis.attribution.run.Runner` takes them."""
        found = self.case.forward(rows, samples)
        if not self.by or self.case.target.classes is None:
            return found.scores
        logits = np.float64(found.values[self.case.target.tensor].reshape(len(samples), -1))
        if self.by == "sigmoid":
            made = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        else:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            made = powers / powers.sum(axis=1, keepdims=True)
        classes = np.array(self.case.target.classes)[np.asarray(samples, np.intp)]
        return np.asarray(made[np.arange(len(made)), classes], np.float64)
