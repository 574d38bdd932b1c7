"""From the values of an engine to records: what is kept, what is reduced, and what is merged over batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.runtime.nodewise import Observation
from onnxviz.runtime.plan import QUEUE
from onnxviz.runtime.providers import short_name
from onnxviz.runtime.record import Mergeable, TensorRecord
from onnxviz.runtime.spill import Spill

__all__ = ["Collector", "Reduce"]

#: What makes statistics of an array: gets the tensor's name and its values.
Reduce = Callable[[str, np.ndarray], Mergeable]


@dataclass
class _Entry:
    """One tensor over all batches."""

    name: str
    node: ir.Node
    provider: str | None
    iteration: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    arrays: list[np.ndarray] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    statistics: Any = None
    seconds: list[float] = field(default_factory=list)


class Collector:
    """Receives the values of a run; statistics are made in a thread of their own while the model runs on.

    Args:
        names: Name of each tensor, in the order of the records.
        keep: Keep the arrays.
        reduce: What makes statistics of an array; None keeps none.
        iterations: Iterations of a Loop or Scan that are recorded; later ones are counted only.
        spill: Where arrays go instead of memory.
        queue: Bytes of values that may wait to be reduced while the model runs on.
    """

    def __init__(
        self,
        names: Mapping[ir.Value, str],
        *,
        keep: bool,
        reduce: Reduce | None,
        iterations: int,
        spill: Spill | None = None,
        queue: int | None = None,
    ) -> None:
        self._names = names
        self._taken = {name for name in names.values() if "[" in name}  # a tensor may be named as an iteration is
        self._keep = keep
        self._iterations = iterations
        self._spill = spill
        self._entries: dict[str, _Entry] = {}
        self._batch: dict[str, _Entry] = {}
        self._worker = None if reduce is None else _Worker(reduce, min(QUEUE, queue or QUEUE))
        self.missing: dict[str, str] = {}
        self._unrecorded: dict[str, int] = {}

    def __call__(self, seen: Observation) -> None:
        name = self._names[seen.value]
        if any(position >= self._iterations for position in seen.iteration):
            self._unrecorded[name] = self._unrecorded.get(name, 0) + 1
            return
        key = f"{name}[{','.join(map(str, seen.iteration))}]" if seen.iteration else name
        while seen.iteration and key in self._taken:
            key += "'"
        array = seen.array()
        if not isinstance(array, np.ndarray):
            self.missing[key] = f"it is {_what(seen)}, not one array"
            return
        dtype = "string" if array.dtype == object else str(array.dtype)
        entry = _Entry(name, seen.node, seen.provider, seen.iteration, array.shape, dtype)
        self._batch[key] = entry
        if seen.seconds is not None:
            entry.seconds.append(seen.seconds)
        if self._worker is not None:
            self._worker.put(entry, array)
        if self._keep:
            kept = array if self._spill is None else self._spill.put(array)
            kept.flags.writeable = False
            entry.arrays.append(kept)

    def commit(self, samples: int) -> None:
        """Take over what the batch that has just ended gave."""
        if self._worker is not None:
            self._worker.wait()
        for key, entry in self._batch.items():
            entry.batches.append(samples)
            total = self._entries.setdefault(key, entry)
            if total is entry:
                continue
            total.arrays += entry.arrays
            total.batches += entry.batches
            total.seconds += entry.seconds
            if entry.statistics is not None:
                total.statistics = total.statistics.merge(entry.statistics)
        self._batch = {}

    def close(self) -> None:
        """Forget the batch that did not end, and stop the thread."""
        self._batch = {}
        if self._worker is not None:
            self._worker.stop()

    def records(self, mode: str) -> dict[str, TensorRecord]:
        """Return the records, in the order of the names."""
        for name, count in self._unrecorded.items():
            self.missing[f"{name}[…]"] = f"{count} more iterations were run and not recorded"
        order = {name: position for position, name in enumerate(self._names.values())}
        records = {}
        for key, entry in sorted(self._entries.items(), key=lambda item: (order[item[1].name], item[1].iteration)):
            kept, shape = self._joined(key, entry)
            node = entry.node
            records[key] = TensorRecord(
                entry.name, kept, shape, entry.dtype, producer=node.name or node.op_type, op_type=node.op_type,
                provider=short_name(entry.provider or "CPUExecutionProvider"),
                seconds=float(np.median(entry.seconds)) if entry.seconds else None,
                mode=mode, iteration=entry.iteration, statistics=entry.statistics,
            )  # fmt: skip
        return records

    def _joined(self, key: str, entry: _Entry) -> tuple[np.ndarray | None, tuple[int, ...]]:
        """Join the arrays of all batches along the first axis, where that is the batch."""
        arrays, shape = entry.arrays, entry.shape
        if len(entry.batches) == 1:
            return (arrays[0] if arrays else None), shape
        batched = len(shape) > 0 and shape[0] == entry.batches[0]
        joined_shape = (sum(entry.batches), *shape[1:]) if batched else shape
        if not arrays:
            return None, joined_shape
        if batched and all(a.shape == (n, *shape[1:]) for a, n in zip(arrays, entry.batches, strict=True)):
            if self._spill is not None:
                return self._spill.join(arrays), joined_shape
            joined = np.concatenate(arrays)
            joined.flags.writeable = False
            return joined, joined_shape
        if all(a.shape == shape and a.tobytes() == arrays[0].tobytes() for a in arrays[1:]):
            return arrays[0], shape
        self.missing[key] = "its values differ from batch to batch and no axis is the batch; its statistics are kept"
        return None, shape


class _Worker:
    """A thread that makes statistics while the model runs on, ahead of it by a bounded number of bytes."""

    def __init__(self, reduce: Reduce, room: int) -> None:
        self._reduce = reduce
        self._room = room
        self._waiting = 0
        self._jobs: deque[tuple[_Entry, np.ndarray]] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="onnxviz-statistics", daemon=True)
        self._thread.start()

    def put(self, entry: _Entry, array: np.ndarray) -> None:
        """Have the statistics of an array made; blocks while too much is waiting."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._waiting + array.nbytes <= self._room)
            self._waiting += max(1, array.nbytes)
            self._jobs.append((entry, array))
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when all that was put is done.

        Raises:
            Exception: What the reducer raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """End the thread; what waits is forgotten."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return
                entry, array = self._jobs.popleft()
            try:
                entry.statistics = self._reduce(entry.name, array)
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
                self._failure = self._failure or error
            size = max(1, array.nbytes)
            del entry, array
            with self._changed:
                self._waiting -= size
                self._changed.notify_all()


def _what(seen: Observation) -> str:
    kind = getattr(seen.result, "data_type", None)
    held = getattr(seen.result, "has_value", None)
    if held is not None and not held():
        return "an optional that holds nothing"
    return str(kind()) if kind is not None else "an odd constant"
