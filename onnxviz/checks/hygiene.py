"""Checks of what an exporter leaves behind: G03."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnxviz.checks.finding import Problem, node_place
from onnxviz.checks.registry import Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import listed


@check(
    "G03",
    "warning",
    "duplicate or empty node names",
    needs=Need.MODEL,
    what="Looks for nodes without a name and for names that several nodes have, in bodies of If, Loop and Scan too.",
    why="Profiles, quantisation settings and error messages name nodes: without unique names nobody can tell which is "
    "meant. onnxruntime refuses some models with two nodes of one name.",
    remedy="Give every node its own name; `onnxviz check --fix` does.",
    false_positives="Names are not required by the specification.",
)
def node_names(subject: Subject) -> Iterator[Problem]:
    """Yield one problem for all nodes without names, and one for each name that several have."""
    nodes = list(subject.model.graph.all_nodes())
    unnamed = [node.op_type for node in nodes if not node.name]
    if unnamed:
        kinds = [f"{count} {op}" for op, count in Counter(unnamed).most_common()]
        evidence = {"nodes": len(nodes), "unnamed": len(unnamed)}
        yield Problem(f"{len(unnamed)} of {len(nodes)} nodes have no name: {listed(kinds)}", (), evidence, key="empty")
    for name, count in Counter(node.name for node in nodes if node.name).items():
        if count > 1:
            yield Problem(f"{count} nodes are called the same", [node_place(name)], {"nodes": count})
