"""A model together with its gradients, as one model that any runtime executes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxviz.errors import GradientError, SelectionError
from onnxviz.gradient.build import Cut, Walk, pull_back, reads
from onnxviz.gradient.expand import expand
from onnxviz.gradient.method import imbalance
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.registry import Table, standard_table
from onnxviz.gradient.targets import target_value
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import infer_shapes

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
            float input. Each has one more output, ``NAME.grad``.
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
    names = list(wrt) if wrt is not None else [str(v.name) for v in copy.graph.inputs if _is_float(v)]
    what = str(of)
    if target is not None:
        what = f'"{of}"{target}' if of is not None and target.lstrip().startswith("[") else target
        copy, of = _with_target(copy, what)
    elif of is None:
        raise GradientError("nothing is differentiated", hint="name a tensor with --of, or give a --target")
    copy = expand(copy, walk.table, of, names)
    values = _named(copy)
    if partial:
        names = [name for name in names if name in values and _is_float(values[name])]
    end, asked = _float(values, of), [_float(values, name) for name in names]
    if end.producer() is not None and end.graph is not copy.graph:
        raise GradientError(
            f"{of} lies in the body of a node, which runs any number of times",
            hint="differentiate an output of that node",
        )
    taken = set(values) | {str(node.name) for node in copy.graph}
    ops, method = Ops(copy.graph, taken), walk.table.method
    forward, weights = list(copy.graph), set(copy.graph.initializers)
    plan = method.begin(ops, forward, end, asked)
    seed: str | None = None
    if target is None:
        shape = ir.Shape([None]) if end.shape is None else end.shape  # an input has a rank: it is flat without one
        entering = ir.Value(name=_free(f"{of}.grad", taken), type=end.type, shape=shape)
        copy.graph.inputs.append(entering)
        seed = str(entering.name)
        if end.shape is None:
            entering = ops.reshape(entering, end)
    else:
        entering = method.enter(ops, end)
    walk = replace(walk, opsets=dict(copy.opset_imports), plan=plan)
    found = pull_back(ops, forward, {end: entering}, asked, walk)
    gradients, arrived = {}, []
    for name, value in zip(names, asked, strict=True):
        if value not in found and partial and found:
            continue
        if value not in found:
            raise _no_path(what, name, walk, depends=_depends(end, value))
        told = method.finish(ops, plan, value, found[value])
        arrived.append((value, told))
        output = ops.Identity(told)
        output.name = _free(f"{name}.grad", taken)
        output.type, output.shape = value.type, value.shape
        if value.producer() is not None and value.graph is not copy.graph:  # in a body: an entry an iteration
            output.shape = found[value].shape
        copy.graph.outputs.append(output)
        gradients[name] = output.name
    delta: str | None = None
    if method.conserves and (len(asked) == 1 or all(value.is_graph_input() for value in asked)):
        left = imbalance(ops, method.finish(ops, plan, end, entering), end, arrived)
        delta = left.name = _free(f"{method.gives}.delta", taken)
        copy.graph.outputs.append(left)
    _drop_unread(copy.graph, set(forward), weights)
    baselines, notes = method.baselines(plan), tuple(walk.notes)
    return GradientModel(copy, what, seed, gradients, tuple(walk.cuts), method.gives, baselines, delta, notes)


def _drop_unread(graph: ir.Graph, nodes: set[ir.Node], weights: set[str]) -> None:
    """Remove what nothing reads and was not there before: a rule may write more than its node's case needs."""
    for node in reversed(graph):
        if node not in nodes and not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name in set(graph.initializers) - weights:
        if not graph.initializers[name].uses():
            del graph.initializers[name]


def _with_target(model: ir.Model, expression: str) -> tuple[ir.Model, str]:
    """Append an expression to a model; return it with its shapes, and the name of what it gives."""
    values = _named(model)
    added: list[ir.Value] = []
    made = target_value(Ops(model.graph, set(values), "target"), values, expression, added)
    model.graph.inputs.extend(added)
    inferred = infer_shapes(model)
    shape = _named(inferred)[str(made.name)].shape
    if shape is not None and any(size != 1 for size in shape[1:]):
        raise GradientError(
            f"{expression!r} gives a tensor of shape {shape}, not a number for each sample",
            hint="take one entry, or sum(…), mean(…), max(…), norm(…) of it",
        )
    return inferred, str(made.name)


def _named(model: ir.Model) -> dict[str, ir.Value]:
    values = {name: value for value, name in all_tensors(model).items()}
    return values | {str(v.name): v for v in (*model.graph.inputs, *model.graph.initializers.values())}


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


def _depends(end: ir.Value, start: ir.Value) -> bool:
    """Whether one tensor depends on another in any way at all."""
    seen: set[ir.Value] = set()
    waiting = [end]
    while waiting:
        value = waiting.pop()
        if value is start:
            return True
        if value not in seen:
            seen.add(value)
            if (node := value.producer()) is not None:
                waiting.extend(reads(node))
    return False


def _no_path(of: str, name: str, walk: Walk, *, depends: bool) -> GradientError:
    cuts = "; ".join(str(cut) for cut in walk.cuts[:3])
    why = f"all paths are cut ({cuts})" if cuts else f"{of} does not depend on it"
    if depends and not cuts:
        why = f"{of} depends on its shape, or on comparisons and whole numbers of it alone, so that the gradient is 0"
    return GradientError(f"no gradient leads from {of} to {name}: {why}")


def _free(name: str, taken: set[str]) -> str:
    free, count = name, 2
    while free in taken:
        free, count = f"{name}_{count}", count + 1
    taken.add(free)
    return free
