"""Chains of operators by pattern: ``Conv > BatchNormalization > Relu``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from fnmatch import translate
from re import compile as compile_pattern

import onnx_ir as ir

from onnxviz.errors import SelectionError, listed

__all__ = ["find_chains", "is_pattern", "next_in_chain"]

Step = Callable[[str], object]


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern of operators rather than a glob over groups.

    >>> is_pattern("Conv > *Relu*"), is_pattern("encoder/layer*")
    (True, False)
    """
    return ">" in text


def next_in_chain(node: ir.Node) -> ir.Node | None:
    """Return the one node that reads what a node gives; None where there are none or several, or the graph returns it.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Neg(x) z = Mul(y, y)}'
    >>> graph = ir.from_onnx_text(text).graph
    >>> next_in_chain(graph[0]) is graph[1], next_in_chain(graph[1])
    (True, None)
    """
    if any(value.is_graph_output() for value in node.outputs):
        return None
    users = {user for value in node.outputs for user in value.consumers()}
    if len(users) != 1:
        return None
    user = users.pop()
    return user if user is not node and user.graph is node.graph else None


def find_chains(
    nodes: Iterable[ir.Node], patterns: Sequence[str], free: Container[ir.Node] | None = None
) -> list[tuple[ir.Node, ...]]:
    """Return the chains that patterns match, none of which share a node.

    A chain is a node, the only one that reads what it gives, the only one that reads what that gives, and so on. The
    first pattern takes what it can from the first node on, then the second one from what is left.

    Args:
        nodes: In topological order.
        patterns: Op types or globs over op types between ``>``; ``com.microsoft::FusedConv`` names the domain as well.
        free: The nodes that may be taken; by default all.

    Raises:
        SelectionError: A pattern has fewer than two steps or an empty one, or it matches nothing, whether free or not;
            the text has the most frequent chains of as many steps.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Neg(x) z = Relu(y)}'
    >>> [[node.op_type for node in chain] for chain in find_chains(ir.from_onnx_text(text).graph, ["Neg > *elu"])]
    [['Neg', 'Relu']]
    """
    row = list(nodes)
    taken: set[ir.Node] = set()
    found = []
    for pattern in patterns:
        steps = _steps(pattern)
        anywhere = False
        for node in row:
            chain = _chain(node, steps)
            if chain is None:
                continue
            anywhere = True
            if not taken.intersection(chain) and (free is None or all(node in free for node in chain)):
                taken.update(chain)
                found.append(chain)
        if not anywhere:
            raise SelectionError(f"no chain of operators matches {pattern!r}", hint=_hint(row, len(steps)))
    return found


def _steps(pattern: str) -> list[Step]:
    texts = [text.strip() for text in pattern.split(">")]
    if len(texts) < 2 or not all(texts):
        hint = "write two or more operators with > between them, such as 'Conv > BatchNormalization > Relu'"
        raise SelectionError(f"the pattern {pattern!r} has a step without an operator", hint=hint)
    return [compile_pattern(translate(text)).match for text in texts]


def _chain(node: ir.Node | None, steps: Sequence[Step]) -> tuple[ir.Node, ...] | None:
    chain: list[ir.Node] = []
    for step in steps:
        if node is None or node in chain or not (step(node.op_type) or step(f"{node.domain}::{node.op_type}")):
            return None
        chain.append(node)
        if len(chain) < len(steps):
            node = next_in_chain(node)
    return tuple(chain)


def _hint(nodes: Sequence[ir.Node], length: int) -> str:
    counts: Counter[str] = Counter()
    for node in nodes:
        chain = _chain(node, [lambda _: True] * length)
        if chain is not None and all(part.op_type != "Constant" for part in chain):
            counts[" > ".join(part.op_type for part in chain)] += 1
    if counts:
        often = [f"{chain!r} ({count}×)" for chain, count in counts.most_common(3)]
        return f"the most frequent chains of {length} operators are {listed(often)}"
    operators = [op for op, _ in Counter(node.op_type for node in nodes).most_common(8)]
    return f"no {length} operators follow one another alone; there are {listed(operators, 8)}"
