"""Opening calls of model-local functions: their nodes come into the graph, and each call becomes a group."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.errors import ModelError
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model
from onnxviz.graph.scopes import CALLS, Scope, named_scopes

__all__ = ["inline_with_scopes", "opened_calls"]

_STEP = "onnxviz.scope.step."  # followed by a number; inlining hands on what a call carries to the nodes behind it


def inline_with_scopes(model: ir.Model) -> ir.Model:
    """Return a copy in which every call of a model-local function is inlined and is a group; the model if it has none.

    :func:`onnxviz.graph.scopes.scopes` gives the nodes of a call the groups that the call lies in, then the call (its
    name, with the function's unless the name has that; a number where it has no name), then the groups that they have
    within the function. Names stay unique as :func:`onnxviz.graph.inline.inline_functions` keeps them.

    Raises:
        ModelError: A function calls itself.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17, "local": 1]>
    ...   g (float[1] x) => (float[1] z) { y = local.Twice(x) z = local.Twice(y) }
    ...   <opset_import: ["": 17], domain: "local"> Twice (a) => (c) { b = Neg(a) c = Relu(b) }''')
    >>> from onnxviz.graph.scopes import scopes
    >>> list(scopes(inline_with_scopes(model).graph).values())
    [('Twice_1',), ('Twice_1',), ('Twice_2',), ('Twice_2',)]
    """
    if not model.functions:
        return model
    copy = copy_model(model)
    copy.meta.update(model.meta)
    _Steps(copy).write()
    inlined = inline_functions(copy)
    for node in inlined.graph.all_nodes():
        steps = sorted(key for key in node.metadata_props if key.startswith(_STEP))
        path = [part for key in steps for part in json.loads(node.metadata_props.pop(key))]
        if steps:
            node.metadata_props[CALLS] = json.dumps(path)
    return inlined


def opened_calls(model: ir.Model) -> ir.Model:
    """Return :func:`inline_with_scopes` of a model, or the model itself where a function calls itself.

    A drawing shows such calls as they stand.
    """
    try:
        return inline_with_scopes(model)
    except ModelError:
        return model


class _Steps:
    """Writes its part of the path on every node that lies in a group or in a function, or is a call.

    Parts are numbered from the main graph inwards, so that those which a node has inherited sort from the outermost on.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.count = 0

    def write(self) -> None:
        # What names tell is told of calls' neighbours too, while the calls are there to share their paths with.
        self._graph(self.model.graph)
        for function in self._outside_in():
            self._graph(function.graph, inside=True)

    def _outside_in(self) -> list[ir.Function]:
        """Return the functions that are called, each after those that call it unless they call in circles."""
        done: dict[ir.OperatorIdentifier, None] = {}
        begun: set[ir.OperatorIdentifier] = set()
        entries: list[tuple[ir.OperatorIdentifier | None, Iterator[ir.OperatorIdentifier]]]
        entries = [(None, iter(self._calls(self.model.graph)))]
        while entries:
            name, callees = entries[-1]
            for callee in callees:
                if callee not in begun:
                    begun.add(callee)
                    entries.append((callee, iter(self._calls(self.model.functions[callee].graph))))
                    break
            else:
                entries.pop()
                if name is not None:
                    done[name] = None
        return [self.model.functions[name] for name in reversed(done)]

    def _calls(self, graph: ir.Graph) -> list[ir.OperatorIdentifier]:
        return [node.op_identifier() for node in graph.all_nodes() if node.op_identifier() in self.model.functions]

    def _graph(self, graph: ir.Graph, *, inside: bool = False) -> None:
        taken: Counter[Scope] = Counter()
        for node, path in named_scopes(graph).items():
            called = node.op_identifier() in self.model.functions
            if called:
                path = self._call(node, path, taken)
            if path or inside:
                self.count += 1
                node.metadata_props[f"{_STEP}{self.count:09d}"] = json.dumps(path)
            for body in bodies_of(node):
                self._graph(body)

    def _call(self, node: ir.Node, around: Scope, taken: Counter[Scope]) -> Scope:
        name = (node.name or "").rpartition("/")[2]
        if not name or node.op_type.lower() not in name.lower():
            name = f"{node.op_type} {name}".rstrip()
        path = (*around, name)
        taken[path] += 1
        if name == node.op_type or taken[path] > 1:
            return (*around, f"{name}_{taken[path]}")
        return path
