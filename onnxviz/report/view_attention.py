"""The section on attention: where each head looks, over the picture or token by token, and all layers rolled out."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attention import AttentionMaps, LayerAttention
from onnxviz.analysis.attention_run import attention_maps
from onnxviz.analysis.rollout import Rollout, rollout
from onnxviz.analysis.scale import color_scale, number
from onnxviz.analysis.tokens import Tokens
from onnxviz.errors import SelectionError
from onnxviz.plots.attention_grid import query_tiles
from onnxviz.plots.feature_maps import spread
from onnxviz.report.atlas import atlas, pooling_note
from onnxviz.report.budget import Picture
from onnxviz.report.formats import short
from onnxviz.report.views import Card, Section, Seen, limited, panel

__all__ = ["attention_section"]

_MOST, _HEADS = 48, 16
_SIDE = 96  # longest side of a tile, px
_LEAD = (
    "Each row of attention sums to 1. Where keys are patches of the picture, tiles show where the query named looks; "
    "special tokens are set aside and their share is told. Otherwise queries lie down and keys across: point at a cell "
    "to read both. Heads of a layer have one scale; over the picture each is opaque where it is largest."
)


def attention_section(seen: Seen) -> Section | None:
    """Return the attention of a run; None where the model has none."""
    attention = seen.prepared.attention
    if attention is None:
        return Section(notes=[seen.prepared.refused]) if seen.prepared.refused else None
    maps = attention_maps(seen.captured, attention.layers)
    layers = [maps.layers[i] for i in spread(len(maps.layers), _MOST)]
    over = seen.captured.picture is not None
    cards = [_card(layer, over) for layer in layers]
    notes = [*filter(None, [attention.refusals()]), *limited(len(maps.layers), _MOST, "attention layers")]
    try:
        rolled = _rollout_card(maps, over)
        cards = [rolled, *cards] if rolled is not None else cards
    except SelectionError as error:
        notes.append(str(error))
    return Section(_LEAD, cards, notes, over and any(layer.keys.image is not None for layer in layers))


def _card(layer: LayerAttention, over: bool) -> Card:
    heads, queries, keys = layer.weights.shape
    captions = []
    if heads > _HEADS:
        captions.append(f"{_HEADS} of {heads} heads, the first")
    entropy = layer.entropy()
    if np.isfinite(entropy).any():
        captions.append(f"mean entropy {number(float(np.nanmean(entropy)))} of at most {number(np.log2(keys))} bits")
    sinks = layer.sinks()
    top = [int(k) for k in np.argsort(-sinks, kind="stable")[:3] if sinks[k] > 0]
    if top:
        said = ", ".join(f"key {short(layer.keys.labels[k], 24)} in {100 * sinks[k]:.0f} % of heads" for k in top)
        captions.append(f"attention sinks: {said}")
    if layer.note:
        captions.append(layer.note)
    grid = layer.keys.image
    if grid is not None:
        _, tiles, _, query = query_tiles(layer, None)
        tiles = tiles if heads > 1 else [tiles[0], tiles[0]]  # one over the picture, one by itself
        share = float(tiles[0].sum())
        captions[:0] = [f"query: {query}", f"{100 * share:.0f} % of it goes to the patches"]
        values = np.stack(tiles)
    else:
        captions.insert(0, f"{queries} queries ({_kinds(layer.queries)}) × {keys} keys ({_kinds(layer.keys)})")
        weights = layer.weights[:_HEADS].astype(np.float64)
        values = np.concatenate([layer.mean()[None], weights]) if heads > 1 else weights
    tokens = None if grid is not None else (layer.queries, layer.keys)
    labels = [*(["mean"] if heads > 1 or grid is not None else []), *(f"head {head}" for head in layer.heads)][
        : _HEADS + 1
    ]
    draw = partial(_draw, values[: len(labels)], labels, tokens, over and grid is not None)
    title = f"{layer.name} · {layer.title}"
    size = f"{heads} head{'s' * (heads != 1)}, {queries} × {keys}"
    return Card(
        title, f"{layer.kind}-attention", size, (layer.tensor,), captions,
        panels=[("", panel("heads", f"attention of {title}", draw))],
    )  # fmt: skip


def _kinds(tokens: Tokens) -> str:
    return ", ".join(dict.fromkeys(short(block.name, 24) for block in tokens.blocks))


def _draw(
    values: npt.NDArray[np.float64], labels: list[str], tokens: tuple[Tokens, Tokens] | None, over: bool, level: int
) -> Picture:
    keep = max(1, len(labels) >> max(level - 1, 0))
    shown = values[:keep]
    picture = atlas(
        shown, labels[:keep], color_scale(shown, signed=False), side=_SIDE >> (level // 2), keep_aspect=True
    )
    picture["noun"] = ""
    if over:
        picture["over"] = 1
    if tokens is not None:
        # A longer sequence is pooled, and a cell then stands for several tokens: indices say which.
        whole = picture["tile"] == picture["of"]
        picture["tokens"] = [[short(label, 24) for label in side.labels] for side in tokens] if whole else None
    left = f"{keep} of {len(labels)} tiles, to keep the page small" if keep < len(labels) else ""
    scale = "" if over and keep == 1 else color_scale(shown, signed=False).caption()
    return picture, " · ".join(part for part in (scale, left, pooling_note(picture)) if part)


def _rollout_card(maps: AttentionMaps, over: bool) -> Card | None:
    """Return attention through all layers; None where there is one layer only."""
    if len(maps.layers) < 2:
        return None
    rolled = rollout(maps.layers)
    values, query, grid = _rolled(rolled)
    tokens = None if grid else (rolled.tokens, rolled.tokens)
    captions = [
        f"through {len(rolled.layers)} layers, residual {rolled.residual:g} (Abnar & Zuidema 2020)",
        *([f"query: {query}"] if grid else []),
        *([rolled.note] if rolled.note else []),
    ]
    draw = partial(_draw, values[None], ["rollout"], tokens, over and grid)
    count = len(rolled.tokens)
    return Card(
        "Rollout", "all layers", f"{count} × {count}", (), captions,
        panels=[("", panel("heads", "attention rollout", draw))],
    )  # fmt: skip


def _rolled(rolled: Rollout) -> tuple[npt.NDArray[np.float64], str, bool]:
    """Return what is drawn of a rollout: where CLS (else all, on average) comes from in the picture, or the matrix."""
    block = rolled.tokens.image
    if block is None or block.grid is None:
        return rolled.matrix, "", False
    cls = next((b.start for b in rolled.tokens.blocks if b.name == "CLS"), None)
    row = rolled.matrix[cls] if cls is not None else rolled.matrix.mean(axis=0)
    return (
        row[block.start : block.stop].reshape(block.grid),
        "CLS" if cls is not None else "mean over all queries",
        True,
    )
