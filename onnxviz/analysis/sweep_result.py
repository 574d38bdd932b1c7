"""The result of a sweep over sizes: what works, what changes and what fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from onnxviz.analysis.size_formulas import OutputSize
from onnxviz.analysis.size_rules import SizeRule
from onnxviz.errors import listed, printable

__all__ = ["Kind", "SizeChange", "SizeFailure", "SizeRun", "Sweep", "SweptDimension", "Verdict", "at_sizes"]

Verdict = Literal["works", "changes", "fails", "not_tried"]
Kind = Literal["samples", "declared", "rank", "nonfinite", "padding"]

#: Growth of memory below which it says nothing: allocators take pages at once.
LEAST_MEMORY = 1 << 20


def at_sizes(sizes: Mapping[str, int]) -> str:
    """Write sizes for a line of text.

    >>> at_sizes({"batch": 2, "height": 32})
    'batch=2, height=32'
    """
    return ", ".join(f"{printable(name, 60)}={size}" for name, size in sizes.items())


@dataclass(frozen=True)
class SizeRun:
    """One combination of sizes.

    Attributes:
        sizes: Every dimension -> its size.
        verdict: ``works``; ``changes``: it runs, and something that is told in :attr:`Sweep.changes` is not as it
            should be; ``fails``; or ``not_tried``.
        reason: The error, or why it was not tried; empty where it ran.
        shapes: Output -> shape.
        seconds: Of one run, nothing fused; the shortest of several.
        bytes: Growth of the peak of resident memory; None where it is not known.
    """

    sizes: Mapping[str, int]
    verdict: Verdict
    reason: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seconds: float | None = None
    bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "shapes": {name: list(shape) for name, shape in self.shapes.items()}}


@dataclass(frozen=True)
class SweptDimension:
    """One open dimension, changed while the others have their usual sizes.

    Attributes:
        name: As the model calls it, or ``"input:axis"``.
        axes: Input -> the axis that has this size.
        usual: The size that it has in what is fed.
        samples: It counts samples.
        guessed: That it does is taken from its place, not from its name.
        stride: By how much the coarsest tensor is smaller; 1 where that is not known.
        tied: Dimensions that have to change by as much.
        rule: Which sizes work; None where none does.
        runs: What became of each size, from the smallest to the largest.
    """

    name: str
    axes: Mapping[str, int]
    usual: int
    samples: bool
    guessed: bool
    stride: int
    tied: tuple[str, ...]
    rule: SizeRule | None
    runs: tuple[SizeRun, ...]

    @property
    def told(self) -> str:
        """The rule in words, and what it leaves open; where something changes, a size that runs need not work."""
        verdicts = [run.verdict for run in self.runs]
        text = "works at no size" if self.rule is None else str(self.rule)
        text = text.replace("works", "runs", 1) if "changes" in verdicts else text
        untried = verdicts.count("not_tried")
        return f"{text}; {untried} size{'s' * (untried != 1)} not tried" if untried else text

    def relative(self, run: SizeRun, what: Literal["seconds", "bytes"]) -> float | None:
        """Return time or memory of a run over that at the usual size; None where one of them is not known."""
        usual = next((r for r in self.runs if r.sizes[self.name] == self.usual), None)
        base, value = None if usual is None else getattr(usual, what), getattr(run, what)
        if not base or value is None or (what == "bytes" and max(base, value) < LEAST_MEMORY):
            return None
        return float(value / max(base, LEAST_MEMORY) if what == "bytes" else value / base)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        runs = [
            {
                **run.to_dict(), "size": run.sizes[self.name], "relative_time": self.relative(run, "seconds"),
                "relative_memory": self.relative(run, "bytes"),
            }
            for run in self.runs
        ]  # fmt: skip
        return {
            "name": self.name, "axes": dict(self.axes), "usual": self.usual, "samples": self.samples,
            "guessed": self.guessed, "stride": self.stride, "tied": list(self.tied),
            "rule": None if self.rule is None else self.rule.to_dict(), "runs": runs,
        }  # fmt: skip


@dataclass(frozen=True)
class SizeFailure:
    """Sizes that fail for one reason.

    Attributes:
        dimensions: The dimension, or the two that fail only together.
        sizes: Those that fail.
        error: What onnxruntime says, in one line.
        node: The node that fails; None where none is named.
        fixed: A node before it whose constant fixes the size; None where there is none.
    """

    dimensions: tuple[str, ...]
    sizes: tuple[Mapping[str, int], ...]
    error: str
    node: str | None = None
    fixed: str | None = None

    def __str__(self) -> str:
        told = [
            str(at[self.dimensions[0]]) if len(self.dimensions) == 1 else at_sizes({n: at[n] for n in self.dimensions})
            for at in self.sizes
        ]
        where = f"{printable(self.dimensions[0], 80)} = " if len(self.dimensions) == 1 else ""
        text = f"{where}{listed(told, 8)}: {self.error}"
        return f"{text}; {self.fixed}" if self.fixed else text


@dataclass(frozen=True)
class SizeChange:
    """Something that runs and is not what it should be.

    Attributes:
        kind: ``samples``: those of a batch influence each other; ``declared``: a size that the model declares is
            another; ``rank``: so is a number of axes; ``nonfinite``: NaN or Inf that the usual size does not give;
            ``padding``: places that a mask hides matter.
        output: The output.
        message: What, in one line.
        sizes: The sizes that it was seen at.
        node: The node that it comes from; None where that is not known.
        why: What that node does; empty where its name says it.
        evidence: Numbers.
    """

    kind: Kind
    output: str
    message: str
    sizes: tuple[Mapping[str, int], ...]
    node: str | None = None
    why: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{printable(self.output, 80)}: {self.message}"
        return f"{text}; {self.why or f'first at {self.node}'}" if self.node else text


@dataclass(frozen=True)
class Sweep:
    """A model at many sizes.

    Attributes:
        model: Its name.
        dimensions: What was changed one by one.
        pairs: Runs with two dimensions changed.
        outputs: The sizes of outputs as formulas.
        changes: What runs and is not as it should be.
        failures: What fails, by reason.
        inputs: What the model was fed at its usual sizes, a line each.
        notes: What a reader should know besides.
        asked: Whether the sizes were named: one of them that was not tried then leaves the question open.
    """

    model: str
    dimensions: tuple[SweptDimension, ...]
    pairs: tuple[SizeRun, ...]
    outputs: tuple[OutputSize, ...]
    changes: tuple[SizeChange, ...]
    failures: tuple[SizeFailure, ...]
    inputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    asked: bool = False

    @property
    def runs(self) -> list[SizeRun]:
        """Every combination of sizes once."""
        every = [*(run for dimension in self.dimensions for run in dimension.runs), *self.pairs]
        return list({tuple(run.sizes.items()): run for run in every}.values())

    def counts(self) -> dict[Verdict, int]:
        """Return how many combinations have which verdict."""
        verdicts = [run.verdict for run in self.runs]
        ways: tuple[Verdict, ...] = ("works", "changes", "fails", "not_tried")
        return {verdict: verdicts.count(verdict) for verdict in ways}

    @property
    def found(self) -> bool:
        """Whether something changes, or fails at another size than 0."""
        failing = (run for run in self.runs if run.verdict == "fails")
        return bool(self.changes) or any(0 not in run.sizes.values() for run in failing)

    @property
    def complete(self) -> bool:
        """Whether enough was tried: all sizes that were named, else at least one beside the usual."""
        counts = self.counts()
        return (
            not counts["not_tried"]
            if self.asked
            else counts["not_tried"] < len(self.runs) - 1 or not counts["not_tried"]
        )

    @property
    def passed(self) -> bool:
        """Whether nothing changes, nothing fails but a size of 0, and enough was tried."""
        return not self.found and self.complete

    def exit_code(self) -> int:
        """Return 0 where it passed, 1 where something was found, 3 where too little was tried."""
        return 1 if self.found else 0 if self.complete else 3

    def shape(self, output: str) -> list[str]:
        """Return the shape of an output in formulas."""
        return [str(size) for size in self.outputs if size.output == output]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema": 1, "model": self.model, "passed": self.passed, "counts": self.counts(),
            "dimensions": [dimension.to_dict() for dimension in self.dimensions],
            "pairs": [run.to_dict() for run in self.pairs], "outputs": [size.to_dict() for size in self.outputs],
            "changes": [asdict(change) for change in self.changes],
            "failures": [asdict(failure) for failure in self.failures],
            "inputs": list(self.inputs), "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(printable(line, 400) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        counts = self.counts()
        told = f"{counts['works']} work, {counts['changes']} change, {counts['fails']} fail"
        rest = f"; {counts['not_tried']} not tried" if counts["not_tried"] else ""
        open_ = f"{len(self.dimensions)} open dimension{'s' * (len(self.dimensions) != 1)}"
        yield f"{self.model}: {open_}, {len(self.runs)} sizes: {told}{rest}"
        for dimension in self.dimensions:
            yield f"  {_name(dimension)}: {dimension.told}"
        for output in dict.fromkeys(size.output for size in self.outputs):
            yield f"  output {printable(output, 80)}: [{', '.join(self.shape(output))}]"
        yield from (f"changes: {change}" for change in self.changes)
        yield from (f"fails: {failure}" for failure in self.failures)
        yield from self.notes
        for dimension in self.dimensions:
            yield ""
            yield from _table(dimension)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(dimension.name, 80))}</td><td>{run.sizes[dimension.name]}</td>"
            f"<td>{run.verdict.replace('_', ' ')}</td><td>{escape(printable(run.reason))}</td></tr>"
            for dimension in self.dimensions
            for run in dimension.runs
        )
        head = "<tr><th>dimension</th><th>size</th><th></th><th></th></tr>"
        summary = escape(printable(next(self._lines())))
        return f"<table><caption>{summary}</caption>{head}{rows}</table>"


def _name(dimension: SweptDimension) -> str:
    """Return a dimension with what is known of it."""
    facts = [f"usually {dimension.usual}"]
    if dimension.samples:
        facts.insert(0, "taken to count samples" if dimension.guessed else "counts samples")
    if dimension.stride > 1:
        facts.append(f"stride {dimension.stride}")
    if dimension.tied:
        facts.append(f"together with {', '.join(printable(name, 60) for name in dimension.tied)}")
    return f"{printable(dimension.name, 80)} ({'; '.join(facts)})"


def _table(dimension: SweptDimension) -> Iterator[str]:
    """Yield the lines of a table: a size each."""
    name = printable(dimension.name, 40)
    rows = [(name, "", "time", "memory", "")]
    for run in dimension.runs:
        time, memory = (_times(dimension.relative(run, "seconds")), _times(dimension.relative(run, "bytes")))
        shapes = " ".join(f"{list(shape)}" for shape in list(run.shapes.values())[:4])
        more = f" and {len(run.shapes) - 4} more" if len(run.shapes) > 4 else ""
        told = f"{run.reason[:90]}{'…' * (len(run.reason) > 90)}" if run.reason else shapes + more
        rows.append((str(run.sizes[dimension.name]), run.verdict.replace("_", " "), time, memory, told))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [row[0].rjust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3].rjust(widths[3])]
        yield f"  {'  '.join(cells)}  {row[4]}".rstrip()


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"×{ratio:.2g}" if ratio < 9.5 else f"×{ratio:.0f}"
