"""The layer whose positions are attributed: the last one with spatial axes, or a grid of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.raw_scores import MOVES
from onnxviz.analysis.map_axes import axis_letters
from onnxviz.analysis.tokens import TokenBlock
from onnxviz.errors import GradientError, SelectionError, listed, printable
from onnxviz.gradient.names import is_float, named_tensors
from onnxviz.gradient.prepare import prepare
from onnxviz.graph.extract import reads
from onnxviz.graph.select import FLOAT_TYPES, select

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case

__all__ = ["Layer", "choose_layer", "on_path"]

_NORMS = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_CARRIES = MOVES - {"Concat"} | {"Add", "Sub", "Mul", "Div", "Resize", "Upsample"}
_PROBED, _MAPS = 12, 48  # sequences and maps whose gradients are looked at
_MOST_POSITIONS = 0.5  # share of them that the target must depend on
_MAPS_OF_BOX = 240  # the same for a box, whose score the maps of other heads have nothing to do with
_AROUND = 0.05  # share of a map that the score of one box must depend on: behind it, only its own cell does


@dataclass(frozen=True)
class Layer:
    """A tensor with channels at positions.

    Attributes:
        name: Of the tensor.
        letters: A letter an axis: N samples, C channels, others positions.
        size: Its positions, such as rows and columns.
        block: Of a sequence of tokens, those that are positions; None where all are.
        how: How it was found.
    """

    name: str
    letters: str
    size: tuple[int, ...]
    block: TokenBlock | None = None
    how: str = "as asked"

    def channels_first(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return a tensor of the layer's shape as ``(N, C, *size)`` float64.

        >>> Layer("x", "NHWC", (2, 3)).channels_first(np.zeros((1, 2, 3, 5))).shape
        (1, 5, 2, 3)
        """
        array = np.moveaxis(np.asarray(array, np.float64), self.letters.index("C"), 1)
        if self.block is not None:
            array = array[:, :, self.block.start : self.block.stop]
        return array.reshape(*array.shape[:2], *self.size)

    def __str__(self) -> str:
        size = " × ".join(map(str, self.size))
        return f"{printable(self.name, 80)} ({size}{' tokens' if self.block is not None else ''}; {self.how})"


def choose_layer(case: Case, wanted: str | None = None, *, codes: bool = False) -> Layer:
    """Return the layer whose positions are attributed.

    By default the last tensor with spatial axes, on the way from the attributed input to the target, with which the
    target changes, and which is not the score itself before a bias or a change of resolution; of the largest of the
    scores of many heads that is only one. The score of one box must change with 5 % of the positions: of the last
    maps it reads but its own cell. A sequence counts where the target changes with most of its positions: behind
    the last attention the class token alone leads to the score, and behind a recurrence perhaps its last step. Of
    sequences of patches only the outputs of residual connections and of normalisations are looked at.

    Args:
        case: What is explained.
        wanted: A tensor, as :func:`onnxviz.graph.select.select` takes it; of several the last one that has positions.
        codes: Whether it may hold the codes of a quantised model.

    Raises:
        SelectionError: It has no spatial axes, or no tensor has; the text names those that have.
    """
    path = on_path(case.model, case.sources, case.target.tensor)
    if wanted is not None:
        chosen = [value for value in select(case.model, wanted, inputs=True) if value.dtype in _types(codes)]
        found = [layer for value in chosen if (layer := _layer(case, value, "as asked", codes)) is not None]
        if not found:
            raise _without(case, path, wanted)
        lying = [layer for layer in found if layer.name in path]
        if not lying:
            raise SelectionError(
                f"{printable(found[-1].name, 80)} does not lie between the input and {case.target.tensor}",
                hint=f"those that do are {_having(case, path)}",
            )
        return lying[-1]
    candidates = _candidates(case, path, codes)
    if not candidates:
        raise _without(case, path, None)
    if any(region is not None and region.box is not None for region in case.target.regions):
        found_around = _alive(case, _candidates(case, path, codes, _MAPS_OF_BOX), _AROUND)
        if found_around is not None:
            return replace(found_around, how="the last one of which the score of the box reads more than its cell")
    return _alive(case, candidates[:1]) or _alive(case, candidates[1:]) or candidates[0]


def on_path(model: ir.Model, sources: Iterable[str], target: str) -> dict[str, ir.Value]:
    """Return the tensors that depend on a source and lead to the target, in the graph's order.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y, float[2] z) {a = Neg(x) y = Abs(a) z = Exp(a)}''')
    >>> list(on_path(model, ["x"], "y"))
    ['a', 'y']
    """
    moved = {value for value in model.graph.inputs if value.name in set(sources)}
    behind = []
    for node in model.graph:
        if node.op_type not in ("Shape", "Size") and any(value in moved for value in reads(node)):
            moved.update(node.outputs)
            behind.append(node)
    needed: set[ir.Value] = {v for v in moved if v.name == target}
    path: list[ir.Value] = []
    for node in reversed(behind):
        lying = [output for output in node.outputs if output in needed]
        if lying:
            path += reversed(lying)
            needed.update(value for value in reads(node) if value in moved)
    return {str(value.name): value for value in reversed(path)}


def _types(codes: bool) -> set[ir.DataType | None]:
    return {*FLOAT_TYPES, None, *((ir.DataType.UINT8, ir.DataType.INT8) if codes else ())}


def _layer(case: Case, value: ir.Value, how: str, codes: bool = False) -> Layer | None:
    """Return a tensor as a layer; None where it has no positions."""
    name, around = str(value.name), case.around
    shape = around.shapes.get(name, ())
    if len(shape) not in (3, 4, 5) or value.dtype not in _types(codes):
        return None
    known, node = around.letters(name), value.producer()
    tokens = around.tokens(name)
    if tokens is not None and tokens.image is not None and tokens.image.grid is not None:
        return Layer(name, "NWC", tokens.image.grid, tokens.image, how)
    if known is None and not (len(shape) == 3 and (how == "as asked" or _is_sequence(case, name))):
        return None
    letters = axis_letters(shape, name, None if node is None else node.op_type, known)
    if letters.count("C") != 1 or letters[:1] != "N" or shape[0] != case.around.batch:
        return None
    size = tuple(n for letter, n in zip(letters, shape, strict=True) if letter not in "NC")
    return Layer(name, letters, size, None, how) if max(size) > 1 else None


def _is_sequence(case: Case, name: str) -> bool:
    return case.around.across(name, case.around.tokens(name)) is not None and case.canvas_axes == 1


def _is_stream(value: ir.Value) -> bool:
    """Whether a tensor of tokens is a residual connection, or a normalisation of one."""
    node = value.producer()
    if node is None:
        return False
    if node.op_type in _NORMS:
        return True
    return node.op_type == "Add" and all(v is not None and not v.is_initializer() for v in node.inputs) and not any(
        v is not None and v.producer() is not None and v.producer().op_type == "Constant" for v in node.inputs  # type: ignore[union-attr]
    )  # fmt: skip


def _candidates(case: Case, path: Mapping[str, ir.Value], codes: bool, most: int = _MAPS) -> list[Layer]:
    """Return the last layers before the target, the last first: sequences until there is a map, then some maps."""
    found: list[Layer] = []
    maps = 0
    same = _score_itself(path, case.target.tensor)
    for name, value in reversed(list(path.items())):
        layer = _layer(case, value, "the last tensor with spatial axes", codes) if name not in same else None
        if layer is None or (layer.block is not None and not _is_stream(value)):
            continue
        is_map = layer.block is None and case.around.letters(name) is not None
        if (is_map or not maps) and (is_map or len(found) < _PROBED):
            found.append(layer)
            maps += is_map
        if maps == most:
            break
    return found


def _score_itself(path: Mapping[str, ir.Value], target: str) -> set[str]:
    """Return the target and what it is but for constants, places and resolution: maps of that show the score alone."""
    waiting, found = [target], set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        node = path[name].producer() if name in path else None
        if node is None or node.op_type not in _CARRIES:
            continue
        lying = [str(value.name) for value in node.inputs if value is not None and value.name in path]
        waiting += [one for one in lying if one not in found] if len(lying) == 1 else []
    return found


def _alive(case: Case, layers: list[Layer], least: float = 0.0) -> Layer | None:
    """Return the first of some layers with which the target changes: a sequence with most of its positions.

    Args:
        case: What is explained.
        layers: The layers.
        least: The share of the positions of a map that must be exceeded.
    """
    if not layers:
        return None
    names = [layer.name for layer in layers]
    try:
        # Of a single layer just what class activation maps run, so that it is built once.
        runner = case.runner(wrt=names, also=names if len(names) == 1 else ())
    except GradientError:
        return None
    except SelectionError:  # of the codes of a quantised model, or of what fused operators are opened to
        known = named_tensors(prepare(case.model))
        there = [layer for layer in layers if layer.name in known and is_float(known[layer.name])]
        return _alive(case, there, least) if len(there) < len(layers) else None
    # The map of one sample comes of the same run.
    found = (case.through(runner) if case.samples == 1 else runner(case.rows([0]), [0])).gradients
    for layer in layers:
        reached = np.any(layer.channels_first(found[layer.name]), axis=1)
        is_map = layer.block is None and case.around.letters(layer.name) is not None
        if reached.mean() > (least if is_map else _MOST_POSITIONS):
            return layer
    return None


def _having(case: Case, path: Mapping[str, ir.Value]) -> str:
    names = [name for name, value in path.items() if _layer(case, value, "") is not None]
    return listed([printable(name, 50) for name in reversed(names)], 6) or "none"


def _without(case: Case, path: Mapping[str, ir.Value], wanted: str | None) -> SelectionError:
    having = _having(case, path)
    if having == "none":
        what = "no tensor between the input and the target has spatial axes"
        return SelectionError(what, hint="take a method that attributes to inputs, such as integrated-gradients")
    named = "no layer" if wanted is None else printable(wanted, 80)
    return SelectionError(f"{named} has no spatial axes", hint=f"those that have are {having}")
