"""Scores and gradients of many rows: the gradient model is built once and run as memory allows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxviz.analysis.attribution.feeding import Feeding
from onnxviz.errors import ExecutionError, InputError, SelectionError, printable
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.registry import Table
from onnxviz.graph.model import copy_model
from onnxviz.runtime.session import Session

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.targets import Target

__all__ = ["How", "Pass", "Runner"]

Array = npt.NDArray[Any]
_BUDGET = 1 << 30
_MOST = 256  # rows of a run: more make nothing faster


@dataclass(frozen=True)
class How:
    """How models are run.

    Attributes:
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators; its code is executed.
        batch: Rows of a run, where the model leaves that open; None takes as many as fit.
        memory: Bytes that the tensors of a run may take; 1 GB by default.
        row_bytes: Bytes that all tensors of one row take; 0 where that is not known.
        allow_cut: Go on without the paths through operators that have no gradient.
        straight_through: Pass gradients through quantisation as if it did not round.
        progress: Called with how many changed copies of samples are done, and of how many.
    """

    providers: str | Sequence[str] = "auto"
    op_library: str | os.PathLike[str] | None = None
    batch: int | None = None
    memory: int | None = None
    row_bytes: int = 0
    allow_cut: bool = False
    straight_through: bool = False
    progress: Callable[[int, int], None] | None = None

    def rows(self, feeding: Feeding, *, gradients: bool) -> int:
        """Return how many rows a run takes."""
        if feeding.fixed is not None:
            return feeding.fixed
        if self.batch is not None:
            return self.batch
        if not self.row_bytes:
            return 8
        # Backward, what every layer gave is still there, and a gradient of each comes to it.
        return int(min(max((self.memory or _BUDGET) // (self.row_bytes * (2 if gradients else 1)), 1), _MOST))


@dataclass(frozen=True, eq=False)
class Pass:
    """What some rows gave.

    Attributes:
        scores: ``(R,)`` float64: the target of each; empty without a target.
        gradients: Tensor -> ``(R, …)``: of the score with respect to it.
        values: Tensor -> ``(R, …)``.
    """

    scores: npt.NDArray[np.float64]
    gradients: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)


class Runner:
    """A model opened once, for scores, gradients and inner tensors of any number of rows.

    The gradient that enters the target is an input, so one graph serves all classes and samples. Where rules carry
    relevance, the value of the target enters instead.

    Args:
        model: The model; it is not changed.
        feeding: How rows are fed.
        target: What is scored; None gives tensors alone.
        wrt: Tensors whose gradients are asked for; without, no gradient model is built.
        also: Tensors whose values are asked for.
        table: Other gradient rules than the true ones.
        how: Providers, memory and the like.

    Attributes:
        cuts: Where gradients end, a line each.
        notes: What rules have to say of how they treated a node.
        baselines: Input -> the input of the rows that it is compared with, ``(R, …)`` as well.
        providers: Those that the session has.
        fallbacks: Node -> provider, of nodes that the first of them did not take.
        rows: How many rows a run takes.
        without: Tensors that turned out to have no axis of samples; then samples run one by one.

    Raises:
        GradientError: No gradient leads from the target to a tensor.
        ExecutionError, ProviderError: As :class:`onnxviz.runtime.session.Session`.
    """

    def __init__(
        self,
        model: ir.Model,
        feeding: Feeding,
        *,
        target: Target | None = None,
        wrt: Sequence[str] = (),
        also: Sequence[str] = (),
        table: Table | None = None,
        how: How | None = None,
    ) -> None:
        self.feeding, self.target, self.how = feeding, target, how or How()
        self.cuts: tuple[str, ...] = ()
        self.without: set[str] = set()
        self.notes: tuple[str, ...] = ()
        self.baselines: dict[str, str] = {}
        self._seed: str | None = None
        self._gradients: dict[str, str] = {}
        if wrt and target is not None:
            made = gradient_model(
                model, target.tensor, wrt, table=table, allow_cut=self.how.allow_cut,
                straight_through=self.how.straight_through,
            )  # fmt: skip
            built, self._seed, self._gradients = made.model, made.seed, made.gradients
            self.cuts = tuple(str(cut) for cut in made.cuts)
            self.notes, self.baselines = tuple(dict.fromkeys(made.notes)), made.baselines
            self.feeding = replace(feeding, rowwise=feeding.rowwise | set(made.baselines.values()))
            if made.gives == "relevance" and made.seed is not None:
                _enter_value(built, made.seed, target.tensor)
        else:
            built = copy_model(model)
        self._fed = {str(v.name) for v in built.graph.inputs if not v.is_initializer()}
        self._fed |= set(self.baselines.values())
        self._also = tuple(also)
        scored = [] if target is None else [target.tensor]
        computed = [name for name in (*scored, *self._gradients.values(), *also) if name not in self._fed]
        _returns(built, computed)
        self._session: Session | None = None  # where only inputs are asked for, nothing is computed
        self.providers: tuple[str, ...] = ()
        self.fallbacks: dict[str, str] = {}
        if computed:
            self._session = Session(built, self.how.providers, optimize=True, op_library=self.how.op_library)
            self.providers = tuple(self._session.providers)
            self.fallbacks = self._session.fallbacks
        self.rows = self.how.rows(feeding, gradients=bool(wrt))
        if target is not None and target.bare:
            self.rows = 1

    def __call__(self, rows: Mapping[str, Any], samples: Sequence[int] | Array, weights: Array | None = None) -> Pass:
        """Run rows.

        Args:
            rows: Input -> ``(R, …)``; those that hold no row a sample as they are.
            samples: ``(R,)``: which sample's target each row has.
            weights: ``(R,)``: factors on the gradients that enter; 1 by default.
        """
        samples = np.asarray(samples, np.intp)
        try:
            return self._all(rows, samples, weights)
        except _NoRowsError:
            if self.rows == 1 or self.feeding.fixed is not None:
                name = next(iter(self.without))
                raise SelectionError(
                    f"{printable(name, 80)} has no axis of samples, and the model runs {self.rows} at once",
                    hint="choose a tensor that has, or feed one sample",
                ) from None
            self.rows = 1
            return self._all(rows, samples, weights)

    def _all(self, rows: Mapping[str, Any], samples: npt.NDArray[np.intp], weights: Array | None) -> Pass:
        parts = []
        for start in range(0, len(samples), self.rows):
            part = slice(start, start + self.rows)
            own = {n: a[part] if n in self.feeding.rowwise else a for n, a in rows.items()}
            try:
                parts.append(self._part(own, samples[part], None if weights is None else weights[part]))
            except (ExecutionError, InputError):
                if self.rows == 1 or self.feeding.fixed is not None or self.how.batch is not None:
                    raise
                # It declares an open number of samples and takes only one: of a fixed state or shape inside.
                self.rows = 1
                return self._all(rows, samples, weights)
        return _joined(parts)

    def copies(self, count: int) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Yield, for each sample, which of its ``count`` changed copies go into one run; tell the progress."""
        for sample in range(self.feeding.samples):
            for start in range(0, count, self.rows):
                yield sample, np.arange(start, min(start + self.rows, count))
                if self.how.progress is not None:
                    done = sample * count + min(start + self.rows, count)
                    self.how.progress(done, count * self.feeding.samples)

    def _part(self, rows: Mapping[str, Any], samples: npt.NDArray[np.intp], weights: Array | None) -> Pass:
        feeds = {n: a for n, a in self.feeding.feeds(rows).items() if n in self._fed}
        count = len(samples)
        if self.target is not None:
            feeds |= {n: a for n, a in self._frozen(samples).items() if n in self._fed}
            if self._seed is not None:
                feeds[self._seed] = self._entering(samples, weights)
        given = {} if self._session is None else self._session.run_again(feeds)
        given |= {name: np.asarray(feeds[name]) for name in self._also if name in feeds}
        scores: npt.NDArray[np.float64] = np.zeros(0)
        if self.target is not None:
            value = given[self.target.tensor] if self.target.tensor in given else feeds[self.target.tensor]
            scores = self.target.scores(value[None] if self.target.bare else value[:count], samples)
        gradients = {name: self.lead(name, given[o], count) for name, o in self._gradients.items()}
        return Pass(scores, gradients, {name: self.lead(name, given[name], count) for name in self._also})

    def lead(self, name: str, array: Any, count: int) -> Array:
        """Return a tensor of a run with an axis of rows in front, where the model gives it none."""
        array = np.asarray(array)
        alone: Array = array[None]
        if self.feeding.bare and name in self.feeding.rowwise:
            return alone
        total = max(self.feeding.fixed or 0, count)
        if array.ndim and len(array) == total:
            return np.asarray(array[:count])
        self.without.add(name)
        if total > 1:
            raise _NoRowsError
        return alone

    def _padded(self, samples: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        lacking = (self.feeding.fixed or 0) - len(samples)
        return np.concatenate([samples, samples[-1:].repeat(lacking)]) if lacking > 0 else samples

    def _frozen(self, samples: npt.NDArray[np.intp]) -> dict[str, Array]:
        assert self.target is not None
        return {name: array[self._padded(samples)] for name, array in self.target.frozen.items()}

    def _entering(self, samples: npt.NDArray[np.intp], weights: Array | None) -> Array:
        assert self.target is not None
        seeds = self.target.seeds(samples)
        if weights is not None:
            seeds = seeds * weights.reshape(-1, *[1] * (seeds.ndim - 1)).astype(seeds.dtype)
        if self.target.bare:
            return np.asarray(seeds[0])
        padding = len(self._padded(samples)) - len(samples)  # rows that only fill up a run have no gradient
        return np.concatenate([seeds, np.zeros((padding, *seeds.shape[1:]), seeds.dtype)]) if padding else seeds


class _NoRowsError(Exception):
    """A tensor of a run of several rows does not tell them apart."""


def _enter_value(model: ir.Model, seed: str, tensor: str) -> None:
    """Multiply what enters by the value of the target: relevance is what is shared out."""
    values = {str(v.name): v for v in (*model.graph.inputs, *(o for node in model.graph for o in node.outputs))}
    entering, value = values[seed], values[tensor]
    product = ir.node("Mul", [entering, value], name=f"{seed}.value")
    product.outputs[0].name, product.outputs[0].type = f"{seed}.value", value.type
    product.outputs[0].shape = value.shape
    for node, place in list(entering.uses()):
        if node is not product:
            node.replace_input_with(place, product.outputs[0])
    maker = value.producer()
    if maker is None:
        model.graph.insert_before(model.graph[0], product)
    else:
        model.graph.insert_after(maker, product)


def _returns(model: ir.Model, names: Iterable[str]) -> None:
    """Make some tensors all that a model returns, and remove what computes nothing of them."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    values |= {str(value.name): value for value in model.graph.outputs if value.name not in values}  # constants
    model.graph.outputs[:] = [values[name] for name in dict.fromkeys(names)]
    RemoveUnusedNodesPass()(model)


def _joined(parts: Sequence[Pass]) -> Pass:
    if len(parts) == 1:
        return parts[0]
    return Pass(
        np.concatenate([part.scores for part in parts]),
        {name: np.concatenate([part.gradients[name] for part in parts]) for name in parts[0].gradients},
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
    )
