"""Whether a map shows the model or the picture: it must change when the weights are drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.learned import learned_inputs
from onnxviz.graph.model import copy_model
from onnxviz.graph.tidy import free_name

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case

__all__ = ["Randomization", "randomization", "rank_correlation", "weight_layers", "with_random_weights"]

Array = npt.NDArray[np.float64]
Maps = Mapping[str, npt.NDArray[Any]]
_SETTLED = 0.05  # standard error of a mean that no further draw need make surer


@dataclass(frozen=True, eq=False)
class Randomization:
    """How alike maps are when the weights are drawn anew from the output down.

    Attributes:
        layers: For each stage the lowest layer whose weights are drawn anew, with all above it.
        drawn: For each stage how many layers that is.
        total: How many layers have weights.
        correlation: ``(S, D, N)``: Spearman's rank correlation of magnitudes, for each stage, draw and sample; NaN
            where the new map or the map itself is the same everywhere, or not finite.
        flat: How many of the new maps are that.
        seed: Of the draws.
    """

    layers: tuple[str, ...]
    drawn: tuple[int, ...]
    total: int
    correlation: Array
    flat: int
    seed: int

    @property
    def by_stage(self) -> Array:
        """The mean over draws and samples, ``(S,)``; NaN where no sample has one."""
        flat = self.correlation.reshape(len(self.correlation), -1)
        known = np.isfinite(flat)
        total = np.where(known, flat, 0.0).sum(axis=1)
        return np.asarray(np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan))

    @property
    def upper(self) -> float:
        """The mean over the stages that draw no more than half of the layers, the first one in any case."""
        return _mean(self.by_stage[self.counted])

    @property
    def error(self) -> float:
        """The standard error of :attr:`upper` over the draws; 0 of a single one, NaN where no draw says anything."""
        known = [m for m in map(_mean, np.moveaxis(self.correlation[self.counted], 1, 0)) if np.isfinite(m)]
        if len(known) < 2:
            return 0.0 if known and self.correlation.shape[1] == 1 else float("nan")
        return float(np.std(known, ddof=1) / len(known) ** 0.5)

    @property
    def counted(self) -> list[int]:
        """The stages that :attr:`upper` is of."""
        return [stage for stage, drawn in enumerate(self.drawn) if 2 * drawn <= self.total] or [0]


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def rank_correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return Spearman's rank correlation of magnitudes, equal ones sharing their mean rank; NaN where one is constant.

    >>> rank_correlation(np.array([1, -2, 3]), np.array([-10, 20, 30])), rank_correlation(np.arange(3), np.ones(3))
    (1.0, nan)
    """
    first, second = (_ranks(np.abs(np.asarray(array, np.float64)).reshape(-1)) for array in (one, other))
    first, second = first - first.mean(), second - second.mean()
    below = float(first @ first) * float(second @ second)
    return float(first @ second) / below**0.5 if below > 0 else float("nan")


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], np.float64)


def weight_layers(model: ir.Model, target: str) -> list[list[ir.Node]]:
    """Return the layers with weights that a target depends on, from the output down; a layer is a list of nodes.

    Nodes that hold vectors alone (a bias that is added, a normalisation) belong to the matrix or kernel before them.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, 2}>
    ...   {m = MatMul(x, w) y = Add(m, b)}''')
    >>> [[node.op_type for node in layer] for layer in weight_layers(model, "y")]
    [['Add', 'MatMul']]
    """
    needed = {target}
    layers: list[list[ir.Node]] = []
    waiting: list[ir.Node] = []
    for node in reversed(model.graph):
        if not any(output.name in needed for output in node.outputs):
            continue
        needed.update(str(value.name) for value in node.inputs if value is not None)
        tensors = [constant_tensor(node.inputs[place]) for place in learned_inputs(node)]
        if tensors:
            waiting.append(node)
        if any(tensor is not None and len(tensor.shape) > 1 for tensor in tensors):
            layers.append(waiting)
            waiting = []
    if waiting and layers:
        layers[-1] += waiting
    return layers or [[node] for node in waiting]


def with_random_weights(
    model: ir.Model, target: str, counts: Sequence[int], rng: np.random.Generator
) -> Iterator[tuple[str, ir.Model]]:
    """Yield a model for each of some counts of layers, the weights of as many drawn anew, and the lowest one's name.

    Each tensor holds its own numbers in a random order: the same distribution, whatever it is, and the variances of a
    normalisation stay positive.

    Args:
        model: The model; it is not changed.
        target: Layers that this tensor depends on are drawn, from the output down.
        counts: How many, ascending.
        rng: Draws.
    """
    copy, drawn = copy_model(model), dict[int, tuple[ir.TensorProtocol, ir.Value]]()
    for number, layer in enumerate(weight_layers(copy, target), start=1):
        for node in layer:
            for place in learned_inputs(node):
                tensor = constant_tensor(node.inputs[place])
                if tensor is None:
                    continue
                if id(tensor) not in drawn:
                    drawn[id(tensor)] = tensor, _shuffled(copy.graph, tensor, rng)  # held, or its id is used again
                node.replace_input_with(place, drawn[id(tensor)][1])
        if number in counts:
            yield layer[-1].name or str(layer[-1].outputs[0].name), copy_model(copy)


def _varies(node: ir.Node) -> bool:
    tensors = [constant_tensor(node.inputs[place]) for place in learned_inputs(node)]
    return any(tensor is not None and bool(np.any((a := tensor.numpy()) != a.reshape(-1)[:1])) for tensor in tensors)


def _shuffled(graph: ir.Graph, tensor: ir.TensorProtocol, rng: np.random.Generator) -> ir.Value:
    array = tensor.numpy()
    name = free_name(graph, f"{tensor.name or 'weight'}.random")
    mixed = np.ascontiguousarray(rng.permutation(array.reshape(-1)).reshape(array.shape))
    value = ir.Value(name=name, const_value=ir.Tensor(mixed, dtype=tensor.dtype, name=name))
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def randomization(
    case: Case, original: Maps, again: Callable[[Case], Maps], *, stages: int = 8, draws: int = 8, seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> Randomization:  # fmt: skip
    """Explain again with the weights drawn anew from the output down, layer by layer.

    Adebayo et al. 2018, Sanity Checks for Saliency Maps, arXiv:1810.03292, section 4.1 (cascading randomization). The
    target stays that of the model as it is. Compared are magnitudes at the resolution of the method.

    Args:
        case: What is explained.
        original: The maps.
        again: Explains a case by the same method and parameters.
        stages: Most stages; of more layers an even spread, the first and the last one among them.
        draws: How many times at most: after the third one it ends once the standard error of
            :attr:`Randomization.upper` is 0.05 or less. Maps of few cells differ much from draw to draw.
        seed: Of the draws.
        tell: Called with how many explanations are done, and of how many.

    Raises:
        SelectionError: The model has no weights, or each tensor holds one number again and again.
    """
    layers = weight_layers(case.model, case.target.tensor)
    total = len(layers)
    if not total:
        raise SelectionError("the model has no weights that could be drawn anew")
    if not any(_varies(node) for layer in layers for node in layer):
        raise SelectionError("each tensor of weights holds one number alone, so that no order of them is another")
    chosen = sorted(set(np.rint(np.linspace(1, total, min(stages, total))).astype(int).tolist()))
    found = np.full((len(chosen), draws, case.samples), np.nan)
    names: list[str] = []
    flat = done = 0
    made = Randomization((), tuple(chosen), total, found[:, :0], 0, seed)
    for draw in range(draws):
        names.clear()
        models = with_random_weights(case.model, case.target.tensor, chosen, np.random.default_rng((seed, draw)))
        for stage, (name, model) in enumerate(models):
            names.append(name)
            maps = again(replace(case, model=model, target=replace(case.target, model=model, clean=None)))
            for sample in range(case.samples):
                found[stage, draw, sample], same = _alike(original, maps, sample)
                flat += same
            done += 1
            if tell is not None:
                tell(done, draws * len(chosen))
        made = Randomization(tuple(names), tuple(chosen), total, found[:, : draw + 1], flat, seed)
        if draw >= 2 and made.error <= _SETTLED:
            break
    return made


def _alike(original: Maps, maps: Maps, sample: int) -> tuple[float, int]:
    """Return the correlation of one sample, and 1 where the new map has none."""
    first = _flat(original, list(original), sample)
    if np.ptp(np.abs(first)) == 0:
        return float("nan"), 0
    second = _flat(maps, list(original), sample)
    if len(second) != len(first) or not np.isfinite(second).all() or np.ptp(np.abs(second)) == 0:
        return float("nan"), 1
    return rank_correlation(first, second), 0


def _flat(maps: Maps, names: Sequence[str], sample: int) -> npt.NDArray[Any]:
    return np.concatenate([np.asarray(maps[name][sample], np.float64).reshape(-1) for name in names])
