"""What each query and key of an attention stands for: patches of a picture, words of a text, CLS and registers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onnxviz.errors import InputError
from onnxviz.graph.token_streams import TokenStream

__all__ = ["TokenBlock", "Tokens", "name_texts", "token_layout"]

Shapes = Mapping[str, tuple[int, ...]]
_MOST_IN_FRONT = 16  # tokens in front of the patches that no Concat accounts for: CLS, registers, prompts
_SPECIAL = {"[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "[BOS]", "[EOS]", "<s>", "</s>", "<pad>", "<unk>", "<mask>",
            "<bos>", "<eos>", "<|endoftext|>", "<|startoftext|>", "<cls>", "<sep>", "CLS", "SEP", "PAD"}  # fmt: skip


@dataclass(frozen=True)
class TokenBlock:
    """Tokens of one kind that follow one another.

    Attributes:
        name: ``"image"``, ``"text"``, ``"signal"``, ``"CLS"`` (one learned token), ``"registers"`` (several) or
            ``"tokens"`` (nothing tells); numbered where there are several.
        kind: The same without CLS and registers told apart: those are ``"learned"``.
        start: First token.
        stop: One past the last.
        grid: Rows and columns of the patches, row by row; None where they are no grid.
    """

    name: str
    kind: Literal["image", "text", "signal", "learned", "tokens"]
    start: int
    stop: int
    grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Tokens:
    """All tokens of one side of an attention.

    Attributes:
        blocks: In order, without gaps.
        labels: One a token: words, ``"row,column"`` of a patch, ``"CLS"``, else the index.
        inputs: Graph inputs with the token ids of a text.
        note: How the blocks were told apart, where that is not certain; else empty.
    """

    blocks: tuple[TokenBlock, ...]
    labels: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    note: str = ""

    def __len__(self) -> int:
        return self.blocks[-1].stop

    @property
    def image(self) -> TokenBlock | None:
        """The first block that is a grid of patches."""
        return next((block for block in self.blocks if block.grid is not None), None)

    @property
    def special(self) -> tuple[int, ...]:
        """Tokens that stand for no patch and no word: CLS, registers, ``[SEP]``, ``[PAD]`` and the like."""
        learned = {i for block in self.blocks if block.kind == "learned" for i in range(block.start, block.stop)}
        return tuple(i for i, label in enumerate(self.labels) if i in learned or label in _SPECIAL)

    def find(self, query: str) -> int:
        """Return the token that a text names: an index, a label, ``row,column`` of a patch, or ``cls``.

        Raises:
            InputError: No token is named so.
        """
        text = query.strip()
        lowered = [label.lower() for label in self.labels]
        number = re.fullmatch(r"[0-9]{1,9}", text) is not None
        if text in self.labels and not number:
            return self.labels.index(text)
        for wanted in (text.lower().replace(" ", ""), f"[{text.lower()}]"):
            if wanted in lowered and not number:
                return lowered.index(wanted)
        if number and int(text) < len(self):
            return int(text)
        grid = self.image
        ways = [f"an index from 0 to {len(self) - 1}"]
        if grid is not None and grid.grid is not None:
            ways.append(f"ROW,COLUMN up to {grid.grid[0] - 1},{grid.grid[1] - 1}")
        if any(block.name == "CLS" for block in self.blocks):
            ways.append("cls")
        raise InputError(f"no query is named {query!r}", hint=f"give {', '.join(ways)}, or all")


def token_layout(stream: TokenStream, count: int, shapes: Shapes, *, samples_only: bool = True) -> Tokens:
    """Tell what the tokens of one side of an attention are, by counting.

    The nearest Concat whose parts add up to the number of tokens gives the blocks. A block is a picture where the
    nearest plane (output of a convolution or pooling) on its way has as many cells as it has tokens: rows × columns are
    that plane's, never a square root. A plane with up to 16 cells fewer than there are tokens, and no Concat, puts the
    others in front, with a note.

    Args:
        stream: Where the tokens come from.
        count: How many there are.
        shapes: Shape of each captured tensor.
        samples_only: False where the first axis of the weights is not the batch (windows): then nothing is a grid.

    >>> layout = token_layout(TokenStream(planes=("conv",), inputs=("x",)), 13, {"conv": (1, 8, 3, 4)})
    >>> [(block.name, len(block), block.grid) for block in layout.blocks]
    [('CLS', 1, None), ('image', 12, (3, 4))]
    """
    planes = stream.planes if samples_only else ()
    note, blocks = "", None
    for join in stream.joins if samples_only else ():
        fixed = join.fixed or (None,) * len(join.parts)
        sizes = [
            _along(known or shapes.get(name), join.axis) for (name, _), known in zip(join.parts, fixed, strict=True)
        ]
        if len(sizes) > 1 and None not in sizes and sum(s or 0 for s in sizes) == count:
            blocks = _joined(join.parts, [s or 0 for s in sizes], shapes)
            break
    if blocks is None:
        grid = _grid(planes, count, shapes)
        fewer = _nearly(planes, count, shapes) if grid is None and stream.kind == "image" else None
        if fewer is not None:
            front = count - math.prod(fewer)
            blocks = [_special(0, front), TokenBlock("image", "image", front, count, fewer)]
            note = f"{front} of {count} tokens taken as CLS or registers, in front of {fewer[0]} × {fewer[1]} patches"
        else:
            blocks = [_plain(stream, 0, count, grid, flat=_is_flat(stream, shapes) or not samples_only)]
    blocks = _numbered(blocks)
    return Tokens(tuple(blocks), tuple(_labels(blocks)), stream.tokens, note)


def _along(shape: tuple[int, ...] | None, axis: int) -> int | None:
    return shape[axis] if shape and -len(shape) <= axis < len(shape) else None


def _planes(names: Sequence[str], shapes: Shapes) -> list[tuple[int, int]]:
    return [(s[2], s[3]) for name in names if len(s := shapes.get(name, ())) == 4]


def _grid(names: Sequence[str], count: int, shapes: Shapes) -> tuple[int, int] | None:
    fits = [plane for plane in _planes(names, shapes) if plane[0] * plane[1] == count]
    return fits[0] if fits and count > 1 else None


def _nearly(names: Sequence[str], count: int, shapes: Shapes) -> tuple[int, int] | None:
    near = [p for p in _planes(names, shapes) if 0 < count - p[0] * p[1] <= min(_MOST_IN_FRONT, p[0] * p[1] - 1)]
    return near[0] if near else None


def _is_flat(stream: TokenStream, shapes: Shapes) -> bool:
    return not _planes(stream.planes, shapes)


def _plain(stream: TokenStream, start: int, stop: int, grid: tuple[int, int] | None, *, flat: bool) -> TokenBlock:
    if grid is not None:
        return TokenBlock("image", "image", start, stop, grid)
    if stream.kind == "learned":
        return _special(start, stop)
    if stream.kind == "text":
        return TokenBlock("text", "text", start, stop)
    kind: Literal["signal", "tokens"] = "signal" if flat and stream.kind == "image" else "tokens"
    return TokenBlock(kind, kind, start, stop)


def _special(start: int, stop: int) -> TokenBlock:
    return TokenBlock("CLS" if stop - start == 1 else "registers", "learned", start, stop)


def _joined(parts: Sequence[tuple[str, TokenStream]], sizes: Sequence[int], shapes: Shapes) -> list[TokenBlock]:
    blocks, start = [], 0
    for (_, stream), size in zip(parts, sizes, strict=True):
        grid = _grid(stream.planes, size, shapes)
        if size and grid is None and size <= _MOST_IN_FRONT and stream.kind == "image" and len(parts) > 1:
            blocks.append(_special(start, start + size))  # CLS, cut off and joined again with registers between
        elif size:
            blocks.append(_plain(stream, start, start + size, grid, flat=_is_flat(stream, shapes)))
        start += size
    return blocks


def _numbered(blocks: Sequence[TokenBlock]) -> list[TokenBlock]:
    names = [block.name for block in blocks]
    return [
        replace(b, name=f"{b.name} {names[: i + 1].count(b.name)}") if names.count(b.name) > 1 else b
        for i, b in enumerate(blocks)
    ]


def _labels(blocks: Sequence[TokenBlock]) -> list[str]:
    labels = []
    for block in blocks:
        for i in range(len(block)):
            if block.grid is not None:
                labels.append(f"{i // block.grid[1]},{i % block.grid[1]}")
            elif block.kind == "learned":
                labels.append(block.name if len(block) == 1 else f"R{i}")
            else:
                labels.append(str(block.start + i))
    return labels


def name_texts(tokens: Tokens, words: Sequence[str]) -> Tokens:
    """Return tokens whose text block has words for labels; as they are where there is no text of that length.

    >>> text = token_layout(TokenStream(inputs=("ids",), tokens=("ids",)), 2, {})
    >>> name_texts(text, ["a", "cat"]).labels
    ('a', 'cat')
    """
    labels = list(tokens.labels)
    for block in tokens.blocks:
        if block.kind in ("text", "signal", "tokens") and len(block) == len(words):
            labels[block.start : block.stop] = words
            break
    return replace(tokens, labels=tuple(labels))
