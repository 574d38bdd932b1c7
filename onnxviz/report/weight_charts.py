"""Studies of a weight as small charts: norms and principal components of its filters, its singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from onnxviz.analysis.threads import one_thread
from onnxviz.analysis.weight_filters import FilterStudy, filter_study
from onnxviz.analysis.weight_spectra import Spectrum, spectrum
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import InputError, SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.report.formats import number, percent, short

__all__ = ["WeightCharts", "weight_charts"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _FOOT = 170, 104, 46, 16, 16
_POINTS, _PAIRS = 400, 60  # most that are drawn
_RESAMPLES = 50  # of the bootstrap: a page has no time for more

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WeightCharts:
    """What a page shows of a weight beside its values.

    Attributes:
        charts: SVG.
        captions: Lines below it.
    """

    charts: Markup
    captions: tuple[str, ...]


@one_thread()
def weight_charts(lw: LayerWeights) -> WeightCharts:
    """Study a weight: its spectrum and its filters; what cannot be studied is told in a line.

    Raises:
        ModelError: It cannot be read.

    >>> import onnx_ir as ir
    >>> from onnxviz.analysis.weights import layer_weights
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {3, 0, 0, 4}> {y = MatMul(x, w)}''')
    >>> weight_charts(layer_weights(model)[0]).captions[1]
    'filters: 2 finite filters: a projection needs 3'
    """
    charts, captions = [], []
    try:
        found = spectrum(lw, resamples=_RESAMPLES)
        charts.append(_falling(found))
        captions.append(_about_spectrum(found))
    except (SelectionError, InputError) as error:
        captions.append(f"spectrum: {error.message}")
    try:
        study = filter_study(lw, clustered=False)
        charts += [_norms(study), _components(study)]
        captions.append(_about_filters(study))
    except (SelectionError, InputError) as error:
        captions.append(f"filters: {error.message}")
    return WeightCharts(Markup("").join(charts), tuple(captions))


def _about_spectrum(view: Spectrum) -> str:
    whole = len(view.singular_values)
    parts = [
        f"rank {view.rank} of {whole}, stable {number(view.stable_rank)}, effective {number(view.effective_rank)}",
        f"condition {'infinite' if view.condition is None else number(view.condition)}",
    ]
    if view.edge is not None:
        parts.append(f"{view.beyond} of {whole} σ beyond the random edge {number(view.edge)} (band)")
    law = view.power_law
    if law is not None:
        verdict = "power law of σ²" if law.plausible else "power law of σ² rejected"
        parts.append(
            f"{verdict}: α {law.alpha:.2f} ({100 * law.level:g} % bootstrap {law.low:.2f} … {law.high:.2f}, "
            f"{_RESAMPLES} samples), D {law.distance:.2f}, p {law.p_value:.2g}, tail {law.tail} of {law.count}"
        )
    else:
        parts.append(f"no power law: {view.refused}")
    return " · ".join([*parts, *([view.note] if view.note else [])])


def _about_filters(study: FilterStudy) -> str:
    parts = [f"{study.count} filters of {study.size} weights", f"dead {_listed(study.dead)}"]
    if study.silenced is not None:
        parts.append(f"silenced by BatchNorm {_listed(study.silenced)}")
    similar = study.similar
    if similar.refused:
        parts.append(f"near-duplicates: {similar.refused}")
    else:
        parts.append(f"near-duplicates {similar.count} pairs of {similar.members} filters" if similar.count else
                     "near-duplicates none")  # fmt: skip
    return " · ".join([*parts, *([study.note] if study.note else [])])


def _listed(indices: npt.NDArray[np.int64]) -> str:
    if not len(indices):
        return "none"
    return f"{len(indices)} ({', '.join(map(str, indices[:6]))}{', …' if len(indices) > 6 else ''})"


def _falling(view: Spectrum) -> Markup:
    """Draw the singular values, largest first, over the band of those of a random matrix."""
    values = view.singular_values[view.singular_values > view.singular_values[0] * 1e-6]
    edges = [e for e in (view.low_edge, view.edge) if e is not None and e > 0]
    low = min(float(values[-1]), *edges) if edges else float(values[-1])
    high = max(float(values[0]), *edges) if edges else float(values[0])
    low, high = math.log10(low) - 0.05, math.log10(high) + 0.05

    def up(value: float) -> float:
        return _HEIGHT * (1 - (math.log10(value) - low) / (high - low))

    body = []
    if view.edge is not None and view.low_edge is not None:
        upper, lower = up(view.edge), up(view.low_edge) if view.low_edge > 0 else _HEIGHT
        body.append(f'<rect class="band" x="0" y="{upper:.1f}" width="{_WIDTH}" height="{max(lower - upper, 0):.1f}"/>')
    places = spread(len(values), _POINTS)
    at = [(i / max(len(values) - 1, 1) * _WIDTH, up(float(values[i]))) for i in places]
    body.append(_curve(at))
    said = f"{len(values)} singular values of {short(view.name.layer)}, logarithmic"
    return _frame("singular values (log)", said, ("1", str(len(values))), (10**low, 10**high), body)


def _norms(study: FilterStudy) -> Markup:
    """Draw the norms of filters, largest first; dead ones are marked."""
    norms = np.sort(study.norms[np.isfinite(study.norms)])[::-1]
    high = float(norms[0]) or 1.0
    places = spread(len(norms), _POINTS)
    across = _WIDTH / max(len(norms) - 1, 1)
    body = [_curve([(i * across, _HEIGHT * (1 - float(norms[i]) / (1.04 * high))) for i in places])]
    if len(study.dead):
        first = (len(norms) - len(study.dead)) * across
        body.insert(0, f'<rect class="flat" x="{first:.1f}" y="0" width="{_WIDTH - first:.1f}" height="{_HEIGHT}"/>')
    said = f"L2 norms of {len(norms)} filters of {short(study.name.layer)}, largest first"
    return _frame("L2 norm of filters", said, ("1", str(len(norms))), (0.0, 1.04 * high), body)


def _components(study: FilterStudy) -> Markup:
    """Draw filters by their first two principal components, both on one scale; near-duplicates are joined."""
    points = study.components.coordinates[:, :2]
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = 0.54 * float(np.ptp(points, axis=0).max()) or 1.0
    wide = reach * _WIDTH / _HEIGHT
    x = (points[:, 0] - middle[0] + wide) / (2 * wide) * _WIDTH
    y = _HEIGHT * (1 - (points[:, 1] - middle[1] + reach) / (2 * reach))
    place = {int(index): row for row, index in enumerate(study.shown)}
    pairs = [(place[int(a)], place[int(b)]) for a, b in study.similar.pairs[:_PAIRS] if a in place and b in place]
    joined = "".join(f"M{x[a]:.1f} {y[a]:.1f}L{x[b]:.1f} {y[b]:.1f}" for a, b in pairs)
    dead = set(map(int, study.dead))
    shown = spread(len(points), _POINTS)
    alive = "".join(f"M{x[i]:.1f} {y[i]:.1f}h0" for i in shown if int(study.shown[i]) not in dead)
    gone = "".join(f"M{x[i]:.1f} {y[i]:.1f}h0" for i in shown if int(study.shown[i]) in dead)
    body = [f'<path class="axis" d="{joined}"/>'] if joined else []
    body += [f'<path class="points" d="{alive}"/>', f'<path class="points dead" d="{gone}"/>' if gone else ""]
    first, second = (percent(float(share)) for share in study.components.variance[:2])
    some = f", {len(shown)} of {len(points)} drawn" if len(shown) < len(points) else ""
    said = f"{len(points)} filters of {short(study.name.layer)} by two principal components{some}"
    ends = (f"PC1 {first}", f"PC2 {second} up")
    return _frame("filters by PCA", said, ends, None, body)


def _curve(points: list[tuple[float, float]]) -> str:
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points) if len(points) <= 40 else ""
    return f'<path class="curve" d="{line}"/>' + (f'<path class="points" d="{dots}"/>' if dots else "")


def _frame(
    title: str, said: str, across: tuple[str, str], up: tuple[float, float] | None, body: list[str]
) -> Markup:  # fmt: skip
    """Put a chart into its axes, with a title above it and the ends of its axes beside it."""
    left = _LEFT if up is not None else 8
    ticks = ""
    if up is not None:
        ticks = (
            f'<text x="-4" y="8" text-anchor="end">{number(up[1])}</text>'
            f'<text x="-4" y="{_HEIGHT}" text-anchor="end">{number(up[0])}</text>'
        )
    return Markup(
        f'<svg class="chart study" viewBox="{-left} {-_TOP} {left + _WIDTH + 6} {_TOP + _HEIGHT + _FOOT}" '
        f'width="{left + _WIDTH + 6}" height="{_TOP + _HEIGHT + _FOOT}" role="img"><title>{escape(said)}</title>'
        f'<text x="0" y="-5" class="name">{escape(title)}</text>{"".join(body)}'
        f'<path class="axis" d="M0 0V{_HEIGHT}H{_WIDTH}"/>{ticks}'
        f'<text x="0" y="{_HEIGHT + 11}">{escape(across[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 11}" text-anchor="end">{escape(across[1])}</text></svg>'
    )
