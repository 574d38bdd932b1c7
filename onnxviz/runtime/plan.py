"""What a run will need, told before it starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

import onnx_ir as ir

from onnxviz.errors import InputError, MemoryLimitError, printable
from onnxviz.graph.extract import Constant, Piece
from onnxviz.graph.shapes import dtype_name, shape_list
from onnxviz.runtime.memory import resident
from onnxviz.runtime.program import Program

__all__ = ["Plan", "PlannedTensor", "make_plan", "parse_bytes"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
#: Measured on Linux with onnxruntime 1.31: what the first session loads, and what each further one keeps.
_RUNTIME = 24 << 20
_SESSION = 150 << 10
#: What the statistics of one tensor take.
_RECORD = 8 << 10
#: Statistics hold this much of a tensor at a time, and values wait for them in a queue of at most :data:`QUEUE`.
_REDUCER = 6 << 20
QUEUE = 2 << 20
#: Operators whose kernels keep a rearranged copy of their constant inputs.
_PACKED = {
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv",
    "LSTM", "GRU", "MatMulNBits", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "Attention", "QAttention",
    "DynamicQuantizeLSTM", "ConvTranspose",
}  # fmt: skip


def parse_bytes(text: str | int) -> int:
    """Return a size such as ``"2GB"`` (10⁹ bytes) or ``"512MiB"`` (2²⁰ bytes) as a number of bytes.

    Raises:
        InputError: It is no size.

    >>> parse_bytes("1.5 GB"), parse_bytes("2KiB")
    (1500000000, 2048)
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]i?)?b?\s*", str(text).lower())
    try:
        size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    except ValueError:
        size = 0
    if size <= 0:
        raise InputError(f"{text!r} is no size in bytes", hint="write 2GB, 500MB or 512MiB")
    return size


def bytes_text(size: int) -> str:
    """Return a size in the unit that suits it.

    >>> bytes_text(1_234_567)
    '1.2 MB'
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a plan.

    Attributes:
        name: Of the tensor.
        dtype: As numpy spells it; None where it is not known before the run.
        shape: Sizes; None where not known, or single sizes None.
        bytes: Of one batch; None where not known.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...] | None
    bytes: int | None


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        peak: Predicted peak of the process's resident memory, in bytes.
        least: The same if arrays go to disk and sessions are dropped after use: no limit below it can be met.
        present: Resident memory of the process when the plan was made.
        activations: Most bytes of values alive at once, the step that makes them included.
        activations_at: Name of the node at which that is.
        weights: Bytes of weights held at once.
        kept: Bytes of the arrays that are kept, all batches together; 0 where only statistics are.
        keeps: Where they are kept: ``"memory"``, ``"disk"`` or ``"nowhere"``.
        keeps_sessions: Whether sessions and weights stay from batch to batch.
        limit: What was allowed; None for no limit.
        batches: Number of batches.
        pieces: Number of sessions.
        tensors: The tensors that are recorded.
        unknown: Names of the values whose size is not known before the run; they count as nothing.
    """

    peak: int
    least: int
    present: int
    activations: int
    activations_at: str
    weights: int
    kept: int
    keeps: Literal["memory", "disk", "nowhere"]
    keeps_sessions: bool
    limit: int | None
    batches: int
    pieces: int
    tensors: tuple[PlannedTensor, ...] = field(repr=False)
    unknown: tuple[str, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan in words, a line each."""
        where = {"memory": "kept in memory", "disk": "written to disk as they come", "nowhere": "not kept"}[self.keeps]
        lines = [
            f"predicted peak memory: {bytes_text(self.peak)}"
            + (f" of {bytes_text(self.limit)} allowed" if self.limit is not None else ""),
            f"  in use now: {bytes_text(self.present)}",
            f"  values alive at once: {bytes_text(self.activations)}, at {printable(self.activations_at, 80)!r}",
            f"  weights held at once: {bytes_text(self.weights)}, "
            + ("kept from batch to batch" if self.keeps_sessions else "loaded piece by piece"),
            f"  arrays of {len(self.tensors)} tensors: "
            + (f"{bytes_text(self.kept)}, {where}" if self.keeps != "nowhere" else "only statistics are kept"),
            f"least that this run can do with: {bytes_text(self.least)}",
        ]
        if self.unknown:
            names = ", ".join(printable(name, 40) for name in self.unknown[:3])
            lines.append(f"not counted: {len(self.unknown)} values whose size only the run tells ({names} …)")
        return lines

    def _repr_html_(self) -> str:
        return "<pre>" + escape("\n".join(self.lines())) + "</pre>"


def make_plan(
    program: Program,
    constant: Constant,
    sizes: Mapping[ir.Value, int | None],
    names: Mapping[ir.Value, str],
    twins: Mapping[ir.Value, ir.Value],
    *,
    batches: int,
    keep: bool,
    reduces: bool,
    limit: int | None,
) -> Plan:
    """Return what a program will need.

    Args:
        program: The order of work.
        constant: What tells which tensor a value always holds.
        sizes: Bytes of the values of one batch.
        names: Name of each tensor that is recorded.
        twins: Value -> the same value with inferred type and shape.
        batches: Number of batches.
        keep: Whether arrays are kept.
        reduces: Whether statistics are made.
        limit: Bytes that the process may have; None for no limit.

    Raises:
        MemoryLimitError: The limit cannot be met; the text has the number that would do.
    """
    sim = _Simulation(constant, sizes)
    sim.run(program, list(program.graph.inputs), 0)
    present = resident()
    pieces = program.pieces()
    total_weights = sum(_weight_bytes(piece, constant) for piece in pieces)
    queue = min(QUEUE, sim.produced) + _REDUCER + len(names) * _RECORD if reduces else 0
    kept = batches * sum(sizes.get(value) or 0 for value in names) if keep else 0
    base = present + _RUNTIME + sim.peak + queue
    lean = base + sim.heaviest + _SESSION
    whole = base + total_weights + len(pieces) * _SESSION
    largest = max((sizes.get(value) or 0 for value in names), default=0) if keep else 0
    least = lean - (max(0, min(QUEUE, sim.produced) - largest) if reduces else 0)
    if limit is not None and least > limit:
        raise MemoryLimitError(
            f"this run needs {bytes_text(least)} at least, and {bytes_text(limit)} are allowed",
            hint=f"give --max-memory {_round_up(least)}, or a smaller --batch",
        )
    keeps_sessions = batches > 1 and (limit is None or whole + kept <= limit)
    use = whole if keeps_sessions else lean
    keeps: Literal["memory", "disk", "nowhere"] = "memory" if keep else "nowhere"
    # Arrays of unknown size may not fit, and a run that has kept them in memory could only give up.
    if keep and limit is not None and (use + kept > limit or any(sizes.get(value) is None for value in names)):
        keeps = "disk"
    unknown = tuple(str(v.name) for v in sim.unknown)
    return Plan(
        min(use, limit or use) if keeps == "disk" else use + kept, least, present, sim.peak, sim.at,
        total_weights if keeps_sessions else sim.heaviest, kept, keeps, keeps_sessions, limit, batches, len(pieces),
        tuple(_planned(name, value, twins, sizes) for value, name in names.items()), unknown,
    )  # fmt: skip


def _round_up(size: int) -> str:
    return f"{size * 1.05 / 1e6:,.0f}MB".replace(",", "")


def _planned(
    name: str, value: ir.Value, twins: Mapping[ir.Value, ir.Value], sizes: Mapping[ir.Value, int | None]
) -> PlannedTensor:
    twin = twins.get(value, value)
    shape = shape_list(twin)
    return PlannedTensor(name, dtype_name(twin), None if shape is None else tuple(shape), sizes.get(value))


def _weight_bytes(piece: Piece, constant: Constant) -> int:
    """Return the bytes of a piece's weights, those twice of which a kernel keeps a copy."""
    packed = {v for node in piece.nodes if node.op_type in _PACKED for v in node.inputs if v is not None}
    total = 0
    for value in piece.constants:
        tensor = constant(value)
        total += 0 if tensor is None else tensor.nbytes * (2 if value in packed else 1)
    return total


class _Simulation:
    """Goes through a program without running it and follows the bytes alive."""

    def __init__(self, constant: Constant, sizes: Mapping[ir.Value, int | None]) -> None:
        self._constant = constant
        self._sizes = sizes
        self.peak = 0
        self.at = ""
        self.heaviest = 0
        self.produced = 0
        self.unknown: dict[ir.Value, None] = {}

    def _size(self, value: ir.Value) -> int:
        size = self._sizes.get(value)
        if size is None:
            self.unknown[value] = None
        return size or 0

    def run(self, program: Program, inputs: list[ir.Value], before: int) -> None:
        """Follow one graph; ``before`` is what is alive around it."""
        alive = {value: self._size(value) for value in inputs if not value.is_initializer()}
        for step in program.steps:
            made = {v: self._size(v) for node in step.piece.nodes for v in node.outputs if v.name}
            now = before + sum(alive.values()) + sum(size for v, size in made.items() if v not in alive)
            self.produced += sum(made.values())
            if now > self.peak:
                node = step.piece.nodes[-1]
                self.peak, self.at = now, node.name or str(node.outputs[0].name)
            for body in step.control.values():
                self.run(body, list(body.graph.inputs), before + sum(alive.values()))
            if not step.control:
                self.heaviest = max(self.heaviest, _weight_bytes(step.piece, self._constant))
            alive.update((v, made[v]) for v in step.piece.outputs if v in made)
            for value in step.dies:
                alive.pop(value, None)
