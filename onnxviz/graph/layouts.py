"""Which axis of an activation holds the channels."""

from __future__ import annotations

from collections import deque

import onnx_ir as ir

from onnxviz.graph.kinds import KINDS

__all__ = ["input_layout", "tensor_layouts"]

_CHANNELS_FIRST = (
    (
        KINDS["conv"]
        | KINDS["pool"]
        | {"BatchNormalization", "InstanceNormalization", "LRN", "DepthToSpace", "SpaceToDepth"}
    )
    - {op for kind in ("conv", "pool") for op in KINDS[kind] if op.startswith("Nhwc")}
    - {"MaxRoiPool", "RoiAlign", "Im2Col"}
)
_CHANNELS_LAST = {"NhwcConv", "NhwcFusedConv", "NhwcMaxPool", "GroupNorm"}
_SAME = KINDS["activation"] | KINDS["elementwise"] | KINDS["quantize"] | {
    "Identity", "Cast", "Dropout", "Pad", "Resize", "Upsample", "Concat", "ImageScaler", "Slice", "Crop",
    "QLinearConcat",
}  # fmt: skip

_MEANS = {"ReduceMean", "Squeeze", "Reshape", "Identity", "Cast"}


def _rank(value: ir.Value) -> int | None:
    return value.shape.rank() if value.shape is not None else None


def _permuted(layout: str, perm: tuple[int, ...]) -> str | None:
    rank = len(perm)
    last_to_first = (0, rank - 1, *range(1, rank - 1))
    first_to_last = (0, *range(2, rank), 1)
    if layout == "NHWC" and perm == last_to_first:
        return "NCHW"
    if layout == "NCHW" and perm == first_to_last:
        return "NHWC"
    return layout if perm == tuple(range(rank)) else None


def tensor_layouts(model: ir.Model) -> dict[str, str]:
    """Return ``"NCHW"`` (channels second) or ``"NHWC"`` (channels last) for the activations where the graph tells.

    Convolution and pooling fix it; transposes swap it; operators that work element by element carry it on, forwards
    and backwards. The names stand for any number of spatial axes: (N, C, L) reads as NCHW too.

    Args:
        model: A model with inferred shapes; it is not changed.

    >>> from onnxviz.graph.shapes import infer_shapes
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 8, 8, 3] x) => (float[1, 4, 6, 6] y) <float[4, 3, 3, 3] w>
    ...   {t = Transpose<perm = [0, 3, 1, 2]>(x) y = Conv(t, w)}''')
    >>> tensor_layouts(infer_shapes(model))
    {'x': 'NHWC', 't': 'NCHW', 'y': 'NCHW'}
    """
    layouts: dict[ir.Value, str] = {}
    queue: deque[ir.Value] = deque()

    def mark(value: ir.Value | None, layout: str | None) -> None:
        if value is None or layout is None or value in layouts or value.is_initializer():
            return
        if (_rank(value) or 4) not in (3, 4, 5):
            return
        layouts[value] = layout
        queue.append(value)

    for node in model.graph:
        first = node.op_type in _CHANNELS_FIRST and not _is_layer_norm(node)
        fixed = "NCHW" if first else "NHWC" if node.op_type in _CHANNELS_LAST else None
        if fixed and node.inputs:
            mark(node.inputs[0], fixed)
            mark(node.outputs[0], fixed)
    while queue:
        value = queue.popleft()
        for around in (value.producer(), *value.consumers()):
            if around is not None:
                for neighbour, layout in _spread(around, value, layouts[value]):
                    mark(neighbour, layout)
    order = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return {str(value.name): layouts[value] for value in order if value in layouts and value.name}


def _is_layer_norm(node: ir.Node) -> bool:
    """Whether a BatchNormalization gets its mean from its input: so Keras writes a LayerNormalization, of any axes."""
    mean = node.inputs[3] if node.op_type == "BatchNormalization" and len(node.inputs) > 3 else None
    while mean is not None and (maker := mean.producer()) is not None and maker.op_type in _MEANS:
        if maker.op_type == "ReduceMean":
            return True
        mean = maker.inputs[0]
    return False


def _spread(node: ir.Node, value: ir.Value, layout: str) -> list[tuple[ir.Value | None, str | None]]:
    """Return what a node with one tensor of known layout says about its others."""
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm", ())
        if value is node.inputs[0]:
            return [(node.outputs[0], _permuted(layout, tuple(perm)))]
        backwards = tuple(sorted(range(len(perm)), key=perm.__getitem__))
        return [(node.inputs[0], _permuted(layout, backwards))]
    if node.op_type == "Reshape" and value is node.inputs[0]:
        return [(one, "NCHW") for one in _grouped(node, value)]
    if node.op_type not in _SAME:
        return []
    rank = _rank(value)
    others = [v for v in (*node.inputs, *node.outputs[:1]) if v is not None and v is not value]
    return [(v, layout) for v in others if rank is not None and _rank(v) == rank]


def _grouped(node: ir.Node, value: ir.Value) -> list[ir.Value]:
    """Return both ends of a group normalisation, written as an instance normalisation between two Reshapes."""
    norm = value.producer()
    inner = norm.inputs[0] if norm is not None and norm.op_type == "InstanceNormalization" else None
    before = None if inner is None else inner.producer()
    outer = before.inputs[0] if before is not None and before.op_type == "Reshape" else None
    if outer is None or outer.shape is None or outer.shape != node.outputs[0].shape:
        return []
    return [outer, node.outputs[0]]


def input_layout(model: ir.Model, value: ir.Value, layouts: dict[str, str] | None = None) -> str | None:
    """Return the layout of a picture input: what the graph tells, else what its sizes tell, else None.

    A channel axis has 1, 3 or 4 entries.
    """
    layouts = tensor_layouts(model) if layouts is None else layouts
    rank = _rank(value)
    if value.shape is None or rank not in (3, 4):
        return None
    first, last = value.shape[rank - 3], value.shape[rank - 1]
    first_fits, last_fits = first in (1, 3, 4), last in (1, 3, 4)
    if rank == 4 and (told := layouts.get(str(value.name))):
        return told
    if first_fits != last_fits:
        return ("NCHW" if first_fits else "NHWC")[4 - rank :]
    return "NCHW"[4 - rank :] if first_fits or not isinstance(first, int) else None
