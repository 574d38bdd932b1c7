"""Scores and gradients of many rows: the gradient model is built once and run as memory allows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxviz.analysis.attribution.feeding import Feeding
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
    """

    providers: str | Sequence[str] = "auto"
    op_library: str | os.PathLike[str] | None = None
    batch: int | None = None
    memory: int | None = None
    row_bytes: int = 0
    allow_cut: bool = False
    straight_through: bool = False

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

    The gradient that enters the target is an input, so one graph serves all classes and samples.

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
        providers: Those that the session has.
        fallbacks: Node -> provider, of nodes that the first of them did not take.
        rows: How many rows a run takes.

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
        self._seed: str | None = None
        self._gradients: dict[str, str] = {}
        if wrt and target is not None:
            made = gradient_model(
                model, target.tensor, wrt, table=table, allow_cut=self.how.allow_cut,
                straight_through=self.how.straight_through,
            )  # fmt: skip
            built, self._seed, self._gradients = made.model, made.seed, made.gradients
            self.cuts = tuple(str(cut) for cut in made.cuts)
        else:
            built = copy_model(model)
        self._fed = {str(v.name) for v in built.graph.inputs if not v.is_initializer()}
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
        parts = []
        for start in range(0, len(samples), self.rows):
            part = slice(start, start + self.rows)
            own = {n: a[part] if n in self.feeding.rowwise else a for n, a in rows.items()}
            parts.append(self._part(own, samples[part], None if weights is None else weights[part]))
        return _joined(parts)

    def copies(self, count: int) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Yield, for each sample, which of its ``count`` changed copies go into one run."""
        for sample in range(self.feeding.samples):
            for start in range(0, count, self.rows):
                yield sample, np.arange(start, min(start + self.rows, count))

    def _part(self, rows: Mapping[str, Any], samples: npt.NDArray[np.intp], weights: Array | None) -> Pass:
        feeds = {n: a for n, a in self.feeding.feeds(rows).items() if n in self._fed}
        count = len(samples)
        if self.target is not None:
            feeds |= {n: a for n, a in self._frozen(samples).items() if n in self._fed}
            if self._seed is not None:
                feeds[self._seed] = self._entering(samples, weights)
        given = {} if self._session is None else self._session.run(feeds)
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
        own = not self.feeding.bare or (name not in self.feeding.rowwise and array.ndim and len(array) == 1)
        return np.asarray(array[:count] if own and array.ndim else array[None])

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


def _returns(model: ir.Model, names: Iterable[str]) -> None:
    """Make some tensors all that a model returns, and remove what computes nothing of them."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
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
