"""What samples are to a reader: pictures and signals that maps are drawn over, words, and what was made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxviz.analysis.attribution.feeding import Feeding
from onnxviz.analysis.spatial_heat import Canvas, canvas_of
from onnxviz.analysis.surroundings import Surroundings
from onnxviz.errors import SelectionError, listed, printable
from onnxviz.runtime.batches import Batches

__all__ = ["find_canvases", "made_up", "picture_size", "words_of"]


def find_canvases(around: Surroundings, batches: Batches, samples: int) -> tuple[Canvas | None, ...]:
    """Return the picture or signal of each sample; None where it is neither."""
    found: list[Canvas | None] = []
    for inputs, size in batches:
        for row in range(size if samples > len(batches) else 1):
            try:
                found.append(canvas_of(around, inputs, row))
            except SelectionError:
                found.append(None)
    return tuple(found[:samples])


def picture_size(canvases: Sequence[Canvas | None]) -> tuple[int, int] | None:
    """Return rows and columns of the picture that is fed; None where it is none."""
    sizes = [canvas.size for canvas in canvases if canvas is not None and len(canvas.size) == 2]
    return (sizes[0][0], sizes[0][1]) if sizes else None


def words_of(
    feeds: Mapping[str, Any], feeding: Feeding, words: Mapping[int, str] | None
) -> tuple[tuple[str, ...], ...]:
    """Return what the tokens of each sample are, or their ids; empty where no input holds any."""
    ids = [n for n, a in feeds.items() if n in feeding.rowwise and a.ndim == 2 and a.dtype.kind in "iu"]
    texts = [feeds[n] for n in sorted(ids, key=lambda n: "mask" in n.lower() or "type" in n.lower())]
    if not texts:
        return ()
    return tuple(tuple((words or {}).get(int(i), str(int(i))) for i in row) for row in texts[0])


def made_up(batches: Batches) -> tuple[str, ...]:
    """Return what a reader should know of what was fed."""
    random = [printable(r.name, 40) for r in batches.first().records if r.made_up]
    told = [f"random numbers for {listed(random, 3)}"] if random else []
    left = batches.left_over
    return tuple([*told, f"{left} samples fill no batch of the model and are left out"] if left else told)
