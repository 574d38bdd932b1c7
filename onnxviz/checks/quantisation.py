"""Checks of quantised models: Q02, Q03."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.checks.finding import Problem, place_of, tensor_place
from onnxviz.checks.quantised_error import clipped_activations
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import counted, listed
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.shapes import shape_list

Floats = npt.NDArray[np.float64]
#: Operator -> the inputs that are scales; the zero point of each is the next input.
SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7), "QLinearAdd": (1, 4, 6), "QLinearMul": (1, 4, 6), "QLinearAveragePool": (1, 3),
    "QLinearGlobalAveragePool": (1, 3), "QLinearSigmoid": (1, 3), "QLinearLeakyRelu": (1, 3), "QLinearSoftmax": (1, 3),
}  # fmt: skip
#: Operator -> the input that holds a constant weight's codes; its scale is the next one.
_CODES = {"DequantizeLinear": 0, "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
#: Operator -> the input that holds a constant weight's codes; how many scales they have is said elsewhere, or nowhere.
_BARE_CODES = dict.fromkeys(("MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), 1)
_LEAST = 256  # codes from which a share of them says something
_CLIPPED = 0.05  # share of codes at an end of their range, beyond one a channel
_SUBNORMAL = float(np.finfo(np.float32).tiny)


@check(
    "Q02",
    "warning",
    "bad scale, zero point or clipping",
    needs=Need.MODEL,
    what="Looks at the constants of quantisation: scales that are not above 0, not finite or subnormal, scales and "
    "zero points of different lengths or other than the channels; weights with more than 5 % of their codes at the "
    "ends of the range; biases whose scale is not that of input times weight. Unless --static was given, runs it and "
    "counts the activations that lie outside of what their codes can say (more than 5 %).",
    why="A scale of 0 or NaN spoils a layer; clipped weights lose their largest values; integer kernels take a bias "
    "to be in the scale of input times weight, whatever its own says.",
    remedy="Quantise again, with calibration data like the real inputs and per-channel scales.",
    false_positives="Pruned or binary weights lie at the ends of their range by design. A scale that is not above 0, "
    "not finite, or of a wrong length is an error, the rest are warnings.",
)
def scales(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield what is wrong with the constants of quantisation."""
    looked = 0
    for node in subject.inferred.graph.all_nodes():
        for index in SCALES.get(node.op_type, ()):
            scale = _numbers(node, index)
            if scale is None:
                continue
            looked += 1
            yield from _scale_problems(node, index, scale)
        codes = (_CODES | _BARE_CODES).get(node.op_type)
        if codes is not None and codes < len(node.inputs):
            yield from _clipped(node, codes)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            yield from _bias_scale(node)
    yield {"scales": looked}
    if not subject.options.static:
        yield from clipped_activations(subject)


def _numbers(node: ir.Node, index: int) -> Floats | None:
    """Return a constant input as an array; None where it has none."""
    tensor = constant_tensor(node.inputs[index]) if index < len(node.inputs) else None
    if tensor is None:
        return None
    return np.asarray(read_array(tensor), np.float64)


def _scale_problems(node: ir.Node, index: int, scale: Floats) -> Iterator[Problem]:
    value = node.inputs[index]
    places = [place_of(node), tensor_place(value.name if value is not None else "")]
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(scale) | (scale <= 0)
    evidence: dict[str, Any] = {
        "scales": scale.size,
        "min": float(scale.min(initial=np.inf)),
        "max": float(scale.max(initial=-np.inf)),
    }
    if bad.any():
        message = f"{int(bad.sum())} of {scale.size} scales are not above 0 and finite"
        yield Problem(message, places, {**evidence, "bad": int(bad.sum())}, severity="error", key="scale")
    elif (scale < _SUBNORMAL).any():
        yield Problem(f"a scale is subnormal: {float(scale.min()):.3g}", places, evidence, key="subnormal")
    zero = _numbers(node, index + 1) if node.op_type != "QGemm" or index != 7 else None
    if zero is not None and zero.shape != scale.shape and zero.size > 1:
        message = f"scale and zero point have shapes {list(scale.shape)} and {list(zero.shape)}"
        yield Problem(
            message, places, {"scale": list(scale.shape), "zero_point": list(zero.shape)}, severity="error", key="shape"
        )
    channels = _channels(node, index)
    if scale.ndim == 1 and scale.size > 1 and channels is not None and scale.size != channels:
        message = f"there are {scale.size} scales for {channels} channels"
        yield Problem(message, places, {"scales": scale.size, "channels": channels}, severity="error", key="channels")


def _channels(node: ir.Node, index: int) -> int | None:
    """Return how many channels a scale of several elements belongs to; None where that is not known."""
    if node.attributes.get_int("block_size", 0):
        return None
    at, axis = (0, node.attributes.get_int("axis", 1)) if node.op_type.endswith("eLinear") else (None, 0)
    if node.op_type == "QLinearConv" and index == 4:
        at, axis = 3, 0
    value = node.inputs[at] if at is not None and at < len(node.inputs) else None
    shape = None if value is None else shape_list(value)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _clipped(node: ir.Node, index: int) -> Iterator[Problem]:
    value = node.inputs[index]
    tensor = constant_tensor(value)
    if (
        value is None
        or tensor is None
        or tensor.size < _LEAST
        or not tensor.dtype.is_integer()
        or tensor.dtype.bitwidth > 8
    ):
        return
    codes = read_array(tensor).astype(np.int16)
    low, high = int(tensor.dtype.min), int(tensor.dtype.max)
    lowest = low + 1 if low < 0 and not (codes == low).any() else low  # symmetric: -127 to 127
    scale = _numbers(node, index + 1) if node.op_type in _CODES else None
    channels = max(codes.shape) if node.op_type in _BARE_CODES else 1 if scale is None else scale.size
    clipped = int(((codes == lowest) | (codes == high)).sum()) - channels
    share = clipped / codes.size
    if tensor.dtype.bitwidth == 8 and share > _CLIPPED:
        evidence = {"clipped": clipped, "of": int(codes.size), "range": [lowest, high]}
        yield Problem(
            f"{share:.1%} of its codes are at the ends of their range",
            [tensor_place(value.name), place_of(node)],
            evidence,
            key="clipped",
        )


def _bias_scale(node: ir.Node) -> Iterator[Problem]:
    """Compare the scale of an int32 bias with that of input times weight."""
    if len(node.inputs) < 3:
        return
    sources = [value.producer() if value is not None else None for value in node.inputs[:3]]
    if any(source is None or source.op_type != "DequantizeLinear" for source in sources):
        return
    x, w, b = (_numbers(source, 1) for source in sources if source is not None)
    if x is None or w is None or b is None or x.size != 1 or (w.size not in (1, b.size) and b.size != 1):
        return
    expected = x.reshape(-1) * w.reshape(-1)
    with np.errstate(all="ignore"):
        off = float(np.nanmax(np.abs(b.reshape(-1) / expected - 1), initial=0.0))
    if off > 1e-2:
        assert sources[2] is not None
        message = f"the scale of its bias differs by {off:.1%} from that of input times weight"
        yield Problem(message, [place_of(node), place_of(sources[2])], {"relative_difference": off}, key="bias")


@check(
    "Q03",
    "warning",
    "quantised layers that run in float",
    needs=Need.MODEL | Need.SESSION,
    what="Lets onnxruntime optimise a model with QuantizeLinear and DequantizeLinear, and looks in the result for "
    "convolutions and matrix products that still read what was just dequantised.",
    why="Such a layer pays for the conversion and computes in float: slower than before quantisation.",
    remedy="Quantise input, weight and output of the layer, with the types that the provider has kernels for (on x86 "
    "CPUs: uint8 activations, int8 weights).",
    false_positives="It holds for the providers asked for on this machine. Layers left in float on purpose, for "
    "accuracy, should have no DequantizeLinear before them.",
)
def not_fused(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the layers that quantisation missed."""
    pairs = [n for n in subject.inlined.graph.all_nodes() if n.op_type == "DequantizeLinear"]
    yield {"dequantize_nodes": len(pairs)}
    if not pairs:
        return
    from onnxviz.runtime.production import optimized_model

    providers = subject.providers or ("cpu",)
    optimized = optimized_model(subject.model, providers, op_library=subject.options.op_library)
    layers = [
        n
        for n in optimized.graph.all_nodes()
        if n.op_type in ("Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul", "FusedGemm")
    ]
    slow = [node for node in layers if _reads_dequantised(node)]
    if slow:
        kinds = [f"{count} {kind}" for kind, count in Counter(n.op_type for n in slow).most_common()]
        fused = sum(
            n.op_type in ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat")
            for n in optimized.graph.all_nodes()
        )
        evidence = {"in_float": len(slow), "in_integers": fused, "provider": list(providers)}
        yield Problem(
            f"{counted(len(slow), 'layer')} dequantised and run in float: {listed(kinds)}",
            [place_of(n) for n in slow[:8]],
            evidence,
        )


def _reads_dequantised(node: ir.Node) -> bool:
    sources = [value.producer() for value in node.inputs[:2] if value is not None]
    return any(source is not None and source.op_type == "DequantizeLinear" for source in sources)
