"""Random networks, written twice at once: as ONNX nodes of a chosen opset, and as PyTorch operations in double."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Net", "random_net"]

Pads = tuple[list[int], list[int]]


class Net:
    """A graph that grows, together with the value of each of its tensors.

    Args:
        seed: Of every choice.
        opset: What the nodes are written in.
        symbolic: Whether the sizes of the inputs are left open.
    """

    def __init__(self, seed: int, opset: int, *, symbolic: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset, self.symbolic = opset, symbolic
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.feeds: dict[str, np.ndarray] = {}
        self.values: dict[str, torch.Tensor] = {}
        self.asked: list[str] = []
        self.made: list[str] = []

    # writing

    def entry(self, name: str, shape: Sequence[int]) -> str:
        """Add an input of the model."""
        array = self.numbers(shape)
        sizes: list[int | str] = [f"{name}_{i}" if self.symbolic and i != 1 else n for i, n in enumerate(shape)]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
        self.feeds[name] = array
        return self._leaf(name, array)

    def weight(self, shape: Sequence[int], scale: float = 1.0, shift: float = 0.0) -> str:
        """Add a weight whose gradient is asked for."""
        name = f"w{len(self.weights)}"
        self.weights[name] = array = (self.numbers(shape) * np.float32(scale) + np.float32(shift)).astype(np.float32)
        return self._leaf(name, array)

    def _leaf(self, name: str, array: np.ndarray) -> str:
        self.values[name] = torch.tensor(array, dtype=torch.float64, requires_grad=True)
        self.asked.append(name)
        return name

    def constant(self, array: Any, dtype: Any = np.int64) -> str:
        """Add a weight that has no gradient."""
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(array, dtype)
        return name

    def node(self, op_type: str, inputs: Sequence[str], value: torch.Tensor, **attributes: Any) -> str:
        """Add a node that computes a value."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        value.retain_grad() if value.requires_grad else None
        self.values[name] = value
        self.made.append(name)
        return name

    def axes_node(self, op_type: str, x: str, axes: list[int], value: torch.Tensor, since: int, **more: Any) -> str:
        """Add a node whose axes are an input since some opset and an attribute before."""
        if self.opset >= since:
            return self.node(op_type, [x, self.constant(axes)], value, **more)
        return self.node(op_type, [x], value, axes=axes, **more)

    # choosing

    def numbers(self, shape: Sequence[int]) -> np.ndarray:
        return self.rng.normal(size=tuple(shape)).astype(np.float32)

    def one_of(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, low: int, high: int) -> int:
        """A whole number between two, both included."""
        return int(self.rng.integers(low, high + 1))

    def axis(self, x: str) -> int:
        """An axis, counted from either end."""
        rank = self.values[x].dim()
        return self.number(-rank if self.opset >= 13 else 0, rank - 1)

    def model(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """Return the graph as a model."""
        graph = helper.make_graph(
            self.nodes, "net", self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )  # fmt: skip
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8 if self.opset < 19 else 10
        )


def random_net(seed: int, opset: int, *, symbolic: bool, length: int = 7) -> tuple[Net, str]:
    """Return a network and its output.

    >>> net, output = random_net(0, 18, symbolic=False)
    >>> output in net.values
    True
    """
    net = Net(seed, opset, symbolic=symbolic)
    x = net.entry("x", (net.number(1, 2), net.one_of(2, 4), net.number(5, 9), net.number(5, 9)))
    seen = [x]
    for _ in range(length):
        available = [block for since, last, rank, block in BLOCKS if since <= opset <= last
                     and rank in (0, net.values[x].dim())]  # fmt: skip
        made = net.one_of(*available)(net, x)
        if made is None:
            continue
        value = net.values[made]
        if not value.numel() or value.numel() > 20_000 or not torch.isfinite(value).all() or value.abs().max() > 50:
            net.nodes = [node for node in net.nodes if made not in node.output]
            continue
        x = made
        seen.append(x)
    return net, x


# windows


def _window(net: Net, x: str, *, small: bool = False) -> tuple[list[int], list[int], list[int], str]:
    kernel = [net.number(1, 3), net.number(1, 3)]
    auto = net.one_of("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    strides = [net.number(1, k if auto.startswith("SAME") else 3) for k in kernel]  # else onnxruntime fails
    return kernel, strides, [1, 1] if small or auto.startswith("SAME") else [net.number(1, 2), net.number(1, 2)], auto


def _pads(net: Net, sizes: Sequence[int], kernel: list[int], strides: list[int], dil: list[int], auto: str) -> Pads:
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dil, strict=True)]
    if auto == "VALID":
        return [0, 0], [0, 0]
    if auto == "NOTSET":
        most = [min(k - 1, 2) for k in kernel]
        return [net.number(0, m) for m in most], [net.number(0, m) for m in most]
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, strides, extent, strict=True)]
    low = [(t + (auto == "SAME_LOWER")) // 2 for t in totals]
    return low, [t - first for t, first in zip(totals, low, strict=True)]


def _fits(sizes: Sequence[int], pads: Pads, kernel: list[int], dil: list[int]) -> bool:
    return all(
        n + a + b >= (k - 1) * d + 1 for n, a, b, k, d in zip(sizes, *pads, kernel, dil, strict=True)
    )  # fmt: skip


def _around(value: torch.Tensor, pads: Pads, number: float = 0.0) -> torch.Tensor:
    (top, left), (bottom, right) = pads
    return F.pad(value, (left, right, top, bottom), value=number)


def _attributes(strides: list[int], dil: list[int] | None, pads: Pads, auto: str) -> dict[str, Any]:
    given: dict[str, Any] = {"strides": strides}
    if dil is not None:
        given["dilations"] = dil
    if auto == "NOTSET":
        given["pads"] = [*pads[0], *pads[1]]
    else:
        given["auto_pad"] = auto
    return given


def conv(net: Net, x: str) -> str | None:
    value = net.values[x]
    kernel, strides, dil, auto = _window(net, x)
    if auto.startswith("SAME"):
        dil = [1, 1]  # onnxruntime and the standard differ on what is the same then
    pads = _pads(net, value.shape[2:], kernel, strides, dil, auto)
    if not _fits(value.shape[2:], pads, kernel, dil):
        return None
    channels = value.shape[1]
    group = net.one_of(1, channels) if channels > 1 else 1
    outputs = group * net.number(1, 2)
    w, b = net.weight((outputs, channels // group, *kernel), 0.5), net.weight((outputs,))
    made = F.conv2d(_around(value, pads), net.values[w], net.values[b], strides, 0, dil, group)
    return net.node("Conv", [x, w, b], made, group=group, kernel_shape=kernel, **_attributes(strides, dil, pads, auto))


def conv_transpose(net: Net, x: str) -> str | None:
    value = net.values[x]
    kernel, strides, dil, _ = _window(net, x)
    more = [net.number(0, s - 1) for s in strides]
    low, high = ([net.number(0, (k - 1) * d) for k, d in zip(kernel, dil, strict=True)] for _ in range(2))
    channels = value.shape[1]
    group = net.one_of(1, channels) if channels > 1 else 1
    w = net.weight((channels, net.number(1, 2), *kernel), 0.5)
    whole = F.conv_transpose2d(value, net.values[w], None, strides, 0, more, group, dil)
    sizes = [n - a - b for n, a, b in zip(whole.shape[2:], low, high, strict=True)]
    if min(sizes) < 1 or any(m >= max(s, d) for m, s, d in zip(more, strides, dil, strict=True)):
        return None
    made = whole[:, :, low[0] : low[0] + sizes[0], low[1] : low[1] + sizes[1]]
    return net.node(
        "ConvTranspose", [x, w], made, group=group, kernel_shape=kernel, output_padding=more,
        **_attributes(strides, dil, (low, high), "NOTSET"),
    )  # fmt: skip


def _pool(net: Net, x: str, *, dilated: bool) -> tuple[Any, ...] | None:
    value = net.values[x]
    kernel, strides, dil, auto = _window(net, x, small=not dilated)
    sizes = list(value.shape[2:])
    pads = _pads(net, sizes, kernel, strides, dil, auto)
    if not _fits(sizes, pads, kernel, dil):
        return None
    given = {"kernel_shape": kernel, **_attributes(strides, dil if dilated else None, pads, auto)}
    over = [0, 0]
    if auto == "NOTSET" and net.opset >= 10 and net.number(0, 1):
        given["ceil_mode"] = 1
        for i in range(2):
            span = sizes[i] + pads[0][i] + pads[1][i] - (kernel[i] - 1) * dil[i] - 1
            count = -(-span // strides[i]) + 1
            if (count - 1) * strides[i] >= sizes[i] + pads[0][i]:
                count -= 1  # the last window would begin behind the tensor
            over[i] = max((count - 1) * strides[i] - span, 0)
    return value, kernel, strides, dil, pads, over, given


def max_pool(net: Net, x: str) -> str | None:
    if (found := _pool(net, x, dilated=net.opset >= 10)) is None:
        return None
    value, kernel, strides, dil, pads, over, given = found
    apart = value[value != 0]
    if apart.unique().numel() < apart.numel():
        return None  # equal in one precision, they may differ in the other
    ends = [e + o for e, o in zip(pads[1], over, strict=True)]
    made = F.max_pool2d(_around(value, (pads[0], ends), -torch.inf), kernel, strides, 0, dil)
    return net.node("MaxPool", [x], made, **given)


def average_pool(net: Net, x: str) -> str | None:
    if (found := _pool(net, x, dilated=net.opset >= 19)) is None:
        return None
    value, kernel, strides, dil, pads, over, given = found
    padded = net.number(0, 1)
    ones = torch.ones_like(value[:1, :1]).detach()
    inner = _around(ones, pads, float(padded))
    tail: Pads = ([0, 0], over)
    box = torch.ones((1, 1, *kernel), dtype=torch.float64)
    counts = F.conv2d(_around(inner, tail), box, stride=strides, dilation=dil)
    whole = _around(_around(value, pads), tail)
    sums = F.conv2d(whole, box.expand(value.shape[1], 1, *kernel), stride=strides, dilation=dil, groups=value.shape[1])
    return net.node("AveragePool", [x], sums / counts, count_include_pad=padded, **given)


def global_pool(net: Net, x: str) -> str:
    mean = net.number(0, 1)
    value = net.values[x]
    made = value.mean((2, 3), keepdim=True) if mean else F.adaptive_max_pool2d(value, 1)
    return net.node("GlobalAveragePool" if mean else "GlobalMaxPool", [x], made)


# norms


def batch_norm(net: Net, x: str) -> str:
    value, channels = net.values[x], net.values[x].shape[1]
    s, b, m = (net.weight((channels,), shift=shift) for shift in (1, 0, 0))
    v = net.weight((channels,), 0.1, 1.0)
    shape = (1, -1, *[1] * (value.dim() - 2))
    mean, scale = net.values[m].view(shape), (net.values[v] + 1e-3).sqrt().view(shape)
    made = (value - mean) / scale * net.values[s].view(shape) + net.values[b].view(shape)
    return net.node("BatchNormalization", [x, s, b, m, v], made, epsilon=1e-3)


def instance_norm(net: Net, x: str) -> str | None:
    value, channels = net.values[x], net.values[x].shape[1]
    if value.shape[2] * value.shape[3] < 4:
        return None
    s, b = net.weight((channels,), shift=1), net.weight((channels,))
    # by hand: PyTorch 2.13's own is wrong where what comes back is transposed
    middle = value - value.mean((2, 3), keepdim=True)
    scale = net.values[s].view(1, -1, 1, 1) / (middle.square().mean((2, 3), keepdim=True) + 1e-2).sqrt()
    made = middle * scale + net.values[b].view(1, -1, 1, 1)
    return net.node("InstanceNormalization", [x, s, b], made, epsilon=1e-2)


def layer_norm(net: Net, x: str) -> str | None:
    value = net.values[x]
    axis = net.number(1, value.dim() - 1)
    if value[(0,) * axis].numel() < 4:
        return None
    shape = value.shape[axis:]
    s, b = net.weight(shape, shift=1), net.weight(shape)
    made = F.layer_norm(value, shape, net.values[s], net.values[b], 1e-2)
    return net.node("LayerNormalization", [x, s, b], made, epsilon=1e-2, axis=net.one_of(axis, axis - value.dim()))


def lrn(net: Net, x: str) -> str:
    made = F.local_response_norm(net.values[x], 3, 0.3, 0.6, 1.2)
    return net.node("LRN", [x], made, size=3, alpha=0.3, beta=0.6, bias=1.2)


# each element

_EACH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Relu": F.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Softplus": F.softplus, "Softsign": F.softsign,
    "Abs": torch.abs, "Neg": torch.neg, "Elu": F.elu, "Selu": F.selu, "Sin": torch.sin, "Atan": torch.atan,
    "LeakyRelu": lambda v: F.leaky_relu(v, 0.01),
}  # fmt: skip


def activation(net: Net, x: str) -> str:
    name = net.one_of(*_EACH)
    return net.node(name, [x], _EACH[name](net.values[x]))


def clip(net: Net, x: str) -> str:
    low, high = (-0.7, 0.9)
    made = net.values[x].clamp(np.float32(low).item(), np.float32(high).item())
    if net.opset < 11:
        return net.node("Clip", [x], made, min=low, max=high)
    if net.number(0, 1):
        return net.node(
            "Clip", [x, "", net.constant(high, np.float32)], net.values[x].clamp(max=np.float32(high).item())
        )
    return net.node("Clip", [x, net.constant(low, np.float32), net.constant(high, np.float32)], made)


def prelu(net: Net, x: str) -> str:
    value = net.values[x]
    slope = net.weight([net.one_of(1, n) for n in value.shape[1:]])
    return net.node("PRelu", [x, slope], torch.where(value > 0, value, value * net.values[slope]))


def binary(net: Net, x: str) -> str | None:
    """With a weight that is stretched, or that stretches the tensor, or both."""
    name = net.one_of("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
    value = net.values[x]
    shape = [net.one_of(1, n) if n > 1 else net.one_of(1, 3) for n in value.shape][net.number(0, value.dim()) :]
    if net.number(0, 3) == 0:
        shape = [2, *[1] * (value.dim() - len(shape)), *shape] if value.dim() < 4 else shape
    if name in ("Max", "Min") and net.opset < 8:
        return None
    if name == "Pow":
        base = net.node("Abs", [x], value.abs())
        x = base = net.node("Add", [base, net.constant(0.5, np.float32)], net.values[base] + 0.5)
        w = net.weight(shape, 0.3, 1.0)
        return net.node("Pow", [base, w], net.values[base] ** net.values[w])
    w = net.weight(shape, 0.3, 1.5)
    a, b = (x, w) if name == "Div" or net.number(0, 1) else (w, x)
    made: Callable[..., torch.Tensor] = {
        "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Max": torch.maximum,
        "Min": torch.minimum,
    }[name]  # fmt: skip
    return net.node(name, [a, b], made(net.values[a], net.values[b]))


def twice(net: Net, x: str) -> str:
    """Two branches that meet."""
    a, b = activation(net, x), activation(net, x)
    if net.number(0, 1):
        return net.node("Mul", [a, b], net.values[a] * net.values[b])
    return net.node("Sum", [a, b, x], net.values[a] + net.values[b] + net.values[x])


def where(net: Net, x: str) -> str:
    value = net.values[x]
    mask = net.rng.random([net.one_of(1, n) for n in value.shape]) < 0.5
    other = net.weight([net.one_of(1, n) for n in value.shape[1:]])
    made = torch.where(torch.tensor(mask), value, net.values[other])
    return net.node("Where", [net.constant(mask, bool), x, other], made)


# shapes


def transpose(net: Net, x: str) -> str:
    perm = [int(i) for i in net.rng.permutation(net.values[x].dim())]
    return net.node("Transpose", [x], net.values[x].permute(perm), perm=perm)


def concat(net: Net, x: str) -> str:
    axis = net.axis(x) if net.opset >= 11 else net.number(0, net.values[x].dim() - 1)
    other = net.one_of(activation(net, x), x)
    parts = [x, other, x][: net.number(2, 3)]
    return net.node("Concat", parts, torch.cat([net.values[part] for part in parts], axis), axis=axis)


def slices(net: Net, x: str) -> str | None:
    value = net.values[x]
    axes = sorted(int(i) for i in net.rng.permutation(value.dim())[: net.number(1, 2)])
    starts, ends, steps = [], [], []
    for axis in axes:
        size = value.shape[axis]
        step = net.one_of(1, 1, 2, -1, -2) if net.opset >= 10 else 1
        start, end = net.number(-size, size - 1), net.one_of(net.number(-size, size + 3), 10**6)
        if step < 0:
            end = net.one_of(-(10**6), net.number(-size, size))
        starts.append(start)
        ends.append(end)
        steps.append(step)
    made = value
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        kept = _kept(value.shape[axis], start, end, step)
        if not kept:
            return None
        made = made.index_select(axis, torch.tensor(kept))
    signed = [axis if net.number(0, 1) else axis - value.dim() for axis in axes] if net.opset >= 11 else axes
    if net.opset < 10:
        return net.node("Slice", [x], made, axes=axes, starts=starts, ends=ends)
    return net.node("Slice", [x, *(net.constant(given) for given in (starts, ends, signed, steps))], made)


def _kept(size: int, start: int, end: int, step: int) -> list[int]:
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return list(range(min(max(start, 0), size), min(max(end, 0), size), step))
    return list(range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step))


def pad(net: Net, x: str) -> str | None:
    value = net.values[x]
    mode = net.one_of("constant", "reflect", "edge")
    low, high = [0] * value.dim(), [0] * value.dim()
    for axis in net.rng.permutation(value.dim())[:2]:
        most = 2 if mode == "constant" else min(2, value.shape[axis] - 1)
        low[axis], high[axis] = net.number(0, most), net.number(0, most)
        if mode == "constant" and value.shape[axis] > 2:
            low[axis] = net.one_of(-1, low[axis])
    made = value
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        size = value.shape[axis]
        places = np.arange(-before, size + after)
        if mode == "reflect":
            places = np.abs(places)
            places = np.where(places >= size, 2 * (size - 1) - places, places)
        index = torch.tensor(np.clip(places, 0, size - 1))
        made = made.index_select(axis, index)
        if mode == "constant":
            inside = torch.tensor((places >= 0) & (places < size)).view(
                [-1 if i == axis else 1 for i in range(4)][: value.dim()] if value.dim() <= 4 else []
            )
            made = torch.where(inside, made, 0.0)
    if net.opset < 11:
        return net.node("Pad", [x], made, mode=mode, pads=[*low, *high])
    return net.node("Pad", [x, net.constant([*low, *high])], made, mode=mode)


def gather(net: Net, x: str) -> str | None:
    value = net.values[x]
    axis = net.axis(x)
    size = value.shape[axis]
    low = -size if net.opset >= 11 else 0
    shape = net.one_of((), (1,), (3,), (2, 2)) if 1 < value.dim() < 4 else net.one_of((1,), (3,))
    indices = net.rng.integers(low, size, shape)
    flat = value.index_select(axis, torch.tensor(np.atleast_1d(indices % size).reshape(-1)))
    place = axis % value.dim()
    made = flat.reshape(*value.shape[:place], *shape, *value.shape[place + 1 :])
    return net.node("Gather", [x, net.constant(indices, net.one_of(np.int32, np.int64))], made, axis=axis)


def gather_elements(net: Net, x: str) -> str:
    value = net.values[x]
    axis = net.axis(x) % value.dim()
    shape = [n if i != axis else net.number(1, 3) for i, n in enumerate(value.shape)]
    shape = [net.number(1, n) if i != axis else n for i, n in enumerate(shape)]
    size = value.shape[axis]
    indices = net.rng.integers(-size, size, shape)
    made = torch.gather(value, axis, torch.tensor(indices % size))
    return net.node("GatherElements", [x, net.constant(indices)], made, axis=axis)


def tile(net: Net, x: str) -> str:
    repeats = [net.number(1, 2) for _ in net.values[x].shape]
    return net.node("Tile", [x, net.constant(repeats)], net.values[x].repeat(repeats))


def expand(net: Net, x: str) -> str:
    value = net.values[x]
    shape = [net.one_of(1, n) if n > 1 else 2 for n in value.shape]
    shape = [2, *shape] if value.dim() < 4 and net.number(0, 1) else shape
    return net.node("Expand", [x, net.constant(shape)], value * torch.ones(shape, dtype=torch.float64))


def squeezed(net: Net, x: str) -> str | None:
    value = net.values[x]
    ones = [i for i, n in enumerate(value.shape) if n == 1]
    if ones and net.number(0, 1):
        axis = net.one_of(*ones)
        return net.axes_node("Squeeze", x, [axis], value.squeeze(axis), 13)
    if value.dim() > 3:
        return None
    axis = net.number(0, value.dim())
    return net.axes_node("Unsqueeze", x, [axis], value.unsqueeze(axis), 13)


def reshape(net: Net, x: str) -> str:
    value = net.values[x]
    if net.number(0, 1):
        axis = net.number(0, value.dim())
        made = value.reshape(int(np.prod(value.shape[:axis])), -1)
        return net.node("Flatten", [x], made, axis=axis)
    return net.node("Reshape", [x, net.constant([0, -1])], value.reshape(value.shape[0], -1))


def to_image(net: Net, x: str) -> str | None:
    value = net.values[x]
    made = {2: (1, 1), 3: (1,)}.get(value.dim())
    if made is None:
        return None
    return net.axes_node("Unsqueeze", x, list(range(len(made))), value.reshape(*made, *value.shape), 13)


def split(net: Net, x: str) -> str | None:
    value = net.values[x]
    axis = net.axis(x) % value.dim()
    size = value.shape[axis]
    if size < 2:
        return None
    first = net.number(1, size - 1)
    names = [f"t{len(net.nodes)}", f"t{len(net.nodes)}_b"]
    lengths = [first, size - first]
    parts = torch.split(value, lengths, axis)
    if net.opset >= 13:
        net.nodes.append(helper.make_node("Split", [x, net.constant(lengths)], names, axis=axis))
    else:
        net.nodes.append(helper.make_node("Split", [x], names, axis=axis, split=lengths))
    for name, part in zip(names, parts, strict=True):
        net.values[name] = part
    if net.number(0, 2) == 0:
        return names[1]
    return net.node("Concat", names[::-1], torch.cat(list(parts[::-1]), axis), axis=axis)


def blocks(net: Net, x: str) -> str | None:
    value = net.values[x]
    if value.shape[2] % 2 == value.shape[3] % 2 == 0:
        made = F.pixel_unshuffle(value, 2)
        n, c = value.shape[:2]
        made = made.reshape(n, c, 4, *made.shape[2:]).transpose(1, 2).reshape(n, 4 * c, *made.shape[2:])
        return net.node("SpaceToDepth", [x], made, blocksize=2)
    if value.shape[1] % 4 or net.opset < 11:
        return None
    return net.node("DepthToSpace", [x], F.pixel_shuffle(value, 2), blocksize=2, mode="CRD")


def resize(net: Net, x: str) -> str | None:
    value = net.values[x]
    if net.opset < 11:
        made = F.interpolate(value, scale_factor=2, mode="nearest")
        if net.opset < 9:
            return net.node("Upsample", [x], made, scales=[1.0, 1, 2, 2], mode="nearest")
        op_type = "Upsample" if net.opset == 9 else "Resize"
        return net.node(op_type, [x, net.constant([1, 1, 2, 2], np.float32)], made, mode="nearest")
    sizes = [net.number(max(2, n // 2), 2 * n) for n in value.shape[2:]]
    mode, place = net.one_of(
        ("linear", "half_pixel"), ("linear", "align_corners"), ("cubic", "half_pixel"), ("nearest", "asymmetric")
    )
    names = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
    if min(value.shape[2:]) < 2:
        return None
    more = {} if mode == "nearest" else {"align_corners": place == "align_corners"}
    made = F.interpolate(value, size=sizes, mode=names[mode], **more)
    given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": place, "cubic_coeff_a": -0.75}
    if mode == "nearest":
        given["nearest_mode"] = "floor"
    none = "" if net.opset >= 13 else net.constant([], np.float32)
    whole = [*value.shape[:2], *sizes]
    return net.node("Resize", [x, none, none, net.constant(whole)], made, **given)


# sums and products


def reduce(net: Net, x: str) -> str | None:
    value = net.values[x]
    name = net.one_of("Sum", "Mean", "Max", "Min", "L1", "L2", "LogSumExp", "SumSquare", "Prod")
    axes = [int(i) for i in net.rng.permutation(value.dim())[: net.number(1, max(value.dim() - 1, 1))]]
    keep = bool(net.number(0, 1))
    signed = [i - value.dim() if net.opset >= 11 and net.number(0, 1) else i for i in axes]
    if value.dim() - (0 if keep else len(axes)) < 1:
        return None
    made = {
        "Sum": lambda: value.sum(axes, keep),
        "Mean": lambda: value.mean(axes, keep),
        "Max": lambda: value.amax(axes, keep),
        "Min": lambda: value.amin(axes, keep),
        "L1": lambda: value.abs().sum(axes, keep),
        "L2": lambda: value.norm(2, axes, keep),
        "LogSumExp": lambda: value.logsumexp(axes, keep),
        "SumSquare": lambda: (value**2).sum(axes, keep),
        "Prod": lambda: _product(value, axes, keep),
    }[name]()
    return net.axes_node(f"Reduce{name}", x, signed, made, 13 if name == "Sum" else 18, keepdims=int(keep))


def _product(value: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


def softmax(net: Net, x: str) -> str:
    value = net.values[x]
    log = net.number(0, 1)
    name, function = ("LogSoftmax", F.log_softmax) if log else ("Softmax", F.softmax)
    if net.opset >= 13:
        axis = net.axis(x)
        return net.node(name, [x], function(value, axis), axis=axis)
    axis = net.number(0, value.dim() - 1)
    flat = value.reshape(int(np.prod(value.shape[:axis])), -1)
    return net.node(name, [x], function(flat, 1).reshape(value.shape), axis=axis)


def matmul(net: Net, x: str) -> str | None:
    value = net.values[x]
    if value.dim() < 2:
        return None
    shape = net.one_of((value.shape[-1], 3), (value.shape[-1],), (2, 1, value.shape[-1], 2), (1, value.shape[-1], 3))
    w = net.weight(shape, 0.5)
    if (len(shape) == 4 and value.dim() == 4 and value.shape[0] != 1) or (len(shape) == 3 and value.dim() == 2):
        w = net.weight((value.shape[-1], 2), 0.5)
    return net.node("MatMul", [x, w], net.values[x] @ net.values[w])


def gemm(net: Net, x: str) -> str:
    value = net.values[x]
    turned = [net.number(0, 1) for _ in range(2)]
    a = value.T if turned[0] else value
    w = net.weight((4, a.shape[1]) if turned[1] else (a.shape[1], 4), 0.5)
    c = net.weight(net.one_of((4,), (1,), (a.shape[0], 1), (a.shape[0], 4)))
    b = net.values[w].T if turned[1] else net.values[w]
    made = 0.5 * (a @ b) + 2 * net.values[c]
    return net.node("Gemm", [x, w, c], made, alpha=0.5, beta=2.0, transA=turned[0], transB=turned[1])


def einsum(net: Net, x: str) -> str:
    value = net.values[x]
    w = net.weight((value.shape[1], 3), 0.5)
    equation = net.one_of("abc,bd->dac", "abc,bd->cd", "a...c,...d->ad...") if value.shape[1] == 1 else "abc,bd->dac"
    return net.node("Einsum", [x, w], torch.einsum(equation, value, net.values[w]), equation=equation)


def top_k(net: Net, x: str) -> str | None:
    value = net.values[x]
    if value.unique().numel() < value.numel():
        return None  # which of equal ones is taken is anyone's choice
    axis = net.axis(x) % value.dim()
    k = net.number(1, value.shape[axis])
    name = f"t{len(net.nodes)}"
    largest = net.number(0, 1) if net.opset >= 11 else 1
    found = value.topk(k, axis, largest=bool(largest)).values
    more = {"largest": largest} if net.opset >= 11 else {}
    net.nodes.append(helper.make_node("TopK", [x, net.constant([k])], [name, f"{name}_i"], axis=axis, **more))
    net.values[name] = found
    return net.node("Neg", [name], -found)


def cumsum(net: Net, x: str) -> str:
    value, axis = net.values[x], net.axis(x)
    reverse, exclusive = net.number(0, 1), net.number(0, 1)
    made = value.flip(axis).cumsum(axis).flip(axis) if reverse else value.cumsum(axis)
    made = made - value if exclusive else made
    return net.node("CumSum", [x, net.constant(axis)], made, reverse=reverse, exclusive=exclusive)


def attended(net: Net, x: str) -> str:
    """A tensor's rows compared with each other."""
    value = net.values[x]
    turned = net.node("Transpose", [x], value.transpose(1, 2), perm=[0, 2, 1])
    scores = net.node("MatMul", [x, turned], value @ net.values[turned])
    scaled = net.node("Mul", [scores, net.constant(0.1, np.float32)], net.values[scores] * np.float32(0.1).item())
    shares = net.node("Softmax", [scaled], net.values[scaled].softmax(2), axis=2)
    return net.node("MatMul", [shares, x], net.values[shares] @ value)


def scatter_nd(net: Net, x: str) -> str:
    value = net.values[x]
    rows = net.rng.permutation(value.shape[0])[:1].reshape(1, 1)
    w = net.weight((1, *value.shape[1:]))
    made = value.clone()
    made[int(rows[0, 0])] = net.values[w][0]
    return net.node("ScatterND", [x, net.constant(rows), w], made)


def recurrent(net: Net, x: str) -> str:
    """An LSTM of both directions."""
    value, hidden = net.values[x], 3
    w, r, b = (net.weight((2, 4 * hidden, n), 0.4) for n in (value.shape[2], hidden, 2)), None, None
    w, r = net.weight((2, 4 * hidden, value.shape[2]), 0.4), net.weight((2, 4 * hidden, hidden), 0.4)
    b = net.weight((2, 8 * hidden), 0.4)
    parts = []
    for way in range(2):
        steps = list(range(value.shape[0]))[:: 1 - 2 * way]
        h = c = torch.zeros((value.shape[1], hidden), dtype=torch.float64)
        found: dict[int, torch.Tensor] = {}
        for t in steps:
            bias = net.values[b][way].view(2, -1).sum(0)
            i, o, f, g = (value[t] @ net.values[w][way].T + h @ net.values[r][way].T + bias).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            found[t] = h
        parts.append(torch.stack([found[t] for t in range(value.shape[0])]))
    made = torch.stack(parts, 1)
    return net.node("LSTM", [x, w, r, b], made, hidden_size=hidden, direction="bidirectional")


#: First and last opset, rank (0 for any), and what it adds.
BLOCKS: list[tuple[int, int, int, Callable[[Net, str], str | None]]] = [
    *[(7, 99, 4, block) for block in (conv, conv, conv_transpose, max_pool, max_pool, average_pool, average_pool,
                                      global_pool, instance_norm, lrn, blocks, resize)],
    *[(7, 99, 0, block) for block in (activation, activation, clip, binary, binary, twice, transpose, concat, slices,
                                      gather, tile, squeezed, reduce, softmax, matmul, split)],
    *[(9, 99, 0, block) for block in (where,)], *[(8, 99, 0, block) for block in (expand,)],
    *[(7, 99, 3, block) for block in (attended, recurrent, to_image)], (7, 99, 2, gemm), (7, 99, 2, to_image),
    (7, 99, 4, batch_norm), (7, 99, 4, prelu), (7, 99, 4, reshape), (7, 99, 3, reshape), (2, 99, 4, pad),
    (11, 99, 0, gather_elements), (10, 99, 0, top_k), (11, 99, 0, cumsum), (17, 99, 4, layer_norm),
    (17, 99, 3, layer_norm), (12, 99, 3, einsum), (11, 99, 3, scatter_nd),
]  # fmt: skip
