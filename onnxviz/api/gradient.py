"""Gradients of a model, as a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxviz.api.common import check_outputs
from onnxviz.errors import OutputError
from onnxviz.graph.io import as_model, check_external_data, save_model

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
    straight_through: bool = False,
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
        straight_through: Pass gradients through quantisation as if it did not round, where it does not clip.
        rules: What is carried back in place of the gradient, by name: ``guided``, ``lrp-epsilon-plus``, ``deeplift``, …
            (:data:`onnxviz.gradient.overrides.names.RULE_SETS`). Then the outputs ``NAME.grad`` hold that.

    Raises:
        GradientError: No path leads from a tensor to the target, an operator on it has no rule, or the target is none.
        SelectionError: A name is no tensor's, or a tensor is not of floating point.
        ModelError: External weights are missing.
        OutputError: The file cannot be written, or is the model itself.

    >>> import onnx_ir
    >>> model = onnx_ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 18]>
    ...   g (float[N, 3] x) => (float[N, 3] y) {y = Tanh(x)}''')
    >>> gradient(model, target="y[argmax]").gradients
    {'x': 'x.grad'}
    """
    from onnxviz.gradient.model import gradient_model
    from onnxviz.gradient.overrides.names import rules_table

    check_outputs((output, (".onnx",)))
    _check_other(model, output)
    names = [wrt] if isinstance(wrt, str) else wrt
    table = rules_table(rules) if rules is not None else None
    opened = as_model(model)
    check_external_data(opened)
    made = gradient_model(
        opened, of, names, target=target, allow_cut=allow_cut, table=table, straight_through=straight_through
    )
    if output is not None:
        save_model(made.model, output)
    return made


def _check_other(model: Model, output: Path_ | None) -> None:
    """Refuse to write over the model: its gradient is not the model."""
    source = model if isinstance(model, (str, os.PathLike)) else model.meta.get("path")
    if output is None or source is None or os.path.realpath(source) != os.path.realpath(output):
        return
    raise OutputError(f"{os.fspath(output)} is the model itself", hint="name another file with -o")
