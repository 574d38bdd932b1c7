"""A model together with its gradients, as one model that any runtime executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.errors import GradientError, SelectionError
from onnxviz.gradient.build import Cut, Walk, pull_back
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.registry import Table, standard_table
from onnxviz.graph.select import all_tensors

__all__ = ["GradientModel", "gradient_model"]


@dataclass(frozen=True, eq=False)
class GradientModel:
    """A model that returns its own outputs and gradients.

    Attributes:
        model: The model.
        of: The tensor that is differentiated.
        seed: Name of the input that takes the gradient of that tensor.
        gradients: Tensor -> the output that holds its gradient.
        cuts: Where paths end, and why.
    """

    model: ir.Model
    of: str
    seed: str
    gradients: dict[str, str]
    cuts: tuple[Cut, ...]


def gradient_model(
    model: ir.Model,
    of: str,
    wrt: Sequence[str] | None = None,
    *,
    allow_cut: bool = False,
    table: Table | None = None,
) -> GradientModel:
    """Return a model that computes gradients beside its outputs.

    Args:
        model: The model; it is not changed.
        of: The tensor that is differentiated. The result has one more input, ``OF.grad``, of its shape: the gradient
            that enters there.
        wrt: The tensors whose gradients are asked for: inputs, intermediate tensors, initializers. By default every
            float input. Each has one more output, ``NAME.grad``.
        allow_cut: Go on without the paths through operators that have no rule.
        table: Other rules than the true ones.

    Raises:
        GradientError: No path leads from a tensor to the target, or an operator on it has no rule.
        SelectionError: A name is no tensor's, or a tensor is not of floating point.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 18]>
    ...   g (float[2] x, float[1] w) => (float[2] y) {p = Mul(x, w) y = Tanh(p)}''')
    >>> made = gradient_model(model, "y")
    >>> made.gradients, [value.name for value in made.model.graph.inputs]
    ({'x': 'x.grad', 'w': 'w.grad'}, ['x', 'w', 'y.grad'])
    """
    copy = prepare(model)
    values = {name: value for value, name in all_tensors(copy).items()}
    values |= {str(v.name): v for v in (*copy.graph.inputs, *copy.graph.initializers.values())}
    target = _float(values, of)
    names = list(wrt) if wrt is not None else [str(v.name) for v in copy.graph.inputs if _is_float(v)]
    asked = [_float(values, name) for name in names]
    taken = set(values) | {str(node.name) for node in copy.graph}
    seed = ir.Value(name=_free(f"{of}.grad", taken), type=target.type, shape=target.shape)
    copy.graph.inputs.append(seed)
    walk = Walk(table or standard_table(), dict(copy.opset_imports), allow_cut)
    ops = Ops(copy.graph, taken)
    found = pull_back(ops, list(copy.graph), {target: seed}, asked, walk)
    gradients = {}
    for name, value in zip(names, asked, strict=True):
        if value not in found:
            raise _no_path(of, name, walk)
        output = ops.Identity(found[value])
        output.name = _free(f"{name}.grad", taken)
        output.type, output.shape = value.type, value.shape
        copy.graph.outputs.append(output)
        gradients[name] = output.name
    return GradientModel(copy, of, str(seed.name), gradients, tuple(walk.cuts))


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _float(values: dict[str, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise SelectionError(f"the model has no tensor {name!r}", hint="`onnxviz inspect` lists them")
    if not _is_float(values[name]):
        raise SelectionError(
            f"{name} is of type {values[name].dtype}, which has no gradient", hint="choose a tensor of floating point"
        )
    return values[name]


def _no_path(of: str, name: str, walk: Walk) -> GradientError:
    cuts = "; ".join(str(cut) for cut in walk.cuts[:3])
    why = f"all paths are cut ({cuts})" if cuts else f"{of} does not depend on it"
    return GradientError(f"no gradient leads from {of} to {name}: {why}")


def _free(name: str, taken: set[str]) -> str:
    free, count = name, 2
    while free in taken:
        free, count = f"{name}_{count}", count + 1
    taken.add(free)
    return free
