"""The layer that makes an error itself, as a model of its own, with what the reference holds before and behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnxviz.checks.repro import Repro, piece_repro, ran
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.twins import paired_inputs

__all__ = ["layer_repro"]


def layer_repro(subject: Subject, reference: ir.Model, tensor: str | None = None) -> Callable[[], Repro]:
    """Return what makes a model of the nodes behind a tensor that are not right, fed what the reference holds there.

    What the reference gives there is what is expected. The nodes reach back to the nearest tensors that both models
    have.

    Args:
        subject: The model.
        reference: What is right.
        tensor: Of the model; None takes the one that :func:`onnxviz.analysis.compare_models.compare_models` finds to
            make most of the error.

    Raises:
        CheckError: (by what is returned) No nodes make an error of their own, or they cannot be cut out.
    """

    def make() -> Repro:
        from onnxviz.analysis.compare_models import compare_models
        from onnxviz.analysis.held_numbers import HeldNumbers
        from onnxviz.analysis.local_error import segment
        from onnxviz.runtime.capture import capture

        options: dict[str, Any] = {"providers": "cpu", "op_library": subject.options.op_library}
        result = compare_models(reference, subject.model, subject.batches, **options)
        known = {one.tensor: one for one in result.tensors}
        culprit = result.culprit if tensor is None else known.get(tensor)
        if culprit is None:
            raise CheckError("no layer makes an error of its own beyond the tolerance")
        own = HeldNumbers(subject.inlined)
        own.take(capture(subject.inlined, subject.inputs, bodies=False, **options))
        flat = inline_functions(reference)
        right = HeldNumbers(flat)
        named = {twin: subject.inputs.feeds[name] for name, twin in paired_inputs(flat, subject.inlined).items()}
        right.take(capture(flat, named, bodies=False, **options))
        expected = {}
        for name, one in known.items():
            array = right.array(one.reference)
            if array is not None:
                expected[name] = own.expected(name, array.transpose(one.transposed) if one.transposed else array)
                expected[str(own.read(name).name)] = expected[name]
        expected |= {name: array for name, array in subject.inputs.feeds.items() if name not in expected}
        value = own.read(culprit.tensor)
        around = {name: a for name, a in expected.items() if name not in (culprit.tensor, str(value.name))}
        nodes, borders = segment(value, around)
        if not nodes:
            raise CheckError("its nodes cannot be cut out of the model")
        feeds = {str(border.name): own.as_held(str(border.name), around[str(border.name)]) for border in borders}
        repro = piece_repro(subject, nodes, value, feeds, **{str(value.name): expected[culprit.tensor]})
        ran(subject, repro)
        return repro

    return make
