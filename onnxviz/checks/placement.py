"""Checks of where nodes run: fallbacks and islands (P02), copies between host and device (P03)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from onnxviz.checks.finding import Problem, place_of
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import counted, listed

_SHOWN = 8
_SHAPES = frozenset({"Shape", "Size"})


@check(
    "P02",
    "warning",
    "nodes that fall back to another provider",
    needs=Need.MODEL | Need.SESSION | Need.PROVIDERS,
    what="Lets onnxruntime place the nodes of its optimised graph on the `--providers`, and counts those that the "
    "first does not take and the islands that they make, in the order of the graph. Arithmetic on shapes is left out: "
    "onnxruntime keeps it on the CPU on purpose.",
    why="Each island costs two copies and a wait; one operator without a kernel can make a GPU slower than the CPU.",
    remedy="Replace the operators that the message names, lower their opset (kernels lag behind), or update "
    "onnxruntime.",
    false_positives="An island at the end, such as NonMaxSuppression, may cost little.",
)
def fallbacks(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the operators that the first provider does not take."""
    assigned = _assigned(subject)
    preferred = subject.providers[0]
    away = [(place, node, provider) for place, (node, provider) in enumerate(assigned) if provider != preferred]
    working = [(place, node, provider) for place, node, provider in away if not _on_shapes(node)]
    if working and preferred != "cpu":
        places = {place for place, *_ in working}
        islands = sum(place - 1 not in places for place in places)
        kinds = Counter(node.op_type for _, node, _ in working)
        evidence = {
            "nodes": len(working), "of": len(assigned), "islands": islands, "op_types": dict(kinds.most_common(_SHOWN)),
            "providers": dict(Counter(provider for *_, provider in working)),
        }  # fmt: skip
        told = listed([f"{count} {kind}" for kind, count in kinds.most_common()])
        some = f"{counted(len(working), 'node')} of {len(assigned):,}, in {counted(islands, 'island')}"
        message = f"{preferred} does not take {some}: {told}"
        yield Problem(message, [place_of(node) for _, node, _ in working[:_SHOWN]], evidence)
    yield {"nodes": len(assigned), "first": preferred, "elsewhere": len(away)}


def _assigned(subject: Subject) -> list[tuple[ir.Node, str]]:
    """Return the nodes of the optimised graph and the short name of each one's provider."""

    def place() -> list[tuple[ir.Node, str]]:
        from onnxviz.runtime.production import optimized_model
        from onnxviz.runtime.session import Session

        library = subject.options.op_library
        if tuple(subject.providers) == ("cpu",):
            return [(node, "cpu") for node in subject.model.graph.all_nodes()]
        graph = optimized_model(subject.model, subject.providers, op_library=library).graph
        session = Session(subject.model, subject.providers, optimize=True, op_library=library)
        return [(node, session.assigned.get(node.name or "", subject.providers[0])) for node in graph.all_nodes()]

    return subject.shared("assignment of nodes", place)


def _on_shapes(node: ir.Node) -> bool:
    """Whether a node computes sizes: whole numbers of a dozen elements at most."""
    if node.op_type in _SHAPES or node.op_type.startswith("Memcpy"):
        return True
    small = [v for v in node.outputs if v.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)]
    sizes = [v.shape.numpy() for v in small if v.shape is not None and v.shape.is_static()]
    return len(sizes) == len(node.outputs) and all(len(size) < 2 and sum(size) <= 12 for size in sizes)


@check(
    "P03",
    "warning",
    "copies between host and device",
    needs=Need.MODEL | Need.SESSION | Need.PROVIDERS,
    what="Counts the Memcpy nodes that onnxruntime puts into the graph for the `--providers`.",
    why="Each copies a tensor over the bus and waits for it; CUDA graphs cannot be captured with them.",
    remedy="See P02 for the nodes that cause them; feed and fetch with IOBinding what stays on the device.",
    false_positives="A copy of a few numbers, such as a size, costs microseconds.",
)
def copies(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield one problem for all copies."""
    found = _copies(subject)
    if found:
        names = [name for name, _ in found.items()]
        kinds = dict(Counter(found.values()))
        told = listed([f"{count} {kind}" for kind, count in kinds.items()])
        evidence = {"copies": len(found), "kinds": kinds, "tensors": names[:16]}
        yield Problem(f"{counted(len(found), 'tensor')} copied: {told}", [], evidence, key="copies")
    yield {"copies": 0}


def _copies(subject: Subject) -> Mapping[str, str]:
    """Return what is copied -> the kind of the copy."""

    def look() -> Mapping[str, str]:
        from onnxviz.runtime.production import optimized_model

        if tuple(subject.providers) == ("cpu",):
            return {}
        graph = optimized_model(subject.model, subject.providers, op_library=subject.options.op_library).graph
        return copies_in(graph)

    return subject.shared("copies between host and device", look)


def copies_in(graph: ir.Graph) -> dict[str, str]:
    """Return the tensors that Memcpy nodes read, bodies included -> ``"from the host"`` or ``"to the host"``."""
    kinds = {"MemcpyFromHost": "from the host", "MemcpyToHost": "to the host"}
    nodes = [node for node in graph.all_nodes() if node.op_type in kinds]
    return {
        str(node.inputs[0].name): kinds[node.op_type] for node in nodes if node.inputs and node.inputs[0] is not None
    }
