"""A model together with its gradients, as one model that any runtime executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.build import Cut, Walk, pull_back, reads
from onnxviz.gradient.expand import expand
from onnxviz.gradient.names import float_tensor, is_float, named_tensors, unknown
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.registry import Table, standard_table
from onnxviz.gradient.targets import target_value, tensors_of
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import infer_shapes, model_inputs

__all__ = ["GradientModel", "gradient_model"]

_TARGET = "target."  # begins the names of what an expression appends; its argmax is an index, no path


@dataclass(frozen=True, eq=False)
class GradientModel:
    """A model that returns its own outputs and gradients.

    Attributes:
        model: The model.
        target: What is differentiated: a tensor's name or an expression.
        seed: Name of the input that takes the gradient entering the tensor; None where the target is an expression.
        gradients: Tensor -> the output that holds its gradient.
        cuts: Where paths end, and why.
        left_out: Inputs to which no gradient leads, where none were named.
    """

    model: ir.Model
    target: str
    seed: str | None
    gradients: dict[str, str]
    cuts: tuple[Cut, ...]
    left_out: tuple[str, ...] = ()


def gradient_model(
    model: ir.Model,
    of: str | None = None,
    wrt: Sequence[str] | None = None,
    *,
    target: str | None = None,
    allow_cut: bool = False,
    table: Table | None = None,
    straight_through: bool = False,
) -> GradientModel:
    """Return a model that computes gradients beside its outputs.

    Args:
        model: The model; it is not changed.
        of: The tensor that is differentiated. Without ``target``, the result has one more input, ``OF.grad``, of its
            shape: the gradient that enters there.
        wrt: The tensors whose gradients are asked for: inputs, intermediate tensors, initializers. By default every
            float input to which one leads. Each has one more output, ``NAME.grad`` (``NAME.grad_2``, … where
            that name is taken).
        target: An expression that gives a number for each sample, as
            :func:`onnxviz.gradient.targets.target_value` takes it; where it begins with an index, of ``of``.
        allow_cut: Go on without the paths through operators that have no rule.
        table: Other rules than the true ones.
        straight_through: Pass gradients through quantisation as if it did not round, where it does not clip.

    Raises:
        GradientError: No path leads from a tensor to the target, an operator on it has no rule, or the target is none.
            The text says whether the tensor does not matter to the target or where its paths are cut.
        SelectionError: A name is no tensor's, or a tensor is not of floating point.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 18]>
    ...   g (float[2] x, float[1] w) => (float[2] y) {p = Mul(x, w) y = Tanh(p)}''')
    >>> made = gradient_model(model, "y")
    >>> made.gradients, [value.name for value in made.model.graph.inputs]
    ({'x': 'x.grad', 'w': 'w.grad'}, ['x', 'w', 'y.grad'])
    >>> gradient_model(model, target="y ** 2", wrt=["p"]).gradients
    {'p': 'p.grad'}
    """
    copy = prepare(model)
    names = _names(copy, wrt)
    what = str(of)
    if target is not None:
        what = _expression(copy, of, target)
        copy, of = _with_target(copy, what)
    elif of is None:
        raise GradientError("nothing is differentiated", hint="name a tensor with --of, or give a --target")
    rules = table or standard_table()
    copy = expand(copy, rules, of, names)
    values = named_tensors(copy)
    end, asked = float_tensor(values, of), [float_tensor(values, name) for name in names]
    if end.producer() is not None and end.graph is not copy.graph:
        raise GradientError(
            f"{of} lies in the body of a node, which runs any number of times",
            hint="differentiate an output of that node",
        )
    taken = set(values) | {str(v.name) for v in all_tensors(copy)} | {str(node.name) for node in copy.graph}
    ops = Ops(copy.graph, taken)
    seed: str | None = None
    if target is None:
        entering = ir.Value(name=_free(f"{of}.grad", taken), type=end.type, shape=end.shape)
        copy.graph.inputs.append(entering)
        seed = str(entering.name)
        entering = _of_its_shape(ops, entering, end)
    else:
        entering = ops.filled(ops.shape(end), 1.0, end)
    walk = Walk(rules, dict(copy.opset_imports), allow_cut, straight_through=straight_through)
    found = pull_back(ops, list(copy.graph), {end: entering}, asked, walk)
    walk.cuts[:] = [cut for cut in walk.cuts if not (cut.op_type == "ArgMax" and cut.node.startswith(_TARGET))]
    gradients: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in zip(names, asked, strict=True):
        if value not in found:
            if wrt is None and found:
                left_out.append(name)
                continue
            raise _no_path(what, name, walk, _blocks(walk, value, end))
        output = ops.Identity(found[value])
        output.name = _free(f"{name}.grad", taken)
        output.type, output.shape = value.type, value.shape
        if value.producer() is not None and value.graph is not copy.graph:  # in a body: an entry an iteration
            output.shape = found[value].shape
        copy.graph.outputs.append(output)
        gradients[name] = output.name
    _forget_shapes_in_bodies(copy.graph)
    return GradientModel(copy, what, seed, gradients, tuple(walk.cuts), tuple(left_out))


def _names(model: ir.Model, wrt: Sequence[str] | None) -> list[str]:
    """Return the names of the asked tensors, each once."""
    if wrt is not None:
        if not wrt:
            raise GradientError("no tensor is named whose gradient is asked for", hint="name one with --wrt")
        return list(dict.fromkeys(wrt))
    names = [str(value.name) for value in model_inputs(model) if is_float(value)]
    if not names:
        raise GradientError(
            "the model has no input of floating point",
            hint="name tensors with --wrt: weights, or what an embedding gives",
        )
    return names


def _of_its_shape(ops: Ops, seed: ir.Value, tensor: ir.Value) -> ir.Value:
    """Return a seed that cannot be of another shape than its tensor: runtimes do not compare open sizes."""
    sizes = static_shape(tensor)
    if sizes is not None and None not in sizes:
        return seed
    shaped = ops.Reshape(seed, ops.Shape(tensor), allowzero=1)
    shaped.type, shaped.shape = tensor.type, tensor.shape
    if (node := shaped.producer()) is not None:  # a runtime names it where the shapes differ
        node.name = f"{seed.name} has the shape of {tensor.name}"
    return shaped


def _expression(model: ir.Model, of: str | None, target: str) -> str:
    """Return a target with the tensor in it that it is of."""
    if of is None:
        return target
    if target.lstrip().startswith("["):
        return f"{of!r}{target.lstrip()}"
    if of not in (named := named_tensors(model)):
        raise unknown(of, named)
    if of not in tensors_of(target):
        raise GradientError(
            f"the target {target!r} does not name {of}",
            hint="leave --of out, or begin the target with an index: [:, 7]",
        )
    return target


def _with_target(model: ir.Model, expression: str) -> tuple[ir.Model, str]:
    """Append an expression to a model; return it with its shapes, and the name of what it gives."""
    values = named_tensors(model)
    added: list[ir.Value] = []
    made = target_value(Ops(model.graph, set(values), _TARGET.removesuffix(".")), values, expression, added)
    model.graph.inputs.extend(added)
    inferred = infer_shapes(model)
    shape = named_tensors(inferred)[str(made.name)].shape
    if shape is not None and any(size != 1 for size in shape[1:]):
        raise GradientError(
            f"{expression!r} gives a tensor of shape {shape}, not a number for each sample",
            hint="take one entry, or sum(…), mean(…), max(…), norm(…) of it",
        )
    return inferred, str(made.name)


def _forget_shapes_in_bodies(graph: ir.Graph) -> None:
    """Leave shapes in the bodies of backward nodes open: those of a branch that is never taken may contradict."""
    for node in graph:
        if str(node.name).startswith("grad."):
            for body in bodies_of(node):
                for inner in body.all_nodes():
                    for value in inner.outputs:
                        value.shape = None


def _blocks(walk: Walk, value: ir.Value, end: ir.Value) -> ir.Node | None:
    """Return the first node without a gradient on the ways from one tensor to another; None where there is no way."""
    behind, before = {value}, {end}
    nodes = [node for node in end.graph or () if isinstance(node, ir.Node)]
    for node in nodes:
        if any(one in behind for one in reads(node)):
            behind.update(node.outputs)
    for node in reversed(nodes):
        if any(one in before for one in node.outputs):
            before.update(reads(node))
    ways = (node for node in nodes if any(one in behind for one in reads(node)) and before & set(node.outputs))
    return next((node for node in ways if walk.table.reason(node) is not None), None)


def _no_path(of: str, name: str, walk: Walk, block: ir.Node | None) -> GradientError:
    if walk.cuts:
        cuts = "; ".join(str(cut) for cut in walk.cuts[:3])
        more = f" and {len(walk.cuts) - 3} more" if len(walk.cuts) > 3 else ""
        return GradientError(
            f"no gradient leads from {of} to {name}: all paths are cut ({cuts}{more})",
            hint="ask for the gradient at a tensor behind the cut (--wrt)",
        )
    if block is not None:
        return GradientError(
            f"no gradient leads from {of} to {name}: all that leads there are nodes such as {block.op_type} at "
            f"{block.name or block.outputs[0].name!r} ({walk.reason(block)})",
            hint="ask for the gradient at a tensor behind them (--wrt)",
        )
    return GradientError(
        f"no gradient leads from {of} to {name}: {of} does not depend on it",
        hint="name a tensor that it is computed from, or another target",
    )


def _free(name: str, taken: set[str]) -> str:
    free, count = name, 2
    while free in taken:
        free, count = f"{name}_{count}", count + 1
    taken.add(free)
    return free
