"""What stands together in a figure of volumes: equal blocks drawn once, convolutions of one size side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from onnxviz.diagram.volume_labels import Naming
from onnxviz.diagram.volume_stages import Stage

__all__ = ["Block", "Unit", "collect_units", "fold_repeats"]

_FEW = 20  # volumes that are drawn one by one
_LONGEST_BLOCK = 64
_LEAST_RUN = 6  # equal layers without a block around them
_MOST_LINES = 4
_FEW_UNITS = 12
_PLAIN = Naming()


@dataclass(eq=False)
class Block:
    """Stages that stand ``times`` times in a row and are drawn once."""

    stages: list[Stage]
    times: int


@dataclass(eq=False)
class Unit:
    """Stages that are drawn side by side, with one label."""

    stages: list[Stage]
    block: Block | None = None

    @property
    def first(self) -> Stage:
        """The stage that reads from outside."""
        return self.stages[0]

    @property
    def last(self) -> Stage:
        """The stage that others read."""
        return self.stages[-1]

    @property
    def uniform(self) -> bool:
        """Whether one number of channels, that of the last stage, says it all."""
        return len({stage.extent.channels for stage in self.stages if not _keeps_channels(stage)}) < 2

    def lines(self) -> list[str]:
        """Return what is done in it, equal neighbours on one line.

        Where channels differ along the unit each convolution says how many come out.
        """
        if self.uniform:
            told = [text for stage in self.stages for text in (stage.work, *stage.notes)]
        else:
            told = []
            for s in self.stages:
                made = "" if _keeps_channels(s) else f" → {_PLAIN.text(s.extent.channels)}"
                told += [_brief(s.work) + made, *s.notes]
        runs = [(text, len(list(run))) for text, run in groupby(told)]
        return [f"{count} × {text}" if count > 1 else text for text, count in runs if text]


def _keeps_channels(stage: Stage) -> bool:
    """Whether the channels of a stage follow from what it reads: pooling, concatenation, depthwise convolution."""
    if stage.kind != "conv":
        return True
    source = next(iter(stage.sources), None)
    return stage.work.startswith("dw ") and source is not None and source.extent.channels == stage.extent.channels


def _brief(work: str) -> str:
    """Write a stride as papers do on one line: ``conv 3×3 /2``."""
    return work.replace(", stride ", " /").replace(", dilation", " dilation")


def fold_repeats(stages: Sequence[Stage]) -> tuple[list[Stage], list[Block]]:
    """Take out all but the first of equal blocks in a row.

    A block is equal to the one before where its stages do the same work at the same sizes, on sources of the same
    sizes, with constants of the same shapes, and read the same places: within the block, the end of the block before,
    or one and the same stage elsewhere. Nothing else may read what lies inside any of them.
    """
    if len(stages) <= _FEW:
        return list(stages), []
    place = {stage: at for at, stage in enumerate(stages)}
    sources = [sorted(place[s] for s in stage.sources) for stage in stages]
    last_reader = [-1] * len(stages)
    for at, found in enumerate(sources):
        for source in found:
            last_reader[source] = at
    runs = _runs(stages, sources)
    into: dict[Stage, Stage] = {}
    blocks = []
    at = 0
    while at < len(stages):
        period, times = _best_run(at, runs, sources, last_reader)
        if times > 1:
            kept = list(stages[at : at + period])
            blocks.append(Block(kept, times))
            for copy in range(times):
                for offset, stage in enumerate(kept):
                    into[stages[at + copy * period + offset]] = stage
                    stage.repeats, stage.end = times, stages[at + copy * period + offset].value
        at += period * times
    gone = {stage for stage, kept in into.items() if stage is not kept}
    left = [stage for stage in stages if stage not in gone]
    for stage in left:
        stage.sources = {into.get(source, source): value for source, value in stage.sources.items()}
    return left, blocks


def _runs(stages: Sequence[Stage], sources: list[list[int]]) -> list[npt.NDArray[np.int64]]:
    """Return for each period how many stages in a row, from each on, look like the one a period later."""
    labels: dict[object, int] = {}
    ids = np.array([labels.setdefault(_label(stage), len(labels)) for stage in stages])
    found = [np.zeros(len(stages), np.int64)]
    for period in range(1, min(_LONGEST_BLOCK, len(stages) // 2) + 1):
        alike = np.zeros(len(stages) + 1, bool)
        for at in np.flatnonzero(ids[:-period] == ids[period:]).tolist():
            mine, later = sources[at], sources[at + period]
            alike[at] = len(mine) == len(later) and all(b in (a + period, a) for a, b in zip(mine, later, strict=True))
        ends = np.where(alike, len(stages), np.arange(len(stages) + 1))
        nearest = np.minimum.accumulate(ends[::-1])[::-1]
        found.append(nearest[:-1] - np.arange(len(stages)))
    return found


def _label(stage: Stage) -> object:
    if stage.role != "node":
        return stage
    read = tuple(source.extent for source in stage.sources)
    return (stage.kind, stage.work, stage.sign, stage.extent, read, tuple(stage.done), tuple(stage.notes))


def _best_run(
    at: int, runs: list[npt.NDArray[np.int64]], sources: list[list[int]], last_reader: list[int]
) -> tuple[int, int]:
    """Return period and times of the blocks from a stage on that save most; (1, 1) where nothing repeats."""
    best, saved = (1, 1), 0
    for period in range(1, len(runs)):
        times = int(runs[period][at]) // period + 1
        while times > 1 and not _closed(at, period, times, sources, last_reader):
            times -= 1
        gain = (times - 1) * period
        if gain > saved and (times >= _LEAST_RUN if period == 1 else gain >= 3):
            best, saved = (period, times), gain
    return best


def _closed(at: int, period: int, times: int, sources: list[list[int]], last_reader: list[int]) -> bool:
    """Whether nothing but the end of the last block is read from outside, and each reads the end of the one before."""
    end = at + period * times
    for stage in range(at, end):
        copy = (stage - at) // period
        first, last = at + copy * period, at + (copy + 1) * period - 1
        limit = last if stage != last else end - 1 if stage == end - 1 else last + period
        if last_reader[stage] > limit and stage != end - 1:
            return False
        if copy and any(at <= source < first - 1 for source in sources[stage]):
            return False
    return True


def collect_units(stages: Sequence[Stage], blocks: Sequence[Block]) -> list[Unit]:
    """Put convolutions that follow each other at one size side by side; everything else stands alone.

    In a long figure the pooling or concatenation before them stands with them.
    """
    loose = _collect(stages, blocks, {"conv"})
    return loose if len(loose) <= _FEW_UNITS else _collect(stages, blocks, {"conv", "pool", "shape"})


def _collect(stages: Sequence[Stage], blocks: Sequence[Block], kinds: set[str]) -> list[Unit]:
    readers: dict[Stage, int] = dict.fromkeys(stages, 0)
    for stage in stages:
        for source in stage.sources:
            readers[source] += 1
    block_of = {stage: block for block in blocks for stage in block.stages}
    units: dict[Stage, Unit] = {}
    found = []
    for stage in stages:
        before = next(iter(stage.sources), None)
        unit = units.get(before) if before is not None and len(stage.sources) == 1 and readers[before] == 1 else None
        if (
            unit is not None
            and before is unit.last
            and _joins(unit, stage, kinds)
            and block_of.get(stage) is unit.block
        ):
            unit.stages.append(stage)
        else:
            unit = Unit([stage], block_of.get(stage))
            found.append(unit)
        units[stage] = unit
    return found


def _joins(unit: Unit, stage: Stage, kinds: set[str]) -> bool:
    before = unit.last
    sizes = before.extent.spatial
    alike = before.kind in kinds and stage.kind == "conv" and before.extent.known and sizes == stage.extent.spatial
    if not alike or before.extent.is_vector or any(size is None for size in sizes):
        return False
    return len(replace(unit, stages=[*unit.stages, stage]).lines()) <= _MOST_LINES
