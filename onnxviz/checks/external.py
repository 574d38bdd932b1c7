"""Checks of the file and of data outside it: X01, X02, X03, X04."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import onnx

from onnxviz.checks.finding import Place, Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import counted, listed
from onnxviz.graph.io import PROTOBUF_LIMIT

_EXTERNAL = onnx.TensorProto.EXTERNAL


def external_tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, dict[str, str]]]:
    """Yield the tensors that lie outside, in attributes, bodies and functions too, with what is said of where."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while pending:
        inner = pending.pop()
        tensors = list(inner.initializer) if isinstance(inner, onnx.GraphProto) else []
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
    what="Follows the location of each external tensor: absolute paths, `..`, drive letters, URLs, symbolic links "
    "that lead out of the folder, and files with a hard link elsewhere (a warning: where the other name lies is not "
    "known).",
    why="A model that names files elsewhere breaks when it is moved, and one from a stranger can read any file that "
    "its user may read.",
    remedy="Put the data file beside the model and refer to it by its name: save the model again.",
    false_positives="Package managers and deduplicating file systems make hard links. A file in a download cache may "
    "be a link into the folder where the cache keeps the model itself; such links are followed.",
)
def outside(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the external tensors that lie outside the model's folder."""
    assert subject.path is not None
    folder = Path(os.path.abspath(subject.path)).parent  # noqa: PTH100 - not resolved: links are judged below
    homes = {Path(os.path.realpath(folder)), Path(os.path.realpath(subject.path)).parent}
    count = 0
    for count, (tensor, entries) in enumerate(external_tensors(subject.proto), 1):  # noqa: B007
        location = entries.get("location", "")
        reason = _escape(location, folder, homes)
        if reason:
            yield Problem(
                f"its data at {location[:200]!r} {reason}", [tensor_place(tensor.name)], {"location": location[:1000]}
            )
    yield from _hard_links(subject, folder)
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


def _hard_links(subject: Subject, folder: Path) -> Iterator[Problem]:
    """Yield the data files that have more names than the model's folder shows."""
    locations = {entries.get("location", "") for _, entries in external_tensors(subject.proto)}
    for location in sorted(locations):
        path = folder / location
        if not location or "\0" in location or _escape(location, folder, {folder, Path(os.path.realpath(folder))}):
            continue
        if not _is_file(path) or path.is_symlink():
            continue
        status = path.stat()
        inside = sum(e.is_file(follow_symlinks=False) and e.inode() == status.st_ino for e in os.scandir(path.parent))
        if status.st_nlink > max(inside, 1):
            evidence = {"links": status.st_nlink, "in_folder": inside}
            message = "the file has another name outside the folder: who writes there changes the weights"
            yield Problem(message, [Place("file", location)], evidence, severity="warning", key="hard link")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


@check(
    "X02",
    "error",
    "external data missing, short or overlapping",
    needs=Need.FILE | Need.PROTO,
    what="Compares offset and length of each external tensor with the size of its file, with the size that its type "
    "and shape need, and with the ranges of other tensors.",
    why="A model without its data does not load. Tensors that overlap in part share bytes by mistake.",
    remedy="Copy the data file next to the model, whole; or save the model again.",
    false_positives="Tensors that share all of a range are taken to be one weight, and are not reported.",
)
def incomplete(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the external tensors whose bytes are not there."""
    assert subject.path is not None
    folder = Path(os.path.abspath(subject.path)).parent  # noqa: PTH100 - as in X01
    homes = {Path(os.path.realpath(folder)), Path(os.path.realpath(subject.path)).parent}
    ranges: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    count = 0
    for tensor, entries in external_tensors(subject.proto):
        count += 1
        location = entries.get("location", "")
        if _escape(location, folder, homes):
            continue  # X01 tells
        place = [tensor_place(tensor.name)]
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else None
        except ValueError:
            yield Problem(f"its offset or length is no number: {dict(entries)}", place, {"location": location})
            continue
        need = _bytes_of(tensor)
        problem = _misfit(folder / location, location, offset, length, need)
        if problem:
            yield Problem(
                problem[0],
                place,
                {"location": location, "offset": offset, "length": length, "needed": need, **problem[1]},
            )
        elif need is not None:
            ranges[location].append((offset, offset + need, tensor.name))
    for location, spans in ranges.items():
        for one, other in pairwise(sorted(set(spans))):
            if other[0] < one[1] and one[:2] != other[:2]:
                evidence = {"location": location, "one": list(one[:2]), "other": list(other[:2])}
                places = [tensor_place(one[2]), tensor_place(other[2])]
                yield Problem(f"their bytes in {location!r} overlap", places, evidence, key="overlap")
    yield {"external_tensors": count}


def _bytes_of(tensor: onnx.TensorProto) -> int | None:
    """Return the bytes of a tensor's elements; None where its type has no fixed size."""
    import onnx_ir as ir

    if tensor.data_type not in ir.DataType._value2member_map_:
        return None
    kind = ir.DataType(tensor.data_type)
    if kind in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    count = 1
    for dim in tensor.dims:
        count *= dim
    return (count * kind.bitwidth + 7) // 8


def _misfit(
    path: Path, location: str, offset: int, length: int | None, need: int | None
) -> tuple[str, dict[str, int]] | None:
    """Return what is wrong with the bytes of a tensor, with numbers."""
    if not _is_file(path):
        return f"there is no file {location[:200]!r} beside the model", {}
    size = path.stat().st_size
    if offset < 0 or (length is not None and length < 0):
        return "its offset or length is negative", {"file_bytes": size}
    if need is not None and length is not None and length != need:
        return f"its length is {length:,} bytes and its shape needs {need:,}", {"file_bytes": size}
    end = offset + max(length or 0, need or 0)
    if end > size:
        return f"it ends at byte {end:,} of {location[:200]!r}, which has {size:,}", {"file_bytes": size}
    return None


@check(
    "X03",
    "error",
    "over 2 GB in one file",
    needs=Need.FILE,
    what="Looks at the size of the model file.",
    why="Protobuf reads no message over 2 GB: nothing opens such a file.",
    remedy="Save the weights as external data: onnxviz.save_model(model, path, external_data=True).",
    false_positives="None.",
)
def too_large(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield a file that no protobuf reads."""
    assert subject.path is not None
    size = subject.path.stat().st_size
    if size > PROTOBUF_LIMIT:
        message = f"the file has {size:,} bytes, and protobuf reads {PROTOBUF_LIMIT:,}"
        yield Problem(message, [Place("file", subject.path.name)], {"bytes": size, "limit": PROTOBUF_LIMIT})
    yield {"bytes": size}


_ROOTS = (
    "home|Users|root|mnt|tmp|work|workspace|scratch|private|var|opt|srv|data|content|kaggle|gpfs|nfs|lustre|Volumes"
)
_PATH = re.compile(
    rf"(?:(?<![\w./:-])|(?<=\bfile://))/(?:{_ROOTS})/[^\s\"'<>|,;:()\[\]{{}}]+"
    r"|\b[A-Za-z]:(?:\\|/(?!/))[^\s\"'<>|,;:()]+"
)
_USER = re.compile(r"/(?:home|[Uu]sers)/([^/\s]+)|[A-Za-z]:[\\/]Users[\\/]([^\\/\s]+)")
_NOBODY = frozenset({"runner", "user", "ubuntu", "root", "app", "appuser", "work", "jovyan", "Public", "default"})


@check(
    "X04",
    "warning",
    "machine paths and user names in metadata",
    needs=Need.PROTO,
    what="Searches metadata and documentation strings, of the model and of its nodes, for paths of the machine that "
    "it was made on, and for the user names in them.",
    why="It tells strangers how your machines are set up and who works there, and makes equal exports differ.",
    remedy="Remove these entries; `onnxviz check --fix` does. Exporters write stack traces only on request, or can be "
    "told not to.",
    false_positives="A path may be meant as documentation.",
)
def machine_paths(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield one problem for each kind of entry that holds paths."""
    found: dict[str, list[str]] = defaultdict(list)
    searched = 0
    for key, text in metadata_texts(subject.proto):
        searched += 1
        found[key] += machine_paths_in(text)
    for key, paths in found.items():
        if paths:
            users = sorted({name for path in paths if (name := user_of(path))})
            common = [path for path, _ in Counter(paths).most_common(5)]
            who = f" of {listed(users)}" if users else ""
            evidence = {"paths": len(paths), "different": len(set(paths)), "users": users, "examples": common}
            message = f"{counted(len(set(paths)), 'path')}{who}, such as {common[0]}"
            yield Problem(message, [Place("metadata", key)], evidence)
    yield {"texts": searched}


def metadata_texts(proto: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Yield what a file says about itself: what kind of entry it is, and its text."""
    yield from (("doc_string of the model", proto.doc_string), ("doc_string of the graph", proto.graph.doc_string))
    yield from ((entry.key, entry.value) for entry in proto.metadata_props)
    graphs: list[onnx.GraphProto] = [proto.graph]
    while graphs:
        graph = graphs.pop()
        yield from ((f"{entry.key} of a graph", entry.value) for entry in graph.metadata_props)
        graphs += yield from _node_texts(graph.node)
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield "doc_string of a tensor", info.doc_string
            yield from ((f"{entry.key} of a tensor", entry.value) for entry in info.metadata_props)
        for tensor in graph.initializer:
            yield "doc_string of a weight", tensor.doc_string
    for function in proto.functions:
        yield "doc_string of a function", function.doc_string
        yield from ((f"{entry.key} of a function", entry.value) for entry in function.metadata_props)
        yield from _node_texts(function.node)


def _node_texts(nodes: Iterable[onnx.NodeProto]) -> Generator[tuple[str, str], None, list[onnx.GraphProto]]:
    bodies: list[onnx.GraphProto] = []
    for node in nodes:
        if node.doc_string:
            yield "doc_string of nodes", node.doc_string
        for entry in node.metadata_props:
            yield f"{entry.key} of nodes", entry.value
        for attribute in node.attribute:
            bodies += [attribute.g] if attribute.HasField("g") else []
            bodies += attribute.graphs
    return bodies


def machine_paths_in(text: str) -> list[str]:
    """Return the paths of a machine that a text holds.

    >>> machine_paths_in('File "/home/ann/net.py", line 3; see https://x.org/home/page')
    ['/home/ann/net.py']
    """
    return [path.rstrip(".") for path in _PATH.findall(text)] if "/" in text or "\\" in text else []


def user_of(path: str) -> str:
    """Return the name of the user that a path belongs to; empty if it tells none.

    >>> user_of("/home/ann/net.py"), user_of("/opt/net.py")
    ('ann', '')
    """
    found = _USER.search(path)
    name = (found[1] or found[2]) if found else ""
    return "" if name in _NOBODY else name
