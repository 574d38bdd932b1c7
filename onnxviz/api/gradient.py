"""Gradients of a model, as a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxviz.api.common import check_outputs
from onnxviz.graph.io import as_model, save_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.gradient.model import GradientModel

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["gradient"]


def gradient(
    model: Model,
    of: str | None = None,
    wrt: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    target: str | None = None,
    allow_cut: bool = False,
    rules: str | None = None,
) -> GradientModel:
    """Build a model that computes gradients: see :func:`onnxviz.gradient.model.gradient_model`.

    Args:
        model: A path or an opened model.
        of: The tensor that is differentiated.
        wrt: The tensors whose gradients are asked for; by default every float input.
        output: The ``.onnx`` file to write.
        target: An expression that gives a number for each sample.
        allow_cut: Go on without the paths through operators that have no rule.
        rules: What is carried back in place of the gradient, by name: ``guided``, ``lrp-epsilon-plus``, ``deeplift``, …
            (:data:`onnxviz.gradient.overrides.names.RULE_SETS`). Then the outputs ``NAME.grad`` hold that.
    """
    from onnxviz.gradient.model import gradient_model
    from onnxviz.gradient.overrides.names import rules_table

    check_outputs((output, (".onnx",)))
    names = [wrt] if isinstance(wrt, str) else wrt
    table = rules_table(rules) if rules is not None else None
    made = gradient_model(as_model(model), of, names, target=target, allow_cut=allow_cut, table=table)
    if output is not None:
        save_model(made.model, output)
    return made
