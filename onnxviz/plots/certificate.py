"""Certificates as a figure: curves with their controls, and how alike maps of random weights are."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.attribution.certificate import TrustCertificate
from onnxviz.analysis.attribution.faithfulness import CONTROLS, Curves, Faithfulness
from onnxviz.analysis.attribution.randomization import Randomization
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.attribution.verdicts import ALIKE, DIFFERENT, Check
from onnxviz.analysis.attribution.views import attribution_view
from onnxviz.analysis.scale import number
from onnxviz.errors import SelectionError
from onnxviz.plots.attribution_tiles import Tile, draw_tile, name_tile, tile_of
from onnxviz.plots.pairs import MARGIN, draw_lines, head
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, figure_text, inch_axes, new_figure, safe, wrap_caption

__all__ = ["plot_certificates"]

_CHART, _HEIGHT, _GAP, _LEFT = 2.35, 1.75, 0.72, 0.42
_LINE, _BELOW = 0.165, 0.86
_COLOURS = {"map": ACCENT, "random": "#9aa0a6", "blurred": "#b2423a", "centre": "#d9822b"}
_STYLES = {"map": "-", "random": "-", "blurred": "--", "centre": ":"}
_NAMES = {"map": "the map", "random": "random", "blurred": "map, blurred", "centre": "blob in the middle"}
_MARKS = {"pass": ("passed", "#2f7d4f"), "fail": ("FAILED", "#b2423a"), "doubt": ("in doubt", "#a8660f"),
          "not_checked": ("not checked", MUTED)}  # fmt: skip
_DRAWN = ("picture", "map", "volume")


def plot_certificates(found: Sequence[Attribution]) -> Figure:
    """Draw the certificates of attributions, a band a method: the map, two curves, the correlations, the verdicts.

    Curves are means over the samples. The grey band about the random control goes from its lowest to its highest draw.

    Args:
        found: Attributions with a certificate that was examined.

    Raises:
        SelectionError: None was examined.
    """
    bands = [(one, one.certificate) for one in found if isinstance(one.certificate, TrustCertificate)]
    if not any(certificate.examination is not None for _, certificate in bands):
        raise SelectionError("no attribution was examined, so there is no certificate to draw", hint="certify them")
    tiles = [tile_of([attribution_view(one, one.tensor, 0)]) for one, _ in bands]
    lead = max((tile.width + 0.3 for tile in tiles if tile.kind in _DRAWN), default=0.0)
    width = 2 * MARGIN + lead + 3 * _CHART + 3 * _LEFT + 2 * (_GAP - _LEFT) + 0.1
    heights = [_band_height(tile, certificate, width) for tile, (_, certificate) in zip(tiles, bands, strict=True)]
    captions = wrap_caption(_caption(bands), width - 2 * MARGIN).split("\n")
    top = 0.72 + 0.18 * len(captions)
    figure = new_figure(width, top + sum(heights) + 0.1)
    head(figure, f"How far these maps of {found[0].model_name} can be trusted", captions)
    for (one, certificate), tile, height in zip(bands, tiles, heights, strict=True):
        _band(figure, one, certificate, tile, (top, lead))
        top += height
    return figure


def _caption(bands: Sequence[tuple[Attribution, TrustCertificate]]) -> list[str]:
    one, certificate = bands[0]
    who = f"{safe(one.target[0], 60)}, score {number(float(one.score[0]))}"
    parts = [who] if one.samples == 1 else [f"means over {one.samples} samples"]
    parts += [f"curves: {certificate.faithfulness.unit}"] if certificate.faithfulness is not None else []
    drawn = {name for _, c in bands if c.faithfulness is not None for name in c.faithfulness.deletion.controls}
    parts += [f"{_NAMES[name]}: {CONTROLS[name]}" for name in ("random", "centre") if name in drawn]
    how = certificate.examination
    if how is not None:
        parts.append(
            "weights are drawn anew from the output down to the layer that is named; the number counts the layers"
        )
        parts.append("the blue bar is under what the verdict is of")
        parts.append(
            f"{how.steps} steps, {how.draws} random orders, weights drawn {how.redraws} times at most, seed {how.seed}"
        )
    return parts


def _band_height(tile: Tile, certificate: TrustCertificate, width: float) -> float:
    drawn = tile.above + tile.height + tile.below if tile.kind in _DRAWN else 0.0
    lines = sum(len(_wrapped(check, width)) for check in certificate.checks)
    return max(drawn, 0.3 + _HEIGHT + _BELOW) + 0.3 + _LINE * lines + 0.3


def _band(
    figure: Figure, one: Attribution, certificate: TrustCertificate, tile: Tile, corner: tuple[float, float]
) -> None:  # fmt: skip
    top, lead = corner
    about = ", ".join(f"{key} {value}" for key, value in one.parameters.items())
    figure_text(figure, MARGIN, top, safe(one.method, 40), fontsize=10.5, fontweight="bold")
    layer = "" if one.layer is None else f"layer {safe(one.layer.name, 50)}  "
    beside = max(lead + 0.12, 0.11 * len(one.method) + 0.25)
    figure_text(figure, MARGIN + beside, top + 0.03, f"{layer}{safe(about, 110)}", fontsize=7, color=MUTED)
    top += 0.3
    if tile.kind in _DRAWN:
        view = attribution_view(one, one.tensor, 0)
        name_tile(figure, tile, "the map" if one.samples == 1 else "the map of sample 0", safe(one.target[0], 34),
                  (MARGIN, top + tile.above - 0.15))  # fmt: skip
        draw_tile(figure, tile, view, (MARGIN, top + tile.above - 0.15), one.unit)
    left = MARGIN + lead + _LEFT
    faith = certificate.faithfulness
    for place, what in enumerate(("deletion", "insertion")):
        axes = inch_axes(figure, left + place * (_CHART + _GAP), top + 0.2, _CHART, _HEIGHT)
        title = f"{what.capitalize()}: {'the lower' if what == 'deletion' else 'the higher'} the better"
        axes.set_title(title, fontsize=8, loc="left", fontfamily=FONT, color=INK)
        if faith is None:
            _absent(axes, "not examined")
            continue
        curves = faith.deletion if what == "deletion" else faith.insertion
        _draw_curves(axes, faith.fractions, curves, what)
        axes.set_ylim(*_reach(faith))
        _key(figure, curves, (left + place * (_CHART + _GAP), top + 0.2 + _HEIGHT + 0.42))
    axes = inch_axes(figure, left + 2 * (_CHART + _GAP), top + 0.2, _CHART, _HEIGHT)
    axes.set_title("Likeness to maps of random weights", fontsize=8, loc="left", fontfamily=FONT, color=INK)
    if certificate.randomization is None:
        _absent(axes, "not examined")
    else:
        _draw_layers(axes, certificate.randomization)
    drawn = tile.above + tile.height + tile.below if tile.kind in _DRAWN else 0.0
    _verdicts(figure, certificate, top + max(drawn, 0.3 + _HEIGHT + _BELOW))


def _reach(faith: Faithfulness) -> tuple[float, float]:
    """Return the range of both charts."""
    shown = [np.nanmean(c, axis=0) for one in (faith.deletion, faith.insertion)
             for c in (one.map, *one.controls.values(), *one.random) if np.isfinite(c).any()]  # fmt: skip
    if not shown:
        return 0.0, 1.0
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    return min(0.0, low - 0.03 * (high - low)), high + 0.06 * (high - min(low, 0.0))


def _absent(axes: Axes, why: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=8, color=MUTED, transform=axes.transAxes)


def _draw_curves(axes: Axes, fractions: npt.NDArray[np.float64], found: Curves, what: str) -> None:
    draw_lines(axes)
    draws = np.nanmean(found.random, axis=1) if np.isfinite(found.random).any() else found.random[:, 0]
    axes.fill_between(fractions, draws.min(axis=0), draws.max(axis=0), color=_COLOURS["random"], alpha=0.3, linewidth=0)
    for name, curve in {**found.controls, "map": found.map}.items():
        known = curve[np.isfinite(curve).all(axis=1)]
        if len(known):
            axes.plot(
                fractions,
                known.mean(axis=0),
                _STYLES[name],
                color=_COLOURS[name],
                linewidth=1.8 if name == "map" else 1.1,
            )
    axes.set_xlim(0, 1)
    verb = f"replaced by {found.fill}" if what == "deletion" else f"put back into {found.fill}"
    axes.set_xlabel(f"share of positions {verb}", fontsize=7, color=MUTED, fontfamily=FONT, labelpad=2)


def _key(figure: Figure, found: Curves, corner: tuple[float, float]) -> None:
    """Write the area under each curve in its colour."""
    left, top = corner
    areas = found.areas()
    for place, name in enumerate(name for name in _NAMES if name in areas):
        known = areas[name][np.isfinite(areas[name])]
        value = number(float(known.mean())) if known.size else "none"
        at = left + (place % 2) * _CHART * 0.5, top + 0.15 * (place // 2)
        figure_text(figure, *at, f"{_NAMES[name]} {value}", fontsize=7, color=_COLOURS[name],
                    fontweight="bold" if name == "map" else "normal")  # fmt: skip


def _draw_layers(axes: Axes, found: Randomization) -> None:
    draw_lines(axes)
    at = np.arange(1, len(found.drawn) + 1)
    axes.axhspan(ALIKE, 1.05, color="#f6dcd9", linewidth=0, zorder=-2)
    axes.axhspan(-1.05, DIFFERENT, color="#dff0e5", linewidth=0, zorder=-2)
    axes.axvspan(0.5, len(found.counted) + 0.5, ymin=0, ymax=0.025, color=ACCENT, alpha=0.6, linewidth=0)
    points = found.correlation.reshape(len(at), -1)
    if points.shape[1] <= 40:
        axes.plot(np.repeat(at, points.shape[1]), points.reshape(-1), ".", color="#9aa0a6", markersize=2.5)
    axes.plot(np.r_[0, at], np.r_[1.0, found.by_stage], "o-", color=ACCENT, markersize=3.2, linewidth=1.4)
    low = min(-0.1, float(np.nanmin(points)) - 0.08) if np.isfinite(points).any() else -0.1
    axes.set_ylim(low, 1.05)
    axes.set_xlim(-0.4, len(at) + 0.5)
    names = ["none", *(f"{safe(name, 15)} {drawn}" for name, drawn in zip(found.layers, found.drawn, strict=True))]
    axes.set_xticks(np.r_[0, at], names, rotation=45, ha="right", rotation_mode="anchor", fontsize=5.8)
    last = float(found.by_stage[-1])
    words: dict[str, Any] = {"fontsize": 6.0, "ha": "right", "fontfamily": FONT}
    if last > ALIKE:
        axes.text(len(at) + 0.4, 0.79, "hardly changed above", color="#b2423a", va="top", **words)
    else:
        axes.text(len(at) + 0.4, 1.02, "hardly changed", color="#b2423a", va="top", **words)
    high = abs(last - DIFFERENT) < 0.3
    axes.text(len(at) + 0.4, low + 0.06 if high else 0.48, "changed", color="#2f7d4f", va="bottom" if high else "top",
              **words)  # fmt: skip
    axes.set_ylabel("rank correlation", fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1)


def _wrapped(check: Check, width: float) -> list[str]:
    return textwrap.wrap(safe(check.text, 400), int((width - 2 * MARGIN - 1.75) * 16.5)) or [""]


def _verdicts(figure: Figure, certificate: TrustCertificate, top: float) -> None:
    width = figure.get_size_inches()[0]
    for check in certificate.checks:
        word, colour = _MARKS[check.verdict]
        figure_text(figure, MARGIN, top, word, fontsize=7.5, fontweight="bold", color=colour)
        figure_text(figure, MARGIN + 0.86, top, check.name, fontsize=7.5, color=INK)
        for line in _wrapped(check, width):
            figure_text(figure, MARGIN + 1.75, top, line, fontsize=7.5, color=MUTED)
            top += _LINE
