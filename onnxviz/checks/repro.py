"""Models as small as can be that show what a finding says, with the inputs that show it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxviz.checks.running import flat, new_session
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import ancestors, reads
from onnxviz.graph.files import atomic_folder

if TYPE_CHECKING:
    from onnxviz.checks.subject import Subject

__all__ = ["MOST", "Repro", "Shows", "node_repro", "piece_repro", "ran", "save_repro", "shrunk_repro"]

Array = npt.NDArray[Any]
#: Whether what a piece gives shows what was found.
Shows = Callable[[Array], bool]
#: The same of a piece that is still to be run: the model, what it is fed, and the tensor.
Test = Callable[[ir.Model, Mapping[str, Array], str], bool]

#: Repros that are written for one check.
MOST = 16
_BATCHES = 4


@dataclass(frozen=True)
class Repro:
    """A piece of a model.

    Attributes:
        model: The piece, its weights inside.
        feeds: What it is fed.
        expected: What it should give, where that is known from elsewhere.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array] = field(default_factory=dict)


def save_repro(repro: Repro, folder: str | os.PathLike[str], name: str) -> list[str]:
    """Write ``NAME.onnx``, its inputs as ``NAME.npz``, and ``NAME.expected.npz`` where something is expected.

    Returns:
        The names of the files.

    Raises:
        OutputError: The folder cannot be written.
    """
    from onnxviz.runtime.storage import write_npz

    Path(folder).mkdir(parents=True, exist_ok=True)
    target = Path(folder) / f"{name}.onnx"
    files = {f"{name}.npz": repro.feeds} | ({f"{name}.expected.npz": repro.expected} if repro.expected else {})
    with atomic_folder(target) as staged:
        (staged / target.name).write_bytes(repro.model.SerializeToString(deterministic=True))
        for file, arrays in files.items():
            write_npz(staged / file, {key: np.asarray(array) for key, array in arrays.items()})
    return [target.name, *files]


def node_repro(subject: Subject, tensor: str, shows: Shows, *, layer: bool = False) -> Callable[[], Repro]:
    """Return what makes a model of the node that writes a tensor, fed what it read on the first batch that shows it.

    Args:
        subject: The model.
        tensor: Of its main graph.
        shows: Whether the tensor shows what was found; the piece is run to see that.
        layer: Take the nodes before it as well, back to and with the nearest that have weights.

    Raises:
        CheckError: (by what is returned) No node writes it, or the piece does not show it.
    """

    def make() -> Repro:
        value = _value(subject, tensor)
        nodes = _layer(value) if layer else [value.producer()]
        chosen = [node for node in subject.inlined.graph if any(node is one for one in nodes)]
        for place in range(min(len(subject.batches), _BATCHES)):
            repro = piece_repro(subject, chosen, value, _read(subject, chosen, subject.batches.batch(place).feeds))
            if shows(ran(subject, repro)[tensor]):
                return repro
        raise CheckError("these nodes alone do not show it")

    return make


def shrunk_repro(subject: Subject, tensor: str, test: Test, place: int = 0) -> Callable[[], Repro]:
    """Return what cuts a model down to few nodes for which a test still holds: it ends early and begins late.

    Where it ends and where it begins is found by halving: a defect that is not there in a part may be in one that is
    smaller still, so the piece is small rather than the smallest.

    Args:
        subject: The model.
        tensor: Of its main graph, that shows it.
        test: Whether a piece shows it.
        place: Number of the batch that showed it.

    Raises:
        CheckError: (by what is returned) The test does not hold for the main graph as a whole.
    """

    def make() -> Repro:
        feeds = subject.batches.batch(place).feeds
        needed = ancestors(subject.inlined.graph, [_value(subject, tensor)])
        nodes = [node for node in subject.inlined.graph if needed.intersection(node.outputs)]
        ends = [node.outputs[0] for node in nodes if node.outputs and node.outputs[0].name]
        ends[-1] = _value(subject, tensor)

        def held(start: int, end: int) -> Repro | None:
            value = ends[end]
            kept = ancestors(nodes[start : end + 1], [value])
            piece = [node for node in nodes[start : end + 1] if kept.intersection(node.outputs)]
            try:
                repro = piece_repro(subject, piece, value, _read(subject, piece, feeds))
                return repro if test(_model(repro), repro.feeds, str(value.name)) else None
            except CheckError:
                return None

        if len(ends) != len(nodes) or (best := held(0, len(nodes) - 1)) is None:
            raise CheckError("the main graph alone does not show it")
        low, high = 0, len(nodes) - 1  # the first place at which it may end
        while low < high:
            middle = (low + high) // 2
            if (found := held(0, middle)) is not None:
                best, high = found, middle
            else:
                low = middle + 1
        end, low = high, 0  # the last place at which it may begin
        while low < high:
            middle = (low + high + 1) // 2
            if (found := held(middle, end)) is not None:
                best, low = found, middle
            else:
                high = middle - 1
        ran(subject, best)
        return best

    return make


def piece_repro(
    subject: Subject, nodes: Sequence[ir.Node], output: ir.Value, values: Mapping[str, Any], **expected: Array
) -> Repro:
    """Return some nodes as a model of their own; its output has no type until :func:`ran` gives it one.

    Args:
        subject: Where they are from.
        nodes: In the graph's order.
        output: What they give.
        values: What they read from elsewhere, by name.
        expected: What they should give, by name.

    Raises:
        CheckError: They read what is no array.
    """
    from onnxviz.runtime.replay import piece_of

    held = {value: values.get(str(value.name)) for node in nodes for value in reads(node)}
    arrays = {value: array for value, array in held.items() if isinstance(array, np.ndarray)}
    made = {value for node in nodes for value in node.outputs}
    for value, array in held.items():
        if array is None and value not in made and constant_tensor(value) is None:
            raise CheckError(f"what {value.name!r} holds is no array, so it cannot be written")
    proto, feeds = piece_of(subject.inlined, nodes, arrays, output)
    return Repro(proto, feeds, expected)


def _value(subject: Subject, tensor: str) -> ir.Value:
    for node in subject.inlined.graph:
        for value in node.outputs:
            if value.name == tensor:
                return value
    raise CheckError(f"no node of the main graph writes {tensor!r}")


def _layer(value: ir.Value) -> list[ir.Node]:
    """Return the nodes from the one that writes a tensor back to the nearest that have weights."""
    nodes: list[ir.Node] = []
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or any(node is one for one in nodes):
            continue
        nodes.append(node)
        if not any((tensor := constant_tensor(v)) is not None and tensor.size > 1 for v in reads(node)):
            pending += [v for v in reads(node) if constant_tensor(v) is None]
    return nodes


def _read(subject: Subject, nodes: Sequence[ir.Node], feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Return what nodes read from elsewhere on one batch."""
    from onnxviz.runtime.capture import capture

    made = {value for node in nodes for value in node.outputs}
    wanted = {str(v.name): v for node in nodes for v in reads(node) if v not in made and constant_tensor(v) is None}
    values = {name: feeds[name] for name in wanted if name in feeds}
    computed = [name for name, value in wanted.items() if name not in values and value.producer() is not None]
    if computed:
        globs = ["".join(f"[{c}]" if c in "*?[" else c for c in name) for name in computed]
        taken = capture(
            subject.inlined, dict(feeds), globs, bodies=False, providers="cpu", op_library=subject.options.op_library
        )
        values |= {name: record.kept for name, record in taken.items() if record.kept is not None}
    return values


def _model(repro: Repro) -> ir.Model:
    from onnxviz.graph.model import from_proto

    return from_proto(repro.model)


def ran(subject: Subject, repro: Repro) -> dict[str, Array]:
    """Run a piece, nothing fused, and give its outputs the types that they turn out to have.

    Raises:
        ExecutionError: It does not run.
    """
    from onnxviz.runtime.replay import tensor_type

    results = flat(new_session(subject, _model(repro)).run(dict(repro.feeds)))
    for output in repro.model.graph.output:
        if output.name in results:
            output.type.CopyFrom(tensor_type(results[output.name]))
    return results
