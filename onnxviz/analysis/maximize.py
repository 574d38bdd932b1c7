"""Activation maximization: what pictures are made for, how, and what came out.

Source: Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017, and its code, lucid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.maximize_terms import Goal
from onnxviz.analysis.maximize_views import Views
from onnxviz.analysis.neurons import Neurons
from onnxviz.analysis.paired import NotDrawn
from onnxviz.errors import InputError

__all__ = ["MadePicture", "Maximized", "Settings", "Subject"]

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Subject:
    """What one picture, or several different ones, are made for.

    Attributes:
        label: What it is called; what is random depends on it.
        goals: What is maximized: the sum of these.
        unit: The channel, where it is one.
        start: ``(C, ...)`` from 0 to 1: what is begun with; None begins with noise.
        reference: ``(C, ...)`` from 0 to 1: the picture of goals that have one.
    """

    label: str
    goals: tuple[Goal, ...]
    unit: int | None = None
    start: Values | None = None
    reference: Values | None = None

    @property
    def key(self) -> int:
        """A number for what is random."""
        return crc32(self.label.encode(errors="replace"))


@dataclass(frozen=True)
class Settings:
    """How pictures are made.

    Attributes:
        steps: Of the optimiser.
        rate: Its step size.
        parameters: ``"fft"``: the spectrum is optimised; ``"pixel"``: the values.
        decay: Exponent of the frequency, see :func:`onnxviz.analysis.maximize_parameters.frequency_scale`.
        views: The transformations.
        count: Pictures a subject.
        diversity: What likeness of the pictures of a subject costs, over their score: at 1, as much as they score where
            they are the same.
        seed: Of all that is random.
    """

    steps: int = 512
    rate: float = 0.05
    parameters: Literal["fft", "pixel"] = "fft"
    decay: float = 1.0
    views: Views = field(default_factory=Views)
    count: int = 1
    diversity: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("count", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} cannot be {getattr(self, name)}", hint=f"give {least} or more")
        if not 0 < self.rate < math.inf:
            raise InputError(f"the step size cannot be {self.rate:g}", hint="give a number above 0, such as 0.05")
        if self.parameters not in ("fft", "pixel"):
            raise InputError(f"there is no parametrization {self.parameters!r}", hint="choose fft or pixel")


@dataclass(frozen=True, eq=False)
class MadePicture:
    """One picture.

    Attributes:
        label: What it is made for.
        unit: The channel, where it is one.
        copy: Which of several for the same.
        values: ``(C, ...)`` float32 from 0 to 1, channels in the model's order.
        score: What is maximized, of the picture as it is, not transformed.
        start: The same of what was begun with.
        history: ``(steps,)`` float32: the same at each step, transformed.
    """

    label: str
    unit: int | None
    copy: int
    values: Values
    score: float
    start: float
    history: Values

    @property
    def stuck(self) -> bool:
        """Whether the score never left 0, as that of a dead rectifier, through which no gradient comes."""
        return self.score == 0 and self.start == 0 and not np.any(self.history)


@dataclass(frozen=True, eq=False)
class Maximized:
    """Pictures that maximize something.

    Attributes:
        model_name: The model.
        what: What is maximized, in words.
        layer: The first tensor that it is made of.
        canvas: The input.
        settings: How they were made.
        pictures: Those that were finished, or interrupted in their round.
        batch: How many were made at once.
        examples: Samples that the channels answer most; None where none were given.
        source: The picture that a dream or a caricature is of, ``(C, ...)`` from 0 to 1.
        not_drawn: What was asked for and is not there.
        notes: What a reader must know; one line each.
        interrupted: Whether it was stopped before its end.
        rules: Which gradients were followed, in words.
    """

    model_name: str
    what: str
    layer: str
    canvas: Canvas
    settings: Settings
    pictures: tuple[MadePicture, ...]
    batch: int
    examples: Neurons | None = None
    source: Values | None = None
    not_drawn: tuple[NotDrawn, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    rules: str = "rules: gradient"
