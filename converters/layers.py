"""Whether a converted model computes, layer by layer, what its source computes.

The source network runs with hooks on its layers (:data:`~onnxviz.converters.base.Record`); the ONNX model runs node by
node without any optimisation. Provenance on the nodes ties a layer to the tensors that leave it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.comparison import OutputParity, compare
from onnxviz.analysis.layer_parity import LayerError, LayerParity, worse_layer
from onnxviz.converters.base import Array, Conversion, LayerCall
from onnxviz.errors import ConversionError
from onnxviz.graph.model import summary_line
from onnxviz.graph.provenance import leaving, nodes_by_layer, provenance_of
from onnxviz.runtime.capture import capture

__all__ = ["compare_layers", "layouts"]

#: Where a clip or a cancellation leaves little of large values, single elements are off by more than the tensor is.
_PEAK = 10.0
_FLOATS = {"FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64"}
Key = tuple[str, int, int]  # layer, number of the call, number of the output
#: Relative error that a layer may have, by what the ONNX model computes in.
TOLERANCE = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2, "int8": 1e-1}


def compare_layers(
    conversion: Conversion,
    feeds: Iterable[Mapping[str, Array]],
    *,
    models: Mapping[str, ir.Model] | None = None,
    tolerance: float | None = None,
) -> list[LayerParity]:
    """Run the source network and the ONNX model on the same inputs and compare what every layer gives.

    A layer's ONNX tensors are those that leave the nodes of its provenance. Where several fit one output of a layer, as
    when it is called often, the nearest counts. Channels-last tensors of the source are compared with channels-first
    ones of the ONNX model in the source's layout.

    Args:
        conversion: What a converter returned.
        feeds: Inputs by ONNX input name.
        models: The same model in other precisions, a key of :data:`TOLERANCE` each, tensors named alike.
        tolerance: Relative error that a layer may have; by default that of the precision.

    Returns:
        A comparison of the conversion's own model, then one for each of ``models``, with the worst figures of each
        layer over all inputs; nothing where the converter cannot watch layers.

    Raises:
        ConversionError: The source network or an ONNX model does not run on an input.
    """
    if conversion.record is None:
        return []
    every = [(_precision_of(conversion.model), conversion.model), *(models or {}).items()]
    runs = [
        _Run(precision, model, TOLERANCE[precision] if tolerance is None else tolerance) for precision, model in every
    ]
    graph = _Graph(conversion.model)
    batches = []
    for feed in feeds:
        try:
            calls = conversion.record(feed)
        except Exception as error:
            raise ConversionError(f"the source network does not run: {summary_line(error)}") from error
        batches.append(next((len(array) for array in feed.values() if array.ndim), 1))
        joined: dict[Key, str] | None = None
        for run in runs:
            joined = run.compare(_Comparison(graph, calls, run.limit, joined), feed)
    return [run.result(tuple(batches)) for run in runs]


def _precision_of(model: ir.Model) -> str:
    """Return the floating-point type that most of a model's weights have."""
    sizes = Counter[str]()
    for value in model.graph.initializers.values():
        if value.dtype is not None and value.const_value is not None and str(value.dtype) in _FLOATS:
            sizes[_FLOATS[str(value.dtype)]] += value.const_value.size
    return sizes.most_common(1)[0][0] if sizes else "float32"


@dataclass
class _Run:
    """The comparison of one model, over all inputs."""

    precision: str
    model: ir.Model
    limit: float
    found: dict[Key, LayerError] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def compare(self, job: _Comparison, feed: Mapping[str, Array]) -> dict[Key, str]:
        """Compare on one input; return which tensor each output of a layer was found in."""
        names = _names_in(self.model, job.wanted)
        if names:
            capture(
                self.model, dict(feed), sorted(names), providers="cpu", keep=False, bodies=False,
                reduce=lambda name, array: job.see(names[name], array),
            )  # fmt: skip
        errors = dict(job.errors())
        for key, error in errors.items():
            self.found[key] = worse_layer(self.found[key], error) if key in self.found else error
        self.missing |= job.missing
        return {key: error.tensor for key, error in errors.items()}

    def result(self, batches: tuple[int, ...]) -> LayerParity:
        return LayerParity(tuple(self.found.values()), self.missing, self.precision, self.limit, batches)


def _names_in(model: ir.Model, wanted: Iterable[str]) -> dict[str, str]:
    """Return the tensors of a model that stand for those of the unconverted one: name -> name there.

    Where a tensor is quantised, what its readers see counts: a Relu may have become the lower end of the range.
    """
    made = {value.name: value for node in model.graph for value in node.outputs}
    names = {}
    for name in wanted:
        value = made.get(name)
        for op in ("QuantizeLinear", "DequantizeLinear"):
            readers = [] if value is None else [node for node in value.consumers() if node.op_type == op]
            value = readers[0].outputs[0] if readers else value
        if value is not None:
            names[str(value.name)] = name
    return names


class _Graph:
    """Which tensors leave which layer."""

    def __init__(self, model: ir.Model) -> None:
        self.nodes = nodes_by_layer(model.graph)
        self.sources = {node: source for node in model.graph if (source := provenance_of(node)) is not None}
        chains = [(source.layer, *source.folded) for source in self.sources.values()]
        self.folded = {layer for chain in chains for layer in chain[:-1]}


@dataclass
class _Pair:
    """An output of a call and the tensors that may stand for it."""

    call: LayerCall
    number: int
    place: int
    source: Array
    tensors: list[ir.Value]
    options: dict[str, tuple[OutputParity, ir.Value, str]] = field(default_factory=dict)
    best: tuple[OutputParity, ir.Value, str] | None = None


@dataclass
class _Comparison:
    """The comparison on one input."""

    graph: _Graph
    calls: Sequence[LayerCall]
    limit: float
    joined: Mapping[Key, str] | None = None  # in which tensor each output was found before
    missing: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, list[_Pair]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.pairs: list[_Pair] = []
        times: Counter[str] = Counter()
        for call in self.calls:
            times[call.layer] += 1
            self._join(call, times[call.layer])

    def _join(self, call: LayerCall, number: int) -> None:
        nodes = [node for path in call.paths for node in self.graph.nodes.get(path, ())]
        if not call.layer or not self.graph.folded.isdisjoint(call.paths) or (not nodes and call.hands_on):
            return
        given = leaving(nodes)
        if not given:
            self.missing[call.layer] = "no node of it is left in the graph"
            return
        for place, source in enumerate(call.outputs):
            tensors = [value for value in given if _may_be(value, source)]
            if self.joined is not None:
                tensor = self.joined.get((call.layer, number, place))
                if tensor is None:
                    continue
                tensors = [value for value in tensors if value.name == tensor]
            pair = _Pair(call, number, place, source, tensors)
            self.pairs.append(pair)
            for value in tensors:
                self.wanted[str(value.name)].append(pair)

    def see(self, name: str, array: Any) -> Any:
        """Compare a tensor of the ONNX model, as it comes, with every output that it may stand for."""
        for pair in self.wanted[name]:
            for layout, seen in layouts(np.asarray(array), pair.source.shape):
                if seen.dtype != pair.source.dtype and seen.dtype.kind == pair.source.dtype.kind == "f":
                    seen = seen.astype(pair.source.dtype)  # of a model that was converted to another precision
                half = pair.source.dtype.itemsize == 2  # a layer that computes in half precision among others
                limit = max(self.limit, TOLERANCE.get(str(pair.source.dtype), 0.0)) if half else self.limit
                error = compare(name, pair.source, seen, limit, peak=_PEAK)
                if name not in pair.options or _rank(error) < _rank(pair.options[name][0]):
                    value = next(v for v in pair.tensors if v.name == name)
                    pair.options[name] = (error, value, layout)

    def _choose(self) -> None:
        """Choose the nearest tensor for each output, but none that agrees with another output of the layer instead.

        An output that nothing reads, as one state of an LSTM, leaves no tensor: it would be held against the other's.
        """
        for pair in self.pairs:
            pair.best = _nearest(pair.options.values())
        agreeing = {
            (pair.call.layer, pair.best[1].name) for pair in self.pairs if pair.best and pair.best[0].problem is None
        }
        for pair in self.pairs:
            if self.joined is None and pair.best is not None and pair.best[0].problem is not None:
                free = (o for o in pair.options.values() if (pair.call.layer, o[1].name) not in agreeing)
                pair.best = _nearest(free)

    def errors(self) -> Iterator[tuple[Key, LayerError]]:
        """Yield what was found; an output that nothing reads, as the last state of an LSTM, may be nowhere."""
        self._choose()
        found = {(pair.call.layer, pair.number) for pair in self.pairs if pair.best is not None}
        times: dict[str, list[tuple[str, int]]] = defaultdict(list)  # calls of a layer that others were folded into
        for pair in self.pairs:
            if pair.best is None:
                if (pair.call.layer, pair.number) not in found:
                    shape = list(pair.source.shape)
                    name = pair.call.layer if pair.number == 1 else f"{pair.call.layer} ({pair.number})"
                    self.missing[name] = (
                        "what it gives is not in the graph" if pair.options
                        else f"no tensor of shape {shape} leaves it" if self.joined is None
                        else "its tensor is not in the converted model"
                    )  # fmt: skip
                continue
            error, value, layout = pair.best
            node = value.producer()
            source = self.graph.sources.get(node) if node is not None else None
            owns = source is not None and source.folded and source.folded[-1] in pair.call.paths
            chain = (source.layer, *source.folded) if owns and source is not None else (pair.call.layer,)
            number, call = pair.number, (pair.call.layer, pair.number)
            if owns:
                times[chain[0]] += [] if call in times[chain[0]] else [call]
                number = times[chain[0]].index(call) + 1
            name = chain[0] if number == 1 else f"{chain[0]} ({number})"
            yield (
                (pair.call.layer, pair.number, pair.place),
                LayerError(
                    name, self._class_of(chain[0], pair.call), chain[1:], str(value.name), layout, pair.source.shape,
                    error.max_abs, error.max_relative, error.relative_l2, error.cosine, error.problem,
                ),
            )  # fmt: skip

    def _class_of(self, layer: str, call: LayerCall) -> str:
        return next((other.class_name for other in self.calls if layer in other.paths), call.class_name)


def _nearest(options: Iterable[tuple[OutputParity, ir.Value, str]]) -> tuple[OutputParity, ir.Value, str] | None:
    return min(options, key=lambda option: _rank(option[0]), default=None)


def _rank(error: OutputParity) -> tuple[float, float]:
    return error.relative_l2, error.max_relative


def _may_be(value: ir.Value, source: Array) -> bool:
    """Say whether a tensor may hold a layer's output, as far as its declared type and rank tell."""
    if value.dtype is not None and source.dtype.kind in "biu" and value.dtype.is_floating_point():
        return False
    return value.shape is None or len([n for n in value.shape if n != 1]) <= source.ndim


def layouts(array: Array, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Yield the ways in which an array can be read as one of a certain shape, each with the name of its layout."""
    fits = False
    if array.shape == shape:
        fits = True
        yield "", array
    if array.ndim > 2 and (moved := np.moveaxis(array, 1, -1)).shape == shape:
        fits = True
        yield "channels first", moved
    if array.ndim == 3 and (swapped := array.swapaxes(0, 1)).shape == shape:
        fits = True
        yield "time first", swapped
    if not fits and array.size and tuple(n for n in array.shape if n != 1) == tuple(n for n in shape if n != 1):
        yield "", array.reshape(shape)
