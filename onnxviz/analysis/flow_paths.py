"""Key nodes and key paths: through which nodes and edges the outputs get their values, by shares at every meeting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.analysis.flow_plan import FlowPlan
from onnxviz.graph.extract import reads

__all__ = ["ENERGY", "KeyPath", "KeyPaths", "Weight", "key_paths", "meeting_tensors", "meetings"]

#: Tensor -> its weight wherever it is read; or what gives the weight of a tensor as one node reads it.
Weight = Mapping[str, float] | Callable[[ir.Node, ir.Value], float | None]

#: What the shares are of, where nothing else is given.
ENERGY = "energy at sums and joins"
_SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "QLinearAdd", "SkipLayerNormalization", "AddRelu",
                   "SkipSimplifiedLayerNormalization"})  # fmt: skip
_CONCATS = frozenset({"Concat", "QLinearConcat"})
_WHOLE = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


@dataclass(frozen=True)
class KeyPath:
    """The best way from an input to an output.

    Attributes:
        output: The output that it leads to.
        tensors: The tensors on it, from the input to the output.
        share: Product of the shares of its edges.
        meetings: Number of places on it where more than one tensor meets.
    """

    output: str
    tensors: tuple[str, ...]
    share: float
    meetings: int


@dataclass(frozen=True)
class KeyPaths:
    """How much of the outputs comes through each node.

    Attributes:
        measure: What the shares are of.
        scores: First tensor of a node -> the share of all outputs that is traced back through it, from 0 to 1. Every
            output has the same part; over any cut of the graph the shares of its edges add up to 1, less what comes
            from constants.
        paths: The best path to each output, the largest share first.
        notes: What a reader should know.
    """

    measure: str
    scores: dict[str, float]
    paths: tuple[KeyPath, ...]
    notes: tuple[str, ...]


def meeting_tensors(plan: FlowPlan) -> tuple[str, ...]:
    """Return the tensors that meet others in a sum or a concatenation: their energy is what shares are made of."""
    return tuple(dict.fromkeys(str(value.name) for _, met in meetings(plan) for value in met))


def meetings(plan: FlowPlan) -> list[tuple[ir.Node, list[ir.Value]]]:
    """Return the sums and concatenations in which several tensors with values meet, and those tensors."""
    found = [(node, _met(plan, node)) for node in plan.model.graph if node.op_type in _SUMS | _CONCATS]
    return [(node, met) for node, met in found if len(met) > 1]


def key_paths(
    plan: FlowPlan,
    weight: Weight,
    size: Mapping[str, float] | None = None,
    *,
    measure: str = ENERGY,
    everywhere: bool = False,
) -> KeyPaths:
    """Trace the outputs back through the graph.

    What arrives at a node is shared out among the tensors that it reads, in proportion to their weights. By default a
    weight is the mean square of a tensor (times its number of values, in a concatenation), and shares are made in sums
    and concatenations only: what a node gets by a product (a gate, attention) needs all its factors, so they have
    equal shares. The share that comes through a node is the sum over all paths of the product of the shares on them, as
    relevance is handed down in Bach et al. 2015 and attention rolled out in Abnar and Zuidema 2020; the key path is the
    one with the largest product (Viterbi 1967). Only the tensors' sizes decide, not whether an output would change: for
    that, give gradient × activation as the weight.

    Args:
        plan: The graph.
        weight: Tensor -> its weight, not negative, or a function that gives it for a node and a tensor that it reads.
            NaN, infinite and missing ones make the shares of a node equal.
        size: Tensor -> its number of values, for concatenations; None where the weights are sums already.
        measure: What a weight is, for the reader.
        everywhere: Make shares by weight at every node, not only in sums and concatenations.
    """
    by = weight if callable(weight) else _of_tensors(weight)
    shares = {node: _shares(plan, node, by, size, everywhere) for node in plan.model.graph}
    outputs = [value for value in plan.model.graph.outputs if value in plan.varying]
    traced: dict[ir.Value, float] = {}
    for value in outputs:
        traced[value] = traced.get(value, 0.0) + 1 / len(outputs)
    scores: dict[str, float] = {}
    for node in reversed(plan.model.graph):
        through = sum(traced.get(value, 0.0) for value in node.outputs)
        first = next((str(value.name) for value in node.outputs if value.name), None)
        if first is not None and any(value in plan.varying for value in node.outputs):
            scores[plan.inputs.get(first, first)] = through
        for value, share in shares[node].items():
            traced[value] = traced.get(value, 0.0) + through * share
    best = _best(plan, shares)
    paths = tuple(sorted((_path(plan, value, best) for value in outputs), key=lambda path: -path.share))
    lost = sum(1 for node, s in shares.items() if len(s) > 1 and _unknown(node, s, by))
    notes = (f"equal shares at {lost} nodes whose tensors have no finite weight",) if lost else ()
    return KeyPaths(measure, dict(reversed(scores.items())), paths, notes)


def _met(plan: FlowPlan, node: ir.Node) -> list[ir.Value]:
    """Return the tensors with values that a node reads: not shapes, indices and masks, unless there is nothing else."""
    found = [value for value in dict.fromkeys(reads(node)) if value in plan.varying]
    values = [value for value in found if not _is_whole(plan, value)]
    return values or found


def _is_whole(plan: FlowPlan, value: ir.Value) -> bool:
    known = plan.inferred.get(str(value.name))
    return known is not None and known.dtype in _WHOLE


def _of_tensors(weight: Mapping[str, float]) -> Callable[[ir.Node, ir.Value], float | None]:
    return lambda node, value: weight.get(str(value.name))


def _shares(
    plan: FlowPlan,
    node: ir.Node,
    weight: Callable[[ir.Node, ir.Value], float | None],
    size: Mapping[str, float] | None,
    everywhere: bool,
) -> dict[ir.Value, float]:
    met = _met(plan, node)
    if len(met) < 2:
        return dict.fromkeys(met, 1.0)
    joined = node.op_type in _CONCATS
    if not (everywhere or joined or node.op_type in _SUMS):
        return dict.fromkeys(met, 1 / len(met))
    many = [size.get(str(value.name), 1.0) if joined and size is not None else 1.0 for value in met]
    given = [weight(node, value) for value in met]
    weights = [(math.nan if one is None else one) * times for one, times in zip(given, many, strict=True)]
    total = sum(weights)
    if not 0 < total < math.inf:
        return dict.fromkeys(met, 1 / len(met))
    return {value: one / total for value, one in zip(met, weights, strict=True)}


def _unknown(
    node: ir.Node, shares: Mapping[ir.Value, float], weight: Callable[[ir.Node, ir.Value], float | None]
) -> bool:
    known = [one for value in shares if (one := weight(node, value)) is not None]
    return bool(known) and not 0 < sum(known) < math.inf


def _best(
    plan: FlowPlan, shares: Mapping[ir.Node, Mapping[ir.Value, float]]
) -> dict[ir.Value, tuple[float, ir.Value | None, int]]:
    """Return for each tensor the logarithm of the best product, the tensor before it, and how many meet on the way."""
    best: dict[ir.Value, tuple[float, ir.Value | None, int]] = {
        value: (0.0, None, 0) for value in plan.model.graph.inputs if value in plan.varying
    }
    for node, given in shares.items():
        ways = [
            (best[value][0] + math.log(max(share, 1e-300)), value, best[value][2] + (len(given) > 1))
            for value, share in given.items()
            if value in best
        ]
        if ways:
            way = max(ways, key=lambda one: one[0])
            best |= dict.fromkeys(node.outputs, way)
    return best


def _path(plan: FlowPlan, output: ir.Value, best: Mapping[ir.Value, tuple[float, ir.Value | None, int]]) -> KeyPath:
    tensors: list[str] = []
    level, _, meetings = best.get(output, (-math.inf, None, 0))
    value: ir.Value | None = output
    while value is not None:
        name = plan.inputs.get(str(value.name), str(value.name))
        if name not in tensors[-1:]:
            tensors.append(name)
        value = best[value][1] if value in best else None
    return KeyPath(str(output.name), tuple(reversed(tensors)), math.exp(level), meetings)
