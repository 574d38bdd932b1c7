"""Small charts as inline SVG."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from onnxviz.analysis.histogram import Histogram
from onnxviz.analysis.scale import number
from onnxviz.report.formats import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_image", "histogram_svg"]

_WIDTH, _HEIGHT, _AXIS = 220, 64, 14


def histogram_svg(histogram: Histogram, label: str) -> Markup:
    """Draw a histogram with its range below; zero is marked, heights are on a square-root scale so that tails show."""
    counts, edges = histogram.counts, histogram.edges
    used = np.flatnonzero(counts)
    if not len(used):
        return Markup('<span class="muted">no finite values</span>')
    first, last = (int(used[0]), int(used[-1]) + 1) if histogram.scale == "symlog" else (0, len(counts))
    counts, edges = counts[first:last], edges[first : last + 1]
    heights = np.sqrt(counts / counts.max()) * _HEIGHT
    step = _WIDTH / len(counts)
    bars = "".join(
        f"M{i * step:.1f} {_HEIGHT}v{-h:.1f}h{max(step - 0.4, 0.4):.1f}V{_HEIGHT}z"
        for i, h in enumerate(heights)
        if h > 0
    )
    position = np.interp(0.0, edges, np.arange(len(edges))) * step if edges[0] < 0 < edges[-1] else None
    zero = f'<path d="M{position:.1f} 0V{_HEIGHT}" class="zero"/>' if position is not None else ""
    scale = "symmetric logarithmic bins" if histogram.scale == "symlog" else "equal bins"
    outside = histogram.below + histogram.above
    rest = f", {outside:,} of them outside the bins" if outside else ""
    title = escape(f"{short(label)}: {histogram.total:,} values{rest}, {scale}, square-root heights")
    return Markup(
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT + _AXIS}" width="{_WIDTH}" height="{_HEIGHT + _AXIS}" '
        f'role="img"><title>{title}</title>'
        f'<path d="{bars}" class="bars"/>{zero}'
        f'<text x="0" y="{_HEIGHT + 11}">{number(float(edges[0]))}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 11}" text-anchor="end">{number(float(edges[-1]))}</text></svg>'
    )


def figure_image(figure: Figure, alt: str) -> Markup:
    """Return a matplotlib figure as an SVG image inside the page, the same bytes for the same figure.

    An image keeps its own styles, which the page's policy would forbid in inline SVG; it stays on white in the dark.

    >>> from matplotlib.figure import Figure
    >>> str(figure_image(Figure(figsize=(1, 1)), "empty"))[:59]
    '<img class="figure" alt="empty" src="data:image/svg+xml;bas'
    """
    import matplotlib

    target = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "onnxviz", "svg.fonttype": "none"}):
        figure.savefig(target, format="svg", dpi=96, metadata={"Date": None, "Creator": None})
    packed = base64.b64encode(target.getvalue()).decode("ascii")
    return Markup('<img class="figure" alt="{}" src="data:image/svg+xml;base64,{}">').format(short(alt, 200), packed)
