"""Which layer of the source network a node came from, as converters and exporters write it on nodes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

import onnx_ir as ir

__all__ = ["NO_MODULE", "Provenance", "leaving", "nodes_by_layer", "provenance_of", "set_provenance"]

#: What torch.export names as the module of a node that it put in itself, outside of any module.
NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
_LAYER, _CLASS, _LINE, _FOLDED = "onnxviz.layer", "onnxviz.class", "onnxviz.line", "onnxviz.folded"
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')
_LIBRARY = re.compile(r"(^|[\\/])(site-packages|dist-packages|torch|keras|onnxviz|python3[.\d]*)[\\/]")


@dataclass(frozen=True)
class Provenance:
    """The source of a node.

    Attributes:
        layer: Path of the layer in the source network, such as ``"layers.0.conv1"`` or ``"backbone/conv1"``; empty for
            what the network itself computes outside of its layers.
        class_name: Class of the layer, such as ``"torch.nn.modules.conv.Conv2d"``; empty where unknown.
        line: File and line of the user's code that called it, such as ``"net.py:27"``; empty where unknown.
        folded: Layers that were folded into this node, in order of execution, such as a BatchNorm behind a Conv. The
            node gives what the last of them gave.
    """

    layer: str
    class_name: str = ""
    line: str = ""
    folded: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The layer and those folded into it, without the path that they share: ``"block.conv1 + bn1"``."""
        parent = self.layer[: max(self.layer.rfind("."), self.layer.rfind("/")) + 1]
        return " + ".join([self.layer, *(layer.removeprefix(parent) for layer in self.folded)])

    def __str__(self) -> str:
        name = self.name or "(the network itself)"
        kind = f" ({self.class_name.rpartition('.')[2]})" if self.class_name else ""
        return f"{name}{kind}{f' at {self.line}' if self.line else ''}"


def set_provenance(node: ir.Node, source: Provenance) -> None:
    """Write on a node where it came from, in place."""
    fields = {
        _LAYER: source.layer,
        _CLASS: source.class_name,
        _LINE: source.line,
        _FOLDED: json.dumps(list(source.folded)) if source.folded else "",
    }
    for key, text in fields.items():
        node.metadata_props.pop(key, None)
        if text or key == _LAYER:
            node.metadata_props[key] = text


def provenance_of(node: ir.Node) -> Provenance | None:
    """Return where a node came from; None where neither a converter nor an exporter has written it down.

    Read are onnxviz's own keys, else those of ``torch.onnx.export``, so models that it wrote without onnxviz tell as
    much.

    >>> node = ir.node("Conv", [])
    >>> set_provenance(node, Provenance("conv1", "torch.nn.modules.conv.Conv2d", "net.py:27", ("bn1",)))
    >>> str(provenance_of(node))
    'conv1 + bn1 (Conv2d) at net.py:27'
    """
    props = node.metadata_props
    if _LAYER in props:
        return Provenance(props[_LAYER], props.get(_CLASS, ""), props.get(_LINE, ""), _names(props.get(_FOLDED, "")))
    return _from_torch(node)


def nodes_by_layer(graph: ir.Graph) -> dict[str, list[ir.Node]]:
    """Return for every source layer, and for those around it, the nodes that compute it, in the graph's order.

    A node into which layers were folded belongs to the last of them: that is what it gives.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Relu(x)}'
    >>> graph = ir.from_onnx_text(text).graph
    >>> set_provenance(graph[0], Provenance("block.0.act"))
    >>> list(nodes_by_layer(graph))
    ['block.0.act', 'block', 'block.0']
    """
    found: dict[str, list[ir.Node]] = {}
    for node in graph:
        source = provenance_of(node)
        if source is not None:
            for layer in _around([source.layer, *source.folded][-1]):
                found.setdefault(layer, []).append(node)
    return found


def _around(layer: str) -> Iterator[str]:
    yield layer
    yield from (layer[:index] for index, letter in enumerate(layer) if letter in "./" and index)


def leaving(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Return the tensors that a group of nodes gives to others or to the graph, in the order of the nodes."""
    group = dict.fromkeys(nodes)
    return [
        value
        for node in group
        for value in node.outputs
        if value.name and (value.is_graph_output() or any(user not in group for user in value.consumers()))
    ]


def _names(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return ()
    return tuple(str(name) for name in found) if isinstance(found, list) else ()


def _from_torch(node: ir.Node) -> Provenance | None:
    props = node.metadata_props
    scopes, classes = (_list(props.get(f"pkg.torch.onnx.{key}")) for key in ("name_scopes", "class_hierarchy"))
    if len(scopes) < 2 or NO_MODULE in scopes:
        return None
    layer, folded = scopes[-2], ()
    if "FuseBatchNorm" in props.get("pkg.onnxscript.rewriter.rule_name", ""):
        # The node carries the BatchNorm's scope; its weight tells which convolution took it in.
        weight = node.inputs[1].name if len(node.inputs) > 1 and node.inputs[1] is not None else None
        if weight and weight.endswith(".weight"):
            return Provenance(
                weight.removesuffix(".weight"), "", _line(props.get("pkg.torch.onnx.stack_trace", "")), (layer,)
            )
    class_name = classes[len(scopes) - 2] if len(classes) == len(scopes) else ""
    return Provenance(layer, class_name, _line(props.get("pkg.torch.onnx.stack_trace", "")), folded)


def _list(text: str | None) -> Sequence[str]:
    try:
        found = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(entry) for entry in found] if isinstance(found, list) else []


def _line(trace: str) -> str:
    """Return the innermost line of a stack trace that is not a library's."""
    for file, number in reversed(_FRAME.findall(trace)):
        if not _LIBRARY.search(file):
            path = PureWindowsPath(file) if "\\" in file else PurePosixPath(file)
            return f"{path.name if path.is_absolute() else path.as_posix()}:{number}"
    return ""
