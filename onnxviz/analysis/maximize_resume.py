"""What is done of activation maximization, in a file, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxviz.errors import InputError
from onnxviz.graph.files import atomic_path, check_output
from onnxviz.runtime.storage import write_npz

__all__ = ["Checkpoint", "Done", "Running"]

_FORMAT = "onnxviz maximize 1"


@dataclass(frozen=True, eq=False)
class Done:
    """A picture that is finished: see :class:`onnxviz.analysis.maximize.MadePicture`."""

    subject: int
    copy: int
    values: npt.NDArray[np.float32]
    score: float
    start: float
    history: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Running:
    """A round that is not.

    Attributes:
        state: The optimiser's tensors.
        history: ``(steps, N)`` float32.
        first: ``(N,)`` float32: the scores of what was begun with.
    """

    state: tuple[npt.NDArray[np.float32], ...]
    history: npt.NDArray[np.float32]
    first: npt.NDArray[np.float32]


class Checkpoint:
    """The file of one run; nothing is read or written without a path.

    Args:
        path: ``.npz``.
        fingerprint: What tells the run from others.
        every: Steps after which it is written.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None, fingerprint: str, every: int) -> None:
        self.path = None if path is None else Path(path)
        self.fingerprint = fingerprint
        self.every = every
        if self.path is not None:
            check_output(self.path, (".npz",))

    @property
    def name(self) -> str:
        """The file's name."""
        return "" if self.path is None else self.path.name

    def due(self, step: int, steps: int) -> bool:
        """Whether the file is written after a step, counted from 1; after the last one the round's end writes it."""
        return self.path is not None and step % self.every == 0 and step < steps

    def load(self) -> tuple[list[Done], Running | None]:
        """Return what is done; nothing where there is no file yet.

        Raises:
            InputError: The file is another run's, or damaged.
        """
        if self.path is None or not self.path.exists():
            return [], None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            told = json.loads(str(found["manifest"]))
            ours = told["format"] == _FORMAT
        except Exception as error:
            raise InputError(
                f"{self.path} is no checkpoint of onnxviz, or it is damaged", hint="name another file for --resume"
            ) from error
        if not ours or told["fingerprint"] != self.fingerprint:
            raise InputError(
                f"{self.path} is the checkpoint of another run: the model or an option differs",
                hint="name another file for --resume, or delete this one",
            )
        done = [
            Done(int(of), int(copy), found[f"values/{i}"], float(score), float(start), found[f"history/{i}"])
            for i, (of, copy, score, start) in enumerate(zip(*(found[n] for n in _COLUMNS), strict=True))
        ]
        state = tuple(found[f"state/{i}"] for i in range(told["state"]))
        return done, Running(state, found["running"], found["first"]) if state else None

    def save(self, done: Sequence[Done], running: Running | None) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        if self.path is None:
            return
        told = {"format": _FORMAT, "fingerprint": self.fingerprint, "state": len(running.state) if running else 0}
        arrays = {
            "manifest": np.array(json.dumps(told)),
            "subject": np.array([one.subject for one in done], np.int64),
            "copy": np.array([one.copy for one in done], np.int64),
            "score": np.array([one.score for one in done], np.float64),
            "start": np.array([one.start for one in done], np.float64),
        }
        for i, one in enumerate(done):
            arrays |= {f"values/{i}": one.values, f"history/{i}": one.history}
        if running is not None:
            arrays |= {f"state/{i}": array for i, array in enumerate(running.state)}
            arrays |= {"running": running.history, "first": running.first}
        with atomic_path(self.path) as temporary:
            write_npz(temporary, arrays)


_COLUMNS = ("subject", "copy", "score", "start")
