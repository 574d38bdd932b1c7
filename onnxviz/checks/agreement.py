"""Checks that a model computes the same as its source (C01), unoptimised (C02), and on CUDA (C03)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.comparison import OutputParity
from onnxviz.analysis.rounding import computes_in_codes
from onnxviz.checks.finding import InapplicableError, Problem, Severity, tensor_place
from onnxviz.checks.layer_repro import layer_repro
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import node_repro, shrunk_repro
from onnxviz.checks.running import (
    MOST_BATCHES,
    Arrays,
    differences,
    flat,
    in_words,
    new_session,
    observe,
    outputs,
    repeatable,
    tolerance,
)
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError, ExecutionError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.shapes import infer_shapes, model_inputs

_CUDA = "CUDAExecutionProvider"


@check(
    "C01",
    "error",
    "differs from the reference",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION | Need.REFERENCE,
    what="Runs the model and the one of `--reference` on the same inputs, several of them, neither optimised, and "
    "compares outputs by name, else by position: shapes and types must be equal, NaN must meet NaN, and numbers agree "
    "within what the types and the depth of the coarser of the two explain.",
    why="Conversion, quantisation and hand-made changes can alter a model without a word.",
    remedy="Find the first layer that differs: `onnxviz compare REFERENCE MODEL --input …`.",
    false_positives="A quantised model differs by design; the tolerance allows 5 % there, and what it gives for random "
    "numbers, which it was not calibrated for, is a warning.",
)
def differs_from_reference(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the outputs that differ from the reference's."""
    reference = subject.reference
    own, other = ([str(v.name) for v in model_inputs(m)] for m in (subject.model, reference))
    if len(own) != len(other):
        raise CheckError(f"the model has {len(own)} inputs and the reference {len(other)}")
    renamed = dict(zip(own, own if set(own) == set(other) else other, strict=True))
    session = new_session(subject, reference)
    coarser = max(subject.inferred, infer_shapes(inline_functions(reference)), key=lambda m: tolerance(m, "float32"))
    repeatable(subject)
    worst: dict[str, OutputParity] = {}
    compared = 0
    for place, found in enumerate(outputs(subject, optimize=False)):
        feeds = {renamed.get(name, name): array for name, array in subject.batches.batch(place).feeds.items()}
        expected = flat(session.run(feeds))
        compared += 1
        names = dict(zip(expected, found, strict=False))
        aligned = (
            found if set(expected) <= set(found) else {name: found[names[name]] for name in expected if name in names}
        )
        for parity in differences(expected, aligned, model=coarser):
            known = worst.get(parity.name)
            if known is None or (parity.problem and not known.problem) or parity.relative_l2 > known.relative_l2:
                worst[parity.name] = parity
    uncalibrated = subject.made_up and computes_in_codes(subject.inlined)
    for parity in worst.values():
        if parity.problem:
            message = f"it {parity.problem}".replace("its source", "the reference's")
            evidence = {**in_words(parity), "inputs": compared}
            yield Problem(
                message,
                [tensor_place(parity.name)],
                evidence,
                severity="warning" if uncalibrated and np.isfinite(parity.relative_l2) else None,
                repro=layer_repro(subject, reference),
            )
    yield {"inputs": compared, "outputs": {name: in_words(parity) for name, parity in worst.items()}}


@check(
    "C02",
    "error",
    "optimised differs from unoptimised",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Runs the model in onnxruntime with all optimisations and with none, on the same inputs, and compares the "
    "outputs: shapes and types must be equal, numbers agree within rounding. That the optimiser does not crash is seen "
    "in a process of its own.",
    why="What is deployed is the optimised graph; a fusion that is wrong gives other answers than all tests of the "
    "file.",
    remedy="Find the optimiser at fault with `onnxviz capture --mode production`; leave it out (disabled_optimizers) "
    "and report it to onnxruntime.",
    false_positives="float16 on the CPU is computed in float32 where nodes are fused, and codes of quantised models "
    "round the other way: the tolerance allows for it. Whole numbers, such as an ArgMax of equal scores, are a "
    "warning.",
)
def optimised_differs(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the outputs that optimisation changes."""
    plain = outputs(subject, optimize=False)
    try:
        fused = outputs(subject, optimize=True)
    except ExecutionError as error:
        if "crashed" not in error.message:
            raise
        yield Problem(error.message, key="crash")
        return
    repeatable(subject)
    told: set[str] = set()
    worst = 0.0
    for place, (expected, found) in enumerate(zip(plain, fused, strict=True)):
        for parity in differences(expected, found, model=subject.inferred):
            worst = max(worst, parity.relative_l2)
            if parity.problem and parity.name not in told:
                told.add(parity.name)
                severity: Severity = "error" if "float" in str(expected[parity.name].dtype) else "warning"
                message = f"optimised, it {parity.problem}".replace("its source", "the unoptimised")
                repro = shrunk_repro(subject, parity.name, partial(_fused_differs, subject), place)
                yield Problem(message, [tensor_place(parity.name)], in_words(parity), severity=severity, repro=repro)
    yield {"inputs": len(plain), "worst_relative_l2": worst}


def _fused_differs(subject: Subject, piece: ir.Model, feeds: Mapping[str, Any], tensor: str) -> bool:
    plain, fused = (flat(new_session(subject, piece, optimize=level).run(dict(feeds))) for level in (False, True))
    return any(parity.problem for parity in differences(plain, fused, model=subject.inferred) if parity.name == tensor)


@check(
    "C03",
    "error",
    "CPU differs from CUDA",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Runs the model on the CPU and with CUDA, once with TF32 and once without, neither optimised, and compares "
    "the outputs; for one that differs, the first tensor on the way to it that does.",
    why="Kernels differ, and TF32 keeps 10 bits of a float32's 23 in matrix products and convolutions.",
    remedy="Where only TF32 differs, switch it off (`use_tf32: 0`) or accept its precision; else keep the first node "
    "that differs on the CPU, and report it.",
    false_positives="With TF32 the tolerance is ten times as large. Whole numbers, such as an ArgMax of nearly equal "
    "scores, are a warning.",
)
def cuda_differs(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the outputs that differ on CUDA."""
    on_cuda = {tf32: _on_cuda(subject, tf32) for tf32 in (False, True)}
    expected = outputs(subject, optimize=False)[0]
    repeatable(subject)
    told: set[str] = set()
    numbers: dict[str, float] = {}
    for tf32, found in on_cuda.items():
        for parity in differences(expected, found, model=subject.inferred):
            numbers[f"{parity.name}, TF32 {'on' if tf32 else 'off'}"] = parity.relative_l2
            allowed = tf32 and parity.relative_l2 <= 10 * parity.tolerance and np.isfinite(parity.relative_l2)
            if not parity.problem or parity.name in told or allowed:
                continue
            told.add(parity.name)
            severity: Severity = "error" if "float" in str(expected[parity.name].dtype) else "warning"
            message = f"on CUDA{' with TF32' if tf32 else ''} it {parity.problem}".replace("its source", "the CPU's")
            first = _first(subject)
            repro = node_repro(subject, str(first["first_tensor"]), lambda array: True) if first else None
            evidence = {**in_words(parity), **first}
            yield Problem(message, [tensor_place(parity.name)], evidence, severity=severity, repro=repro)
    yield {"relative_l2": numbers}


def _on_cuda(subject: Subject, tf32: bool) -> Arrays:
    """Return the outputs for the first batch on CUDA."""

    def run() -> Arrays:
        from onnxviz.runtime.providers import provider_problems

        if problem := provider_problems(["cuda"]):
            raise InapplicableError(f"CUDA does not load here: {problem['cuda']}")
        options = {_CUDA: {"use_tf32": str(int(tf32))}}
        session = new_session(subject, providers=["cuda", "cpu"], provider_options=options)
        return flat(session.run(subject.inputs.feeds))

    return subject.shared(f"outputs on CUDA, TF32 {tf32}", run)


def _first(subject: Subject) -> Mapping[str, Any]:
    """Return the first tensor that differs between a run node by node on the CPU and one on CUDA (with its default)."""

    def run() -> Mapping[str, Any]:
        from onnxviz.runtime.capture import capture
        from onnxviz.runtime.providers import provider_problems

        if provider_problems(["cuda"]) or subject.batches.samples > MOST_BATCHES:
            return {}
        here = observe(subject.model, subject, keep=True)
        there = capture(
            subject.model, subject.inputs, bodies=False, providers="cuda", op_library=subject.options.op_library
        )
        for name, record in here.items():
            if name not in there or record.kept is None or record.dtype != "float32":
                continue
            own = record.kept[: len(there[name].array)] if record.kept.ndim else record.kept
            parity = differences({name: own}, {name: there[name].array}, model=subject.inferred)[0]
            if parity.problem:
                return {"first_tensor": name, "first_node": record.producer, "first_relative_l2": parity.relative_l2}
        return {}

    return subject.shared("first tensor that differs on CUDA", run)
