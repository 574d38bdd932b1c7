"""The result of profiling a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from onnxviz.runtime.events import EventTensor
from onnxviz.runtime.inputs import InputRecord

__all__ = ["Execution", "MemoryUse", "NodeProfile", "OpProfile", "Profile"]


@dataclass(frozen=True)
class NodeProfile:
    """One executed node.

    Attributes:
        name: Its name, that of its first output where it has none; numbers of onnxruntime's own are kept.
        op_type: Such as ``"Conv"``; ``domain`` is empty for ONNX's own operators.
        provider: Short name of the execution provider that ran it.
        calls: How often it ran in one run: more than once inside a loop.
        in_body: Whether it lies in a body of If, Loop or Scan.
        seconds: Median over the runs of its own time in a run, all calls together; the nodes in its bodies are not
            counted. onnxruntime counts whole microseconds a call.
        low, high: First and third quartile of that time.
        fastest: The least of it.
        share: Of the profiled run.
        macs: Multiply-accumulates in a run at the shapes that were seen; 0 for operators without products of tensors;
            None where they are unknown.
        bytes_read, weight_bytes, bytes_written: Bytes of its computed inputs, constant inputs and outputs in a run,
            each read or written once a call.
        output_shape: Of the first output, in the first call.
        outputs: Names of the tensors that it writes.
        originals: Names of the model's nodes that it stands for; empty for what onnxruntime put in.
        original_ops: Op type of each of them.
    """

    name: str
    op_type: str
    domain: str
    provider: str
    calls: int
    in_body: bool
    seconds: float
    low: float
    high: float
    fastest: float
    share: float
    macs: int | None
    bytes_read: int | None
    weight_bytes: int | None
    bytes_written: int | None
    output_shape: tuple[int, ...] | None
    outputs: tuple[str, ...]
    originals: tuple[str, ...]
    original_ops: tuple[str, ...]

    @property
    def operator(self) -> str:
        """The operator with its domain where that is not ONNX's own: ``"Conv"``, ``"nchwc.Conv"``."""
        return f"{self.domain.rpartition('.')[2]}.{self.op_type}" if self.domain else self.op_type

    @property
    def main(self) -> str:
        """The node of the model that does the work: the one of the same kind (FusedConv: Conv), else the first."""
        kinds = zip(self.originals, self.original_ops, strict=True)
        same = (name for name, op_type in kinds if op_type in self.op_type)
        return next(same, self.originals[0] if self.originals else self.name)

    @property
    def label(self) -> str:
        """The nodes of the model that it stands for, the main one first: ``"conv1 + relu1"``; else its own name."""
        rest = [name for name in self.originals if name != self.main]
        return " + ".join([self.main, *rest[:2]]) + (f" + {len(rest) - 2} more" if len(rest) > 2 else "")

    @property
    def bytes(self) -> int | None:
        """Bytes read and written, weights included."""
        if self.bytes_read is None or self.weight_bytes is None or self.bytes_written is None:
            return None
        return self.bytes_read + self.weight_bytes + self.bytes_written

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity, 2 · MACs / bytes, in FLOP a byte (Williams, Waterman, Patterson: "Roofline", 2009)."""
        return 2 * self.macs / self.bytes if self.macs is not None and self.bytes else None

    @property
    def gflops(self) -> float | None:
        """2 · MACs / seconds, in 10⁹ a second; None below the profiler's resolution of a microsecond."""
        return 2e-9 * self.macs / self.seconds if self.macs is not None and self.seconds >= 1e-6 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the node as plain JSON types, what follows from its fields included."""
        row = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return row | {"bytes": self.bytes, "intensity": self.intensity, "gflops": self.gflops}


@dataclass(frozen=True)
class OpProfile:
    """All nodes of one operator: how many, their calls, seconds, share of the run, and MACs (None if any's are)."""

    operator: str
    nodes: int
    calls: int
    seconds: float
    share: float
    macs: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the operator as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class MemoryUse:
    """Activations of one run; weights and what was fed are not counted.

    Attributes:
        bytes: Alive during each node of the main graph, in the order in which the nodes ran, by liveness: no buffer is
            reused in place, and no kernel needs scratch memory (:mod:`onnxviz.graph.liveness`).
        rows: The node of each, as an index into the profile's rows.
        peak_bytes: The most of ``bytes``.
        peak_row: The node at which they are alive, as an index into the profile's rows.
        alive: Names of the tensors alive there.
        unknown: Names of tensors whose size is unknown; they count as 0.
        allocator_bytes: The most that nodes of the first run had asked onnxruntime's allocator for when one of them
            ended; None where it does not tell.
        resident_bytes: Peak of the growth of a fresh process's resident memory in its first run; None if not measured.
        resident_method: How it was measured, or why not.
    """

    bytes: tuple[int, ...]
    rows: tuple[int, ...]
    peak_bytes: int
    peak_row: int | None
    alive: tuple[str, ...]
    unknown: tuple[str, ...]
    allocator_bytes: int | None
    resident_bytes: int | None = None
    resident_method: str = ""


@dataclass(frozen=True)
class Execution:
    """One execution of a node in the run that the trace shows: the node's row, and microseconds since the run began."""

    row: int
    start: int
    duration: int
    inputs: tuple[EventTensor, ...]
    outputs: tuple[EventTensor, ...]


@dataclass(frozen=True)
class Profile:
    """Result of :func:`onnxviz.runtime.profile.profile`.

    Attributes:
        mode: ``"production"``: the optimised session; ``"semantic"``: nothing fused.
        providers: The session's execution providers.
        runs, warmup: Runs that were measured, and those before them.
        seconds: Median of a whole run without the profiler.
        profiled_seconds: Median of a whole run under it; shares are of this.
        unaccounted: Share of the profiled run that lies in no node: the runtime's own work and the profiler's.
        rows: The executed nodes, in the order in which they began.
        memory: What one run needs.
        inputs: What the model was fed.
        notes: What a reader should know.
        executions: One whole run, that of median length.
        run_seconds: How long that one took.
    """

    model_name: str
    mode: str
    providers: tuple[str, ...]
    runs: int
    warmup: int
    seconds: float
    profiled_seconds: float
    unaccounted: float
    rows: tuple[NodeProfile, ...]
    memory: MemoryUse
    inputs: tuple[InputRecord, ...]
    notes: tuple[str, ...]
    executions: tuple[Execution, ...] = field(repr=False)
    run_seconds: float = 0.0

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of a run; None where those of a node are unknown."""
        return _sum(row.macs for row in self.rows)

    def top(self, count: int = 10) -> list[NodeProfile]:
        """Return the nodes that take longest, longest first."""
        return sorted(self.rows, key=lambda row: -row.seconds)[:count]

    def by_op(self) -> list[OpProfile]:
        """Return the time of each operator, longest first."""
        groups: dict[str, list[NodeProfile]] = {}
        for row in self.rows:
            groups.setdefault(row.operator, []).append(row)
        found = [
            OpProfile(
                operator, len(rows), sum(r.calls for r in rows), sum(r.seconds for r in rows),
                sum(r.share for r in rows), _sum(r.macs for r in rows),
            )
            for operator, rows in groups.items()
        ]  # fmt: skip
        return sorted(found, key=lambda op: -op.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as plain JSON types; single executions are left to the trace."""
        memory = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.memory).items()}
        return {
            "format": "onnxviz.profile/1", "model": self.model_name, "mode": self.mode,
            "providers": list(self.providers), "runs": self.runs, "warmup": self.warmup, "seconds": self.seconds,
            "profiled_seconds": self.profiled_seconds, "unaccounted": self.unaccounted, "macs": self.macs,
            "inputs": [record.to_dict() for record in self.inputs], "notes": list(self.notes),
            "nodes": [row.to_dict() for row in self.rows], "operators": [op.to_dict() for op in self.by_op()],
            "memory": memory,
        }  # fmt: skip

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("node", "op", "provider", "calls", "ms", "share", "MACs"))
        cells = (
            (r.name, r.operator, r.provider, r.calls, f"{1e3 * r.seconds:.3f}", f"{r.share:.1%}",
             "?" if r.macs is None else f"{r.macs:,}")
            for r in self.top()
        )  # fmt: skip
        rows = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells)
        caption = f"{self.model_name}: {1e3 * self.seconds:.3g} ms a run, {self.mode}, top {min(10, len(self.rows))}"
        return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{rows}</table>"


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
