"""What is attributed: inputs of real numbers, embeddings of tokens, or tensors inside the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxviz.analysis.attribution.layers import on_path
from onnxviz.errors import SelectionError, listed
from onnxviz.graph.model import copy_model
from onnxviz.graph.select import FLOAT_TYPES
from onnxviz.graph.shapes import model_inputs
from onnxviz.graph.tidy import free_name
from onnxviz.graph.token_streams import is_fixed

__all__ = ["cut_at", "default_sources", "embeddings"]

_COPIES = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"}


def default_sources(model: ir.Model, target: str, rowwise: Collection[str]) -> list[str]:
    """Return the real-valued inputs that lead to a target.

    Where there are none, the embeddings of token ids; without those the first tensors of real numbers.

    Raises:
        SelectionError: There are neither.
    """
    names = {str(value.name): value for value in model_inputs(model)}
    floats = [n for n, v in names.items() if v.dtype in FLOAT_TYPES and n in rowwise]
    found = [name for name in floats if target in on_path(model, [name], target) or name == target]
    if not found:
        path = on_path(model, names, target)
        found = [name for name in embeddings(model) if name in path] or _first_reals(path)
    if found:
        return found
    raise SelectionError(
        f"{target} depends on no tensor of real numbers",
        hint=f"the inputs are {listed(list(names)) or 'none'}; name a tensor inside the model with --layer",
    )


def _first_reals(path: Mapping[str, ir.Value]) -> list[str]:
    """Return the first tensors of real numbers on a path: what is made of integers, such as one-hot vectors."""
    reals = {value for value in path.values() if value.dtype in FLOAT_TYPES}
    firsts = [v for v in reals if (node := v.producer()) is not None and not any(one in reals for one in node.inputs)]
    return [name for name, value in path.items() if value in firsts]


def embeddings(model: ir.Model) -> list[str]:
    """Return the tensors that look up the rows of a table by integers that are fed: embeddings of words.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (int64[1, 2] ids) => (float[1, 2, 1] y) <float[2, 1] table = {5, 6}>
    ...   {e = Gather(table, ids) y = Relu(e)}''')
    >>> embeddings(model)
    ['e']
    """
    found = []
    for node in model.graph:
        if node.op_type != "Gather" or len(node.inputs) < 2 or not is_fixed(node.inputs[0]):
            continue
        value = node.inputs[1]
        while value is not None and (made := value.producer()) is not None and made.op_type in _COPIES:
            value = made.inputs[0]
        if value is not None and value.is_graph_input() and not value.is_initializer():
            found.append(str(node.outputs[0].name))
    return found


def cut_at(model: ir.Model, names: Collection[str]) -> ir.Model:
    """Return a copy in which some inner tensors are inputs: what computed them is gone where nothing else needs it.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {a = Neg(x) y = Abs(a)}''')
    >>> made = cut_at(model, ["a"])
    >>> [value.name for value in made.graph.inputs], [node.op_type for node in made.graph]
    (['x', 'a'], ['Abs'])
    """
    copy = copy_model(model)
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    for name in names:
        old = values[name]
        entering = ir.Value(name=name, type=old.type, shape=old.shape)
        for node, place in list(old.uses()):
            node.replace_input_with(place, entering)
        copy.graph.outputs[:] = [entering if value is old else value for value in copy.graph.outputs]
        old.name = free_name(copy.graph, f"{name}.before")
        copy.graph.inputs.append(entering)
    RemoveUnusedNodesPass()(copy)
    return copy
