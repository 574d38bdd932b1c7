"""What is explained: a class, a neuron, a token, or an expression, resolved once for each sample."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.expressions import expression_target
from onnxviz.analysis.attribution.scores import Scored, score_output
from onnxviz.errors import GradientError, SelectionError, listed, printable
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.select import FLOAT_TYPES, all_tensors

__all__ = ["Forward", "Target", "TargetSpec", "resolve_target"]

#: A class's index or name, ``"argmax"``, ``"TENSOR:3,5"``, an expression; None for the highest class.
TargetSpec = int | str | None
#: Gives the values of tensors of a model for all samples, ``(N, …)`` each, and which of them have no axis of samples.
Forward = Callable[[ir.Model, Sequence[str], Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]
_NEURON = re.compile(r"(?P<tensor>.+):(?P<at>\d{1,9}(?:,\d{1,9})*)$", re.DOTALL)
_MOST_SPATIAL = 3
Index = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Target:
    """One number for each sample: the mean of some entries of a tensor.

    Attributes:
        model: The model that holds the tensor; with the nodes of an expression, where that is the target.
        tensor: The tensor whose entries are the score.
        shape: Of one sample of it.
        dtype: Of it.
        at: For each sample, which entries, as numpy indexes a row.
        texts: What it is, for each sample.
        classes: For each sample the index of the class; None where it is none.
        bare: Whether the tensor has no axis of samples.
        notes: What a reader should know.
        frozen: Inputs that an expression adds, ``(N, …)``: the places of its ``argmax``, which stay those of the
            unchanged sample whatever copy of it is run.
        known: The score of each sample, ``(N,)``, where finding the target told it.
    """

    model: ir.Model
    tensor: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    at: tuple[Index, ...]
    texts: tuple[str, ...]
    classes: tuple[int, ...] | None = None
    bare: bool = False
    notes: tuple[str, ...] = ()
    frozen: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    known: npt.NDArray[np.float64] | None = None

    def scored(self, values: npt.NDArray[Any]) -> Target:
        """Return the target with the scores that values of its tensor for all samples, ``(N, *shape)``, give."""
        return replace(self, known=self.scores(values, np.arange(len(self.at))))

    def seeds(self, samples: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Return the gradient of the score with respect to the tensor, ``(R, *shape)``, for rows of some samples."""
        seeds = np.zeros((len(samples), *self.shape), self.dtype)
        for row, sample in enumerate(samples.tolist()):
            place = (row, *self.at[sample])
            seeds[place] = 1 / np.size(seeds[place])
        return seeds

    def scores(self, values: npt.NDArray[Any], samples: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the score of rows ``(R, *shape)`` of some samples, ``(R,)``."""
        places = ((row, *self.at[sample]) for row, sample in enumerate(samples.tolist()))
        return np.array([np.mean(values[place], dtype=np.float64) for place in places], np.float64)


def resolve_target(
    model: ir.Model, wanted: TargetSpec, forward: Forward, *, labels: Sequence[str] | None = None,
    output: str | None = None,
) -> Target:  # fmt: skip
    """Return what is explained, for each sample.

    - None or ``"argmax"``: the class with the highest score;
    - ``3`` or ``"3"``: a class; ``"tiger cat"``: a class by its name, or by a part that only one name has;
    - ``"TENSOR:CHANNEL"``, ``"TENSOR:CHANNEL,ROW,COLUMN"``: a neuron of a map, channels first whatever the layout; of
      other tensors the indices along its axes after the samples', such as ``"tokens:4,17"`` for unit 17 of token 4.
      The mean, where fewer indices are given than it has axes;
    - an expression in names of tensors, as :func:`onnxviz.gradient.targets.target_value` takes it.

    Classes are those of the first output of shape (N, classes), taken before a softmax or sigmoid at its end.

    Args:
        model: The model, functions inlined.
        wanted: The target.
        forward: Runs a model.
        labels: Names of the classes; by default those that the model's metadata hold.
        output: The output with the scores of classes, where it is not the first.

    Raises:
        SelectionError: The target does not exist, or nothing tells which output holds classes.
        GradientError: An expression is none.
    """
    text = "" if wanted is None else str(wanted).strip()
    tensors = {str(value.name): value for value in all_tensors(model)} | {str(v.name): v for v in model.graph.inputs}
    found = _NEURON.match(text)
    if found is not None and found["tensor"] in tensors:
        return _neuron(model, tensors[found["tensor"]], tuple(map(int, found["at"].split(","))), forward)
    plain = text in ("", "argmax") or re.fullmatch(r"\d{1,9}", text) is not None
    if plain or not _is_expression(text, tensors):
        scored = score_output(model, lambda names: forward(model, names, {}), labels, output)
        return _class(model, text, scored)
    resolved = expression_target(model, text, forward)
    count = len(resolved.values)
    if resolved.values.size != count:
        raise GradientError(
            f"{printable(text, 80)!r} gives a tensor of shape {resolved.values.shape}, not a number for each sample",
            hint="take one entry, or sum(…), mean(…), max(…), norm(…) of it",
        )
    shape = resolved.values.shape[1:]
    return Target(
        resolved.model, resolved.tensor, shape, resolved.values.dtype, ((...,),) * count, (text,) * count,
        notes=resolved.notes, frozen=resolved.frozen,
    ).scored(resolved.values)  # fmt: skip


def _is_expression(text: str, tensors: Mapping[str, ir.Value]) -> bool:
    """Whether a text is an expression rather than the name of a class, which may hold brackets as well."""
    if text in tensors:
        return True
    if "[" not in text and not any(name in text for name in tensors):
        return False
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return not isinstance(tree, (ast.Name, ast.Constant))


def _class(model: ir.Model, text: str, scored: Scored) -> Target:
    values = scored.values
    flat = np.asarray(values.reshape(len(values), -1), np.float64)
    if text in ("", "argmax"):
        if np.isnan(flat).any():
            raise SelectionError("the scores hold NaN, so no class is the highest", hint="name one with --target")
        classes = tuple(int(i) for i in flat.argmax(axis=1))
    else:
        classes = (_index(text, flat.shape[1], scored),) * len(flat)
    names = [f"class {i}" if scored.labels is None else f"{scored.labels[i]} (class {i})" for i in classes]
    if flat.shape[1] == 1:
        names = ["the only score"] * len(flat)
    at = tuple(np.unravel_index(i, values.shape[1:]) for i in classes)
    return Target(
        model, scored.tensor, values.shape[1:], values.dtype, at, tuple(names), classes, scored.bare, scored.notes
    ).scored(values)


def _index(text: str, count: int, scored: Scored) -> int:
    if re.fullmatch(r"\d{1,9}", text):
        if int(text) >= count:
            raise SelectionError(f"there is no class {text}", hint=f"{scored.output} has {count}, counted from 0")
        return int(text)
    if scored.labels is None:
        raise SelectionError(
            f"no class is named {printable(text, 60)!r}: the names of the classes are not known",
            hint=f"give --labels FILE, an index below {count}, TENSOR:CHANNEL, or an expression",
        )
    names = [name.casefold() for name in scored.labels]
    wanted = text.casefold()
    ways: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: wanted in [part.strip() for part in name.split(",")],
        lambda name: wanted in name,
    )
    for way in ways:
        fitting = [i for i, name in enumerate(names) if way(name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            told = listed([f"{scored.labels[i]} ({i})" for i in fitting], 6)
            raise SelectionError(f"{printable(text, 60)!r} names several classes: {told}", hint="give the index")
    near = difflib.get_close_matches(wanted, names, 4, 0.5)
    hint = f"the nearest names are {', '.join(scored.labels[names.index(n)] for n in near)}" if near else "see --labels"
    raise SelectionError(f"no class is named {printable(text, 60)!r}", hint=hint)


def _neuron(model: ir.Model, value: ir.Value, at: tuple[int, ...], forward: Forward) -> Target:
    name = str(value.name)
    if value.dtype is not None and value.dtype not in FLOAT_TYPES:
        raise SelectionError(f"{name} holds {value.dtype.name.lower()}, not scores", hint="choose a float tensor")
    values = forward(model, [name], {})[name]
    shape = values.shape[1:]
    last = tensor_layouts(model).get(name) == "NHWC" and len(shape) > 1
    sizes = (shape[-1], *shape[:-1]) if last else shape
    if len(at) > len(sizes) or any(i >= size for i, size in zip(at, sizes, strict=False)):
        what = "channels first" if last or len(shape) > 1 else "its units"
        raise SelectionError(
            f"{printable(name, 80)} has no neuron {','.join(map(str, at))}",
            hint=f"a sample of it is {' × '.join(map(str, sizes))} ({what}), counted from 0",
        )
    index: Index = (*at[1:], *(slice(None),) * (len(shape) - len(at)), at[0]) if last else at
    whole = len(at) == len(shape)
    text = f"neuron {','.join(map(str, at))} of {name}" if whole else f"mean of {','.join(map(str, at))} of {name}"
    count = len(values)
    return Target(model, name, shape, values.dtype, (index,) * count, (text,) * count).scored(values)
