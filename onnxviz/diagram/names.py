"""What blocks are called: ids that are the same in every drawing of a model."""

from __future__ import annotations

import hashlib
import re

from onnxviz.diagram.elements import Element
from onnxviz.graph.cost import node_cost
from onnxviz.graph.scopes import scope_name

__all__ = ["Names", "element_name", "element_parameters"]


def element_parameters(element: Element) -> int:
    """Return how many learned elements a block holds."""
    if element.members is not None:
        return element.members.parameters
    return node_cost(element.node).parameters if element.node is not None else 0


def element_name(element: Element) -> str | None:
    """Return what identifies an element across exports: its first output's name, else its own."""
    if element.members is not None:
        return scope_name(element.members.scope)
    if element.node is None:
        return element.value.name if element.value is not None else None
    return next((v.name for v in element.node.outputs if v.name), None) or element.node.name


class Names:
    """Hands out ids that are unique, safe in XML and the same in every run."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, role: str, name: str | None) -> str:
        raw = name or "unnamed"
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", raw[:64])
        if safe != raw:
            safe = f"{safe}-{hashlib.sha256(raw.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        identity, again = f"{role}-{safe}", 1
        while identity in self._taken:
            again += 1
            identity = f"{role}-{safe}.{again}"
        self._taken.add(identity)
        return identity
