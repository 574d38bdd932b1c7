"""The few words under a volume: what was done, how large the result is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxviz.diagram.details import settings
from onnxviz.diagram.text import ellipsize
from onnxviz.diagram.volume_attributes import ints_of, text_of

if TYPE_CHECKING:
    from onnxviz.diagram.volume_extents import Extent

__all__ = ["NOMINAL", "Naming", "extent_text", "make_naming", "sides_text", "work_text"]

_WINDOW = re.compile(r"\d+(×\d+)*")
#: What an open side of a map is drawn as.
NOMINAL = 224
_NAMES = {
    "ConvTranspose": "up-conv", "MaxPool": "max pool", "NhwcMaxPool": "max pool", "AveragePool": "avg pool",
    "QLinearAveragePool": "avg pool", "LpPool": "Lp pool", "GlobalAveragePool": "global avg pool",
    "QLinearGlobalAveragePool": "global avg pool", "GlobalMaxPool": "global max pool", "ReduceMean": "global avg pool",
    "ReduceMax": "global max pool", "ReduceSum": "sum over positions", "Gather": "embedding",
    "DeformConv": "deformable conv", "Concat": "concat", "QLinearConcat": "concat",
    "DepthToSpace": "pixel shuffle", "SpaceToDepth": "space to depth",
    "Resize": "resize", "Upsample": "upsample", "GridSample": "grid sample", "Gemm": "FC", "QGemm": "FC",
    "FusedGemm": "FC", "RoiAlign": "RoI align", "MaxRoiPool": "RoI pool",
    "NonMaxSuppression": "NMS",
}  # fmt: skip
#: Names that exporters make up for sizes that they do not know.
_EXPORTED = re.compile(r"_dim_\d+$|^unk__\d+$")
_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulNBits", "DynamicQuantizeMatMul")


def work_text(node: ir.Node, kind: str, flat: bool, learned: bool, table: bool = True) -> tuple[str, tuple[int, ...]]:
    """Return what an operator does, such as ``"conv 3×3, stride 2"``, and how far its window reaches.

    Args:
        node: The operator.
        kind: Its kind.
        flat: Whether it gives a vector: a matrix product is then a fully connected layer.
        learned: Whether one factor of a product is constant.
        table: Whether a constant is looked up in.
    """
    op = node.op_type
    if kind == "function":
        return ellipsize(op, 18), ()
    if kind == "linear" and (op in _PRODUCTS or not flat) and op != "Einsum":
        return ("FC" if learned and flat else "linear" if learned or op not in _PRODUCTS else "matrix product"), ()
    if kind not in ("conv", "pool"):
        if kind == "recurrent" and text_of(node, "direction", "forward") == "bidirectional":
            return f"bidirectional {ellipsize(op, 18)}", ()
        if op == "Gather" and not table:
            return "gather", ()
        return _NAMES.get(op, ellipsize(op, 18)), ()
    found = settings(node)
    window = found.pop(0) if found and _WINDOW.fullmatch(found[0]) else ""
    kernel = tuple(int(part) for part in window.split("×")) if window else ()
    dilations = ints_of(node, "dilations", [1] * len(kernel))
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    name = _NAMES.get(op, "conv" if kind == "conv" else ellipsize(op, 18))
    if "depthwise" in found:
        name = f"dw {name}"
    strides = next((part for part in found if part.startswith("stride")), "")
    if kind == "pool" and strides == f"stride {window.split('×')[0]}" and len(set(kernel)) == 1:
        strides = ""
    parts = [f"{name} {window}".strip(), strides.replace(",", "×")]
    parts += [part for part in found if part.startswith(("dilation", "group"))]
    return ", ".join(filter(None, parts)), reach


@dataclass(frozen=True)
class Naming:
    """How open sizes are called and how large they are drawn.

    Attributes:
        nominal: Name of a size -> what it is drawn as.
        short: Name -> the letters that stand for it in labels.
    """

    nominal: Mapping[str, int] = field(default_factory=dict)
    short: Mapping[str, str] = field(default_factory=dict)

    def number(self, size: int | str | None, otherwise: float) -> float:
        """Return a size as a number, an open one at its nominal size; ``otherwise`` where nothing is known."""
        if isinstance(size, int):
            return float(max(size, 1))
        if size is None:
            return otherwise
        try:
            found = ir.SymbolicDim(size).evaluate(dict(self.nominal))
        except (ValueError, KeyError, ZeroDivisionError, OverflowError, RecursionError):
            return float(self.nominal.get(size, otherwise))
        return float(max(found, 1)) if isinstance(found, (int, float)) else otherwise

    def text(self, size: int | str | None) -> str:
        """Return a size; an open one by its name, ``H/8`` where it is that part of ``H``.

        >>> naming = Naming({"height": 224}, {"height": "H"})
        >>> [naming.text(size) for size in ("height", "floor((height + 7)/8)", None, 64)]
        ['H', 'H/8', '?', '64']
        """
        if not isinstance(size, str):
            return "?" if size is None else str(size)
        if _EXPORTED.search(size):
            return "?"
        if size in self.short:
            return self.short[size]
        try:
            names = ir.SymbolicDim(size).free_symbols()
        except (ValueError, RecursionError):
            names = frozenset()
        bases = [name for name in sorted(map(str, names)) if name in self.nominal]
        if len(names) == len(bases) == 1:
            part = self.nominal[bases[0]] / self.number(size, 1.0)
            times = round(part) if part >= 1 else round(1 / part)
            if times and abs((part if part >= 1 else 1 / part) / times - 1) < 0.1:
                name = self.short.get(bases[0], bases[0])
                return name if times == 1 else f"{name}/{times}" if part > 1 else f"{times}{name}"
        return ellipsize(size, 12)


def extent_text(extent: Extent, naming: Naming) -> str:
    """Return the sides of a map as papers write them: ``"64@56×56"``, tokens × width as ``"197×768"``."""
    if not extent.known:
        return "size unknown"
    if extent.is_vector:
        return naming.text(extent.channels)
    if extent.tokens:
        return sides_text((*extent.spatial, extent.channels), naming)
    return f"{naming.text(extent.channels)}@{sides_text(extent.spatial, naming)}"


def sides_text(sizes: Sequence[int | str | None], naming: Naming) -> str:
    """Return sizes joined by ``×``."""
    return "×".join(naming.text(size) for size in sizes)


def make_naming(inputs: Iterable[Extent]) -> Naming:
    """Name the open sizes of the inputs: positions of maps are drawn as 224, lengths and features as 64."""
    nominal: dict[str, int] = {}
    short: dict[str, str] = {}
    for extent in inputs:
        letters = {1: "T" if extent.tokens else "L", 2: "HW", 3: "DHW"}.get(len(extent.spatial), "")
        for letter, size in zip(letters, extent.spatial, strict=False):
            if isinstance(size, str) and size not in nominal:
                nominal[size] = NOMINAL if len(letters) > 1 else 64
                plain = len(size) <= 6 or letter in short.values()
                short[size] = ellipsize(size, 8) if plain else letter
        if isinstance(extent.channels, str):
            nominal.setdefault(extent.channels, 64)
            short.setdefault(extent.channels, ellipsize(extent.channels, 8))
    return Naming(nominal, short)
