"""What every converter takes and gives.

A converter turns one framework's networks into ONNX. onnxviz finds converters through the entry-point group
``onnxviz.converters``, so a package of its own can add a framework: it needs one class with the three members of
:class:`Converter`, and an entry point that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import ConversionError

__all__ = [
    "Array",
    "Conversion",
    "ConvertOptions",
    "Converter",
    "LayerCall",
    "Record",
    "Reference",
    "Source",
    "comes_from",
]

Array = npt.NDArray[Any]
#: Runs the source network: arrays by ONNX input name -> its outputs in the order of the ONNX outputs.
Reference = Callable[[Mapping[str, Array]], list[Array]]


@dataclass(frozen=True)
class Source:
    """What is converted: a file, or an object that is alive already.

    Attributes:
        label: How the user named it, without folders, such as ``"net.py:lenet5"``, ``"net.keras"`` or ``"LeNet5"``.
        path: The file; None for a live object.
        factory: The function's name where the user named ``file.py:function``.
        network: The live object: what the factory returned, or what was passed in.
        example_inputs: What a factory returned beside the network: a tensor, a tuple of arguments or a dict of
            keyword arguments.
    """

    label: str
    path: Path | None = None
    factory: str | None = None
    network: object | None = None
    example_inputs: object | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of the source file, which recorded source lines are relative to."""
        return None if self.path is None else self.path.resolve().parent


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        input_shapes: One shape an input, batch included; empty where the source knows its own.
        weights: A state dict or weights file for the network that a factory returns.
        static: Keep the batch size of the example; by default the batch axis is dynamic.
        opset: The ONNX opset; None takes the exporter's default.
        trust: Execute code that the source brings.
        seed: Seed of example inputs and of initial weights.
        dynamic: Axes beside the batch that are to stay open: input name -> axis -> the name of its size.
        keep_batchnorm: Leave BatchNorm beside the convolution before it instead of folding it in.
    """

    input_shapes: tuple[tuple[int, ...], ...] = ()
    weights: Path | None = None
    static: bool = False
    opset: int | None = None
    trust: bool = False
    seed: int = 0
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    keep_batchnorm: bool = False


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer of the source network, in a run of it.

    Attributes:
        layer: Its path, as on the nodes' :class:`~onnxviz.graph.provenance.Provenance`.
        class_name: Its class, such as ``"torch.nn.modules.conv.Conv2d"``.
        outputs: Every tensor that it gave, flattened.
        reads: Indices of the calls, in the run, whose outputs it took.
        hands_on: It gave what it took, as Dropout does outside of training.
        aliases: Further paths under which the network holds the layer: nodes may name any of them.
    """

    layer: str
    class_name: str
    outputs: tuple[Array, ...]
    reads: tuple[int, ...] = ()
    hands_on: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path of the layer."""
        return (self.layer, *self.aliases)


#: Runs the source network like :data:`Reference` and returns what each layer gave, in the order in which they ended.
Record = Callable[[Mapping[str, Array]], list[LayerCall]]


@dataclass(frozen=True)
class Conversion:
    """A network as ONNX, and how to run the network it came from.

    Attributes:
        model: The ONNX model.
        exporter: What wrote it, such as ``"torch.export"`` or ``"TorchScript (fallback: <reason>)"``.
        framework: Name and version, such as ``"torch 2.13.0"``.
        reference: Runs the source network on arrays by ONNX input name.
        example: One input that the source network accepts, by ONNX input name.
        notes: What the user should know, one line each.
        record: Runs the source network and returns what each of its layers gave; None where layers cannot be watched.
            The layers' paths are those that the nodes' provenance names.
    """

    model: ir.Model
    exporter: str
    framework: str
    reference: Reference
    example: Mapping[str, Array]
    notes: tuple[str, ...] = field(default=())
    record: Record | None = None


@runtime_checkable
class Converter(Protocol):
    """The interface of a converter.

    Attributes:
        name: The framework's name.
        takes: What the converter accepts, for messages, such as ``".keras or .h5 files"``.
    """

    name: str
    takes: str

    def accepts(self, source: Source) -> bool:
        """Say whether this converter is the one for ``source``, without importing its framework."""

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        """Convert ``source``.

        Raises:
            ConversionError: The network cannot be converted as asked.
            TrustError: The source would execute code and ``options.trust`` is not set.
            MissingDependencyError: The framework or a part of it is not installed.
        """


def comes_from(network: object, package: str, class_name: str | None = None) -> bool:
    """Say whether an object's class derives from ``package``'s ``class_name`` (any class of it by default).

    It looks at names only, so that no framework is imported to ask.

    >>> import collections
    >>> comes_from(collections.OrderedDict(), "collections"), comes_from([], "collections")
    (True, False)
    """
    return any(
        kind.__module__.split(".")[0] == package and class_name in (None, kind.__name__)
        for kind in type(network).__mro__
    )


def seeded(shape: Sequence[int], dtype: npt.DTypeLike, rng: np.random.Generator, like: Array | None = None) -> Array:
    """Draw an array: normal for floats, fair coins for bools, and integers and strings out of those of ``like``.

    A number between two that an example holds need not be one that the network takes: a category, a token.

    >>> seeded((2,), "int64", np.random.default_rng(0), like=np.array([3, 3])).tolist()
    [3, 3]

    Raises:
        ConversionError: The dtype is neither numeric nor boolean.
    """
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(tuple(shape)) < 0.5
    if kind.kind in "iuO" and like is not None and like.size:
        return rng.choice(like.ravel(), tuple(shape)).astype(kind)
    if kind.kind in "iu":
        return rng.integers(0, 1, tuple(shape), endpoint=True).astype(kind)
    if kind.kind in "fcV":
        return rng.standard_normal(tuple(shape)).astype(kind)
    raise ConversionError(f"cannot draw random inputs of type {kind}", hint="pass the inputs to compare on")
