"""Names that a reader recognises, and metadata that tell nothing about the machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir

from onnxviz.graph.provenance import NO_MODULE

__all__ = ["drop_empty_scopes", "name_by_layer", "name_weights", "shorten_paths", "strip_paths"]

_STACK_FILE = re.compile(r'(?<=File ")([^"\n]+)(?=", line )')
#: As an entry of a list, and as a step of a path that names each step's class.
_EMPTY_SCOPE = re.compile(rf"'{NO_MODULE}', |{NO_MODULE}: {NO_MODULE}/")
_ANY_FILE = re.compile(r"(?<![\w.])((?:[A-Za-z]:)?[\\/](?:[^\\/\s:\"']+[\\/])+[^\\/\s:\"']+)")
#: What a Keras user calls the constant inputs of an operator: op type -> names of inputs 1, 2, …
_ROLES: dict[str, tuple[str, ...]] = {
    "Conv": ("kernel", "bias"),
    "ConvTranspose": ("kernel", "bias"),
    "Gemm": ("kernel", "bias"),
    "MatMul": ("kernel",),
    "Add": ("bias",),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "LSTM": ("kernel", "recurrent_kernel", "bias"),
    "GRU": ("kernel", "recurrent_kernel", "bias"),
}


class _Names:
    """Hands out names, numbering those that are taken."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._next: Counter[str] = Counter()

    def take(self, wanted: str) -> str:
        name = wanted
        while name in self._taken:
            self._next[wanted] += 1
            name = f"{wanted}_{self._next[wanted]}"
        self._taken.add(name)
        return name


def _all_values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def name_by_layer(
    model: ir.Model, layer_of: Callable[[ir.Node], str | None], output_names: Sequence[str] | None = None
) -> None:
    """Name every node and the tensors it makes after the layer it belongs to, in place.

    A layer's only node gets the layer's name; several get ``layer/OpType``; a node without a layer gets its op type.
    Repeats are numbered ``_1``, ``_2``. A node's tensor is named like the node. Inputs and
    initializers keep their names.

    Args:
        model: The model that is renamed.
        layer_of: The path of the layer that a node belongs to, such as ``"encoder.conv1"``; None where unknown.
        output_names: Names for the graph's outputs, in order; by default they are named like any other tensor.

    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ... g (float[1] x) => (float[1] z) { y = Relu(x)  z = Relu(y) }''')
    >>> name_by_layer(model, lambda node: "act")
    >>> [node.name for node in model.graph], model.graph.outputs[0].name
    (['act/Relu', 'act/Relu_1'], 'act/Relu_1')
    """
    nodes = [node for graph in model.graphs() for node in graph]
    layers = {node: layer_of(node) for node in nodes}
    sizes = Counter(layers.values())
    produced = {value for node in nodes for value in node.outputs}
    tensors = _Names({value.name for value in _all_values(model) if value.name and value not in produced})
    wanted = dict(zip(model.graph.outputs, output_names, strict=True)) if output_names else {}
    for value, name in wanted.items():
        if value in produced:
            value.name = tensors.take(name)
    names = _Names(set())
    for node in nodes:
        layer = layers[node]
        node.name = names.take(node.op_type if not layer else layer if sizes[layer] == 1 else f"{layer}/{node.op_type}")
        for index, value in enumerate(node.outputs):
            if value.name and value not in wanted:
                value.name = tensors.take(node.name if index == 0 else f"{node.name}:{index}")


def name_weights(model: ir.Model, layer_of: Callable[[ir.Node], str | None]) -> None:
    """Name initializers after the layer that uses them first and their role in it, in place.

    Weights get the names that Keras gives them (``conv1/kernel``), other constants those that ONNX gives the operator's
    input (``flatten/shape``). Initializers that no layer uses keep their names.
    """
    names = _Names({value.name for value in _all_values(model) if value.name})
    done: set[ir.Value] = set()
    for node in model.graph:
        layer = layer_of(node)
        roles = _ROLES.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if not layer or value is None or not value.is_initializer() or value in done:
                continue
            done.add(value)
            weight = value.dtype is not None and value.dtype.is_floating_point() and value.const_value is not None
            role = (
                roles[0 if node.op_type == "Add" else index - 1] if weight and roles and index <= len(roles) else None
            )
            value.name = names.take(f"{layer}/{role}" if role else f"{node.name}/{_formal_name(node, index)}")


def _formal_name(node: ir.Node, index: int) -> str:
    """Return what the ONNX specification calls an operator's input."""
    try:
        formal = onnx.defs.get_schema(node.op_type, node.domain).inputs
    except onnx.defs.SchemaError:
        return str(index)
    return str(formal[min(index, len(formal) - 1)].name) if formal else str(index)


def drop_empty_scopes(model: ir.Model) -> None:
    """Take torch.export's placeholder for "outside of any module" out of what it recorded on nodes, in place.

    Such nodes compute sizes for its own checks; the placeholder would be read as a layer of the network.

    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ... g (float[n] x) => (int64[1] y) { y = Shape(x) }''')
    >>> props = model.graph[0].metadata_props
    >>> props["pkg.torch.onnx.name_scopes"] = "['_empty_nn_module_stack_from_metadata_hook', 'sym_size']"
    >>> drop_empty_scopes(model)
    >>> props["pkg.torch.onnx.name_scopes"]
    "['sym_size']"
    """
    for graph in model.graphs():
        for node in graph:
            for key, text in node.metadata_props.items():
                if NO_MODULE in text:
                    node.metadata_props[key] = _EMPTY_SCOPE.sub("", text)


def strip_paths(model: ir.Model, folder: Path | None) -> None:
    """Make every file path in metadata and doc strings relative to ``folder`` or to its package, in place."""
    holders: list[ir.Model | ir.Graph | ir.Node | ir.Value | ir.Function] = [model, *model.functions.values()]
    for graph in model.graphs():
        holders.append(graph)
        holders.extend(graph)
    holders.extend(_all_values(model))
    for holder in holders:
        for key, text in holder.metadata_props.items():
            holder.metadata_props[key] = shorten_paths(text, folder)
        if holder.doc_string:
            holder.doc_string = shorten_paths(holder.doc_string, folder)


def shorten_paths(text: str, folder: Path | None = None) -> str:
    r"""Replace absolute paths in ``text``: relative to ``folder``, else from their package, else the bare file name.

    >>> shorten_paths('File "/home/me/nets/blocks/se.py", line 3', Path("/home/me/nets"))
    'File "blocks/se.py", line 3'
    >>> shorten_paths(r'File "C:\\Users\\me\\venv\\Lib\\site-packages\\torch\\nn\\linear.py", line 3')
    'File "torch/nn/linear.py", line 3'
    >>> shorten_paths("# /tmp/net.py:15:0")
    '# net.py:15:0'
    """
    text = _STACK_FILE.sub(lambda match: _short(match.group(1), folder), text)
    return _ANY_FILE.sub(lambda match: _short(match.group(1), folder), text)


def _short(path: str, folder: Path | None) -> str:
    pure: PurePath = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    if not pure.is_absolute():
        return path
    if folder is not None and pure.is_relative_to(folder):
        return pure.relative_to(folder).as_posix()
    for packages in ("site-packages", "dist-packages"):
        if packages in pure.parts:
            return "/".join(pure.parts[pure.parts.index(packages) + 1 :])
    return pure.name
