"""What is differentiated where nobody says it, and the labels that a loss is measured against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.flow_plan import FlowPlan
from onnxviz.analysis.sample_labels import sample_labels
from onnxviz.errors import GradientError, InputError
from onnxviz.runtime.batches import Batches
from onnxviz.runtime.inputs import InputRecord, Inputs

__all__ = ["LABELS", "Labels", "class_indices", "default_target", "with_labels"]

#: What the labels are called in a target.
LABELS = "labels"
#: ``"folders"``, a file, or the class indices themselves, ``(N,)`` integers.
Labels = str | os.PathLike[str] | Sequence[int] | npt.NDArray[np.integer]

_SCORES = ("score", "logit", "prob", "conf", "cls", "class")
_ANSWERS = {"Softmax", "LogSoftmax", "Sigmoid"}


def default_target(plan: FlowPlan, labelled: bool) -> tuple[str, str]:
    """Return the target that a model has where none is named, and what it is in words.

    The score of each sample's largest class, of the first output; where that comes out of a softmax or sigmoid, the
    score that enters there, since a sure answer has no gradient. With labels, the cross entropy of those scores. An
    output (N, C, H, W) that is the only one: the sum over positions of the largest class at each.

    Raises:
        GradientError: The outputs do not tell; the hint has targets to choose from.
    """
    outputs = [value for value in plan.model.graph.outputs if value in plan.varying and _is_float(plan, value)]
    if not outputs:
        raise GradientError("no output is of floating point", hint="name a tensor with --target, such as sum(features)")
    score, shape = _score(plan, outputs[0])
    name, rank = _quoted(score), None if shape is None else len(shape)
    several = f", the first of {len(plan.model.graph.outputs)} outputs" if len(plan.model.graph.outputs) > 1 else ""
    before = "" if score is outputs[0] else f", which enters the {_made_by(outputs[0])} before the output"
    told = f"{str(score.name)!r}{before}{several}"
    if shape is None or rank not in (1, 2, 4) or (rank == 4 and len(outputs) > 1) or _other_samples(plan, shape):
        raise GradientError(
            f"the outputs do not tell which number is the answer: {_listed(plan, outputs)}",
            hint=f"choose one with --target EXPR, such as {_choices(plan, outputs)}",
        )
    if labelled:
        if rank == 1 or shape[1] == 1:
            raise GradientError(
                f"{str(score.name)!r} has one score a sample, so classes have no cross entropy",
                hint="write the loss as --target, such as mse(…)",
            )
        return f"cross_entropy({name}, {LABELS})", f"the cross entropy of {told} with the labels"
    if rank == 1:
        return name, f"{told}: a number a sample"
    if rank == 2 and shape[1] == 1:
        return f"{name}[:, 0]", f"the one score of {told}"
    if rank == 2:
        return f"{name}[argmax]", f"each sample's largest class in {told}"
    last = plan.layouts.get(str(score.name)) == "NHWC"
    picked = f"{name}[argmax]" if last else f"{name}[:, argmax]"
    return f"sum({picked})", f"the sum over positions of the largest class in {told}"


def _score(plan: FlowPlan, output: ir.Value) -> tuple[ir.Value, list[int | str | None] | None]:
    """Return what enters the softmax or sigmoid that gives an output, or the output; and its shape."""
    value = output
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    answer = node is not None and node.op_type in _ANSWERS
    value = node.inputs[0] or output if answer and node is not None else output
    known = plan.inferred.get(str(value.name))
    if known is None or known.shape is None:
        return value, None
    return value, [dim if isinstance(dim, int) else dim.value for dim in known.shape]


def _made_by(output: ir.Value) -> str:
    node = output.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return "softmax" if node is not None and "oftmax" in node.op_type else "sigmoid"


def _is_float(plan: FlowPlan, value: ir.Value) -> bool:
    known = plan.inferred.get(str(value.name), value)
    return known.dtype is not None and known.dtype.is_floating_point()


def _other_samples(plan: FlowPlan, shape: list[int | str | None]) -> bool:
    """Whether the first axis is known not to be the samples', as of boxes that a detector found."""
    sizes = {
        dim if isinstance(dim, int) else dim.value
        for value in plan.model.graph.inputs
        if not value.is_initializer() and value.shape is not None and len(value.shape)
        for dim in [value.shape[0]]
    }
    if None in sizes or shape[0] is None or not sizes:
        return shape[0] is None and len(plan.model.graph.outputs) > 1
    return shape[0] not in sizes and len(plan.model.graph.outputs) > 1


def _choices(plan: FlowPlan, outputs: Sequence[ir.Value]) -> str:
    """Return targets that could be meant, of the output that is called most like a score."""
    value = next((v for v in outputs if any(word in str(v.name).lower() for word in _SCORES)), outputs[0])
    known = plan.inferred.get(str(value.name))
    rank = 2 if known is None or known.shape is None else len(known.shape)
    name = _quoted(value)
    entry = f"{name}[:{', 0' * (rank - 1)}]" if rank > 1 else name
    several = f", sum({name}[argmax]) (the largest at each position)" if rank > 2 else ""
    return f"max({name}){several} or {entry}"


def _listed(plan: FlowPlan, outputs: Sequence[ir.Value]) -> str:
    told = []
    for value in outputs[:4]:
        known = plan.inferred.get(str(value.name))
        told.append(f"{value.name} {'of unknown shape' if known is None or known.shape is None else known.shape}")
    return ", ".join(told) + (f" and {len(outputs) - 4} more" if len(outputs) > 4 else "")


def _quoted(value: ir.Value) -> str:
    """Return a tensor as a target names it."""
    name = str(value.name)
    return name if name.isidentifier() else repr(name)


def class_indices(
    labels: Labels, names: Sequence[str], samples: int, classes: int | None
) -> tuple[npt.NDArray[np.int64], str]:
    """Return the class of each sample as an index into the scores, ``(N,)`` int64, and where it is from.

    Labels that are whole numbers are indices; others have the place of their name among the sorted classes, as folders
    of a data set have, and only where there are as many names as scores.

    Args:
        labels: See :data:`Labels`.
        names: What the samples are called.
        samples: How many there are.
        classes: Number of scores; None where it is not known.

    Raises:
        InputError: A sample has no label, or labels are no classes of the model.
    """
    if not isinstance(labels, (str, os.PathLike)):
        found = np.asarray(labels)
        if found.dtype.kind not in "iu" or found.shape[:1] != (samples,):
            raise InputError(
                f"labels are {found.dtype} of shape {found.shape} for {samples} samples",
                hint="give an integer a sample",
            )
        return _within(found.astype(np.int64), classes), "given"
    given = sample_labels(names or [str(i) for i in range(samples)], labels)
    assert given is not None
    if missing := sum(label is None for label in given.labels):
        raise InputError(f"{missing} of {samples} samples have no label in {given.source}", hint="a loss needs all")
    texts = [str(label) for label in given.labels]
    if all(text.isdecimal() for text in texts):
        return _within(np.array([int(text) for text in texts], np.int64), classes), given.source
    if classes is not None and len(given.classes) != classes:
        raise InputError(
            f"{given.source} names {len(given.classes)} classes and the model has {classes} scores",
            hint="write the index of each sample's class instead of its name",
        )
    return np.array(given.indices, np.int64), f"{given.source}, names in alphabetical order"


def _within(found: npt.NDArray[np.int64], classes: int | None) -> npt.NDArray[np.int64]:
    if found.size and (found.min() < 0 or (classes is not None and found.max() >= classes)):
        raise InputError(
            f"labels run from {found.min()} to {found.max()}",
            hint=f"classes are counted from 0 to {(classes or 1) - 1}",
        )
    return found


def with_labels(batches: Batches, name: str, labels: npt.NDArray[np.int64], source: str) -> Batches:
    """Return batches that feed each sample's label too.

    Args:
        batches: The batches.
        name: The input that takes the labels.
        labels: ``(N, …)``, a row a sample.
        source: Where they are from, for the reader.
    """
    ends = np.cumsum(batches.counts)

    def read(index: int) -> Inputs:
        inputs = batches.batch(index)
        part = labels[ends[index] - batches.counts[index] : ends[index]]
        record = InputRecord(name, source, part.shape, str(part.dtype))
        return replace(inputs, feeds={**inputs.feeds, name: part}, records=(*inputs.records, record))

    return Batches(batches.counts, read, batches.left_over, batches.names)
