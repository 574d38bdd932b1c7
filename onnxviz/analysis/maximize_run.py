"""Runs of activation maximization: what is made at once, in which order, and what was done before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.maximize import MadePicture, Settings, Subject
from onnxviz.analysis.maximize_batches import batch_size, other_inputs, weights_digest
from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.maximize_graph import Ascent, ascent_model
from onnxviz.analysis.maximize_model import Answers, Plan, answers_model, bound_model
from onnxviz.analysis.maximize_parameters import Parameters
from onnxviz.analysis.maximize_resume import Checkpoint, Done
from onnxviz.analysis.maximize_round import Item, Round
from onnxviz.errors import ExecutionError, SelectionError, printable
from onnxviz.gradient.registry import Table
from onnxviz.runtime.session import Session
from onnxviz.runtime.stateful import StatefulSession

__all__ = ["maximize_subjects"]


def maximize_subjects(
    model: ir.Model,
    canvas: Canvas,
    subjects: Sequence[Subject],
    settings: Settings | None = None,
    *,
    picture: tuple[int, ...] | None = None,
    dims: Mapping[str, int] | None = None,
    fixed: Sequence[str] = (),
    batch: int | None = None,
    max_memory: int = 2 * 10**9,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 64,
    progress: Callable[[int, int], None] | None = None,
    table: Table | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
    providers: str | Sequence[str] = "auto",
    op_library: str | os.PathLike[str] | None = None,
) -> tuple[tuple[MadePicture, ...], int, bool, tuple[str, ...]]:
    """Make pictures for subjects, several at once where the model takes several.

    Args:
        model: A model with inferred shapes; it is not changed.
        canvas: The input, as :func:`onnxviz.analysis.maximize_canvas.find_canvas` gives it.
        subjects: What for. All have the same layers, kinds and exponents.
        settings: How.
        picture: Sizes of the pictures, where they are not those of the input.
        dims: Sizes for open dimensions.
        fixed: Values of the other inputs, as :func:`onnxviz.runtime.inputs.load_inputs` takes them.
        batch: Most pictures at once, of a model that leaves it open.
        max_memory: Bytes that a step may take, about.
        checkpoint: A file that holds what is done; where it exists, the work goes on from there.
        every: Steps after which it is written.
        progress: Called after each step with the number of steps done and of all.
        table, allow_cut, straight_through: As :func:`onnxviz.gradient.model.gradient_model` takes them.
        providers, op_library: As :class:`onnxviz.runtime.session.Session` takes them.

    Returns:
        The pictures, how many were made at once, whether the work was interrupted, and what a reader must know.

    Raises:
        GradientError: No gradient leads from a layer to the input.
        SelectionError: A layer has no such channel, position or direction.
        InputError: Sizes, starts, or a checkpoint do not fit.
        ExecutionError: onnxruntime refuses the model, or a node fails.
    """
    how = settings or Settings()
    gradients = {"table": table, "allow_cut": allow_cut, "straight_through": straight_through}
    running = {"providers": providers, "op_library": op_library}

    def opened(most: int | None) -> Job:
        job = Job(model, canvas, tuple(subjects), how, picture or canvas.size, dims or {})
        job.prepare(most, max_memory, tuple(fixed))
        try:
            job.open(gradients, running)
        except (ExecutionError, SelectionError) as error:
            if job.plan.batch == 1 or canvas.batch is not None or batch is not None or job.plan.diverse:
                raise
            job = opened(1)  # as models do that say their batch is open, and reshape to one sample
            job.notes.append(f"one at once, more do not fit the model ({printable(error.message, 120)})")
        return job

    job = opened(batch)
    saved = Checkpoint(checkpoint, job.fingerprint(), every)
    interrupted = job.run(saved, progress)
    return tuple(job.made), job.plan.batch, interrupted, tuple(job.notes)


class Job:
    """One run: what is fixed, and the rounds."""

    def __init__(
        self,
        model: ir.Model,
        canvas: Canvas,
        subjects: tuple[Subject, ...],
        how: Settings,
        picture: tuple[int, ...],
        dims: Mapping[str, int],
    ) -> None:
        if not subjects:
            raise SelectionError("nothing is maximized", hint="name a layer with --layer, or a --class")
        if any([g.form for g in s.goals] != [g.form for g in subjects[0].goals] for s in subjects):
            raise SelectionError("pictures of one sheet maximize the same layers in the same way")
        self.model, self.canvas, self.subjects, self.how, self.picture = model, canvas, subjects, how, picture
        self.dims = dims
        self.made: list[MadePicture] = []
        self.notes: list[str] = []
        color = canvas.color if canvas.kind == "picture" and canvas.color in ("rgb", "bgr") else ""
        kind = "pixel" if canvas.kind == "vector" else how.parameters
        self.parameters = Parameters(kind, canvas.channels, picture, color, how.decay)

    def prepare(self, batch: int | None, max_memory: int, fixed: tuple[str, ...]) -> None:
        """Choose how many pictures are made at once, and make the other inputs."""
        goals = self.subjects[0].goals
        layers = [goal.layer for goal in goals]
        total = len(self.subjects) * self.how.count
        diverse = self.how.count > 1 and self.how.diversity > 0
        group = self.how.count if diverse else 1
        size, note = batch_size(
            self.model, self.canvas, layers, total, group, most=batch, memory=max_memory, dims=self.dims,
            area=float(np.prod(self.picture) / np.prod(self.canvas.size)),
        )  # fmt: skip
        self.notes += [note] if note else []
        self.bound = bound_model(self.model, self.canvas, size, self.dims, layers)
        everywhere = tuple(
            all(subject.goals[i].everywhere for subject in self.subjects) for i in range(len(goals))
        )  # fmt: skip
        viewed = self.canvas.kind != "vector" and (not self.how.views.still or self.picture != self.canvas.size)
        self.plan = Plan(self.canvas, size, goals, everywhere, self.picture, viewed, diverse)
        self.others, notes = other_inputs(self.model, self.bound, self.canvas, size, fixed, self.dims, self.how.seed)
        self.notes += notes

    def open(self, gradients: dict[str, Any], running: dict[str, Any]) -> None:
        """Build the graphs and their sessions."""
        self.ascent: Ascent = ascent_model(self.bound, self.plan, self.parameters, **gradients)
        self.notes += [f"gradients end at {cut}" for cut in self.ascent.cuts[:3]]
        for subject in self.subjects:  # before the time that a session takes
            for goal, layer in zip(subject.goals, self.ascent.layers, strict=True):
                if goal.kind == "match" and not goal.reference:
                    goal.target(layer)
        self.session = StatefulSession(self.ascent.model, self.ascent.state, **running)
        self.answers: Answers | None = None
        if any(goal.reference for goal in self.plan.forms):
            self.answers = answers_model(self.bound, self.plan)
            self.answering = Session(self.answers.model, optimize=True, **running)
        Round(self, next(self.rounds()))  # that the model runs at all

    def fingerprint(self) -> str:
        """Return what tells this run from others, its interruption apart."""
        subjects = [
            [s.label, [[g.layer, g.kind, g.channel, g.position, g.cosine, g.weight, g.reference, _digest(g.direction)]
                       for g in s.goals], _digest(s.start), _digest(s.reference)]
            for s in self.subjects
        ]  # fmt: skip
        told = [asdict(self.how), subjects, self.plan.batch, self.picture, self.canvas.order, self.canvas.size,
                self.canvas.scale.tolist(), self.canvas.shift.tolist(), weights_digest(self.ascent.model),
                [_digest(np.asarray(array)) for array in self.others.values()]]  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def rounds(self) -> Iterator[list[Item]]:
        """Yield the pictures of each round; those of one subject are together."""
        items = [Item(i, copy) for i in range(len(self.subjects)) for copy in range(self.how.count)]
        size = self.plan.batch
        for start in range(0, len(items), size):
            part = items[start : start + size]
            yield part + [replace(part[-1], filler=True)] * (size - len(part))

    def run(self, saved: Checkpoint, progress: Callable[[int, int], None] | None) -> bool:
        """Make all pictures that are not done; return whether the work was interrupted."""
        done, running = saved.load()
        self.made = [self._restored(one) for one in done]
        rounds = list(self.rounds())
        first = (
            len(self.made) // self.plan.batch if len(self.made) < len(self.subjects) * self.how.count else len(rounds)
        )
        if first or running is not None:
            self.notes.append(f"went on from {saved.name}")
        for number in range(first, len(rounds)):
            tell = None
            if progress is not None:
                before = number * self.how.steps
                tell = lambda step, before=before: progress(before + step, len(rounds) * self.how.steps)  # noqa: E731
            one = Round(self, rounds[number])
            finished = one.climb(running if number == first else None, saved, self._done(), tell)
            self.made += one.pictures()
            if not finished:
                return True
            saved.save(self._done(), None)
        return False

    def _done(self) -> list[Done]:
        index = {subject.label: i for i, subject in enumerate(self.subjects)}
        return [Done(index[m.label], m.copy, m.values, m.score, m.start, m.history) for m in self.made]

    def _restored(self, one: Done) -> MadePicture:
        subject = self.subjects[one.subject]
        return MadePicture(subject.label, subject.unit, one.copy, one.values, one.score, one.start, one.history)


def _digest(array: npt.NDArray[Any] | None) -> str:
    return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
