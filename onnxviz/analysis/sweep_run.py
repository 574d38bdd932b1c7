"""The phases of a sweep: each dimension alone, the rules behind what fails, pairs, and what changes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.axes import Dimension
from onnxviz.analysis.baked_sizes import baked_sizes, failing_node, node_words, with_node_words
from onnxviz.analysis.rounding import tolerance
from onnxviz.analysis.size_formulas import output_sizes
from onnxviz.analysis.size_plan import Symbols, default_sizes, pairs_of_sizes
from onnxviz.analysis.size_rules import SizeRule, find_rule
from onnxviz.analysis.size_trials import Outcome, SizeTrials
from onnxviz.analysis.sweep_changes import declared_changes, nonfinite_changes, padding_changes, sample_changes
from onnxviz.analysis.sweep_result import SizeChange, SizeFailure, SizeRun, Sweep, SweptDimension, Verdict, at_sizes
from onnxviz.errors import CheckError, listed
from onnxviz.graph.shapes import infer_shapes, shape_list

__all__ = ["SweepRun"]

_MOST_PARTNERS = 12
_OTHER_USUAL = (1, 32, 64, 128, 256, 512)


class SweepRun:
    """The phases of a sweep, on one set of trials."""

    def __init__(
        self,
        model: ir.Model,
        trials: SizeTrials,
        dimensions: Sequence[Dimension],
        samples: str | None,
        sizes: Mapping[str, Sequence[int]] | None,
        told: dict[str, int],
        op_library: str | os.PathLike[str] | None,
    ) -> None:
        self.model, self.trials, self.told = model, trials, told
        self.dimensions = {dimension.name: dimension for dimension in dimensions}
        self.samples = samples
        self.given = sizes
        self.op_library = op_library
        self.symbols = Symbols(model, list(trials.dimensions.values()))
        self.strides = self.symbols.strides()
        self.tied: dict[str, tuple[str, ...]] = {}
        self.strips: dict[str, dict[int, Outcome]] = {}
        self.rules: dict[str, SizeRule | None] = {}
        self.pairs: list[Outcome] = []
        self.notes: list[str] = []

    def swept(self, assumed: Mapping[str, int]) -> list[str]:
        """Run everything, and return the dimensions that were changed on their own."""
        self._base(assumed)
        plan = {name: self._sizes(name) for name in self.dimensions}
        self.told["planned"] = sum(len(sizes) for sizes in plan.values())
        for step in zip_longest(*([(name, size) for size in sizes] for name, sizes in plan.items())):
            for entry in step:
                if entry is not None:
                    self._single(*entry)
        names = self._tie(plan)
        for name in names:
            self.rules[name] = self._rule(name)
        working = {n: [s for s, one in sorted(self.strips[n].items()) if one.ran and s in plan[n]] for n in names}
        pairs = pairs_of_sizes(working, self.trials.usual)
        self.told["planned"] = len(self.trials.known) + len(pairs)
        self.pairs = [self.trials.run(self._moved(pair)) for pair in pairs]
        return names

    def _base(self, assumed: Mapping[str, int]) -> None:
        """Run at the usual sizes; where those were assumed, others may do."""
        trials = self.trials
        first = trials.run({}, values=True)
        if first.ran:
            return
        free = [name for name in trials.usual if name in assumed and name != self.samples]
        for changed in self._other_bases(free):
            if changed != trials.usual and trials.run(changed).ran:
                trials.rebase(changed)
                self.notes.append(f"the usual sizes fail, so others are taken: {at_sizes(changed)}")
                return
        error = first.error and with_node_words(self.model, first.error)
        raise CheckError(
            f"the model does not run at its usual sizes, {at_sizes(trials.usual)}: {error or first.limit}",
            hint="give --input, or sizes that fit with --dim NAME=N"
            + (", or allow more with --max-memory or --max-seconds" if first.limit else ""),
        )

    def _other_bases(self, free: Sequence[str]) -> Iterator[dict[str, int]]:
        """Yield other sizes to begin with: those that were asked for or that outputs declare, then usual ones."""
        if self.given:
            for choose in (min, max):
                yield {**self.trials.usual, **{name: choose(sizes) for name, sizes in self.given.items()}}
        declared: dict[str, int] = {}
        for name in free:
            for axis in set(self.trials.dimensions[name].axes.values()):
                shapes = [shape_list(value) or [] for value in self.model.graph.outputs]
                sizes = [size for s in shapes for size in s[axis : axis + 1] if isinstance(size, int) and size > 1]
                if sizes:
                    declared[name] = sizes[0]
        if declared:
            yield {**self.trials.usual, **declared}
        for size in _OTHER_USUAL if free else ():
            yield {**self.trials.usual, **dict.fromkeys(free, size)}

    def _sizes(self, name: str) -> Sequence[int]:
        usual = self.trials.usual[name]
        if self.given:
            return sorted({*self.given[name], usual})
        return default_sizes(usual, samples=name == self.samples, stride=self.strides[name])

    def _moved(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return sizes with those that have to change as well."""
        usual = self.trials.usual
        whole = dict(sizes)
        for name, size in sizes.items():
            for partner in self.tied.get(name, ()):
                whole[partner] = whole.get(partner, usual[partner]) + size - usual[name]
        return whole

    def _single(self, name: str, size: int) -> bool | None:
        """Try a size of one dimension; None where it was not tried, or reached a limit."""
        strip = self.strips.setdefault(name, {})
        limited = [other for other, one in strip.items() if one.limit is not None]
        whole = self._moved({name: size})
        if min(whole.values()) < 0:
            return None
        if limited and size > min(limited) and size > self.trials.usual[name]:
            reason = f"{min(limited)} reached a limit: {strip[min(limited)].limit}"
            outcome = Outcome({**self.trials.usual, **whole}, skipped=reason)
        else:
            values = name == self.samples and size > 0
            outcome = self.trials.run(whole, values=values)
        strip[size] = outcome
        return True if outcome.ran else False if outcome.error is not None else None

    def _tie(self, plan: Mapping[str, Sequence[int]]) -> list[str]:
        """Find dimensions that have to agree; return those that are left to change on their own."""
        names: list[str] = []
        for name in self.dimensions:
            if leading := [other for other in names if name in self.tied.get(other, ())]:
                self.notes.append(f"{name} has to change with {listed(leading)}")
                continue
            names.append(name)
            others = [one for size, one in self.strips[name].items() if size > 1 and size != self.trials.usual[name]]
            if others and all(one.error is not None for one in others):
                self.tied[name] = next(self._partners(name, plan[name]), ())
            if self.tied.get(name):
                self.strips[name].clear()
                for size in plan[name]:
                    self._single(name, size)
        return names

    def _partners(self, name: str, plan: Sequence[int]) -> Iterator[tuple[str, ...]]:
        """Yield dimensions that make a size work which fails alone, when they change by as much."""
        usual = self.trials.usual
        others = sorted((other for other in usual if other != name), key=lambda other: usual[other] != usual[name])
        equal = tuple(other for other in others if usual[other] == usual[name])
        larger = [size for size in (usual[name] + 1, *plan) if size > usual[name]][:2]
        for partners in dict.fromkeys([*((other,) for other in others[:_MOST_PARTNERS]), equal]):
            moved = [{name: s} | {p: usual[p] + s - usual[name] for p in partners} for s in larger]
            if partners and any(self.trials.run(sizes).ran for sizes in moved):
                yield partners

    def _rule(self, name: str) -> SizeRule | None:
        known = {s: one.ran for s, one in self.strips[name].items() if one.ran or one.error is not None}
        low, high = (min(self.given[name]), max(self.given[name])) if self.given else (0, 1 << 62)

        def attempt(size: int) -> bool | None:
            return self._single(name, size) if low <= size <= high else None

        rule = find_rule(known, attempt, self.strides[name])
        if rule is not None and not rule.simple:
            self._tell_coincidences(name, rule)
        return rule

    def _tell_coincidences(self, name: str, rule: SizeRule) -> None:
        """Say where a size works that others beside it do not, and is the size of another dimension."""
        usual = self.trials.usual
        for other in self.dimensions:
            if other != name and usual[other] in rule.works and usual[other] not in (1, usual[name]):
                self.notes.append(f"{name}: {usual[other]} works, which is the size of {other!r} as well")

    def result(self, names: Sequence[str]) -> Sweep:
        """Compare what ran, and put everything together."""
        symbols, trials = self.symbols, self.trials
        outcomes = [*(one for name in names for one in self.strips[name].values()), *self.pairs]
        base = trials.run({}, values=True)
        ran = [base, *(one for one in outcomes if one.ran and one is not base)]
        other = trials.run_feeds({n: _turned(a) for n, a in trials.feeds.items()})
        formulas = output_sizes(symbols, [(one.sizes, one.shapes) for one in ran], other.shapes)
        changes = list(self._changes(names, base, ran))
        changed = {tuple(at.items()) for change in changes for at in change.sizes}
        if self.samples is not None:  # a batch whose samples mix is not compared again beside another size
            mixed = {at[self.samples] for change in changes if change.kind == "samples" for at in change.sizes}
            changed |= {tuple(one.sizes.items()) for one in self.pairs if one.sizes[self.samples] in mixed}
        made = {id(one): self._size_run(one, changed) for one in outcomes}
        swept = [
            SweptDimension(
                name, self.dimensions[name].axes, trials.usual[name], name == self.samples,
                self.dimensions[name].guessed, self.strides[name], self.tied.get(name, ()), self.rules[name],
                tuple(made[id(one)] for _, one in sorted(self.strips[name].items())),
            )
            for name in names
        ]  # fmt: skip
        pairs = tuple(made[id(one)] for one in self.pairs)
        failures = tuple(self._failures(names))
        return Sweep(
            "", tuple(swept), pairs, tuple(formulas), tuple(changes), failures, (), asked=self.given is not None
        )  # fmt: skip

    def _size_run(self, one: Outcome, changed: set[tuple[tuple[str, int], ...]]) -> SizeRun:
        if one.error is not None:
            return SizeRun(one.sizes, "fails", with_node_words(self.model, one.error))
        if not one.ran:
            return SizeRun(one.sizes, "not_tried", one.limit or one.skipped or "")
        verdict: Verdict = "changes" if tuple(one.sizes.items()) in changed else "works"
        return SizeRun(one.sizes, verdict, "", one.shapes, one.seconds, one.bytes)

    def _changes(self, names: Sequence[str], base: Outcome, ran: Sequence[Outcome]) -> Iterator[SizeChange]:
        types = infer_shapes(self.model)
        limits = {name: tolerance(types, str(array.dtype)) for name, array in base.outputs.items()}
        dimension = self.dimensions.get(self.samples or "")
        if dimension is not None and dimension.name in names:
            strip = {s: one for s, one in self.strips[dimension.name].items() if one.ran and s}
            found, notes = sample_changes(self.model, self.trials, dimension, strip, limits, self.op_library)
            yield from found
            self.notes += notes
        yield from declared_changes(self.model, self.symbols, ran)
        yield from nonfinite_changes(base, ran)
        every = [self.dimensions[name] for name in names if name != self.samples and not self.tied.get(name)]
        found, notes = padding_changes(self.trials, every, limits)
        yield from found
        self.notes += notes

    def _failures(self, names: Sequence[str]) -> Iterator[SizeFailure]:
        for name in names:
            failed = [one for _, one in sorted(self.strips[name].items()) if one.error is not None]
            yield from self._grouped((name,), failed)
        for one in self.pairs:
            if one.error is not None:
                changed = tuple(n for n in names if one.sizes[n] != self.trials.usual[n])
                yield from self._grouped(changed, [one])

    def _grouped(self, names: tuple[str, ...], failed: Iterable[Outcome]) -> Iterator[SizeFailure]:
        """Yield the failures of a dimension, those with the same cause together."""
        groups: dict[tuple[ir.Node | None, str], list[Outcome]] = {}
        for one in failed:
            node = failing_node(self.model, one.error or "")
            groups.setdefault((node, re.sub(r"[-+]?\d+(\.\d+)?", "#", one.error or "")), []).append(one)
        for (node, _), group in groups.items():
            error = group[0].error or ""
            baked = None if node is None else next(baked_sizes(self.symbols, names[0], node.name), None)
            yield SizeFailure(
                names, tuple(one.sizes for one in group), with_node_words(self.model, error),
                None if node is None else node_words(node), None if baked is None else str(baked),
            )  # fmt: skip


def _turned(array: Any) -> Any:
    """Return other numbers of the same shape: floats in the opposite order and sign, whatever else as it is."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        return np.ascontiguousarray(-np.flip(array))
    return array
