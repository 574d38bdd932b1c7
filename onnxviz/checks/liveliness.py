"""Checks of tensors that carry nothing: dead channels (N05), constant, collapsed and saturated tensors (N06)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.checks.finding import Problem, Severity, place_of, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import Shows, node_repro
from onnxviz.checks.running import observed
from onnxviz.checks.subject import Subject
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import reads

_ENOUGH = 64  # values of a channel from which its silence says something
_FEWEST = 16  # elements below which a tensor may well hold one value
_SATURATED = 0.95


@check(
    "N05",
    "warning",
    "dead ReLU channels",
    needs=Need.MODEL | Need.INPUTS,
    what="Takes the largest value of each channel behind a ReLU (or ReLU6) over all samples and positions; a channel "
    "that never rises above 0 is dead. Channels with fewer than 64 values are not judged.",
    why="A dead channel costs as much as any other and carries nothing: it can be pruned. Many of them mean that "
    "training went wrong, or that the preprocessing is not the one of training.",
    remedy="Run it on more, and real, inputs; then prune the channels, or look at learning rate and initialisation.",
    false_positives="A channel may answer to what was not among the samples: the evidence says how many there were. "
    "On random inputs it is information only.",
)
def dead_channels(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the layers that have dead channels."""
    layers = judged = 0
    seen = observed(subject)
    producers = {str(v.name): node for node in subject.inferred.graph for v in node.outputs}
    for name, one in seen.items():
        if one.channel_high is None:
            continue
        layers += 1
        channels = one.channel_high.size
        if one.count < _ENOUGH * channels or not channels:
            continue
        judged += 1
        dead = np.flatnonzero(one.channel_high <= 0)
        if not dead.size:
            continue
        evidence = {
            "dead": int(dead.size), "of": channels, "first": dead[:16].tolist(), "samples": subject.batches.samples,
            "values_a_channel": one.count // channels,
        }  # fmt: skip
        node = producers.get(name)
        places = [tensor_place(name), *([place_of(node)] if node is not None else [])]
        message = f"{dead.size:,} of {channels:,} channels are never above 0, over {_samples(subject)}"
        silent = _silent(dead, int(one.channel_axis or 0))
        repro = None if node is None else node_repro(subject, name, silent, layer=True)
        yield Problem(message, places, evidence, severity=_severity(subject), repro=repro)
    yield {"layers": layers, "judged": judged, "samples": subject.batches.samples}


def _silent(channels: np.ndarray[Any, Any], axis: int) -> Shows:
    return lambda array: not bool((np.take(array, channels, axis=axis) > 0).any())


@check(
    "N06",
    "warning",
    "constant, collapsed or saturated tensors",
    needs=Need.MODEL | Need.INPUTS,
    what="Looks for float tensors that are computed from the data and yet hold one value everywhere (constant), are "
    "the same for every sample (collapsed), or come from Sigmoid or Tanh and have 95 % of their values at an end "
    "(saturated). Reported are the first on each way.",
    why="What is behind a constant tensor does not depend on the input any more: a saturated gate, a normalisation of "
    "one element, weights of zeros, or a wrong scale of the input.",
    remedy="Look at the layer that writes it and at the range of what it reads; check scale and layout of the inputs.",
    false_positives="Attention masks of sequences without padding are constant by nature. Few or similar samples may "
    "look collapsed. On random inputs it is information only.",
)
def lifeless(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the tensors that carry nothing."""
    seen = observed(subject)
    flow = _from_data(subject.inferred.graph)
    flat = {n for n, o in seen.items() if o.finite and o.count >= _FEWEST and o.low == o.high}
    fixed = {n for n, o in seen.items() if len(o.digests) > 1 and len(set(o.digests)) == 1}
    for node in subject.inferred.graph:
        for value in node.outputs:
            name = str(value.name)
            one = seen.get(name)
            unread = not value.uses() and not value.is_graph_output()
            if one is None or not one.floating or value not in flow or unread:
                continue
            before = [str(v.name) for v in reads(node) if v in flow]
            places = [tensor_place(name), place_of(node)]
            evidence = {"op_type": node.op_type, "shape": list(one.shape), "samples": subject.batches.samples}
            if name in flat and not any(n in flat or n in fixed for n in before):
                message = f"all {one.count:,} values are {one.low:.4g}, over {_samples(subject)}"
                yield Problem(
                    message, places, {**evidence, "value": one.low}, severity=_severity(subject), key="constant",
                    repro=node_repro(subject, name, lambda array: bool((array == array.flat[0]).all())),
                )  # fmt: skip
            elif name in fixed and name not in flat and not any(n in fixed or n in flat for n in before):
                message = f"it is the same for all {_samples(subject)}"
                repro = node_repro(subject, name, lambda array: True)
                yield Problem(message, places, evidence, severity=_severity(subject), key="collapsed", repro=repro)
            elif name not in flat and one.count >= _FEWEST and one.saturated >= _SATURATED * one.count:
                share = one.saturated / one.count
                message = f"{share:.1%} of {one.count:,} values are at an end of {node.op_type}"
                yield Problem(
                    message, places, {**evidence, "share": share}, severity=_severity(subject), key="saturated",
                    repro=node_repro(subject, name, lambda array: True),
                )  # fmt: skip
    yield {"tensors": len(seen), "samples": subject.batches.samples}


def _from_data(graph: ir.Graph) -> set[ir.Value]:
    """Return what depends on the values of the inputs, not only on their shapes."""
    found = {value for value in graph.inputs if not value.is_initializer()}
    for node in graph:
        if node.op_type not in ("Shape", "Size", "ConstantOfShape") and any(
            value in found for value in reads(node) if constant_tensor(value) is None
        ):
            found.update(node.outputs)
    return found


def _severity(subject: Subject) -> Severity:
    return "info" if subject.made_up else "warning"


def _samples(subject: Subject) -> str:
    random = "random " if subject.made_up else ""
    count = subject.batches.samples
    return f"{count:,} {random}sample{'s' * (count != 1)}"
