"""What is checked: one model, and what checks need to know of it, each thing made when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import google.protobuf.message
import onnx
import onnx_ir as ir

from onnxviz.errors import ModelError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.io import open_model
from onnxviz.graph.mapped import map_weights
from onnxviz.graph.model import model_name, summary_line, to_proto
from onnxviz.graph.shapes import infer_shapes

if TYPE_CHECKING:
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.inputs import Inputs
    from onnxviz.runtime.preprocess import Preprocessing

__all__ = ["Options", "Subject"]

T = TypeVar("T")

#: Draws of random numbers that a model is run on where nothing was given.
DRAWS = 4


@dataclass(frozen=True)
class Options:
    """What a user says about a check beside the model.

    Attributes:
        inputs: What to feed the model, as :func:`onnxviz.runtime.inputs.load_inputs` takes it.
        reference: The model to compare with.
        target_opset: Newest opset that the runtime in production knows; None for the one that is installed.
        providers: Execution providers that the model is to run on, short names; empty for the CPU.
        max_memory: Budget of activation memory in bytes.
        static: Leave out what runs the model.
        preprocessing, dims, seed: As :func:`onnxviz.runtime.inputs.load_inputs` takes them.
        op_library: A shared library of custom operators.
        latency_baseline: A file of earlier times to compare with; see :mod:`onnxviz.checks.latency`.
        repro: A folder for small models that show what findings about numbers say, with their inputs.
    """

    inputs: Sequence[str | os.PathLike[str]] | Mapping[str, Any] = ()
    reference: ir.Model | str | os.PathLike[str] | None = None
    target_opset: int | None = None
    providers: tuple[str, ...] = ()
    max_memory: int | None = None
    static: bool = False
    preprocessing: Preprocessing | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    op_library: str | os.PathLike[str] | None = None
    latency_baseline: str | os.PathLike[str] | None = None
    repro: str | os.PathLike[str] | None = None


class Subject:
    """A model under examination.

    What it gives is shared by all checks and is not to be changed. Every property may raise a
    :class:`onnxviz.errors.OnnxvizError`; a check lets it pass, and is then "not checked" with that reason.

    Args:
        source: The path of a file, or a model in memory.
        options: See :class:`Options`.

    Raises:
        ModelError: There is no such file, or it cannot be read.
    """

    def __init__(self, source: ir.Model | str | os.PathLike[str], options: Options | None = None) -> None:
        self.options = options or Options()
        self._given = source if isinstance(source, ir.Model) else None
        self.path = None if isinstance(source, ir.Model) else Path(source)
        if self.path is not None:
            _check_readable(self.path)
        self._shared: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What to call the model in a line of text."""
        if self.path is not None:
            return str(self.path)
        return model_name(self._given) if self._given is not None else "model"

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The file as it parses, its versions not judged, without the data of large weights.

        Raises:
            ModelError: It does not parse.
        """
        if self.path is None:
            return self._serialised()
        try:
            weights = map_weights(self.path)
            data = self.path.read_bytes() if weights is None else weights.rest
            proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
        except (google.protobuf.message.DecodeError, OSError) as error:
            raise ModelError(f"{self.path} does not parse") from error
        if not proto.HasField("graph"):
            raise ModelError(f"{self.path} holds no graph")
        return proto

    def _serialised(self) -> onnx.ModelProto:
        try:
            return to_proto(self.model)
        except Exception as error:
            raise ModelError(f"the model cannot be serialised: {summary_line(error)}") from error

    @cached_property
    def model(self) -> ir.Model:
        """The model, its external weights not loaded.

        Raises:
            ModelError: As :func:`onnxviz.graph.io.open_model`.
        """
        if self._given is not None:
            return self._given
        assert self.path is not None
        return open_model(self.path)

    @cached_property
    def proto_error(self) -> ModelError | None:
        """Why the file does not parse; None if it does."""
        try:
            _ = self.proto
        except ModelError as error:
            return error
        return None

    @cached_property
    def model_error(self) -> ModelError | None:
        """Why the model does not open; None if it does."""
        try:
            _ = self.model
        except ModelError as error:
            return error
        return None

    @cached_property
    def inlined(self) -> ir.Model:
        """The model with its functions inlined; the model itself where it has none."""
        return inline_functions(self.model)

    @cached_property
    def inferred(self) -> ir.Model:
        """A copy with functions inlined and with the types and shapes that can be inferred."""
        return infer_shapes(self.inlined)

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that were asked for, short names; empty if none were."""
        return self.options.providers

    @property
    def max_memory(self) -> int | None:
        """The budget of activation memory in bytes; None if none was given."""
        return self.options.max_memory

    @cached_property
    def reference(self) -> ir.Model:
        """The model to compare with.

        Raises:
            ModelError: It does not open, or none was given.
        """
        given = self.options.reference
        if given is None:
            raise ModelError("no reference was given")
        return given if isinstance(given, ir.Model) else open_model(given)

    @cached_property
    def inputs(self) -> Inputs:
        """What the model is fed first; what nobody gave is seeded random numbers, and its record says so.

        Raises:
            InputError: As :func:`onnxviz.runtime.batches.load_batches`.
        """
        return self.batches.first()

    @cached_property
    def batches(self) -> Batches:
        """All that the model is fed; where nothing was given, random numbers of :data:`DRAWS` seeds in turn.

        Raises:
            InputError: As :func:`onnxviz.runtime.batches.load_batches`.
        """
        from onnxviz.runtime.batches import Batches, load_batches
        from onnxviz.runtime.inputs import load_inputs

        given = self.options
        if given.inputs:
            return load_batches(
                self.model, given.inputs, preprocessing=given.preprocessing, dims=given.dims, seed=given.seed
            )
        seeds = range(given.seed, given.seed + DRAWS)
        return Batches.of(self.model, [load_inputs(self.model, dims=given.dims, seed=seed) for seed in seeds])

    @property
    def made_up(self) -> bool:
        """Whether any number that the model is fed is random, so that what it computes may mean nothing."""
        return bool(self.inputs.made_up)

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """Return what several checks use, such as a capture; made by the first that asks."""
        if name not in self._shared:
            self._shared[name] = make()
        found: T = self._shared[name]
        return found


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not a model", hint="name an .onnx file")
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
