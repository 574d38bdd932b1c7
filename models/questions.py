"""Questions about a digit, as tokens: which digit is it, is it even, is it odd, is it larger or smaller than another.

The vocabulary is ``picture_question_tokens.txt``, one token a line; a token's id is its line, counted from 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "ANSWERS",
    "LENGTH",
    "PAD",
    "QUESTIONS",
    "VOCABULARY",
    "VOCABULARY_FILE",
    "Pairs",
    "all_pairs",
    "answer",
    "encode",
    "random_pairs",
]

VOCABULARY_FILE = "picture_question_tokens.txt"
VOCABULARY = tuple(Path(__file__).with_name(VOCABULARY_FILE).read_text(encoding="utf-8").split())
PAD = VOCABULARY.index("[PAD]")
LENGTH = 7
ANSWERS = (*"0123456789", "no", "yes")
QUESTIONS = (
    "which digit is it ?",
    "is it even ?",
    "is it odd ?",
    *(f"is it {compared} than {digit} ?" for compared in ("larger", "smaller") for digit in range(10)),
)

Ids = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Questions, each with the picture that it is asked about.

    Attributes:
        pictures: (N,) ``int64``, positions of the pictures.
        tokens: (N, 7) ``int64``, positions in :data:`VOCABULARY`.
        answers: (N,) ``int64``, positions in :data:`ANSWERS`.
    """

    pictures: Ids
    tokens: Ids
    answers: Ids


def encode(question: str) -> Ids:
    """Return the (7,) token ids of a question: ``[CLS]``, its words, and ``[PAD]`` up to the end.

    >>> encode("is it even ?").tolist()
    [1, 2, 3, 6, 11, 0, 0]
    """
    ids = [VOCABULARY.index(word) for word in ("[CLS]", *question.split())]
    return np.array(ids + [PAD] * (LENGTH - len(ids)), np.int64)


def answer(question: str, digit: int) -> int:
    """Return the position in :data:`ANSWERS` of what is right for a digit.

    >>> [ANSWERS[answer(question, 7)] for question in ("which digit is it ?", "is it odd ?", "is it larger than 7 ?")]
    ['7', 'yes', 'no']
    """
    match question.split():
        case ["which", *_]:
            return digit
        case ["is", "it", "even" | "odd" as parity, "?"]:
            right = digit % 2 == (parity == "odd")
        case ["is", "it", "larger", "than", other, "?"]:
            right = digit > int(other)
        case ["is", "it", "smaller", "than", other, "?"]:
            right = digit < int(other)
        case _:
            raise ValueError(f"nobody taught the question {question!r}")
    return ANSWERS.index("yes" if right else "no")


_TOKENS = np.stack([encode(question) for question in QUESTIONS])
_RIGHT = np.array([[answer(question, digit) for digit in range(10)] for question in QUESTIONS], np.int64)


def all_pairs(classes: Ids) -> Pairs:
    """Ask every question about every picture, whose (N,) digits are given: 23·N pairs."""
    pictures = np.repeat(np.arange(len(classes)), len(QUESTIONS))
    asked = np.tile(np.arange(len(QUESTIONS)), len(classes))
    return Pairs(pictures, _TOKENS[asked], _RIGHT[asked, classes[pictures]])


def random_pairs(classes: Ids, rng: np.random.Generator, each: int) -> Pairs:
    """Ask ``each`` questions about every picture, drawn so that each of the five kinds is asked as often."""
    pictures = np.repeat(np.arange(len(classes)), each)
    kind = rng.integers(0, 5, len(pictures))
    other = rng.integers(0, 10, len(pictures))
    asked = np.where(kind < 3, kind, 3 + 10 * (kind - 3) + other)
    return Pairs(pictures, _TOKENS[asked], _RIGHT[asked, classes[pictures]])
