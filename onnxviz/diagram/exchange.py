"""The diagram as data for other tools: DOT, Mermaid, GraphML, JSON with positions, a networkx graph."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from onnxviz.diagram.palette import kind_style
from onnxviz.errors import printable

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["WRITERS", "DiagramEdge", "DiagramFrame", "DiagramNode", "Network", "to_networkx"]

_LONGEST = 2000  # characters of a name
Point = tuple[float, float]


@dataclass(frozen=True)
class DiagramNode:
    """A box of the diagram.

    Attributes:
        id: The same in every export of the model; that of its group in the SVG.
        role: ``node``, ``input``, ``output``, ``constant`` or ``missing``.
        name: Name of the node, or of the tensor of a terminal.
        op_type: Its operator; empty for terminals.
        domain: The operator's domain; empty for ONNX's own.
        kind: The kind of operator, one of :data:`onnxviz.graph.kinds.KINDS` or ``other``; empty for terminals.
        lines: What the box says, line by line.
        parameters: Learned elements that it holds.
        source: The layer of the source network, where the file says so.
        value: The number that colours it, where one was asked for.
        x, y, width, height: The box in px, y downwards; x and y are its top left corner.
        parent: Id of the frame around it; empty where there is none.
    """

    id: str
    role: str
    name: str
    op_type: str
    domain: str
    kind: str
    lines: tuple[str, ...]
    parameters: int
    source: str
    value: float | None
    x: float
    y: float
    width: float
    height: float
    parent: str = ""


@dataclass(frozen=True)
class DiagramFrame:
    """A group that is drawn open.

    Attributes:
        id: The same in every export of the model.
        name: Its path, such as ``encoder/layer1``; or the name of a node with bodies.
        parent: Id of the frame around it; empty where there is none.
        x, y, width, height: In px, y downwards; x and y are its top left corner.
    """

    id: str
    name: str
    parent: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class DiagramEdge:
    """A tensor on its way from one box to another.

    Attributes:
        source, target: Ids of the boxes.
        tensor: Its name.
        dtype: Its type as numpy spells it; empty where unknown.
        shape: Its sizes, those that are open by name; None where unknown.
        stub: It is drawn as two labelled ends.
        outer: Only a body of the target (If, Loop, Scan) reads it.
        points: Corners of the line; empty for a stub.
        shape_kind: ``known`` (numbers only), ``symbolic`` (names of open dimensions, or expressions of them),
            ``observed`` (open in the file, but seen in a run) or ``unknown``.
        observed: The sizes that were seen in a run; None where none was shown.
    """

    source: str
    target: str
    tensor: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    stub: bool
    outer: bool
    points: tuple[Point, ...]
    shape_kind: str = "unknown"
    observed: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Network:
    """A diagram without its looks: boxes and lines, with positions.

    Attributes:
        title: The heading.
        width, height: Of the whole drawing, in px.
        nodes: Its boxes, in the model's order.
        edges: Its lines, in the order of their targets.
        frames: The groups drawn open, outer ones first.
    """

    title: str
    width: float
    height: float
    nodes: tuple[DiagramNode, ...]
    edges: tuple[DiagramEdge, ...]
    frames: tuple[DiagramFrame, ...] = ()


def to_networkx(network: Network) -> nx.MultiDiGraph:
    """Return a directed graph whose nodes and edges carry what the diagram says, as plain values.

    >>> graph = to_networkx(Network("net", 1.0, 1.0, (), ()))
    >>> graph.graph["title"], len(graph)
    ('net', 0)
    """
    import networkx as nx

    graph = nx.MultiDiGraph(title=network.title, frames=[asdict(frame) for frame in network.frames])
    for node in network.nodes:
        values = {key: value for key, value in asdict(node).items() if key != "id"}
        graph.add_node(node.id, **{**values, "lines": list(node.lines)})
    for edge in network.edges:
        graph.add_edge(
            edge.source, edge.target, tensor=edge.tensor, dtype=edge.dtype,
            shape=None if edge.shape is None else list(edge.shape), stub=edge.stub, outer=edge.outer,
            shape_kind=edge.shape_kind, observed=None if edge.observed is None else list(edge.observed),
        )  # fmt: skip
    return graph


def _json(network: Network) -> str:
    return json.dumps(asdict(network), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _graphml(network: Network) -> str:
    import networkx as nx

    plain: nx.MultiDiGraph = nx.MultiDiGraph(title=_xml(network.title))
    for node in network.nodes:
        values = {**asdict(node), "label": "\n".join(node.lines)}
        values = {key: value for key, value in values.items() if key not in ("lines", "id") and value is not None}
        plain.add_node(node.id, **{key: _xml(v) if isinstance(v, str) else v for key, v in values.items()})
    for number, edge in enumerate(network.edges):
        plain.add_edge(
            edge.source, edge.target, key=number, tensor=_xml(edge.tensor), dtype=edge.dtype,
            shape=_xml(_shape(edge)), stub=edge.stub, outer=edge.outer, shape_kind=edge.shape_kind,
            observed="×".join(map(str, edge.observed or ())),
        )  # fmt: skip
    return "\n".join(nx.generate_graphml(plain, named_key_ids=True)) + "\n"


def _dot(network: Network) -> str:
    lines = [f"digraph {_quoted(network.title)} {{", "  graph [rankdir=TB]", "  node [shape=box, style=filled]"]
    for frame in network.frames:
        around = [f"subgraph {_quoted('cluster_' + name)} {{" for name in (*_outer(network, frame.parent), frame.id)]
        lines.append(f"  {' '.join(around)} label={_quoted(frame.name)} {'}' * len(around)}")
    for node in network.nodes:
        fill = kind_style(node.kind).fill if node.kind else "#eef1f4"
        shape = "" if node.role in ("node", "group") else ", shape=oval"
        middle = f"{node.x + node.width / 2:.1f},{network.height - node.y - node.height / 2:.1f}"
        label, tooltip = _quoted(chr(10).join(node.lines)), _quoted(node.name)
        looks = f'fillcolor="{fill}"{shape}, pos="{middle}"'
        around = [f"subgraph {_quoted('cluster_' + name)} {{ " for name in _outer(network, node.parent)]
        said = f"{_quoted(node.id)} [label={label}, tooltip={tooltip}, {looks}]"
        lines.append(f"  {''.join(around)}{said}{' }' * len(around)}")
    for edge in network.edges:
        looks = ", style=dashed" if edge.outer else ""
        says = f"[label={_quoted(_shape(edge))}, tooltip={_quoted(edge.tensor)}{looks}]"
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} {says}")
    return "\n".join([*lines, "}", ""])


def _mermaid(network: Network) -> str:
    places = {node.id: f"n{index}" for index, node in enumerate(network.nodes)}
    title = json.dumps(_one_line(network.title[:_LONGEST])).replace(
        "<", "\\u003c"
    )  # JSON is YAML, and HTML is not read
    lines = ["---", f"title: {title}", "---", "flowchart TD"]
    inside: dict[str, list[str]] = defaultdict(list)
    for node in network.nodes:
        label = "<br/>".join(_entities(line) for line in node.lines) or " "
        start, end = ("[", "]") if node.role in ("node", "group") else ("([", "])")
        kind = f":::{re.sub('[^a-z]', '', node.kind)}" if node.kind else ""
        inside[node.parent].append(f'{places[node.id]}{start}"{label}"{end}{kind}')
    lines += _subgraphs(network, inside)
    for edge in network.edges:
        arrow = "-.->" if edge.outer else "-->"
        label = f'|"{_entities(_shape(edge))}"|' if _shape(edge) else ""
        lines.append(f"  {places[edge.source]} {arrow}{label} {places[edge.target]}")
    for kind in sorted({node.kind for node in network.nodes if node.kind}):
        style = kind_style(kind)
        lines.append(f"  classDef {re.sub('[^a-z]', '', kind)} fill:{style.fill},stroke:{style.stroke}")
    return "\n".join([*lines, ""])


def _subgraphs(network: Network, inside: dict[str, list[str]]) -> list[str]:
    """Return the nodes of a Mermaid flowchart, each within the subgraphs around it."""
    for number, frame in reversed(list(enumerate(network.frames))):
        held = [f"  {line}" for line in inside.pop(frame.id, [])]
        inside[frame.parent] += [f'subgraph g{number}["{_entities(frame.name)}"]', *held, "end"]
    return [f"  {line}" for line in inside[""]]


def _outer(network: Network, frame: str) -> list[str]:
    """Return the ids of a frame and of those around it, the outermost first; empty where there is none."""
    parents = {each.id: each.parent for each in network.frames}
    found: list[str] = []
    while frame:
        found.insert(0, frame)
        frame = parents[frame]
    return found


def _shape(edge: DiagramEdge) -> str:
    if edge.shape is None:
        return ""
    return "×".join("?" if size is None else str(size) for size in edge.shape) or "scalar"


def _quoted(text: str) -> str:
    """Return a DOT string; a backslash would start an escape sequence, such as ``\\N`` for the node's name.

    Graphviz reads strings of at most 16,384 characters.
    """
    lines = (printable(line, _LONGEST).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'


def _entities(text: str) -> str:
    """Escape what Mermaid reads as markup, as character codes."""
    return "".join(c if c.isalnum() or c in " .,:·×+-_()=/" else f"#{ord(c)};" for c in _one_line(text))


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)


def _xml(text: str) -> str:
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", lambda m: f"\\u{ord(m.group()):04x}", text)


#: Ending -> what writes a network as text.
WRITERS: dict[str, Callable[[Network], str]] = {
    ".json": _json,
    ".graphml": _graphml,
    ".dot": _dot,
    ".gv": _dot,
    ".mmd": _mermaid,
}
