"""The layers of a PyTorch network: what each gives in a run, and which nodes of the ONNX graph are whose.

Everything here imports torch lazily: the functions are called only once torch is known to be installed.
"""

from __future__ import annotations

import re
from typing import Any

import onnx_ir as ir

from onnxviz.converters.base import LayerCall
from onnxviz.converters.recording import Recorder
from onnxviz.converters.torch_call import Call, evaluating, to_array
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.runtime.quiet import quiet

__all__ = ["layer_of", "record_module", "record_program", "trace_layers"]


def record_module(module: Any, call: Call) -> list[LayerCall]:
    """Run a module in evaluation mode, without gradients, and return what each of its parts gave."""
    import torch
    from torch.nn.utils.parametrize import ParametrizationList
    from torch.utils import _pytree as pytree

    recorder = Recorder(to_array)

    def tensors(tree: Any) -> list[Any]:
        return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    def watch(path: str, part: Any) -> Any:
        def hook(_: Any, args: Any, kwargs: Any, result: Any) -> None:
            recorder.add(path, _class_name(part), tensors((args, kwargs)), tensors(result), aliases[part])

        return part.register_forward_hook(hook, with_kwargs=True)

    paths: dict[Any, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        paths.setdefault(part, []).append(path)
    aliases = {part: tuple(found[1:]) for part, found in paths.items()}
    # What a parametrization computes depends on no input, so exporters make it a weight.
    lists = [found[0] for part, found in paths.items() if isinstance(part, ParametrizationList)]
    inside = tuple(f"{path}." for path in lists)
    watched = {found[0]: part for part, found in paths.items() if found[0] not in ("", *lists)}
    hooks = [watch(path, part) for path, part in watched.items() if not path.startswith(inside)]
    try:
        with torch.no_grad(), evaluating(module), quiet():
            module(*call.args, **call.kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.calls


def record_program(program: Any, call: Call) -> list[LayerCall]:
    """Run an exported program node by node and return what leaves each module that it was exported from."""
    import torch
    from torch.utils import _pytree as pytree

    module = program.module()
    stacks = {
        node: [(path, kind) for path, kind in node.meta.get("nn_module_stack", {}).values() if path]
        for node in module.graph.nodes
    }
    ends: dict[Any, list[str]] = {}
    for node, stack in stacks.items():
        users = [dict(stacks[user]) for user in node.users]
        ends[node] = [path for path, _ in stack if any(path not in around for around in users)]
    calls: list[LayerCall] = []
    made_by: dict[Any, int] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            for path in reversed(ends[n]):
                if isinstance(result, torch.Tensor):
                    kind = dict(stacks[n])[path]
                    reads = tuple(dict.fromkeys(made_by[i] for i in n.all_input_nodes if i in made_by))
                    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
                    calls.append(LayerCall(_plain(path), name, (to_array(result),), reads))
                    made_by[n] = len(calls) - 1
            return result

    with torch.no_grad(), quiet():
        Watch(module).run(*pytree.tree_leaves((call.args, call.kwargs)))
    return calls


def trace_layers(model: ir.Model, module: Any = None) -> None:
    """Write on every node which module it came from, of which class, and the line that called it, in place.

    What ``torch.export`` recorded is read; a graph of the TorchScript exporter has the paths in its nodes' names
    (``/layer1/layer1.0/conv1/Conv``), and no lines.

    Args:
        model: The exported model.
        module: The module, for the classes of the parts that only a weight's name tells of.
    """
    parts = module.named_modules(remove_duplicate=False) if module is not None else ()
    kinds = {path: _class_name(part) for path, part in parts}
    for graph in model.graphs():
        for node in graph:
            source = provenance_of(node) or _from_name(node.name or "")
            if source is not None:
                layer, *folded = (path if path in kinds else _plain(path) for path in (source.layer, *source.folded))
                kind = kinds.get(layer, source.class_name)
                set_provenance(node, Provenance(layer, kind, source.line, tuple(folded)))


def _plain(path: str) -> str:
    """Take off the @1 or so that torch.export puts behind the path of a module that is called again."""
    return re.sub(r"(?<=[^./])@\d+(?=[./]|$)", "", path)


def _from_name(name: str) -> Provenance | None:
    *scopes, _ = name.split("/")
    if not name.startswith("/"):
        return None
    path: list[str] = []
    for scope in filter(None, scopes):
        if path and scope.startswith(f"{path[-1]}."):  # the part of a Sequential repeats its name: /act/act.0
            path[-1] = scope
        else:
            path.append(scope)
    return Provenance(".".join(path))


def layer_of(node: ir.Node) -> str | None:
    """Return the path of the module that a node came from, such as ``"layers.0.conv1"``; None outside of any.

    >>> layer_of(ir.node("Conv", [], metadata_props={"pkg.torch.onnx.name_scopes": "['', 'conv1', 'conv2d']"}))
    'conv1'
    """
    source = provenance_of(node)
    return source.layer or None if source is not None else None


def _class_name(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
