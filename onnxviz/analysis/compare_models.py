"""Comparing two models tensor by tensor: pairing, running both, and replaying pieces on what the reference holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.comparison import TOLERANCE, OutputParity, compare
from onnxviz.analysis.model_comparison import ComparedTensor, How, ModelComparison
from onnxviz.analysis.numeric import is_numeric, to_float
from onnxviz.analysis.rounding import deepened, tolerance
from onnxviz.errors import InputError, OnnxvizError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import model_name
from onnxviz.graph.shapes import infer_shapes, model_inputs
from onnxviz.graph.twins import match_tensors

if TYPE_CHECKING:
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.record import Capture

__all__ = ["compare_models", "passed_on"]

Array = npt.NDArray[Any]
_ALIKE = 0.95  # cosine similarity from which tensors of one shape may stand for each other
_MOST_BATCHES = 4
_TURNS = ((0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1))


def compare_models(
    reference: ir.Model,
    model: ir.Model,
    batches: Batches,
    *,
    limit: float | None = None,
    providers: str | Sequence[str] = "cpu",
    op_library: str | os.PathLike[str] | None = None,
) -> ModelComparison:
    """Compare a model with a reference on the same inputs.

    Tensors are paired by name, else by the weights of their nodes, else by what they hold. Both models run node by node
    with nothing fused. To tell the error that is made somewhere from one that is inherited, the nodes between a tensor
    and the nearest paired ones before it run again on what the reference holds there.

    Args:
        reference: What is right.
        model: What is compared; inputs are those of the reference by name, else by position.
        batches: What the reference is fed; the first four batches are used.
        limit: Relative error that passes; None for what the types, and the depth, explain.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators.

    Raises:
        InputError: The models have different numbers of inputs.
        ExecutionError: One of them does not run.

    >>> from onnxviz.runtime.capture import batches_of
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {h = Relu(x) y = %s(h)}'
    >>> one, other = (ir.from_onnx_text(text % op) for op in ("Neg", "Abs"))
    >>> result = compare_models(one, other, batches_of(one, {"x": np.float32([1, -2])}))
    >>> result.first.tensor, result.first.made_here, [t.tensor for t in result.tensors if not t.problem]
    ('y', True, ['h'])
    """
    run = _Run(reference, model, limit, {"providers": providers, "op_library": op_library})
    worst: dict[str, ComparedTensor] = {}
    places = range(min(len(batches), _MOST_BATCHES))
    for place in places:
        for one in run.compared(batches.batch(place).feeds):
            known = worst.get(one.tensor)
            worst[one.tensor] = one if known is None else _worse(known, one)
    first = batches.first()
    made_up = [record.name for record in first.records if record.made_up]
    notes = [f"fed random numbers: {', '.join(made_up)}"] if made_up else []
    order = [str(v.name) for node in run.model.graph for v in node.outputs]
    return ModelComparison(
        model_name(reference), model_name(model), tuple(worst[n] for n in order if n in worst), run.unmatched,
        tuple(f"{r.name}: {r.source}, {r.dtype} {list(r.shape)}" for r in first.records), len(places), tuple(notes),
    )  # fmt: skip


def _worse(one: ComparedTensor, other: ComparedTensor) -> ComparedTensor:
    """Return the worst numbers of two batches."""
    locals_ = [each.local for each in (one, other) if each.local is not None]
    return replace(
        other, max_abs=max(one.max_abs, other.max_abs), relative_l2=max(one.relative_l2, other.relative_l2),
        cosine=min(one.cosine, other.cosine), local=max(locals_, default=None), problem=one.problem or other.problem,
    )  # fmt: skip


class _Run:
    """Both models, and how their tensors were paired in the first batch."""

    def __init__(self, reference: ir.Model, model: ir.Model, limit: float | None, options: Mapping[str, Any]) -> None:
        self.reference, self.model = inline_functions(reference), inline_functions(model)
        self.limit = limit
        self.options = dict(options)
        self.types = infer_shapes(self.model)
        self.outputs = {str(v.name) for v in self.model.graph.outputs}
        self.depth = {str(v.name): i for i, node in enumerate(self.model.graph) for v in node.outputs}
        self.pairs: dict[str, tuple[str, How]] | None = None
        self.unmatched: dict[str, str] = {}
        self.renamed = _renamed(self.reference, self.model)
        self.passed = passed_on(self.model)

    def compared(self, feeds: Mapping[str, Any]) -> Iterator[ComparedTensor]:
        """Run both on one batch and compare what is paired."""
        from onnxviz.runtime.capture import capture

        own = {name: feeds[other] for name, other in self.renamed.items() if other in feeds}
        theirs = capture(self.reference, dict(feeds), bodies=False, **self.options)
        ours = capture(self.model, own, bodies=False, **self.options)
        if self.pairs is None:
            self.pairs = self._paired(ours, theirs)
        known = self._known(ours, theirs, own, feeds)
        for node in self.model.graph:
            for value in node.outputs:
                name = str(value.name or "")
                unread = not value.uses() and name not in self.outputs
                if name in known and name in self.pairs and not unread:
                    yield self._one(node, value, ours, known)

    def _paired(self, ours: Capture, theirs: Capture) -> dict[str, tuple[str, How]]:
        pairs: dict[str, tuple[str, How]] = {}
        for name, (twin, how) in match_tensors(self.reference, self.model).items():
            if name in ours and twin in theirs and _turn(theirs[twin].shape, ours[name].shape) is not None:
                pairs[name] = (twin, "name" if how == "name" else "weights")
        for one, other in zip(self.model.graph.outputs, self.reference.graph.outputs, strict=False):
            if str(one.name) in ours and str(other.name) in theirs:  # outputs stand for each other whatever their shape
                pairs.setdefault(str(one.name), (str(other.name), "name" if one.name == other.name else "weights"))
        read = {name: str(value.name) for name, value in self.passed.items()}
        pairs |= _by_activations(ours, theirs, pairs, read)
        told = {*pairs, *(str(value.name) for value in self.passed.values())}
        for name, record in ours.items():
            if name not in told and record.kept is not None and is_numeric(record.kept.dtype):
                self.unmatched[name] = "no tensor of the reference has its name, its weights or its values"
        return pairs

    def _known(
        self, ours: Capture, theirs: Capture, own: Mapping[str, Any], feeds: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return what the reference holds for each paired tensor, and the inputs, as the model would have it."""
        known = {name: np.asarray(array) for name, array in own.items() if isinstance(array, np.ndarray)}
        for name, (twin, _) in (self.pairs or {}).items():
            if name not in ours or twin not in theirs:
                continue
            there, here = theirs[twin].array, ours[name].array
            if is_numeric(there.dtype) and is_numeric(here.dtype):
                turn = _turn(there.shape, here.shape)
                known[name] = there.transpose(turn) if turn else there
                if name in self.passed:
                    known[str(self.passed[name].name)] = known[name]
        return known

    def _one(self, node: ir.Node, value: ir.Value, ours: Capture, known: Mapping[str, Array]) -> ComparedTensor:
        name = str(value.name)
        assert self.pairs is not None
        value = self.passed.get(name, value)  # what is read of it: a quantisation may hold a Relu
        here, there = ours[str(value.name)].array, known[name]
        twin, how = self.pairs[name]
        limit = self._limit(name, str(here.dtype), str(there.dtype))
        parity = _parity(name, there, here, limit)
        local = _local(
            self.model, value, {n: a for n, a in known.items() if n not in (name, str(value.name))}, ours, there
        )
        turn = _turn(np.shape(there), here.shape) or ()
        return ComparedTensor(
            name, twin, node.name or node.op_type, node.op_type, how, here.shape, str(here.dtype), turn,
            parity.max_abs, parity.relative_l2, parity.cosine, local, limit, parity.problem, name in self.outputs,
        )  # fmt: skip

    def _limit(self, name: str, *dtypes: str) -> float:
        if self.limit is not None:
            return self.limit
        coarsest = max((TOLERANCE.get(dtype, 0.0) for dtype in dtypes), default=0.0)
        whole = tolerance(self.types, "float32") if coarsest else 0.0
        return max(deepened(coarsest, self.depth.get(name, 0)), whole if whole > 2e-3 else 0.0)


def passed_on(model: ir.Model) -> dict[str, ir.Value]:
    """Return tensors that are quantised -> what DequantizeLinear makes of their codes, which is what others read.

    A quantiser leaves out a Relu or Clip whose range its codes have: the tensor before the codes then holds other
    numbers than the one of its name in the float model.
    """
    found: dict[str, ir.Value] = {}
    outputs = set(model.graph.outputs)
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if source is None or source.producer() is None or source in outputs:
            continue
        readers = [user for user in node.outputs[0].consumers() if user.op_type == "DequantizeLinear"]
        if readers and all(user is node for user in source.consumers()):
            found[str(source.name)] = readers[0].outputs[0]
    return found


def _renamed(reference: ir.Model, model: ir.Model) -> dict[str, str]:
    """Return the model's inputs -> the reference's: by name, else by position."""
    theirs, own = ([str(v.name) for v in model_inputs(m)] for m in (reference, model))
    if len(theirs) != len(own):
        raise InputError(f"the model has {len(own)} inputs, and the reference {len(theirs)}")
    return dict(zip(own, own if set(own) == set(theirs) else theirs, strict=True))


def _turn(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return how axes are turned from one shape to the other: empty where they are equal; None where nothing fits."""
    if source == target:
        return ()
    fitting = (t for t in _TURNS if len(t) == len(source) and tuple(source[axis] for axis in t) == target)
    return next(fitting, None)


def _parity(name: str, there: Array, here: Array, limit: float) -> OutputParity:
    """Compare, types of floats aside: a model in float16 is compared with one in float32."""
    floats = "float" in str(there.dtype) and "float" in str(here.dtype)
    if floats and there.dtype != here.dtype:
        there, here = (to_float(array) for array in (there, here))
    return compare(name, there, here, limit or None, peak=10)


def _by_activations(
    ours: Capture, theirs: Capture, pairs: Mapping[str, tuple[str, How]], read: Mapping[str, str]
) -> dict[str, tuple[str, How]]:
    """Pair tensors of the same shape that hold nearly the same; each at most once, the best first."""
    taken = {twin for twin, _ in pairs.values()}
    units = {name: unit for name, r in theirs.items() if name not in taken and (unit := _unit(r.kept)) is not None}
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name in units:
        shapes.setdefault(theirs[name].shape, []).append(name)
    hidden = set(read.values())
    found: list[tuple[float, str, str]] = []
    for name, record in ours.items():
        candidates = shapes.get(record.shape, []) if name not in pairs and name not in hidden else []
        own = _unit(ours[read.get(name, name)].kept) if candidates else None
        if own is not None:
            found += [(cosine, name, twin) for twin in candidates if (cosine := float(own @ units[twin])) >= _ALIKE]
    matched: dict[str, tuple[str, How]] = {}
    used: set[str] = set()
    for _, name, twin in sorted(found, key=lambda entry: -entry[0]):
        if name not in matched and twin not in used:
            matched[name] = (twin, "activations")
            used.add(twin)
    return matched


def _unit(array: Array | None) -> npt.NDArray[np.float32] | None:
    """Return a float tensor as a vector of length 1; None where it says too little to recognise it by."""
    if array is None or array.size < 8 or "float" not in str(array.dtype):
        return None
    vector = to_float(array).astype(np.float32).ravel()
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0 or float(vector.std()) < 1e-6 * length:
        return None
    return np.asarray(vector / np.float32(length))


def _local(
    model: ir.Model, value: ir.Value, known: Mapping[str, Array], ours: Capture, expected: Array
) -> float | None:
    """Return the error of a tensor when the nodes behind the nearest known tensors read what the reference holds."""
    nodes, borders = _segment(value, known)
    if not nodes:
        return None
    from onnxviz.runtime.replay import replay

    feeds = {}
    for border in borders:
        name = str(border.name)
        dtype = ours[name].dtype if name in ours else str(known[name].dtype)
        feeds[border] = _as_type(known[name], dtype)
    try:
        result = replay(model, nodes, feeds, value)
    except OnnxvizError:  # such a piece cannot be run alone; the error stands as a whole
        return None
    if result.shape != expected.shape:
        return None
    return _parity(str(value.name), expected, result, 0.0).relative_l2


def _as_type(array: Array, dtype: str) -> Array:
    from onnxviz.runtime.storage import numpy_type

    with np.errstate(all="ignore"):
        return array.astype(numpy_type(dtype), copy=False)


def _segment(value: ir.Value, known: Mapping[str, Array]) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the nodes between a tensor and the nearest known ones before it, in order, and those tensors."""
    from onnxviz.graph.extract import reads

    nodes: set[ir.Node] = set()
    borders: dict[ir.Value, None] = {}
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for source in reads(node):
            if source.producer() is None and constant_tensor(source) is None and str(source.name) not in known:
                return [], []
            if str(source.name) in known:
                borders[source] = None
            elif constant_tensor(source) is None:
                pending.append(source)
    graph = value.producer().graph if value.producer() is not None else None  # type: ignore[union-attr]
    return [node for node in graph if node in nodes] if isinstance(graph, ir.Graph) else [], list(borders)
