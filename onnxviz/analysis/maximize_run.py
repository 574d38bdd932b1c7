"""The rounds of activation maximization: pictures of several subjects at once, step after step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.maximize import MadePicture, Settings, Subject
from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.maximize_graph import Ascent, ascent_model, step_rates
from onnxviz.analysis.maximize_model import Answers, Plan, answers_model, bound_model
from onnxviz.analysis.maximize_parameters import Parameters
from onnxviz.analysis.maximize_resume import Checkpoint, Done, Running
from onnxviz.analysis.maximize_rounds import batch_size, other_inputs, weights_digest
from onnxviz.analysis.maximize_views import view_matrix
from onnxviz.errors import ExecutionError, SelectionError, printable
from onnxviz.gradient.registry import Table
from onnxviz.runtime.session import Session
from onnxviz.runtime.stateful import StatefulSession

__all__ = ["maximize_subjects"]

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Item:
    """One picture of a round; a filler's is thrown away."""

    subject: int
    copy: int
    filler: bool = False


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

    def opened(most: int | None) -> _Job:
        job = _Job(model, canvas, tuple(subjects), how, picture or canvas.size, dims or {})
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


class _Job:
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
        _Round(self, next(self.rounds()))  # that the model runs at all

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

    def rounds(self) -> Iterator[list[_Item]]:
        """Yield the pictures of each round; those of one subject are together."""
        items = [_Item(i, copy) for i in range(len(self.subjects)) for copy in range(self.how.count)]
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
            one = _Round(self, rounds[number])
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


class _Round:
    """The pictures that are made at once."""

    def __init__(self, job: _Job, items: list[_Item]) -> None:
        self.job, self.items = job, items
        self.subjects = [job.subjects[item.subject] for item in items]
        self.histories: list[Values] = []
        self._begin()

    def _begin(self) -> None:
        job, ascent = self.job, self.job.ascent
        numbers = np.stack([self._start(s, item.copy) for s, item in zip(self.subjects, self.items, strict=True)])
        zeros = {name: np.zeros_like(numbers) for name in ascent.state if name != ascent.numbers}
        feeds = {ascent.numbers: numbers, **zeros, **job.others}
        for place, (target, weight, layer) in enumerate(
            zip(ascent.targets, ascent.weights, ascent.layers, strict=True)
        ):
            goals = [subject.goals[place] for subject in self.subjects]
            feeds[weight] = np.array([goal.weight for goal in goals], np.float32)
            if target is None or goals[0].reference:
                continue
            wanted = [goal.target(layer) for goal in goals]
            width = 1 if job.plan.everywhere[place] else layer.positions
            feeds[target] = np.stack([np.broadcast_to(one, (layer.channels, width)) for one in wanted])
        job.session.steps = 0
        job.session.hold(feeds)
        self.first, _ = self._look(picture=False)

    def _start(self, subject: Subject, copy: int) -> Values:
        if subject.start is not None:
            return self.job.parameters.encode(subject.start)
        return self.job.parameters.random(np.random.default_rng([self.job.how.seed, subject.key, copy]))

    def _views(self, step: int | None) -> npt.NDArray[np.float32]:
        """Return the views of a step; of the whole picture as it is without one."""
        job = self.job
        size, model, views = job.picture, job.canvas.size, job.how.views
        if step is None:
            return np.stack([view_matrix(size, model)] * len(self.items))
        octave = step * views.octaves // job.how.steps
        rngs = (
            np.random.default_rng([job.how.seed, subject.key, item.copy, step])
            for subject, item in zip(self.subjects, self.items, strict=True)
        )
        return np.stack([views.draw(rng, size, model, octave) for rng in rngs])

    def _feeds(self, step: int | None) -> dict[str, np.ndarray]:
        """Return what differs from step to step."""
        job, ascent = self.job, self.job.ascent
        feeds: dict[str, np.ndarray] = {ascent.rates: step_rates(step or 0, job.how.rate)}
        if ascent.view is not None:
            feeds[ascent.view] = self._views(step)
        if ascent.mates is not None:
            feeds[ascent.mates] = self._mates()
        if job.answers is not None:
            feeds |= self._references(feeds)
        return feeds

    def _references(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        job = self.job
        assert job.answers is not None
        given = {job.answers.picture: np.stack([s.reference for s in self.subjects if s.reference is not None])}
        if job.answers.view is not None and job.ascent.view is not None:
            given[job.answers.view] = feeds[job.ascent.view]
        found = job.answering.run({**given, **job.others}, list(dict.fromkeys(job.answers.blocks)))
        return {
            target: found[block]
            for target, block, goal in zip(job.ascent.targets, job.answers.blocks, job.plan.forms, strict=True)
            if target is not None and goal.reference
        }

    def _mates(self) -> npt.NDArray[np.float32]:
        """Return what likeness costs: over the last score, shared by the other pictures of the subject."""
        same = np.array([[a.subject == b.subject and a.copy != b.copy for b in self.items] for a in self.items])
        last = self.histories[-1] if self.histories else self.first
        cost = self.job.how.diversity * np.maximum(np.abs(np.nan_to_num(last)), 1e-6) / max(self.job.how.count - 1, 1)
        return np.asarray(same * cost[:, None], np.float32)

    def _look(self, *, picture: bool) -> tuple[Values, Values | None]:
        """Return the scores of the pictures as they are, and the pictures."""
        ascent = self.job.ascent
        self.first = getattr(self, "first", np.ones(len(self.items), np.float32))
        names = [ascent.score, ascent.picture] if picture else [ascent.score]
        found = self.job.session.step(self._feeds(None), names, advance=False)
        return found[ascent.score], found.get(ascent.picture)

    def climb(
        self,
        running: Running | None,
        saved: Checkpoint,
        done: list[Done],
        tell: Callable[[int], None] | None,
    ) -> bool:
        """Make the steps; return whether all were made."""
        job = self.job
        names = list(job.ascent.state)
        if running is not None:
            job.session.hold(dict(zip(names, running.state, strict=True)))
            self.histories = list(running.history)
            self.first = running.first
        job.session.steps = len(self.histories)
        try:
            for step in range(len(self.histories), job.how.steps):
                found = job.session.step(self._feeds(step), [job.ascent.score])
                self.histories.append(found[job.ascent.score])
                if saved.due(step + 1, job.how.steps):
                    saved.save(done, self._running(names))
                if tell is not None:
                    tell(step + 1)
        except KeyboardInterrupt:
            if job.session.steps == len(self.histories):  # else the last file that was written is the truth
                saved.save(done, self._running(names))
            return False
        return True

    def _running(self, names: Sequence[str]) -> Running:
        state = tuple(self.job.session.value(name) for name in names)
        history = np.array(self.histories, np.float32).reshape(-1, len(self.items))
        return Running(state, history, self.first)

    def pictures(self) -> list[MadePicture]:
        """Return the pictures as they are now."""
        scores, values = self._look(picture=True)
        assert values is not None
        history = np.array(self.histories, np.float32).reshape(-1, len(self.items))
        return [
            MadePicture(subject.label, subject.unit, item.copy, values[i], float(scores[i]), float(self.first[i]),
                        history[:, i].copy())
            for i, (subject, item) in enumerate(zip(self.subjects, self.items, strict=True))
            if not item.filler
        ]  # fmt: skip
