"""Sizes of pools that round up, where onnx's inference counts a window that no runtime computes.

A window that would begin behind the tensor and its pads before is left out: the standard says so since opset 22, and
runtimes do in every version, but onnx's inference of earlier ones counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

__all__ = ["correct_ceiled", "floored_pads", "forget_shapes", "round_down"]

_POOLS = {"AveragePool", "LpPool", "MaxPool"}
_SETTLED = 22  # the opset whose inference leaves such a window out


def floored_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> list[int] | None:
    """Return the pads with which a pool that rounds down has the windows of one that rounds up.

    None where no window is left out, so that inference is right as it is.

    >>> floored_pads([9], [1], [3], [2], [0, 0])  # of 4 windows, at 0, 3, 6 and 9, the last begins behind
    [0, 0]
    >>> floored_pads([5], [2], [2], [1], [0, 0])  # of 3, the last hangs over by one and stays
    """
    rank, made, left_out = len(sizes), list(pads), False
    for axis, (size, step) in enumerate(zip(sizes, strides, strict=True)):
        span = size + pads[axis] + pads[axis + rank] - (kernel[axis] - 1) * dilations[axis] - 1
        last = -(-span // step) * step
        if span % step and last >= size + pads[axis]:
            left_out = True
        else:
            made[axis + rank] += last - span
    return made if left_out else None


def correct_ceiled(skeleton: onnx.ModelProto, inferred: onnx.ModelProto) -> bool:
    """Rewrite the first pool whose inferred sizes count too many windows, so that inference finds the true ones.

    The result has the true shapes, not the true numbers; what lies behind the pool has to be inferred anew.

    Args:
        skeleton: What is inferred from; changed in place.
        inferred: What inference made of it.

    Returns:
        Whether there was one.
    """
    pools = [node for node in skeleton.graph.node if node.op_type in _POOLS and node.input]
    opset = next((entry.version for entry in skeleton.opset_import if not entry.domain), 0)
    if not pools or opset >= _SETTLED:
        return False
    infos = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}
    for node in pools:
        try:
            given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        except ValueError:  # of a damaged model
            continue
        if (pads := _pads(given, shapes.get(node.input[0], [])[2:])) is not None:
            kept = [attribute for attribute in node.attribute if attribute.name not in ("ceil_mode", "pads")]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])
            forget_shapes(skeleton)  # an exporter or a conversion may have believed the same
            return True
    return False


def forget_shapes(model: onnx.ModelProto) -> None:
    """Remove what is declared of the shapes of intermediate tensors, in place; those of weights stay."""
    made = {name for node in model.graph.node for name in node.output}
    for info in model.graph.value_info:
        if info.name in made:
            info.type.tensor_type.ClearField("shape")


def round_down(model: ir.Model) -> None:
    """Let pools round down, in place, where that gives the same numbers and what rounds up misleads inference.

    Runtimes infer, too, and refuse what contradicts their inference. Models of opset 22 or later, open sizes, and what
    cannot be written so (an average that counts pads) stay as they are.
    """
    if model.opset_imports.get("", _SETTLED) >= _SETTLED:
        return
    for node in model.graph.all_nodes():
        if node.op_type not in _POOLS or node.domain not in ("", "ai.onnx") or not node.inputs:
            continue
        given = {name: attribute.value for name, attribute in node.attributes.items() if not attribute.is_ref()}
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        sizes = [size if isinstance(size, int) else 0 for size in shape[2:]] if shape is not None else []
        if (pads := _pads(given, sizes)) is None:
            continue
        same = pads == list(given.get("pads", pads)) or not given.get("count_include_pad", 0)
        if same and all(pad < size for pad, size in zip(pads, [*given["kernel_shape"]] * 2, strict=True)):
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
            node.attributes.pop("ceil_mode")


def _pads(given: Mapping[str, object], sizes: Sequence[int]) -> list[int] | None:
    """Return the pads of a pool with those attributes where it has to be rewritten."""
    rank = len(sizes)
    if given.get("ceil_mode") != 1 or given.get("auto_pad") not in (None, "NOTSET", b"NOTSET"):
        return None
    lists = [given.get(name) or default for name, default in (
        ("kernel_shape", []), ("strides", [1] * rank), ("dilations", [1] * rank), ("pads", [0] * (2 * rank)),
    )]  # fmt: skip
    if not rank or min(sizes) < 1 or any(not isinstance(one, Sequence) for one in lists):
        return None
    kernel, strides, dilations, pads = ([int(number) for number in one] for one in lists)  # type: ignore[attr-defined]
    if not len(kernel) == len(strides) == len(dilations) == rank == len(pads) / 2 or min(strides) < 1:
        return None
    return floored_pads(sizes, kernel, strides, dilations, pads)
