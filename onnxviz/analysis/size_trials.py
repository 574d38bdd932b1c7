"""Runs of a model at other sizes than the usual, one after the other, in a process of their own and within a budget."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.axes import Dimension, sized, varied
from onnxviz.errors import MemoryLimitError, OnnxvizError

if TYPE_CHECKING:
    from onnxviz.runtime.trial import Trials

__all__ = ["MEMORY", "Outcome", "SizeTrials", "work_together"]

Array = npt.NDArray[Any]

LARGEST = 1 << 24  # elements of an input
MEMORY = 4 << 30
SECONDS = 20.0  # of one size
_LARGEST_VALUES = 1 << 26  # elements of outputs that are brought back to be compared


@dataclass(frozen=True)
class Outcome:
    """What became of one combination of sizes.

    Attributes:
        sizes: Every dimension -> its size.
        error: Why it fails; None where it runs, or was not tried.
        limit: Which limit it reached: too long, too much memory; None where none.
        skipped: Why it was not tried; None where it was.
        shapes: Output -> its shape.
        nonfinite: Outputs that hold NaN or Inf.
        seconds: Of one run.
        bytes: Growth of the peak of resident memory; None where it is not known.
        outputs: Output -> values, where they were asked for.
    """

    sizes: Mapping[str, int]
    error: str | None = None
    limit: str | None = None
    skipped: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    nonfinite: tuple[str, ...] = ()
    seconds: float | None = None
    bytes: int | None = None
    outputs: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ran(self) -> bool:
        """Whether it ran to its end."""
        return self.error is None and self.limit is None and self.skipped is None

    @property
    def trouble(self) -> str | None:
        """What went wrong, reached limits included; None where it ran or was not tried."""
        return self.error or self.limit


class SizeTrials:
    """A model that is run at many sizes; each combination once.

    Args:
        model: The model.
        feeds: What it is fed at its usual sizes: other sizes cut this off, or begin it anew.
        dimensions: What may change. Along the one that ``samples`` names, samples differ from each other.
        samples: Name of the dimension that counts samples; None where none does.
        op_library: A shared library of custom operators.
        timeout: Seconds that one size may take.
        memory: Most resident memory of the process, in bytes.
        seconds: Seconds for all sizes together; what is asked for later is skipped. None for any time.
        tell: Called after each run with the number of runs so far.

    >>> from onnxviz.analysis.axes import dimensions
    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] y) {y = Relu(x)}'
    ... )
    >>> with SizeTrials(model, {"x": np.zeros((1, 4), np.float32)}, dimensions(model)) as trials:
    ...     trials.run({"n": 3}).shapes["y"]
    (3, 4)
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Mapping[str, Any],
        dimensions: Sequence[Dimension],
        *,
        samples: str | None = None,
        op_library: str | os.PathLike[str] | None = None,
        timeout: float = SECONDS,
        memory: int = MEMORY,
        seconds: float | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.feeds = feeds
        self.dimensions = {dimension.name: dimension for dimension in dimensions}
        self.usual = {dimension.name: dimension.size(feeds) for dimension in dimensions}
        self.samples = samples
        self.known: dict[tuple[int, ...], Outcome] = {}
        self._model, self._op_library = model, op_library
        self._timeout, self._memory = timeout, memory
        self._seconds, self._tell = seconds, tell
        self._stack = ExitStack()
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        from onnxviz.runtime.trial import Trials, source_of

        source = self._stack.enter_context(source_of(self._model))
        trials = Trials(source, op_library=self._op_library, timeout=self._timeout, memory=self._memory)
        self._trials: Trials = self._stack.enter_context(trials)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def exhausted(self) -> bool:
        """Whether the time for all sizes is over."""
        return self._seconds is not None and time.monotonic() - self._started > self._seconds

    def affordable(self, share: float) -> int:
        """Return how many runs at the usual sizes a share of the time for all sizes is enough for."""
        usual = self.known.get(tuple(self.usual.values()))
        each = usual.seconds if usual is not None else None
        return 1 << 30 if self._seconds is None or not each else int(share * self._seconds / each)

    def rebase(self, sizes: Mapping[str, int]) -> None:
        """Take other sizes for the usual ones."""
        self.feeds = self.feeds_at(sizes)
        self.usual = {name: sizes.get(name, usual) for name, usual in self.usual.items()}
        self.known = {key: one for key, one in self.known.items() if one.ran}

    def feeds_at(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Return feeds with these sizes; dimensions that are not named have the usual one."""
        feeds = dict(self.feeds)
        for name, size in sorted(sizes.items(), key=lambda entry: entry[0] == self.samples):
            dimension = self.dimensions[name]
            if size != self.usual[name]:
                differ = name == self.samples and size > 0 and self.usual[name] > 0
                feeds = varied(feeds, dimension, size) if differ else sized(feeds, dimension, size)
        return feeds

    def run(self, sizes: Mapping[str, int], *, values: bool = False) -> Outcome:
        """Run at these sizes, or return what became of them before."""
        whole = {**self.usual, **sizes}
        key = tuple(whole.values())
        known = self.known.get(key)
        if known is None or (values and known.ran and not known.outputs):
            fresh = self._run(whole, values)
            if known is None or fresh.ran:
                self.known[key] = known = fresh
            if self._tell is not None:
                self._tell(len(self.known))
        return known

    def run_feeds(self, feeds: Mapping[str, Any], sizes: Mapping[str, int] | None = None) -> Outcome:
        """Run on these very feeds and return the outputs too."""
        return self._measure(dict(sizes or self.usual), feeds, values=True)

    def _run(self, sizes: dict[str, int], values: bool) -> Outcome:
        if (count := self._elements(sizes)) > LARGEST:
            return Outcome(sizes, skipped=f"an input would have {count:,} elements")
        if self.exhausted and sizes != self.usual:
            return Outcome(sizes, skipped=f"the {self._seconds:g} s for all sizes were over")
        return self._measure(sizes, self.feeds_at(sizes), values)

    def _measure(self, sizes: dict[str, int], feeds: Mapping[str, Any], values: bool) -> Outcome:
        start = time.monotonic()
        try:
            trial = self._trials.run(feeds, values=values)
        except MemoryLimitError as error:
            return Outcome(sizes, limit=error.message)
        except OnnxvizError as error:
            late = time.monotonic() - start >= self._timeout
            return Outcome(sizes, limit=error.message) if late else Outcome(sizes, error=error.message)
        arrays = {n: a for n, a in trial.outputs.items() if isinstance(a, np.ndarray)}
        if sum(a.size for a in arrays.values()) > _LARGEST_VALUES:
            arrays = {}
        return Outcome(
            sizes, shapes=trial.shapes, nonfinite=trial.nonfinite, seconds=trial.seconds, bytes=trial.bytes,
            outputs=arrays,
        )  # fmt: skip

    def _elements(self, sizes: Mapping[str, int]) -> int:
        """Return the number of elements of the largest input at these sizes."""
        shapes = {name: list(array.shape) for name, array in self.feeds.items() if isinstance(array, np.ndarray)}
        for name, size in sizes.items():
            for tensor, axis in self.dimensions[name].axes.items():
                shapes[tensor][axis] = size
        return max((math.prod(shape) for shape in shapes.values()), default=0)


def work_together(trials: SizeTrials, name: str, size: int, partners: Sequence[str] | None = None) -> bool:
    """Return whether a size that fails alone works once the dimensions that have to agree with it change as well.

    Args:
        trials: Where to run.
        name: The dimension.
        size: Its size.
        partners: What changes by as much; None for the dimensions that have the same usual size.
    """
    usual = trials.usual
    if partners is None:
        partners = [other for other in usual if other != name and usual[other] == usual[name]]
    moved = {other: usual[other] + size - usual[name] for other in partners}
    if not moved or min(moved.values()) < 0:
        return False
    return trials.run({**moved, name: size}).ran
