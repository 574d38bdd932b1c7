"""What a model would give if some of its nodes rounded: run once as it is, then again from where they begin.

Both run piece by piece, each node a session of its own. A node that rounds reads rounded inputs and rounded weights and
computes in the precision of the file, then its outputs are rounded: what a kernel does that accumulates in float32. Of
the rest only what lies behind such a node runs again.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.conversions import Change
from onnxviz.graph.model import copy_model
from onnxviz.runtime.nodewise import Engine
from onnxviz.runtime.program import Step
from onnxviz.runtime.values import constant_array, to_array, to_value

__all__ = ["Rounding", "WhatIf"]

Array = npt.NDArray[Any]
Values = Mapping[ir.Value, ort.OrtValue]
#: Bytes of values that are kept for the runs from a node on; beyond them they are computed again.
KEPT = 1 << 30


class Rounding(Protocol):
    """How numbers are rounded; each gets and returns an array of the model's own type.

    Attributes:
        shared: Whether a tensor that one node reads rounded is so for all that read it, as behind a QuantizeLinear.
    """

    shared: bool

    def activation(self, name: str, array: Array) -> Array:
        """Return a tensor of the graph, rounded."""

    def weight(self, array: Array, axis: int | None) -> Array:
        """Return a weight, rounded; ``axis`` is that of its channels."""

    def constant(self, array: Array) -> Array:
        """Return a constant that is rounded as activations are."""

    def bias(self, array: Array, name: str, weight: Array, axis: int | None) -> Array:
        """Return a bias, rounded; ``name`` is that of the activation that ``weight`` is multiplied with."""


class WhatIf:
    """A model whose nodes can round.

    Args:
        model: Functions inlined; it is not changed.
        changes: Each node that can round -> what is rounded at it.
        compared: The tensors that are returned.
        rounding: How.
        sizes: Bytes of each tensor, by name; what is not there takes part in no run of its own.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators.
        kept: Bytes of values that may be kept.

    Raises:
        ProviderError, ModelError: As :class:`onnxviz.runtime.nodewise.Engine`.
    """

    def __init__(
        self,
        model: ir.Model,
        changes: Mapping[ir.Node, Change],
        compared: Collection[ir.Value],
        rounding: Rounding,
        *,
        sizes: Mapping[str, int],
        providers: str | Sequence[str] = "cpu",
        op_library: str | os.PathLike[str] | None = None,
        kept: int = KEPT,
    ) -> None:
        options: dict[str, Any] = {"op_library": op_library}
        self._rounding = rounding
        own = [value for value in compared if value.producer() is not None]
        self._sizes = {value: sizes.get(str(value.name)) for node in model.graph for value in node.outputs}
        self._engine = Engine(model, own, providers, sizes=self._sizes, group_bytes=0, **options)
        self._steps: list[Step] = self._engine.program.steps
        twin, twins = _rounded_twin(model, changes, rounding)
        wanted = [twins[value] for value in own]
        twin_sizes = {twins[value]: size for value, size in self._sizes.items()}
        self._rounder = Engine(twin, wanted, providers, sizes=twin_sizes, group_bytes=0, **options)
        self._joiner = Engine(model, own, providers, sizes=self._sizes, **options)
        rounds = {step.piece.nodes[0]: step for step in self._rounder.program.steps if len(step.piece.nodes) == 1}
        nodes = dict(zip(model.graph, twin.graph, strict=True))
        self._at = {
            step.piece.nodes[0]: index for index, step in enumerate(self._steps)
            if len(step.piece.nodes) == 1 and nodes[step.piece.nodes[0]] in rounds
        }  # fmt: skip
        self._changes = {node: change for node, change in changes.items() if node in self._at}
        self._twin_steps = {self._at[node]: rounds[nodes[node]] for node in self._changes}
        self._made = {value: index for index, step in enumerate(self._steps) for value in step.piece.outputs}
        self._readers: dict[ir.Value, list[int]] = {}
        for index, step in enumerate(self._steps):
            for value in step.piece.inputs:
                self._readers.setdefault(value, []).append(index)
        self.compared = tuple(value for value in own if value in self._made)
        self._ends = frozenset(self.compared)
        self._groups = _grouped(self._steps, self._joiner.program.steps)
        self._room = kept
        self._fed: dict[ir.Value, ort.OrtValue] = {}
        self._kept: dict[ir.Value, ort.OrtValue] = {}
        self._expected: dict[ir.Value, ort.OrtValue] = {}

    def __enter__(self) -> WhatIf:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
        self._rounder.close()
        self._joiner.close()

    @property
    def nodes(self) -> frozenset[ir.Node]:
        """The nodes that can round: those that the compared tensors depend on, and that run alone."""
        return frozenset(self._changes)

    def baseline(self, feeds: Mapping[str, Any], seen: Callable[[str, Array], None] | None = None) -> dict[str, Array]:
        """Run the model as it is and return the compared tensors.

        Args:
            feeds: Input name -> array.
            seen: Called with the name and the values of each tensor that is computed.

        Raises:
            ExecutionError, InputError: As :meth:`onnxviz.runtime.nodewise.Engine.run`.
        """
        self._fed = self._engine.fed(feeds)
        self._kept = {}
        room, live = self._room, dict(self._fed)
        for step in self._steps:
            for value, result in zip(step.piece.outputs, self._engine.run_step(step, live), strict=True):
                live[value] = result
                if (size := self._sizes.get(value)) is not None and size <= room:
                    self._kept[value] = result
                    room -= size
                if seen is not None and isinstance(array := to_array(result), np.ndarray):
                    seen(str(value.name), array)
            _drop(live, step, self._ends)
        self._expected = {value: live[value] for value in self.compared}
        return self._arrays(self._expected)

    def rounded(
        self, groups: Sequence[Collection[ir.Node]], *, ahead: bool = True
    ) -> Iterator[tuple[int, dict[str, Array], Local]]:
        """Yield, for each group of nodes, its index and the compared tensors if these nodes alone rounded.

        The third is what the group's last node gives, as it is and rounded; None where that is no longer in memory.
        The groups come in the order of their first nodes. Those of which no node can round are left out.

        Args:
            groups: The nodes of each.
            ahead: Run what lies behind them too; else the compared tensors are those of the model as it is.

        Raises:
            ExecutionError: As :meth:`baseline`, which must be called before.
        """
        starts: dict[int, list[tuple[int, frozenset[int], frozenset[ir.Value]]]] = {}
        for index, group in enumerate(groups):
            places = frozenset(self._at[node] for node in group if node in self._changes)
            tensors = self._tensors(places) if self._rounding.shared and ahead else frozenset()
            if places:
                start = min(places.union(*(self._readers.get(value, ()) for value in tensors)))
                starts.setdefault(start, []).append((index, places, tensors))
        live = dict(self._fed)
        for start, step in enumerate(self._steps[: max(starts, default=-1) + 1]):
            outputs = step.piece.outputs
            if not all(value in self._kept for value in outputs):
                live.update(zip(outputs, self._engine.run_step(step, ChainMap(live, self._kept)), strict=True))
            for index, places, tensors in starts.get(start, ()):
                yield (index, *self._again(start, places, tensors, live, ahead))
            _drop(live, step, frozenset())

    def _tensors(self, places: Collection[int]) -> frozenset[ir.Value]:
        """Return the tensors that the nodes at some places read or give rounded."""
        nodes = [self._steps[place].piece.nodes[0] for place in places]
        return frozenset(value for node in nodes for value in self._changes[node].tensors(node))

    def _again(
        self,
        start: int,
        places: frozenset[int],
        tensors: frozenset[ir.Value],
        live: dict[ir.Value, ort.OrtValue],
        ahead: bool,
    ) -> tuple[dict[str, Array], Local]:
        """Run from a step on, the nodes at some places rounding, and some tensors rounded for all that read them."""
        new: dict[ir.Value, ort.OrtValue] = {}
        values: ChainMap[ir.Value, ort.OrtValue] = ChainMap(new, live, self._kept)
        for value in tensors:
            if self._made.get(value, -1) < start:
                new[value] = self._activation(str(value.name), values[value])
        last, local = max(places), None
        for item in self._behind(start, places, tensors, ahead):
            if item.engine is not None:
                results = item.engine.run_step(item.step, values)
            elif item.place in places:
                results = self._round(item.place, values)
            else:
                results = self._engine.run_step(item.step, values)
            outputs = item.step.piece.outputs
            if item.place not in places and not tensors.isdisjoint(outputs):
                pairs = zip(outputs, results, strict=True)
                results = [self._activation(str(v.name), result) if v in tensors else result for v, result in pairs]
            if item.place == last and outputs:
                before = live.get(outputs[0], self._kept.get(outputs[0]))
                local = None if before is None else (to_array(before), to_array(results[0]))
            new.update(zip(outputs, results, strict=True))
            _drop(new, item.step, self._ends)
        return self._arrays({value: new.get(value, self._expected[value]) for value in self.compared}), local

    def _behind(self, start: int, places: frozenset[int], tensors: frozenset[ir.Value], ahead: bool) -> list[_Item]:
        """Return what must run: what lies behind a place or a rounded tensor, and what that reads and is not kept.

        Nodes run alone from the first place to the end of its group, and in groups that hold another place.
        """
        if not ahead:
            return [_Item(self._steps[place], place) for place in sorted(places)]
        apart = {start, *places, *(self._made[value] for value in tensors if self._made.get(value, -1) >= start)}
        items = [item for item in self._items(apart) if item.place >= start]
        touched = set(tensors)
        for item in items:
            if item.place in places or not touched.isdisjoint(item.step.piece.inputs):
                touched.update(item.step.piece.outputs)
        chosen: list[_Item] = []
        needed = touched & self._ends
        for item in reversed(items):
            outputs = item.step.piece.outputs
            if item.place in places or not needed.isdisjoint(outputs):
                chosen.append(item)
                needed.update(
                    v
                    for v in item.step.piece.inputs
                    if v in touched or (v not in self._kept and v.producer() is not None)
                )
        return chosen[::-1]

    def _items(self, places: Collection[int]) -> Iterator[_Item]:
        for joined, members in self._groups:
            if joined is None or any(place in members for place in places):
                yield from (_Item(self._steps[place], place) for place in members)
            else:
                yield _Item(joined, members.start, self._joiner)

    def _round(self, index: int, values: Values) -> list[ort.OrtValue]:
        """Run a node with rounded inputs and weights and return its outputs, rounded."""
        node, twin = self._steps[index].piece.nodes[0], self._twin_steps[index]
        change = self._changes[node]
        by_name = {str(value.name): value for value in node.inputs if value is not None}
        rounds = {str(v.name) for i in change.inputs if (v := node.inputs[i]) is not None}
        given = {}
        for value in twin.piece.inputs:
            name = str(value.name)
            held = self._engine.value_of(by_name[name], values)
            given[value] = self._activation(name, held) if name in rounds else held
        results = self._rounder.run_step(twin, given)
        names = {str(node.outputs[i].name) for i in change.outputs}
        pairs = zip(twin.piece.outputs, results, strict=True)
        return [self._activation(str(v.name), result) if v.name in names else result for v, result in pairs]

    def _activation(self, name: str, value: ort.OrtValue) -> ort.OrtValue:
        array = to_array(value)
        return to_value(name, self._rounding.activation(name, array)) if isinstance(array, np.ndarray) else value

    def _arrays(self, values: Values) -> dict[str, Array]:
        arrays = {str(value.name): to_array(held) for value, held in values.items()}
        return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


#: What a node gives as it is, and rounded.
Local = tuple[Array, Array] | None


@dataclass(frozen=True)
class _Item:
    """One step to run.

    Attributes:
        step: The step.
        place: Of its first node among the steps that are nodes.
        engine: What runs it; None for that of single nodes.
    """

    step: Step
    place: int
    engine: Engine | None = None


def _grouped(steps: Sequence[Step], joined: Sequence[Step]) -> list[tuple[Step | None, range]]:
    """Return steps of several nodes -> the places of these nodes' own steps; None where a step stays as it is.

    Both are in the order of the graph, and where they do not begin and end at the same nodes, single steps are taken.
    """
    at = {node: index for index, step in enumerate(steps) for node in step.piece.nodes}
    found: list[tuple[Step | None, range]] = []
    for step in joined:
        first, last = at[step.piece.nodes[0]], at[step.piece.nodes[-1]]
        whole = sum(len(one.piece.nodes) for one in steps[first : last + 1]) == len(step.piece.nodes)
        if found and first < found[-1][1].stop:  # shares a step with the group before
            found[-1] = (None, range(found[-1][1].start, max(last + 1, found[-1][1].stop)))
        else:
            found.append((step if whole and last > first else None, range(first, last + 1)))
    return found


def _drop(live: dict[ir.Value, ort.OrtValue], step: Step, ends: Collection[ir.Value]) -> None:
    for value in step.dies:
        if value not in ends:
            live.pop(value, None)


def _rounded_twin(
    model: ir.Model, changes: Mapping[ir.Node, Change], rounding: Rounding
) -> tuple[ir.Model, dict[ir.Value, ir.Value]]:
    """Return a copy whose nodes read rounded constants, each made when it is first read, and each value -> its copy."""
    twin = copy_model(model)
    twins = {
        old: new for one, other in zip(model.graph, twin.graph, strict=True)
        for old, new in zip(one.outputs, other.outputs, strict=True)
    }  # fmt: skip
    taken = {str(value.name) for value in (*twin.graph.inputs, *twin.graph.initializers.values(), *twins.values())}
    for count, (node, copy) in enumerate(zip(model.graph, twin.graph, strict=True)):
        change = changes.get(node)
        for index in (*change.weights, *change.constants, *change.biases) if change is not None else ():
            tensor = constant_tensor(node.inputs[index])
            if tensor is None or change is None:
                continue
            name = f"rounded {count} {index}"
            while name in taken:
                name += "'"
            value = ir.Value(name=name, const_value=_lazy(tensor, name, node, change, index, rounding))
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            twin.graph.initializers[name] = value
            copy.replace_input_with(index, value)
    return twin, twins


def _lazy(
    tensor: ir.TensorProtocol, name: str, node: ir.Node, change: Change, index: int, rounding: Rounding
) -> ir.LazyTensor:
    def made() -> ir.TensorProtocol:
        array = constant_array(tensor)
        source, weight = node.inputs[0], constant_tensor(node.inputs[1]) if index in change.biases else None
        if weight is not None and source is not None:
            new = rounding.bias(array, str(source.name), constant_array(weight), change.weights[1])
        elif index in change.constants:
            new = rounding.constant(array)
        else:
            new = rounding.weight(array, change.weights[index])
        return ir.Tensor(np.ascontiguousarray(new).reshape(array.shape), name=name)

    return ir.LazyTensor(made, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)
