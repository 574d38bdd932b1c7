"""A sweep over sizes: what works, what changes and what fails when the open dimensions of a model change."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.axes import Dimension, batch_dimension, free_dimensions
from onnxviz.analysis.baked_sizes import baked_sizes, failing_node, named_nodes, node_words, with_node_words
from onnxviz.analysis.rounding import tolerance
from onnxviz.analysis.size_formulas import output_sizes
from onnxviz.analysis.size_plan import Symbols, default_sizes, pairs_of_sizes
from onnxviz.analysis.size_rules import SizeRule, find_rule
from onnxviz.analysis.size_trials import MEMORY, SECONDS, Outcome, SizeTrials
from onnxviz.analysis.sweep_changes import declared_changes, nonfinite_changes, padding_changes, sample_changes
from onnxviz.analysis.sweep_result import SizeChange, SizeFailure, SizeRun, Sweep, SweptDimension, at_sizes
from onnxviz.errors import CheckError, InputError, listed, printable
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model, model_name
from onnxviz.graph.shapes import infer_shapes, model_inputs, shape_list

if TYPE_CHECKING:
    from onnxviz.runtime.inputs import Inputs

__all__ = ["sweep_sizes"]

_MOST_DIMENSIONS = 6
_COMPARED = 8  # samples of a batch that are compared with what they give alone
_OTHER_USUAL = (1, 32, 64, 128, 256, 512)


def sweep_sizes(
    model: ir.Model,
    inputs: Inputs,
    *,
    sizes: Mapping[str, Sequence[int]] | None = None,
    op_library: str | os.PathLike[str] | None = None,
    seconds: float = 120.0,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Run a model at many sizes of its open dimensions, in a process of its own, nothing fused, on the CPU.

    Each dimension changes alone; then pairs of dimensions take a few of the sizes that work alone. Where sizes fail,
    the boundary and the step are searched for. Samples of a batch are compared with what each gives alone.

    Args:
        model: The model; it is not changed.
        inputs: What it is fed at its usual sizes. Other sizes cut this off, or begin it anew.
        sizes: Dimension -> the sizes to try; the others then keep their usual size. None for all, with sizes that
            :func:`onnxviz.analysis.size_plan.default_sizes` chooses.
        op_library: A shared library of custom operators.
        seconds: Seconds for the whole; what is left then is told as not tried.
        memory: Most resident memory of the process, in bytes.
        progress: Called with the number of sizes that were tried and that are planned.

    Raises:
        CheckError: The model has no open dimension, or does not run at its usual sizes.
        InputError: There is no such dimension, or a size is negative.

    >>> from onnxviz.runtime.inputs import load_inputs
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[m, 4] y)'
    >>> model = ir.from_onnx_text(text + '<int64[2] s = {2, 4}> {y = Reshape(x, s)}')
    >>> result = sweep_sizes(model, load_inputs(model, dims={"n": 2}), sizes={"n": [1, 2, 3]})
    >>> str(result.dimensions[0].rule), result.failures[0].fixed
    ('works only at 2, of 3 sizes', "Reshape that writes 'y' has the constant [2, 4] where 'n' should decide")
    """
    dimensions = _chosen(model, sizes)
    inputs, notes = _sensible_masks(inputs)
    named = copy_model(inline_functions(model))
    named_nodes(named)
    samples = batch_dimension(model)
    counting = samples.name if samples is not None and samples in dimensions else None
    told: dict[str, int] = {"planned": 0}

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, max(told["planned"], done))

    every = free_dimensions(model)
    with SizeTrials(
        named, inputs.feeds, every, samples=counting, op_library=op_library,
        timeout=min(SECONDS, max(seconds / 3, 1.0)), memory=memory, seconds=seconds, tell=tell,
    ) as trials:  # fmt: skip
        run = _Run(named, trials, dimensions, counting, sizes, told, op_library)
        swept = run.swept(inputs.assumed if sizes is None else {})
        result = run.result(swept)
    made_up = [record.name for record in inputs.records if record.made_up]
    notes = [*([f"fed random numbers: {listed(made_up)}"] if made_up else []), *notes, *run.notes]
    moved = {name for partners in run.tied.values() for name in partners}
    if left_out := [d.name for d in every if d not in dimensions and d.name not in moved]:
        notes.append(f"kept at their usual sizes: {listed(left_out)}")
    fed = tuple(f"{r.name}: {r.source}, {r.dtype} {list(r.shape)}" for r in inputs.records)
    return replace(result, model=model_name(model), inputs=fed, notes=tuple(notes))


def _chosen(model: ir.Model, sizes: Mapping[str, Sequence[int]] | None) -> list[Dimension]:
    """Return the dimensions to change."""
    every = free_dimensions(model)
    if not every:
        told = [f"{printable(v.name, 60)} {shape_list(v)}" for v in model_inputs(model)]
        raise CheckError(
            f"the model has no open dimension: {listed(told, 3) if told else 'it has no inputs'}",
            hint="free an axis with --free INPUT:AXIS, or export with dynamic axes",
        )
    if not sizes:
        return every[:_MOST_DIMENSIONS]
    known = {dimension.name: dimension for dimension in every}
    if unknown := [name for name in sizes if name not in known]:
        raise InputError(
            f"the model has no open dimension {unknown[0]!r}", hint=f"its open dimensions are {', '.join(known)}"
        )
    if negative := [size for each in sizes.values() for size in each if size < 0]:
        raise InputError(f"a dimension cannot be {negative[0]}", hint="give sizes of 0 or more")
    return [known[name] for name in sizes]


def _sensible_masks(inputs: Inputs) -> tuple[Inputs, list[str]]:
    """Fill masks that nobody gave with ones: a random one may hide all there is."""
    masks = [
        r.name for r in inputs.records
        if r.made_up and "mask" in r.name.lower() and np.asarray(inputs.feeds[r.name]).dtype.kind in "biuf"
    ]  # fmt: skip
    ones = {name: np.ones_like(np.asarray(inputs.feeds[name])) for name in masks}
    records = tuple(replace(r, source="ones", made_up=False) if r.name in ones else r for r in inputs.records)
    notes = [f"masks that nobody gave are all ones: {listed(masks)}"] if masks else []
    return replace(inputs, feeds={**inputs.feeds, **ones}, records=records), notes


class _Run:
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
        free = [name for name in self.dimensions if name in assumed and name != self.samples]
        for changed in self._other_bases(free):
            if trials.run(changed).ran:
                trials.rebase(changed)
                self.notes.append(f"the usual sizes fail, so others are taken: {at_sizes(changed)}")
                return
        error = first.error and with_node_words(self.model, first.error)
        raise CheckError(
            f"the model does not run at its usual sizes, {at_sizes(trials.usual)}: {error or first.limit}",
            hint="give --input, or sizes that fit with --dim NAME=N",
        )

    def _other_bases(self, free: Sequence[str]) -> Iterator[dict[str, int]]:
        """Yield other sizes to begin with: those that outputs are declared with, then usual ones."""
        declared: dict[str, int] = {}
        for name in free:
            for axis in set(self.dimensions[name].axes.values()):
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
            values = name == self.samples and 0 < size <= _COMPARED
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
        others = [other for other in usual if other != name]
        equal = tuple(other for other in others if usual[other] == usual[name])
        larger = [size for size in (usual[name] + 1, *plan) if size > usual[name]][:2]
        for partners in dict.fromkeys([equal, *((other,) for other in others)]):
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
        return Sweep("", tuple(swept), pairs, tuple(formulas), tuple(changes), failures, ())

    def _size_run(self, one: Outcome, changed: set[tuple[tuple[str, int], ...]]) -> SizeRun:
        if one.error is not None:
            return SizeRun(one.sizes, "fails", with_node_words(self.model, one.error))
        if not one.ran:
            return SizeRun(one.sizes, "not_tried", one.limit or one.skipped or "")
        verdict = "changes" if tuple(one.sizes.items()) in changed else "works"
        return SizeRun(one.sizes, verdict, "", one.shapes, one.seconds, one.bytes)  # type: ignore[arg-type]

    def _changes(self, names: Sequence[str], base: Outcome, ran: Sequence[Outcome]) -> Iterator[SizeChange]:
        types = infer_shapes(self.model)
        limits = {name: tolerance(types, str(array.dtype)) for name, array in base.outputs.items()}
        dimension = self.dimensions.get(self.samples or "")
        if dimension is not None and dimension.name in names:
            strip = {s: one for s, one in self.strips[dimension.name].items() if one.ran and 0 < s <= _COMPARED}
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
