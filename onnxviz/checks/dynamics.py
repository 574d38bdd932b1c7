"""Checks of shapes that only a run can tell: D04."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.checks.finding import Problem, place_of
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of, reads

_STANDARD = ("", "ai.onnx")
#: Operators whose output is as long as their data says.
_ALWAYS = frozenset({"NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit"})
#: Operator -> the inputs that say how large the output is.
_SIZED_BY: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Resize": (1, 2, 3),
    "Upsample": (1,), "Slice": (1, 2, 4), "Pad": (1,), "TopK": (1,), "OneHot": (1,), "Split": (1,), "Col2Im": (1, 2),
    "CenterCropPad": (1,), "MaxUnpool": (2,), "AffineGrid": (1,), "DFT": (1,), "STFT": (1, 3), "HannWindow": (0,),
    "HammingWindow": (0,), "BlackmanWindow": (0,), "Loop": (0,), "SplitToSequence": (1,),
}  # fmt: skip


@check(
    "D04",
    "warning",
    "shapes that depend on data",
    needs=Need.MODEL,
    what="Follows which numbers come from the values of the inputs (not from their shapes) into what says how large a "
    "tensor is: NonZero, Unique, NonMaxSuppression, and Reshape, Slice, Range, Expand and others with a computed "
    "size.",
    why="Compilers for GPUs and NPUs, TensorRT and CUDA graphs among them, need to know sizes beforehand; memory "
    "cannot be planned, and a batch may come out ragged.",
    remedy="Compute sizes from shapes; keep a fixed number of results (TopK with a constant) and mask the rest; or "
    "leave that part out of the model.",
    false_positives="Detectors end in NonMaxSuppression by nature. A Slice with computed ends may always cut out the "
    "same size. Loops with a computed number of turns count where they stack their results.",
)
def data_dependent_shapes(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the nodes where a size first depends on data."""
    walk = _Walk()
    graph = subject.inferred.graph
    for value in graph.inputs:
        if not value.is_initializer():
            walk.data.add(value)
    walk.through(graph)
    yield from walk.problems
    yield {"nodes": walk.nodes}


class _Walk:
    """Which tensors hold numbers that come from data, and which have a size that does.

    ``echo`` has what is computed from the sizes of the latter: a size that depends on it is no new one.
    """

    def __init__(self) -> None:
        self.data: set[ir.Value] = set()
        self.echo: set[ir.Value] = set()
        self.sized: set[ir.Value] = set()
        self.problems: list[Problem] = []
        self.nodes = 0

    def through(self, graph: ir.Graph) -> None:
        for node in graph:
            self.nodes += 1
            bodies = list(bodies_of(node))
            for body in bodies:
                if any(value in self.data for value in node.inputs if value is not None):
                    self.data.update(body.inputs)
                if any(value in self.sized for value in node.inputs if value is not None):
                    self.sized.update(body.inputs)
                self.through(body)
            self._step(node, bodies)

    def _step(self, node: ir.Node, bodies: list[ir.Graph]) -> None:
        read = reads(node) if bodies else [value for value in node.inputs if value is not None]
        inherits = any(value in self.sized for value in read) or any(v in self.sized for b in bodies for v in b.outputs)
        if node.op_type in ("Shape", "Size") and node.domain in _STANDARD:
            if inherits:
                self.echo.update(node.outputs)
            return
        inherits = inherits or any(value in self.echo for value in _size_inputs(node))
        by = None if inherits else self._origin(node)
        if by is not None:
            name, why = by
            evidence = {"op_type": node.op_type, "size_from": name}
            self.problems.append(Problem(f"the size of what {node.op_type} gives {why}", [place_of(node)], evidence))
        if inherits or by is not None:
            self.sized.update(node.outputs)
        for kind in (self.data, self.echo):
            if any(value in kind for value in read):
                kind.update(node.outputs)

    def _origin(self, node: ir.Node) -> tuple[str, str] | None:
        """Return what a size depends on, where this node is the first."""
        if node.domain not in _STANDARD:
            return None
        if node.op_type in _ALWAYS:
            depends = any(value in self.data for value in node.inputs if value is not None)
            return (str(node.inputs[0].name), "is as its data says") if depends and node.inputs[0] is not None else None
        for value in _size_inputs(node):
            if value in self.data and constant_tensor(value) is None:
                if node.op_type == "Loop" and not _stacks(node):
                    continue
                return str(value.name), f"is computed from data: {value.name!r}"
        return None


def _size_inputs(node: ir.Node) -> list[ir.Value]:
    """Return the inputs that say how large the output of a node is."""
    indices = _SIZED_BY.get(node.op_type, ()) if node.domain in _STANDARD else ()
    given = [node.inputs[index] for index in indices if index < len(node.inputs)]
    return [value for value in given if value is not None]


def _stacks(node: ir.Node) -> bool:
    """Whether a Loop stacks what its turns give."""
    carried = max(len(node.inputs) - 2, 0)
    return len(node.outputs) > carried
