"""Checks of data outside the file: X01."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx

from onnxviz.checks.finding import Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject

_EXTERNAL = onnx.TensorProto.EXTERNAL


def external_tensors(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, dict[str, str]]]:
    """Yield the tensors of a graph, its attributes and bodies that lie outside, with what is said of where."""
    pending = [graph]
    while pending:
        inner = pending.pop()
        tensors = list(inner.initializer)
        for node in inner.node:
            for attribute in node.attribute:
                tensors += [attribute.t] if attribute.HasField("t") else []
                tensors += attribute.tensors
                pending += [attribute.g] if attribute.HasField("g") else []
                pending += attribute.graphs
        for tensor in tensors:
            if tensor.data_location == _EXTERNAL:
                yield tensor, {entry.key: entry.value for entry in tensor.external_data}


@check(
    "X01",
    "error",
    "external data outside the model's folder",
    needs=Need.FILE | Need.PROTO,
    what="Follows the location of each external tensor: absolute paths, `..`, drive letters, and symbolic links that "
    "lead out of the folder.",
    why="A model that names files elsewhere breaks when it is moved, and one from a stranger can read any file "
    "that its user may read.",
    remedy="Put the data file beside the model and refer to it by its name: save the model again.",
    false_positives="A file in a download cache may be a link into the folder where the cache keeps the model itself; "
    "such links are followed.",
)
def outside(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the external tensors that lie outside the model's folder."""
    assert subject.path is not None
    folder = Path(os.path.abspath(subject.path)).parent  # noqa: PTH100 - not resolved: links are judged below
    homes = {Path(os.path.realpath(folder)), Path(os.path.realpath(subject.path)).parent}
    count = 0
    for count, (tensor, entries) in enumerate(external_tensors(subject.proto.graph), 1):  # noqa: B007
        location = entries.get("location", "")
        reason = _escape(location, folder, homes)
        if reason:
            yield Problem(
                f"its data at {location[:200]!r} {reason}", [tensor_place(tensor.name)], {"location": location[:1000]}
            )
    yield {"external_tensors": count}


def _escape(location: str, folder: Path, homes: set[Path]) -> str:
    """Return how a location leaves the folder; empty if it does not."""
    if not location:
        return "names no file"
    if "\0" in location:
        return "has a NUL in its name"
    if Path(location).is_absolute() or "\\" in location or ":" in location:
        return "is an absolute path, a URL or a Windows path"
    lexical = Path(os.path.normpath(folder / location))
    if folder not in lexical.parents:
        return "is outside the model's folder"
    real = Path(os.path.realpath(lexical))
    return "" if any(home in real.parents for home in homes) else "is a link out of the model's folder"
