"""A model together with its gradients, as one model that any runtime executes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.build import Cut, Walk, pull_back
from onnxviz.gradient.expand import expand
from onnxviz.gradient.method import imbalance
from onnxviz.gradient.names import float_tensor, is_float, named_tensors, unknown
from onnxviz.gradient.no_path import no_path
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.prepare import infer_appended, prepare
from onnxviz.gradient.registry import Table, standard_table
from onnxviz.gradient.targets import TARGET, target_value, tensors_of
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import model_inputs
from onnxviz.graph.tidy import fresh_name

__all__ = ["GradientModel", "gradient_model"]


@dataclass(frozen=True, eq=False)
class GradientModel:
    """A model that returns its own outputs and gradients.

    Attributes:
        model: The model.
        target: What is differentiated: a tensor's name or an expression.
        seed: Name of the input that takes the gradient entering the tensor, of its shape, or flat where its rank is
            not known; None where the target is an expression.
        gradients: Tensor -> the output that holds its gradient.
        cuts: Where paths end, and why.
        gives: What those outputs hold: ``gradient``, ``relevance`` or ``contribution``.
        baselines: Input -> the input that holds what it is compared with; zeros unless it is fed.
        delta: Name of the output that holds what entered at the target less what arrived at the tensors, ``(N,)``: what
            biases and stabilisers took. None for gradients, and where tensors are asked for that lie behind another.
        notes: What rules have to say of how they treated a node.
        left_out: Tensors to which no gradient leads, where that is allowed: inputs, where no tensors were named.
    """

    model: ir.Model
    target: str
    seed: str | None
    gradients: dict[str, str]
    cuts: tuple[Cut, ...]
    gives: str = "gradient"
    baselines: dict[str, str] = field(default_factory=dict)
    delta: str | None = None
    notes: tuple[str, ...] = ()
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
    partial: bool = False,
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
        table: Other rules than the true ones, such as :func:`onnxviz.gradient.overrides.names.rules_table` returns;
            then the outputs ``NAME.grad`` hold what those carry back.
        straight_through: Pass gradients through quantisation as if it did not round, where it does not clip.
        partial: Leave out what has no gradient (no path leads to it, it is of whole numbers), as long as something has
            one; what is left has its place in ``gradients``.

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
    with _no_collection():
        return _gradient_model(
            model, of, wrt, target, Walk(table or standard_table(), {}, allow_cut, [], straight_through), partial
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking for cycles among the ten thousands of objects of a graph that is being written."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _gradient_model(
    model: ir.Model, of: str | None, wrt: Sequence[str] | None, target: str | None, walk: Walk, partial: bool
) -> GradientModel:
    copy = prepare(model)
    names = _names(copy, wrt)
    what = str(of)
    if target is not None:
        what = _expression(copy, of, target)
        of = _with_target(copy, what)
    elif of is None:
        raise GradientError("nothing is differentiated", hint="name a tensor with --of, or give a --target")
    copy = expand(copy, walk.table, of, names)
    values = named_tensors(copy)
    left_out = [name for name in names if partial and not (name in values and is_float(values[name]))]
    names = [name for name in names if name not in left_out]
    end, asked = float_tensor(values, of), {name: float_tensor(values, name) for name in names}
    if end.producer() is not None and end.graph is not copy.graph:
        raise GradientError(
            f"{of} lies in the body of a node, which runs any number of times",
            hint="differentiate an output of that node",
        )
    taken = set(values) | {str(v.name) for v in all_tensors(copy)} | {str(node.name) for node in copy.graph}
    ops, method = Ops(copy.graph, taken), walk.table.method
    forward, weights = list(copy.graph), set(copy.graph.initializers)
    plan = method.begin(ops, forward, end, list(asked.values()))
    seed, entering = _seed(ops, end) if target is None else (None, method.enter(ops, end))
    walk = replace(walk, opsets=dict(copy.opset_imports), plan=plan)
    found = pull_back(ops, forward, {end: entering}, asked.values(), walk)
    walk.cuts[:] = [cut for cut in walk.cuts if not (cut.op_type == "ArgMax" and cut.node.startswith(f"{TARGET}."))]
    arrived: dict[str, ir.Value] = {}
    for name, value in asked.items():
        if value in found:
            arrived[name] = method.finish(ops, plan, value, found[value])
        elif found and (partial or wrt is None):
            left_out.append(name)
        else:
            raise no_path(what, end, name, value, walk)
    gradients = {name: _output(ops, f"{name}.grad", asked[name], carried) for name, carried in arrived.items()}
    delta: str | None = None
    if method.conserves and (len(arrived) == 1 or all(asked[name].is_graph_input() for name in arrived)):
        pairs = [(asked[name], carried) for name, carried in arrived.items()]
        left = imbalance(ops, method.finish(ops, plan, end, entering), end, pairs)
        delta = left.name = fresh_name(f"{method.gives}.delta", taken)
        copy.graph.outputs.append(left)
    _drop_unread(copy.graph, set(forward), weights)
    _forget_shapes_in_bodies(copy.graph)
    return GradientModel(
        copy, what, seed, gradients, tuple(walk.cuts), method.gives, method.baselines(plan), delta,
        (*walk.notes, *method.remarks(plan)), tuple(left_out),
    )  # fmt: skip


def _output(ops: Ops, name: str, tensor: ir.Value, carried: ir.Value) -> str:
    """Make what was carried back to a tensor an output of the model; return its name."""
    output = ops.Identity(carried)
    output.name = fresh_name(name, ops.taken)
    output.type, output.shape = tensor.type, tensor.shape
    if tensor.producer() is not None and tensor.graph is not ops.graph:  # in a body: an entry an iteration
        output.shape = carried.shape
    ops.graph.outputs.append(output)
    return output.name


def _drop_unread(graph: ir.Graph, nodes: set[ir.Node], weights: set[str]) -> None:
    """Remove what nothing reads and was not there before: a rule may write more than its node's case needs."""
    for node in reversed(graph):
        if node not in nodes and not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name in set(graph.initializers) - weights:
        if not graph.initializers[name].uses():
            del graph.initializers[name]


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


def _seed(ops: Ops, tensor: ir.Value) -> tuple[str, ir.Value]:
    """Append the input that takes the gradient of a tensor; return its name and what enters.

    An input has a rank, so that it is flat where the tensor's is not known. Runtimes do not compare open sizes: there
    what enters is brought to the tensor's shape, and to one that fails where a size is another.
    """
    name = fresh_name(f"{tensor.name}.grad", ops.taken)
    taken = ir.Value(name=name, type=tensor.type, shape=ir.Shape([None]) if tensor.shape is None else tensor.shape)
    ops.graph.inputs.append(taken)
    sizes = static_shape(tensor)
    if sizes is not None and None not in sizes:
        return name, taken
    shape = ops.Shape(tensor)
    if sizes is not None:
        shape = ops.Where(ops.Equal(ops.Shape(taken), shape), shape, ops.ints(2**31 - 1))
    shaped = ops.Reshape(taken, shape, allowzero=1)
    shaped.type, shaped.shape = tensor.type, tensor.shape
    if (node := shaped.producer()) is not None:  # a runtime names it where the shapes differ
        node.name = f"{name} has the shape of {tensor.name}"
    return name, shaped


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


def _with_target(model: ir.Model, expression: str) -> str:
    """Append an expression to a model, with its shapes; return the name of what it gives."""
    values, last = named_tensors(model), len(model.graph)
    added: list[ir.Value] = []
    made = target_value(Ops(model.graph, set(values), TARGET), values, expression, added)
    model.graph.inputs.extend(added)
    infer_appended(model, list(model.graph)[last:])
    shape = made.shape
    if shape is not None and any(size != 1 for size in shape[1:]):
        raise GradientError(
            f"{expression!r} gives a tensor of shape {shape}, not a number for each sample",
            hint="take one entry, or sum(…), mean(…), max(…), norm(…) of it",
        )
    return str(made.name)


def _forget_shapes_in_bodies(graph: ir.Graph) -> None:
    """Leave shapes in the bodies of backward nodes open: those of a branch that is never taken may contradict."""
    for node in graph:
        if str(node.name).startswith("grad."):
            for body in bodies_of(node):
                for inner in body.all_nodes():
                    for value in inner.outputs:
                        value.shape = None
