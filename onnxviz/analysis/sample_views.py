"""What samples are called and look like, for the views that show some of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import accumulate

import onnx_ir as ir

from onnxviz.analysis.neuron_samples import SampleView, sample_view
from onnxviz.runtime.batches import Batches

__all__ = ["sample_names", "sample_views"]


def sample_names(batches: Batches) -> tuple[str, ...]:
    """Return what the samples are called: as their files, or by number where they came ready made."""
    return tuple(batches.names) or tuple(f"sample {i}" for i in range(batches.samples))


def sample_views(
    model: ir.Model, batches: Batches, wanted: Collection[int], words: Mapping[int, str] | None = None
) -> dict[int, SampleView]:
    """Return what samples look like; each batch that holds some is read once.

    Args:
        model: The model that is fed.
        batches: The samples.
        wanted: Which samples, counted over all batches.
        words: Token id -> word; None shows the ids of texts.
    """
    names = sample_names(batches)
    views: dict[int, SampleView] = {}
    ends = list(accumulate(batches.counts))
    for index, (size, end) in enumerate(zip(batches.counts, ends, strict=True)):
        start = end - size
        rows = [sample for sample in sorted(wanted) if start <= sample < end]
        if not rows:
            continue
        inputs = batches.batch(index)
        for sample in rows:
            picture = batches.picture(sample) if batches.names else inputs.picture if size == 1 else None
            views[sample] = sample_view(model, names[sample], inputs.feeds, sample - start, picture, words)
    return views
