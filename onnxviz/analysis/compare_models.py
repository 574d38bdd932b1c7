"""Comparing two models tensor by tensor: pairing, running both, and replaying pieces on what the reference holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.comparison import TOLERANCE, OutputParity, compare
from onnxviz.analysis.error_metrics import error_metrics, relative_error
from onnxviz.analysis.held_numbers import HeldNumbers
from onnxviz.analysis.local_error import replayed, segment
from onnxviz.analysis.model_comparison import ComparedTensor, How, ModelComparison
from onnxviz.analysis.numeric import is_numeric, to_float
from onnxviz.analysis.rounding import deepened, tolerance
from onnxviz.analysis.tensor_pairs import pair_by_activations, turn
from onnxviz.errors import InputError, counted, listed
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import model_name
from onnxviz.graph.shapes import dtype_name, infer_shapes, model_inputs, shape_list
from onnxviz.graph.twin_keys import Sources
from onnxviz.graph.twins import match_tensors, paired_inputs

if TYPE_CHECKING:
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.record import Capture

__all__ = ["compare_models"]

Array = npt.NDArray[Any]
_MOST_BATCHES = 4
_ALONE = "no tensor of the reference has its name, its weights, its place or its values"


def compare_models(
    reference: ir.Model,
    model: ir.Model,
    batches: Batches,
    *,
    limit: float | None = None,
    providers: str | Sequence[str] = "cpu",
    model_providers: str | Sequence[str] | None = None,
    op_library: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelComparison:
    """Compare a model with a reference on the same inputs.

    Tensors are paired as :func:`onnxviz.graph.twins.match_tensors` does it, else by what they hold; codes of a
    quantisation are compared as the numbers that they mean. Both models run node by node with nothing fused. To tell
    the error that is made somewhere from one that is inherited, the nodes between a tensor and the nearest paired ones
    before it run again on what the reference holds there.

    Args:
        reference: What is right.
        model: What is compared; inputs are those of the reference by name, else by position.
        batches: What the reference is fed; the first four batches are used.
        limit: Relative error that passes; None for what the types, and the depth, explain.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        model_providers: Where the model runs, if elsewhere than the reference.
        op_library: A shared library of custom operators.
        progress: Called with the number of tensors that were compared and of all.

    Raises:
        InputError: The models have different numbers of inputs, or inputs of other types or shapes.
        ExecutionError: One of them does not run.

    >>> from onnxviz.runtime.capture import batches_of
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {h = Relu(x) y = %s(h)}'
    >>> one, other = (ir.from_onnx_text(text % op) for op in ("Neg", "Abs"))
    >>> result = compare_models(one, other, batches_of(one, {"x": np.float32([1, -2])}))
    >>> result.first.tensor, result.first.made_here, [t.tensor for t in result.tensors if not t.problem]
    ('y', True, ['h'])
    """
    run = _Run(reference, model, limit, op_library, (providers, model_providers or providers))
    worst: dict[str, ComparedTensor] = {}
    places = range(min(len(batches), _MOST_BATCHES))
    for place in places:
        for done, one in enumerate(run.compared(batches.batch(place).feeds), 1):
            if progress is not None:
                progress(place * len(run.pairs or ()) + done, len(places) * len(run.pairs or ()))
            known = worst.get(one.tensor)
            worst[one.tensor] = one if known is None else known.worse(one)
    first = batches.first()
    notes = [f"fed random numbers: {listed(first.made_up)}"] if first.made_up else []
    order = [str(v.name) for node in run.model.graph for v in node.outputs]
    return ModelComparison(
        model_name(reference), model_name(model), tuple(worst[n] for n in order if n in worst), run.unmatched,
        tuple(map(str, first.records)), len(places), tuple(notes),
    )  # fmt: skip


class _Run:
    """Both models, and how their tensors were paired in the first batch."""

    def __init__(
        self, reference: ir.Model, model: ir.Model, limit: float | None, op_library: str | os.PathLike[str] | None,
        providers: tuple[str | Sequence[str], str | Sequence[str]],
    ) -> None:  # fmt: skip
        self.reference, self.model = inline_functions(reference), inline_functions(model)
        self.limit, self.op_library, self.providers = limit, op_library, providers
        sides = infer_shapes(self.reference), infer_shapes(self.model)
        self.renamed = _renamed(*sides)
        self.outputs = {str(v.name) for v in self.model.graph.outputs}
        self.order = {node: place for place, node in enumerate(self.model.graph)}
        self.values = {str(v.name): v for node in self.model.graph for v in node.outputs}
        self.coarsest = max(tolerance(side, "float32") for side in sides)
        self.own, self.theirs = HeldNumbers(self.model), HeldNumbers(self.reference)
        self.pairs: dict[str, tuple[str, How]] | None = None
        self.unmatched: dict[str, str] = {}

    def compared(self, feeds: Mapping[str, Any]) -> Iterator[ComparedTensor]:
        """Run both on one batch and compare what is paired."""
        from onnxviz.runtime.capture import capture

        given = self._fed(feeds)
        sides = ((self.reference, dict(feeds)), (self.model, given))
        theirs, ours = (
            capture(model, fed, bodies=False, providers=where, op_library=self.op_library)
            for (model, fed), where in zip(sides, self.providers, strict=True)
        )
        self.own.take(ours)
        self.theirs.take(theirs)
        if self.pairs is None:
            self.pairs = self._paired(ours, theirs, given)
        known = self._known(given)
        for node in self.model.graph:
            for value in node.outputs:
                name = str(value.name or "")
                unread = not value.uses() and name not in self.outputs
                if name in known and name in self.pairs and not unread:
                    yield self._one(node, name, known)

    def _fed(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model is fed: the same, in the width of its own floats."""
        from onnxviz.runtime.storage import numpy_type

        given = {}
        for value in model_inputs(self.model):
            array = feeds.get(self.renamed[str(value.name)])
            narrow = value.dtype is not None and value.dtype.is_floating_point()
            if narrow and isinstance(array, np.ndarray) and "float" in str(array.dtype):
                array = array.astype(numpy_type(dtype_name(value) or str(array.dtype)), copy=False)
            if array is not None:
                given[str(value.name)] = array
        return given

    def _paired(self, ours: Capture, theirs: Capture, given: Mapping[str, Any]) -> dict[str, tuple[str, How]]:
        pairs: dict[str, tuple[str, How]] = {}
        for name, (twin, how) in match_tensors(self.reference, self.model, self.renamed).items():
            if name in ours and twin in theirs and turn(theirs[twin].shape, ours[name].shape) is not None:
                pairs[name] = (twin, cast("How", how))
        for one, other in zip(self.model.graph.outputs, self.reference.graph.outputs, strict=False):
            if str(one.name) in ours and str(other.name) in theirs:  # outputs stand for each other whatever their shape
                pairs.setdefault(str(one.name), (str(other.name), "name" if one.name == other.name else "structure"))
        taken = {twin for twin, _ in pairs.values()}
        hidden = {str(value.name) for value in self.own.passed.values()}
        left = {n: a for n in ours if n not in pairs and n not in hidden and (a := self.own.array(n)) is not None}
        right = {n: a for n in theirs if n not in taken and (a := self.theirs.array(n)) is not None}
        alike = pair_by_activations(left, right)
        pairs |= {name: (twin, "activations") for name, twin in alike.items()}
        arrays = ((name, self.own.array(name)) for name in self.values) if alike else ()
        held = {**given, **{name: array for name, array in arrays if array is not None}}
        for name in reversed([name for name in self.values if name in alike]):
            if self._refuted(name, pairs, held):
                del pairs[name]
        self.unmatched = dict.fromkeys(self._alone(ours, {*pairs, *hidden}), _ALONE)
        return pairs

    def _refuted(self, name: str, pairs: Mapping[str, tuple[str, How]], own: Mapping[str, Array]) -> bool:
        """Whether a tensor was paired by its values with what is not its twin.

        It is so where the two differ, what reads the tensor agrees, and would not with the twin's values in its place.
        """
        if self._agrees(name, pairs[name][0]):
            return False
        behind = {name: self.values[name]}
        pending = [self.values[name]]
        while pending:
            for user in pending.pop().consumers():
                new = [v for v in user.outputs if str(v.name) not in behind] if user in self.order else []
                behind |= {str(v.name): v for v in new}
                for value in (v for v in new if str(v.name) in pairs):
                    twin = pairs[str(value.name)][0]
                    if self._agrees(str(value.name), twin) and self._upset(
                        name, pairs[name][0], value, twin, behind, own
                    ):
                        return True
                pending += [v for v in new if str(v.name) not in pairs]
        return False

    def _upset(
        self, name: str, twin: str, value: ir.Value, its_twin: str, behind: Mapping[str, Any], own: Mapping[str, Array]
    ) -> bool:
        """Whether what a tensor's reader computes from the twin's values is not what the reference has there."""
        expected, there = self._expected(name, twin), self._expected(str(value.name), its_twin)
        assert expected is not None
        assert there is not None
        read = self.own.read(str(value.name))
        codes = segment(read, {str(value.name): value}, self.order)[0] if read is not value else []
        hidden = {*behind, *(str(v.name) for node in codes for v in node.outputs)}
        known = {n: array for n, array in own.items() if n not in hidden}
        known |= {name: expected, str(self.own.read(name).name): expected}
        alone = replayed(
            self.model, read, known, self.own, order=self.order, providers=self.providers[1],
            op_library=self.op_library,
        )  # fmt: skip
        node = value.producer()
        assert node is not None
        limit = self._limit(self.order[node], str(there.dtype))
        return alone is None or alone.shape != there.shape or _parity(name, there, alone, limit).problem is not None

    def _agrees(self, name: str, twin: str) -> bool:
        here, there = self.own.array(name), self._expected(name, twin)
        if here is None or there is None:
            return False
        node = self.values[name].producer()
        assert node is not None
        limit = self._limit(self.order[node], str(here.dtype), str(there.dtype))
        return _parity(name, there, here, limit).problem is None

    def _expected(self, name: str, twin: str) -> Array | None:
        """Return what the reference holds for a tensor, as the model would have it; None where that are no numbers."""
        there, here = self.theirs.array(twin), self.own.array(name)
        if there is None or here is None or not is_numeric(there.dtype) or not is_numeric(here.dtype):
            return None
        axes = turn(there.shape, here.shape)
        return self.own.expected(name, there.transpose(axes) if axes else there)

    def _alone(self, ours: Capture, told: set[str]) -> Iterator[str]:
        """Yield what has no twin and is no constant, no codes, and no copy of what has one."""
        sources = Sources()
        values = self.values
        told = told | {str(source.name) for name in told if (source := sources.of(values[name])) is not None}
        writers = (values[name].producer() for name in told if name in values)
        told |= {
            str(n.inputs[0].name) for n in writers if n is not None and n.op_type == "DequantizeLinear" and n.inputs[0]
        }
        for name, record in ours.items():
            source = sources.of(values[name]) if name in values else None
            if source is None or name in told or str(source.name) in told or str(source.name) in self.renamed:
                continue
            node = values[name].producer()
            if record.kept is None or not is_numeric(record.kept.dtype) or node is None:
                continue
            if node.op_type != "QuantizeLinear":
                yield name

    def _known(self, given: Mapping[str, Any]) -> dict[str, Array]:
        """Return what the reference holds for each paired tensor, and the inputs, as the model would have it."""
        known = {name: np.asarray(array) for name, array in given.items() if isinstance(array, np.ndarray)}
        for name, (twin, _) in (self.pairs or {}).items():
            expected = self._expected(name, twin)
            if expected is not None:
                known[name] = known[str(self.own.read(name).name)] = expected
        return known

    def _one(self, node: ir.Node, name: str, known: dict[str, Array]) -> ComparedTensor:
        assert self.pairs is not None
        value = self.own.read(name)  # what is read of it: a quantisation may hold a Relu
        here, there = self.own.array(name), known[name]
        assert here is not None
        twin, how = self.pairs[name]
        limit = self._limit(self.order[node], str(here.dtype), str(there.dtype))
        parity = _parity(name, there, here, limit)
        own = {n: known.pop(n) for n in {name, str(value.name)} if n in known}  # what it holds is not behind itself
        alone = replayed(
            self.model, value, known, self.own, order=self.order, providers=self.providers[1],
            op_library=self.op_library,
        )  # fmt: skip
        known.update(own)
        local = None if alone is None or alone.shape != there.shape else relative_error(*_floats(there, alone))
        source = self.theirs.array(twin)
        axes = turn(source.shape, here.shape) if source is not None else ()
        output = name in self.outputs
        return ComparedTensor(
            name, twin, node.name or node.op_type, node.op_type, how, here.shape, str(here.dtype), axes or (),
            parity.max_abs, parity.max_relative, parity.relative_l2, parity.cosine,
            error_metrics(*_floats(there, here), ranked=output), local, limit, parity.problem, output,
        )  # fmt: skip

    def _limit(self, place: int, *dtypes: str) -> float:
        if self.limit is not None:
            return self.limit
        coarsest = max((TOLERANCE.get(dtype, 0.0) for dtype in dtypes), default=0.0)
        whole = self.coarsest if coarsest else 0.0
        return max(deepened(coarsest, place), whole if whole > 2e-3 else 0.0)


def _renamed(reference: ir.Model, model: ir.Model) -> dict[str, str]:
    """Return the model's inputs -> the reference's, and refuse what cannot be fed with the same.

    Raises:
        InputError: They have other inputs.
    """
    theirs, own = ({str(v.name): v for v in model_inputs(m)} for m in (reference, model))
    if len(theirs) != len(own):
        raise InputError(
            f"the model has {_inputs(own)}, and the reference {_inputs(theirs)}",
            hint="compare models that take the same inputs",
        )
    pairs = paired_inputs(reference, model)
    for name, twin in pairs.items():
        one, other = own[name], theirs[twin]
        if _unlike(one, other):
            raise InputError(
                f"input {name!r} is {_told(one)}, and {twin!r} of the reference {_told(other)}",
                hint="compare models that take the same inputs",
            )
    return pairs


def _inputs(inputs: Mapping[str, Any]) -> str:
    return f"{counted(len(inputs), 'input')} ({listed(list(inputs), 4) or 'none'})"


def _unlike(one: ir.Value, other: ir.Value) -> bool:
    """Whether what fits one input cannot fit another: floats may have another width."""
    a, b = one.dtype, other.dtype
    if a is not None and b is not None and a != b and not (a.is_floating_point() and b.is_floating_point()):
        return True
    if one.shape is None or other.shape is None:
        return False
    if len(one.shape) != len(other.shape):
        return True
    sizes = zip(one.shape, other.shape, strict=True)
    return any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes)


def _told(value: ir.Value) -> str:
    return f"{dtype_name(value)} {['?' if size is None else size for size in shape_list(value) or ()]}"


def _floats(there: Array, here: Array) -> tuple[Array, Array]:
    """Return both as one type, where they are floats of two widths: float16 is compared with float32."""
    floats = all("float" in str(array.dtype) for array in (there, here))
    return (to_float(there), to_float(here)) if floats and there.dtype != here.dtype else (there, here)


def _parity(name: str, there: Array, here: Array, limit: float) -> OutputParity:
    return compare(name, *_floats(there, here), limit or None, peak=10)
