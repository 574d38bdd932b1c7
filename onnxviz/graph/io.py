"""Opening and saving ONNX files.

A file is untrusted: it is parsed without loading its weights, and its external data must lie in the model's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import google.protobuf.message
import onnx
import onnx_ir as ir

from onnxviz.errors import ModelError, OutputError
from onnxviz.graph.files import atomic_folder
from onnxviz.graph.mapped import map_weights
from onnxviz.graph.model import INLINE_LIMIT, copy_model, from_proto, summary_line, to_proto, weight_bytes

__all__ = ["PROTOBUF_LIMIT", "as_model", "check_external_data", "external_tensors", "open_model", "save_model"]

#: Largest message that protobuf reads or writes, in bytes.
PROTOBUF_LIMIT = 2**31 - 1

_FOREIGN = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model", "run `git lfs pull`"),
    (b"PK\x03\x04", "is a zip archive (PyTorch or Keras?), not ONNX", "convert it with `onnxviz convert`"),
    (b"\x89HDF", "is an HDF5 file (Keras?), not ONNX", "convert it with `onnxviz convert`"),
    (b"<", "is HTML or XML, not ONNX", "download the file itself, not the page around it"),
    (b"{", "is JSON, not ONNX", "give the binary .onnx file"),
)


def open_model(path: str | os.PathLike[str]) -> ir.Model:
    """Open an ONNX file without loading its external weights.

    Args:
        path: A binary ``.onnx`` file.

    Returns:
        The model. External tensors are memory-mapped when they are first read, and so are the weights inside a file
        of 16 MB or more (except on Windows): if that file is changed afterwards, reading them is a ModelError.
        ``model.meta["path"]`` holds the path.

    Raises:
        ModelError: The file is missing, empty, truncated, not ONNX, larger than protobuf's 2 GB, of an IR version or
            opset newer than the installed onnx knows, or names external data outside its folder.

    >>> import tempfile
    >>> from onnx import parser, save
    >>> path = tempfile.mkdtemp() + "/net.onnx"
    >>> save(parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Relu(x)}'),
    ...      path)
    >>> open_model(path).graph.num_nodes()
    1
    """
    path = Path(path)
    weights = map_weights(path)
    model = _model(path, _read(path) if weights is None else weights.rest)
    if weights is not None and not weights.attach(model):
        model = _model(path, _read(path))
    model.meta["path"] = str(path)
    _confine_external_data(model, path)
    return model


def _model(path: Path, data: bytes) -> ir.Model:
    proto = _parse(path, data)
    _check_versions(path, proto)
    return from_proto(proto, str(path))


def as_model(model: ir.Model | str | os.PathLike[str]) -> ir.Model:
    """Return a model as it is, or open the file that a path names; see :func:`open_model`."""
    return model if isinstance(model, ir.Model) else open_model(model)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not a model", hint="name an .onnx file")
        size = path.stat().st_size
        if size > PROTOBUF_LIMIT:
            raise ModelError(
                f"{path} is {size / 1e9:.1f} GB, over protobuf's limit of 2 GB",
                hint="save its weights as external data",
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise ModelError(f"{path} is empty", hint="export or download it again")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    for magic, what, hint in _FOREIGN:
        if data.lstrip()[: len(magic)] == magic:
            raise ModelError(f"{path} {what}", hint=hint)
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except google.protobuf.message.DecodeError as error:
        raise ModelError(
            f"{path} is not an ONNX model, or it is truncated", hint="export or download it again"
        ) from error
    if not proto.HasField("graph"):
        raise ModelError(f"{path} is not an ONNX model: it holds no graph", hint="export or download it again")
    return proto


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    upgrade = "upgrade onnx and onnxruntime, or export for an older opset"
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path} has IR version {proto.ir_version}, newer than {onnx.IR_VERSION}, the newest that onnx "
            f"{onnx.__version__} knows",
            hint=upgrade,
        )
    if proto.ir_version < 1:
        raise ModelError(f"{path} has IR version {proto.ir_version}: not an ONNX model, or a damaged one")
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(
                f"{path} needs opset {opset.version}, newer than the {newest} that onnx {onnx.__version__} knows",
                hint=upgrade,
            )
        if opset.domain in ("", "ai.onnx") and opset.version < 1:
            raise ModelError(f"{path} declares opset {opset.version}, which does not exist")
    if not proto.opset_import:  # IR 1 and 2 had no opsets: their operators are those of opset 1
        proto.opset_import.add(domain="", version=1)


def external_tensors(model: ir.Model) -> Iterator[tuple[ir.Value | None, ir.ExternalTensor]]:
    """Yield every external tensor with the initializer that holds it (None for one inside an attribute).

    Bodies of nodes and of model-local functions are searched too.
    """
    for graph in _graphs(model):
        if not isinstance(graph, ir.Function):
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    yield value, value.const_value
        for node in graph:
            for _, tensor in _external_attributes(node):
                yield None, tensor


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield model.graph
    yield from model.graph.subgraphs()
    for function in model.functions.values():
        yield function
        yield from function.subgraphs()


def _external_attributes(node: ir.Node) -> Iterator[tuple[str, ir.ExternalTensor]]:
    for name, attribute in node.attributes.items():
        if attribute.is_ref() or attribute.type not in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
            continue
        tensors = [attribute.value] if attribute.type == ir.AttributeType.TENSOR else attribute.value
        for tensor in tensors:
            if isinstance(tensor, ir.ExternalTensor):
                yield name, tensor


def _confine_external_data(model: ir.Model, path: Path) -> None:
    """Tie external tensors to the model's folder, and refuse those that leave it.

    A link is followed where it ends in the model's own folder or in the folder where the model itself ends: a download
    cache keeps the files of one model as links into one folder.
    """
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - not resolved: links are judged below
    homes = {Path(os.path.realpath(folder)), Path(os.path.realpath(path)).parent}
    for value, tensor in list(external_tensors(model)):
        location = os.fspath(tensor.location)
        what = f"{path}: the external data of {tensor.name!r} at {location!r}"
        if not location or "\0" in location:
            raise ModelError(f"{what} names no file")
        lexical = Path(os.path.normpath(folder / location))
        if Path(location).is_absolute() or "\\" in location or ":" in location or folder not in lexical.parents:
            raise ModelError(f"{what} is outside the model's folder", hint="only files beside the model are read")
        real = Path(os.path.realpath(lexical))
        if not any(home in real.parents for home in homes):
            raise ModelError(f"{what} is a link out of the model's folder", hint="only files beside the model are read")
        if real == lexical or homes == {Path(os.path.realpath(folder))} or value is None:
            tensor.base_dir = str(folder)
        else:
            value.const_value = ir.ExternalTensor(
                real.name,
                tensor.offset,
                tensor.length,
                tensor.dtype,
                shape=tensor.shape,
                name=tensor.name,
                base_dir=str(real.parent),
            )


def check_external_data(model: ir.Model) -> None:
    """Check that every external weight file is there and long enough.

    Raises:
        ModelError: One is missing or too short; the text names it.
    """
    for _, tensor in external_tensors(model):
        path = Path(tensor.path)
        need = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        try:
            size = path.stat().st_size
        except OSError as error:
            name = Path(tensor.location).name
            raise ModelError(
                f"the weights of {tensor.name!r} are missing: there is no file {name} beside the model",
                hint="copy it next to the .onnx file",
            ) from error
        if size < need:
            raise ModelError(
                f"the weight file {path.name} is too short for {tensor.name!r}: {size:,} of {need:,} bytes"
            )


def save_model(model: ir.Model, path: str | os.PathLike[str], *, external_data: bool | None = None) -> None:
    """Write a model; the file appears whole or not at all.

    External weights that already lie in the target's folder stay where they are and are referred to; others are copied
    tensor by tensor into ``<name>.data`` beside the model, so a model of any size is written in little memory.

    Args:
        model: The model; it is not changed.
        path: The file to write.
        external_data: Put all weights into ``<name>.data``. By default only where they are external
            already or pass 1.8 GB (protobuf's limit is 2 GB).

    Raises:
        OutputError: The folder does not exist or cannot be written.
        ModelError: An external weight file is missing or too short.

    >>> import tempfile
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Relu(x)}'
    >>> save_model(ir.from_onnx_text(text), tempfile.mkdtemp() + "/net.onnx")
    """
    path = Path(path)
    home = Path(os.path.realpath(path.parent))
    elsewhere = any(
        Path(t.location).name != os.fspath(t.location) or Path(os.path.realpath(os.fspath(t.base_dir))) != home
        for _, t in external_tensors(model)
    )
    if external_data is None:
        external_data = elsewhere or weight_bytes(model) > INLINE_LIMIT
    check_external_data(model)
    with atomic_folder(path) as folder:
        try:
            if external_data:
                model = copy_model(model)
                _embed_attributes(model)
                model = ir.external_data.unload_from_model(model, folder, f"{path.name}.data", size_threshold_bytes=256)
            (folder / path.name).write_bytes(to_proto(model).SerializeToString())
        except (FileNotFoundError, ValueError) as error:
            raise ModelError(f"cannot read the model's external weights: {summary_line(error)}") from error
        except google.protobuf.message.EncodeError as error:
            raise OutputError(f"cannot write {path}: the graph alone passes protobuf's limit of 2 GB") from error


def _embed_attributes(model: ir.Model) -> None:
    """Bring tensors that attributes hold outside into the model: only initializers can move to another data file."""
    for graph in _graphs(model):
        for node in graph:
            for name, tensor in list(_external_attributes(node)):
                if node.attributes[name].type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, ir.Tensor(tensor.numpy().copy(), name=tensor.name))
