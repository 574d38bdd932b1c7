"""What is explained: a model, what it is fed, the target of each sample, and what is attributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.feeding import Feeding, read_rows
from onnxviz.analysis.attribution.inputs import find_canvases, made_up, picture_size, words_of
from onnxviz.analysis.attribution.layers import on_path
from onnxviz.analysis.attribution.run import How, Pass, Runner
from onnxviz.analysis.attribution.sources import cut_at, default_sources
from onnxviz.analysis.attribution.targets import Forward, Target, TargetSpec, resolve_target
from onnxviz.analysis.placement import Placement
from onnxviz.analysis.spatial_heat import Canvas
from onnxviz.analysis.surroundings import Surroundings
from onnxviz.errors import SelectionError, listed, printable
from onnxviz.gradient.registry import Table
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.liveness import tensor_bytes
from onnxviz.graph.model import model_name
from onnxviz.graph.select import FLOAT_TYPES, select
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.batches import Batches
from onnxviz.runtime.record import Capture

__all__ = ["Case", "open_case"]

Array = npt.NDArray[Any]
_MAPS = {"Conv", "FusedConv", "Relu", "LeakyRelu", "Clip", "HardSwish", "Add", "Mul", "BatchNormalization"}
_MEASURED = 128  # maps whose shapes are measured


@dataclass(frozen=True, eq=False)
class Case:
    """What is explained.

    Attributes:
        model: The model, functions inlined; attributed inner tensors are inputs of it.
        feeds: Input -> ``(N, …)``; inputs that hold no row a sample as they are.
        feeding: How samples are fed.
        target: The score of each sample.
        sources: The inputs that are attributed.
        around: What the model tells of its tensors.
        how: How models are run.
        canvases: Picture or signal of each sample; None where it is neither.
        inner: Attributed tensors that are no inputs of the file's model.
        read: Reads a file as what the inputs are fed, for baselines.
        notes: What a reader should know.
        name: Of the model.
        words: What the tokens of each sample are, or their ids; empty where no input holds any.
        providers: Those that ran the model to find the target.
    """

    model: ir.Model
    feeds: Mapping[str, Any]
    feeding: Feeding
    target: Target
    sources: tuple[str, ...]
    around: Surroundings
    how: How
    canvases: tuple[Canvas | None, ...]
    inner: frozenset[str] = frozenset()
    read: Callable[[str], Mapping[str, Any]] | None = None
    notes: tuple[str, ...] = ()
    name: str = "model"
    words: tuple[tuple[str, ...], ...] = ()
    providers: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.feeding.samples

    @property
    def everything(self) -> npt.NDArray[np.intp]:
        """The numbers of all samples."""
        return np.arange(self.samples)

    @property
    def canvas_axes(self) -> int:
        """Axes of what maps are drawn over: 2 of a picture, 1 of a signal, 0 without."""
        canvas = next((c for c in self.canvases if c is not None), None)
        return 0 if canvas is None else len(canvas.size)

    def rows(self, samples: Sequence[int] | Array) -> dict[str, Any]:
        """Return what is fed for some samples, ``(R, …)`` each."""
        chosen = np.asarray(samples, np.intp)
        return {name: array[chosen] if name in self.feeding.rowwise else array for name, array in self.feeds.items()}

    def changed(self, sample: int, rows: Mapping[str, Array]) -> tuple[dict[str, Any], npt.NDArray[np.intp]]:
        """Return copies of a sample with some inputs changed to ``(R, …)``, and the sample's number for each."""
        count = len(next(iter(rows.values())))
        chosen = np.full(count, sample, np.intp)
        return {**self.rows(chosen), **{n: a.astype(self.feeds[n].dtype, copy=False) for n, a in rows.items()}}, chosen

    def value(self, name: str) -> Array:
        """Return an attributed input as fed, ``(N, …)``."""
        return np.asarray(self.feeds[name])

    def runner(self, wrt: Sequence[str] = (), also: Sequence[str] = (), table: Table | None = None) -> Runner:
        """Return the model opened for scores, gradients and inner tensors; with the true gradients only once."""
        key = tuple(wrt), tuple(also)
        if table is None and key in self._opened:
            return self._opened[key]
        made = Runner(self.model, self.feeding, target=self.target, wrt=wrt, also=also, table=table, how=self.how)
        if table is None:
            self._opened[key] = made
        return made

    @cached_property
    def _opened(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], Runner]:
        return {}

    def fed(self, rows: Mapping[str, Array]) -> Case:
        """Return the case with other values of some inputs, ``(N, …)``, of the same model and target."""
        typed = {name: np.asarray(array, self.feeds[name].dtype) for name, array in rows.items()}
        made = replace(self, feeds={**self.feeds, **typed}, target=replace(self.target, clean=None))
        made.__dict__.update(_opened=self._opened, places=self.places)  # of the model, not of what it is fed
        return made

    @cached_property
    def places(self) -> dict[str, Placement | None]:
        """Where the cells of layers lie on the canvas, as far as that was asked for."""
        return {}

    def through(self, runner: Runner) -> Pass:
        """Return what the samples as they are give; of a model that stays open it is kept."""
        if runner in self._passes:
            return self._passes[runner]
        found = runner(self.feeds, self.everything)
        self.__dict__.setdefault("scores", found.scores)
        if runner in self._opened.values():
            self._passes[runner] = found
        return found

    @cached_property
    def _passes(self) -> dict[Runner, Pass]:
        return {}

    @cached_property
    def gradients(self) -> Runner:
        """The model opened for gradients with respect to what is attributed."""
        return self.runner(wrt=self.sources)

    @cached_property
    def forward(self) -> Runner:
        """The model opened for scores and the tensor that they are of."""
        return self.runner(also=[self.target.tensor])

    @property
    def fallbacks(self) -> dict[str, str]:
        """Node -> provider, of nodes that the preferred provider did not take."""
        return {node: name for runner in self._opened.values() for node, name in runner.fallbacks.items()}

    @cached_property
    def clean(self) -> Pass:
        """Scores and gradients of the samples as they are."""
        return self.through(self.gradients)

    @cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores of the samples as they are, ``(N,)``."""
        clean = self.target.clean
        return clean if clean is not None else self.forward(self.feeds, self.everything).scores


def open_case(
    model: ir.Model,
    batches: Batches,
    *,
    target: TargetSpec = None,
    wrt: str | Sequence[str] | None = None,
    output: str | None = None,
    labels: Sequence[str] | None = None,
    how: How | None = None,
    words: Mapping[int, str] | None = None,
    read: Callable[[str], Mapping[str, Any]] | None = None,
) -> Case:
    """Read the samples, resolve the target of each, and find what is attributed.

    Args:
        model: The model; it is not changed.
        batches: The samples.
        target: As :func:`onnxviz.analysis.attribution.targets.resolve_target` takes it.
        wrt: Inputs or inner tensors that are attributed; by default the real-valued inputs that lead to the target,
            or, where there are none, the embeddings of its tokens.
        output, labels: As for the target.
        how: How models are run.
        words: Token id -> word; None shows the ids.
        read: Reads a file as what the inputs are fed.

    Raises:
        SelectionError: The target or a tensor does not exist, or nothing that is fed could be attributed.
        InputError: Samples do not fit together.
        GradientError: An expression is none.
    """
    how = how or How()
    flat = infer_shapes(inline_functions(model))
    feeding, feeds = read_rows(flat, batches)
    around = _around(flat, batches, feeding)
    how = replace(how, row_bytes=_row_bytes(around.model, around.batch))

    def forward(given: ir.Model, names: Sequence[str], more: Mapping[str, Array]) -> dict[str, Array]:
        wider = replace(feeding, rowwise=feeding.rowwise | set(more))
        runner = Runner(given, wider, also=names, how=how)
        values = runner({**feeds, **more}, np.arange(feeding.samples)).values
        without.update(runner.without)
        providers.extend(runner.providers)
        return values

    without: set[str] = set()
    providers: list[str] = []
    canvases = find_canvases(around, batches, feeding.samples)
    found = resolve_target(
        flat, target, forward, labels=labels, output=output, picture=picture_size(canvases), words=words
    )  # fmt: skip
    found = replace(found, bare=found.tensor in without)
    notes = (*made_up(batches), *found.notes)
    names, inner = _sources(flat, found, wrt, feeding)
    _measure(around, found, names, forward)
    if inner:
        values = forward(flat, sorted(inner), {})
        if lacking := sorted(inner & without):
            raise SelectionError(f"{lacking[0]} has no axis of samples", hint="choose another tensor with --layer")
        feeds = {**feeds, **values}
        feeding = replace(feeding, rowwise=feeding.rowwise | inner)
        found = replace(found, model=cut_at(found.model, inner))
        _check_apart(found, inner)
        told = listed([printable(name, 60) for name in sorted(inner)])
        notes = (*notes, f"attributed: {told}, which is inside the model")
    return Case(
        found.model, feeds, feeding, found, names, around, how, canvases,
        frozenset(inner), read, notes, model_name(model), words_of(feeds, feeding, words),
        tuple(dict.fromkeys(providers)),
    )  # fmt: skip


def _around(model: ir.Model, batches: Batches, feeding: Feeding) -> Surroundings:
    around = Surroundings(model, Capture({}, batches.first().records, model_name(model), ()))
    if feeding.bare:
        around.batch = 1  # of tensors inside, which the model gives an axis of samples itself
    return around


def _row_bytes(model: ir.Model, samples: int) -> int:
    sizes = [tensor_bytes(value) for node in model.graph for value in node.outputs]
    known = [size for size in sizes if size is not None]
    return sum(known) // samples + 1 if len(known) > len(sizes) // 2 else 0


def _sources(
    model: ir.Model, target: Target, wrt: str | Sequence[str] | None, feeding: Feeding
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return what is attributed, and which of it is inside the model."""
    inputs = {str(value.name) for value in model.graph.inputs}
    if wrt is None:
        names = default_sources(target.model, target.tensor, feeding.rowwise)
    else:
        patterns = [wrt] if isinstance(wrt, str) else list(wrt)
        names = [str(value.name) for pattern in patterns for value in select(model, pattern, inputs=True)]
        lost = [n for n in names if n not in inputs and n not in on_path(model, inputs, target.tensor)]
        if lost:
            raise SelectionError(f"{lost[0]} does not lie between the inputs and {target.tensor}")
        if whole := [n for n in names if n in inputs and n not in feeding.rowwise]:
            raise SelectionError(
                f"{whole[0]} holds no row a sample, so it cannot be attributed",
                hint=f"those that do are {listed(sorted(feeding.rowwise)) or 'none'}",
            )
    return tuple(dict.fromkeys(names)), frozenset(names) - inputs


def _check_apart(target: Target, names: frozenset[str]) -> None:
    """Refuse inner tensors of which one leads to the target through another alone."""
    for name in sorted(names):
        if name != target.tensor and target.tensor not in on_path(target.model, [name], target.tensor):
            raise SelectionError(
                f"{name} leads to {target.tensor} through other tensors that are attributed as well",
                hint=f"name one of {', '.join(sorted(names))}",
            )


def _measure(around: Surroundings, target: Target, sources: Sequence[str], forward: Forward) -> None:
    """Find the shapes of the last maps before the target by running them, where none can be inferred."""
    path = on_path(target.model, sources, target.tensor).items()
    maps = [n for n, v in path if v.dtype in FLOAT_TYPES and v.shape is not None and len(v.shape) in (4, 5)]
    makers = {n for n, v in path if (node := v.producer()) is not None and node.op_type in _MAPS}
    chosen = [name for name in maps if name in makers and name not in around.shapes][-_MEASURED:]
    if chosen:
        around.shapes |= {n: a.shape for n, a in forward(target.model, chosen, target.frozen).items()}
