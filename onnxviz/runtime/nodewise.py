"""The engine: a model run piece by piece, each value dropped after its last reader.

Each piece is a session of its own with nothing fused, so every value that leaves it is what the graph in the file says,
bit for bit what the whole graph computes under ``ORT_DISABLE_ALL``. Bodies of If, Loop and Scan are run here, iteration
by iteration, so that the tensors inside them are seen too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import ModelError, OnnxvizError, ProviderError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import Piece, embed, piece_proto
from onnxviz.graph.io import check_external_data
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.liveness import tensor_bytes
from onnxviz.runtime.control import run_control
from onnxviz.runtime.explain import explain_failure, explain_refusal
from onnxviz.runtime.memory import release, share_arena
from onnxviz.runtime.options import new_options
from onnxviz.runtime.program import GROUP_BYTES, Program, Step, make_program
from onnxviz.runtime.providers import resolve_providers, short_name
from onnxviz.runtime.values import constant_array, sequence_value, tensor_value, to_array, to_value, type_proto

__all__ = ["Engine", "Observation"]

_CPU = "CPUExecutionProvider"
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_INLINE = 1024  # bytes of a constant up to which it is written into the piece: shapes and axes must be seen there
_HEAVY = 1 << 16  # bytes of a tensor from which several threads are worth while
_THREAD_SAFE = frozenset({"elementwise", "activation", "shape", "embedding", "quantize", "constant"})


@dataclass(frozen=True)
class Observation:
    """One value as it was computed.

    Attributes:
        value: Which.
        result: Its OrtValue, or the constant that it always is.
        iteration: Position in the Loop and Scan nodes around it, outermost first; empty in the main graph.
        node: The node that wrote it.
        provider: Full name of the execution provider that the node was assigned to; None for a constant.
        seconds: What the node took; None where it ran together with others.
        inputs: What the node's piece was fed, by name.
    """

    value: ir.Value
    result: ort.OrtValue | ir.TensorProtocol
    iteration: tuple[int, ...]
    node: ir.Node
    provider: str | None
    seconds: float | None
    inputs: Mapping[str, ort.OrtValue]

    def array(self) -> Any:
        """Return the value as a numpy array, brought back from a device; None for what is no tensor."""
        if isinstance(self.result, ort.OrtValue):
            return to_array(self.result)
        return constant_array(self.result)


Observer = Callable[[Observation], None]


class Engine:
    """Runs a model piece by piece and shows each wanted value to an observer.

    Args:
        model: The model, functions inlined, types and shapes inferred as far as they can be; it is not changed unless
            its bodies hold external tensors, which are brought into memory.
        wanted: The values to be computed, of the main graph and of bodies.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators to register; its code is executed.
        keep: Keep the sessions, and with them the weights, from run to run. Without, each piece is built when its turn
            comes and dropped after it, and only its own weights are in memory.
        sizes: Bytes of the values, where they are known.
        group_bytes: Bytes of outputs that one piece may make, unless it is a single node.

    Raises:
        ProviderError: A provider that was asked for does not load.
        ModelError: An external weight file is missing or too short.
    """

    def __init__(
        self,
        model: ir.Model,
        wanted: Collection[ir.Value],
        providers: str | Sequence[str] = "auto",
        *,
        op_library: str | os.PathLike[str] | None = None,
        keep: bool = True,
        sizes: Mapping[ir.Value, int | None] | None = None,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self.model = model
        self.wanted = frozenset(wanted)
        self.requested = resolve_providers(providers)
        self.keep = keep
        self._op_library = op_library
        self._sizes = sizes or {}
        # From IR version 4 on, what is an input too can be fed: onnxruntime then takes it for no constant.
        defaults = [v for v in model.graph.inputs if v.is_initializer()] if (model.ir_version or 0) >= 4 else []
        self._defaults = dict.fromkeys(defaults)
        self._sessions: dict[int, _PieceSession] = {}
        self._weights: dict[ir.Value, ort.OrtValue] = {}
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = 4
        check_external_data(model)
        embed(model.graph)
        self.program = make_program(model.graph, self.wanted, self.constant, self._bytes, group_bytes=group_bytes)
        self._folder = tempfile.TemporaryDirectory(prefix="onnxviz-", ignore_cleanup_errors=True)
        self._placeholder()
        self._shares_arena = share_arena()

    def close(self) -> None:
        """Drop the sessions and the temporary folder."""
        self._sessions.clear()
        self._weights.clear()
        self._folder.cleanup()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def constant(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """Return the tensor that a value always holds; a default of an input is none."""
        if value in self._defaults:
            return None
        tensor = constant_tensor(value)
        source = value.producer() if value is not None and value.const_value is None else None
        while source is not None and source.op_type == "Identity" and source.inputs[0] is not None:
            if source.inputs[0] in self._defaults:
                return None
            source = source.inputs[0].producer()
        return tensor

    def _bytes(self, value: ir.Value) -> int | None:
        return self._sizes.get(value) if value in self._sizes else tensor_bytes(value)

    def run(self, feeds: Mapping[str, Any], observe: Observer) -> None:
        """Run once.

        Args:
            feeds: Input name -> array (or list of arrays, for a sequence).
            observe: Called with each wanted value, in the order in which they are computed.

        Raises:
            ExecutionError: onnxruntime has no kernel for a node, or the node fails; the text names it.
            InputError: A feed does not fit.
        """
        self.run_program(self.program, self.fed(feeds), observe, ())

    def fed(self, feeds: Mapping[str, Any]) -> dict[ir.Value, ort.OrtValue]:
        """Return what the graph's inputs hold: what is fed, else their defaults.

        Raises:
            InputError: A feed does not fit.
        """
        values: dict[ir.Value, ort.OrtValue] = {}
        for value in self.model.graph.inputs:
            name = str(value.name)
            if name in feeds:
                given = feeds[name]
                if isinstance(given, np.ndarray):
                    values[value] = to_value(name, given)
                else:
                    values[value] = sequence_value(given, None if value.dtype is None else value.dtype.numpy())
            elif value in self._defaults and value.const_value is not None:
                values[value] = to_value(name, constant_array(value.const_value))
        return values

    def run_step(self, step: Step, values: Mapping[ir.Value, ort.OrtValue]) -> list[ort.OrtValue]:
        """Run one step of :attr:`program` and return its outputs; ``values`` holds what it reads, and is left alone.

        Raises:
            ExecutionError: As :meth:`run`.
        """
        if step.control:
            return run_control(self, step, dict(values), _unseen, ())
        return self._run_piece(step, values, _unseen, ())

    def run_program(
        self, program: Program, values: dict[ir.Value, ort.OrtValue], observe: Observer, iteration: tuple[int, ...]
    ) -> None:
        """Run a graph; ``values`` holds what it reads, and afterwards its outputs."""
        for value in program.constants:
            node, tensor = value.producer(), self.constant(value)
            if node is not None and tensor is not None:
                observe(Observation(value, tensor, iteration, node, None, None, {}))
        for step in program.steps:
            if step.control:
                results = run_control(self, step, values, observe, iteration)
                if not self.keep and not iteration:
                    self._sessions.clear()  # kept from iteration to iteration only
                self._publish(step, results, observe, iteration, None, {}, _CPU)
            else:
                results = self._run_piece(step, values, observe, iteration)
            values.update(zip(step.piece.outputs, results, strict=True))
            for value in step.dies:
                values.pop(value, None)

    def value_of(self, value: ir.Value, values: Mapping[ir.Value, ort.OrtValue]) -> ort.OrtValue:
        """Return what a value holds: computed, fed, or constant."""
        if value in values:
            return values[value]
        tensor = self.constant(value)
        held = tensor_value(tensor) if tensor is not None else None
        if held is None:
            raise ModelError(f"no node, input or weight of the model gives tensor {value.name!r}")
        return held

    def _publish(
        self,
        step: Step,
        results: Sequence[ort.OrtValue],
        observe: Observer,
        iteration: tuple[int, ...],
        seconds: float | None,
        inputs: Mapping[str, ort.OrtValue],
        provider: str | Mapping[str, str],
    ) -> None:
        for value, result in zip(step.piece.outputs, results, strict=True):
            node = value.producer()
            if value not in self.wanted or node is None:
                continue
            assigned = provider if isinstance(provider, str) else provider.get(node.name or "", self.requested[0])
            observe(Observation(value, result, iteration, node, assigned, seconds, inputs))

    def _run_piece(
        self, step: Step, values: Mapping[ir.Value, ort.OrtValue], observe: Observer, iteration: tuple[int, ...]
    ) -> list[ort.OrtValue]:
        piece = step.piece
        feeds = {str(value.name): self.value_of(value, values) for value in piece.inputs}
        session = self._session(step, feeds, iteration)
        start = time.perf_counter()
        try:
            results = session.run(feeds, self._run_options)
        except Exception as error:
            raise explain_failure(error) from error
        seconds = time.perf_counter() - start if len(piece.nodes) == 1 else None
        self._publish(step, results, observe, iteration, seconds, feeds, session.assigned)
        return results

    def _session(self, step: Step, feeds: Mapping[str, ort.OrtValue], iteration: tuple[int, ...]) -> _PieceSession:
        kinds = {name: _kind(value) for name, value in feeds.items()}
        session = self._sessions.get(id(step))
        if session is not None and session.kinds == kinds:
            return session
        session = self._build(step.piece, feeds, kinds)
        if self.keep or iteration:
            self._sessions[id(step)] = session
        return session

    def _build(
        self, piece: Piece, feeds: Mapping[str, ort.OrtValue], kinds: dict[str, tuple[str, int | None]]
    ) -> _PieceSession:
        """Make a piece's session; where onnxruntime needs sizes to tell types, it is given those of this run."""
        try:
            return self._attempt(piece, kinds, {})
        except (ProviderError, OSError, OnnxvizError):
            raise
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no class
            sizes = {name: value.shape() for name, value in feeds.items() if value.has_value() and value.is_tensor()}
            try:
                return self._attempt(piece, kinds, sizes)
            except Exception:  # noqa: BLE001 - the first error is the one that the user's model causes
                raise explain_refusal(error) from error

    def _attempt(
        self, piece: Piece, kinds: dict[str, tuple[str, int | None]], sizes: Mapping[str, Sequence[int]]
    ) -> _PieceSession:
        options = new_options(op_library=self._op_library, threads=self._threads(piece))
        options.enable_mem_pattern = False  # planned for the first shapes: memory that lies idle between the runs
        if self._shares_arena:
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry(_FOLDER_KEY, self._folder.name)
        if len(self.requested) > 1:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        types = {value: _declared(value, *kinds[str(value.name)]) for value in piece.inputs}
        for value in piece.inputs:
            if (size := sizes.get(str(value.name))) is not None:
                for dim, n in zip(types[value].tensor_type.shape.dim, size, strict=True):
                    dim.dim_value = n
        weights = [self._weight(value, options) for value in piece.constants]
        proto = piece_proto(self.model, piece, types, [w for w, _ in weights])
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=self.requested)
        for _, shared in weights:
            if shared is not None:  # onnxruntime has packed most weights anew; what it still reads comes back by itself
                release(shared.onnxviz_array)
        return _PieceSession(session, [str(v.name) for v in piece.outputs], kinds, [v for _, v in weights])

    def _threads(self, piece: Piece) -> int:
        """Return 1 for small work that gives the same bits with any number of threads, else 0: as many as usual.

        Convolutions, matrix products and reductions are cut into as many parts as there are threads, and their last
        bits depend on it, so they get what a session of the whole graph would have.
        """
        if any(kind_of(node) not in _THREAD_SAFE for node in piece.nodes):
            return 0
        sizes = (self._bytes(v) for v in (*piece.inputs, *piece.outputs, *piece.constants))
        return 0 if any(size is None or size > _HEAVY for size in sizes) else 1

    def _weight(self, value: ir.Value, options: ort.SessionOptions) -> tuple[onnx.TensorProto, ort.OrtValue | None]:
        """Return how a constant is written into a piece: whole, or as a placeholder for memory that is shared."""
        tensor = self.constant(value)
        assert tensor is not None
        shared = None
        if self.requested == [_CPU] and tensor.nbytes > _INLINE and tensor.dtype != ir.DataType.STRING:
            shared = self._weights.get(value)
            shared = tensor_value(tensor) if shared is None else shared
        if shared is None:
            proto = ir.serde.serialize_tensor(_inline(tensor))
            proto.name = str(value.name)
            return proto, None
        if self.keep:
            self._weights[value] = shared
        options.add_initializer(str(value.name), shared)
        proto = onnx.TensorProto(name=str(value.name), data_type=int(tensor.dtype), dims=tensor.shape.numpy())
        proto.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", _HOLE), ("offset", "0"), ("length", str(tensor.nbytes))):
            proto.external_data.add(key=key, value=text)
        return proto, shared

    def _placeholder(self) -> None:
        """Make the file that placeholders refer to: a hole as long as the largest weight; nothing is read from it."""
        longest = 0
        for piece in self.program.pieces():
            for value in piece.constants:
                tensor = self.constant(value)
                longest = max(longest, 0 if tensor is None else tensor.nbytes)
        with (Path(self._folder.name) / _HOLE).open("wb") as file:
            file.truncate(longest)


_HOLE = "weights"


class _PieceSession:
    """A session of one piece."""

    def __init__(
        self,
        session: ort.InferenceSession,
        outputs: list[str],
        kinds: dict[str, tuple[str, int | None]],
        weights: list[ort.OrtValue | None],
    ) -> None:
        self.session = session
        self.outputs = outputs
        self.kinds = kinds
        self._weights = weights  # onnxruntime uses their memory and does not keep them alive
        self.device = short_name(session.get_providers()[0])
        self.assigned = _assignment(session)

    def run(self, feeds: Mapping[str, ort.OrtValue], options: ort.RunOptions) -> list[ort.OrtValue]:
        if self.device != "cuda" or not all(v.has_value() and v.is_tensor() for v in feeds.values()):
            results: list[ort.OrtValue] = self.session.run_with_ort_values(self.outputs, dict(feeds), options)
            return results
        binding = self.session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        kinds = {o.name: o.type for o in self.session.get_outputs()}
        for name in self.outputs:
            stays = kinds[name] in ("tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)")
            binding.bind_output(name, "cuda" if stays else "cpu")
        self.session.run_with_iobinding(binding, options)
        outputs: list[ort.OrtValue] = binding.get_outputs()
        return outputs


def _unseen(observation: Observation) -> None:
    """Observe nothing."""


def _assignment(session: ort.InferenceSession) -> str | dict[str, str]:
    """Return which provider each node of a session was assigned to, by node name; one name if there is only one."""
    providers = session.get_providers()
    if len(providers) == 1:
        return str(providers[0])
    return {
        node.name: subgraph.ep_name
        for subgraph in session.get_provider_graph_assignment_info()
        for node in subgraph.get_nodes()
    }


def _declared(value: ir.Value, kind: str, rank: int | None) -> onnx.TypeProto:
    """Return the type of a piece's input: what it holds, as an optional where the model says that it is one."""
    if isinstance(value.type, ir.OptionalType) and not kind.startswith("optional"):
        return type_proto(f"optional({kind})")
    return type_proto(kind, rank)


def _kind(value: ort.OrtValue) -> tuple[str, int | None]:
    kind = value.data_type()
    return kind, len(value.shape()) if kind.startswith("tensor(") and value.has_value() else None


def _inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)
    return tensor
