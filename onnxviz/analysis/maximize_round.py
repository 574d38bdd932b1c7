"""One round of activation maximization: pictures of several subjects at once, step after step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.maximize import MadePicture, Subject
from onnxviz.analysis.maximize_graph import step_rates
from onnxviz.analysis.maximize_resume import Checkpoint, Done, Running
from onnxviz.analysis.maximize_views import view_matrix

if TYPE_CHECKING:
    from onnxviz.analysis.maximize_run import Job

__all__ = ["Item", "Round"]

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Item:
    """One picture of a round; a filler's is thrown away."""

    subject: int
    copy: int
    filler: bool = False


class Round:
    """The pictures that are made at once."""

    def __init__(self, job: Job, items: list[Item]) -> None:
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
        size, views = job.picture, job.how.views
        if step is None:
            return np.stack([view_matrix(size)] * len(self.items))
        octave = step * views.octaves // job.how.steps
        rngs = (
            np.random.default_rng([job.how.seed, subject.key, item.copy, step])
            for subject, item in zip(self.subjects, self.items, strict=True)
        )
        return np.stack([views.draw(rng, size, octave) for rng in rngs])

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
