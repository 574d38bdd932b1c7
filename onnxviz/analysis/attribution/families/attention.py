"""Methods that follow attention through the layers of a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attention import LayerAttention
from onnxviz.analysis.attention_run import layer_attention, sample_weights
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.layers import Layer, on_path
from onnxviz.analysis.attribution.methods import Found, method
from onnxviz.analysis.attribution.run import Runner
from onnxviz.analysis.rollout import Rollout, gradient_rollout, rollout
from onnxviz.analysis.tokens import TokenBlock, Tokens
from onnxviz.errors import SelectionError, printable
from onnxviz.gradient.expand import expand
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.registry import standard_table
from onnxviz.graph.attention import AttentionGraph, AttentionNode, find_attention

__all__ = ["attention_rollout", "gradient_attention"]

Array = npt.NDArray[Any]


@method("attention-rollout", "how much of the answer's token comes from each token by attention, whatever the target",
        source="Abnar and Zuidema 2020, arXiv:2005.00928, section 3", needs=("attention",),
        unit="share of attention")  # fmt: skip
def attention_rollout(case: Case, *, residual: float = 0.5, token: int | str = "auto") -> Found:
    """Return a row of ``∏ norm((1 - r) A + r I)`` for the tokens that are patches or words.

    Args:
        case: What is explained.
        residual: ``r``.
        token: Whose row: an index, ``"cls"``, ``"last"``, ``"mean"`` of all; ``"auto"`` is the class token where there
            is one, else the mean.
    """
    graph = find_attention(case.model)
    runner = _Whole(case, graph.model, graph.tensors())
    rolled = [rollout(runner.layers(graph, i)[0], residual=residual) for i in range(case.samples)]
    rows = [_rows(one, token, None) for one in rolled]
    return _found(case, graph, rolled, rows)


@method("gradient-attention", "attention through all layers, where it raises the score",
        source="Chefer, Gur and Wolf 2021, arXiv:2103.15679, eqs. 5, 6", needs=("gradient", "attention"),
        unit="relevance")  # fmt: skip
def gradient_attention(case: Case, *, token: int | str = "auto") -> Found:
    """Return a row of R, where ``R ← R + mean over heads of (∂y/∂A ⊙ A)⁺ R`` layer after layer, from ``R = I``.

    What the token has of itself, the identity, is left out. Where tokens attend to those of another input, these have a
    map of their own.

    Args:
        case: What is explained.
        token: As of :func:`attention_rollout`; ``"auto"`` is the tokens of the last layer by which the score changes.
    """
    graph = find_attention(_unfused(case))
    path = on_path(graph.model, [str(value.name) for value in graph.model.graph.inputs], case.target.tensor)
    leading = [layer for layer in graph.layers if layer.tensor in path]
    if not leading:
        raise SelectionError(
            f"no attention leads to {case.target.tensor}", hint="take occlusion or integrated-gradients"
        )
    graph = replace(graph, layers=tuple(leading))
    runner = _Whole(case, graph.model, graph.tensors(), tuple(layer.tensor for layer in leading))
    rolled, rows = [], []
    for sample in range(case.samples):
        layers, gradients = runner.layers(graph, sample)
        one = gradient_rollout(layers, gradients)
        one = replace(one, matrix=one.matrix - np.eye(len(one.matrix)))
        rolled.append(one)
        rows.append(_rows(one, token, np.any(gradients[layers[-1].order], axis=(0, 2))))
    return replace(_found(case, graph, rolled, rows), cuts=runner.cuts)


class _Whole(Runner):
    """A model opened for tensors whose first axis need not be that of samples, a sample at a time."""

    def __init__(self, case: Case, model: ir.Model, names: Sequence[str], wrt: Sequence[str] = ()) -> None:
        self.case = case
        super().__init__(
            model, case.feeding, target=case.target, wrt=wrt, also=names, how=replace(case.how, batch=1)
        )  # fmt: skip

    def lead(self, name: str, array: Any, count: int) -> Array:
        """Return a tensor of a run as the model gives it."""
        return np.asarray(array)

    def layers(self, graph: AttentionGraph, sample: int) -> tuple[list[LayerAttention], dict[int, Array]]:
        """Return the attention of one sample, and the gradients of its layers by their order."""
        rows = self.case.rows([sample])
        found = self(rows, [sample])
        fed = {name: np.asarray(array) for name, array in self.feeding.feeds(rows).items()}
        shapes = {name: array.shape for name, array in {**fed, **found.values}.items()}
        first = next(((a.shape, str(a.dtype)) for a in fed.values() if a.ndim > 1), ((1,), ""))
        given = (1 if self.feeding.bare else first[0][0], *first)
        words = self.case.words[sample] if sample < len(self.case.words) else ()
        made, gradients = [], {}
        for layer in graph.layers:
            array = found.values[layer.tensor]
            if sample_weights(array, layer, shapes, given, 0, 0)[1]:
                raise _windowed(layer)
            made.append(layer_attention(array, layer, shapes, given, (0, 0), words))
            if layer.tensor in found.gradients:
                gradients[layer.order] = sample_weights(
                    found.gradients[layer.tensor], layer, shapes, given, 0, 0
                )[0]  # fmt: skip
        return made, gradients


def _windowed(layer: AttentionNode) -> SelectionError:
    return SelectionError(
        f"the attention of {printable(layer.name, 60)} is in windows, so no token is followed through all layers",
        hint="take a method that attributes to inputs, such as integrated-gradients",
    )


def _unfused(case: Case) -> ir.Model:
    """Return the model with fused attention taken apart, so that its weights lie on the way to the target."""
    if not any("Attention" in node.op_type for node in case.model.graph):
        return case.model
    names = [str(value.name) for value in case.model.graph.inputs]
    return expand(prepare(case.model), standard_table(), case.target.tensor, names)


def _rows(rolled: Rollout, token: int | str, reached: npt.NDArray[np.bool_] | None) -> tuple[list[Array], str]:
    """Return what each token counts, of the queries and of others that they attend to, and whose row that is."""
    tokens, count = rolled.tokens, len(rolled.matrix)
    asked = str(token).strip().lower()
    if asked == "auto" and reached is not None and reached.any():
        places = np.flatnonzero(reached)
    elif asked == "auto":
        learned = [block for block in tokens.blocks if block.name == "CLS"]
        first = learned[0].start if learned else 0 if 0 in tokens.special else None
        places = np.arange(count) if first is None else np.array([first])
    elif asked == "mean":
        places = np.arange(count)
    else:
        places = np.array([count - 1 if asked == "last" else tokens.find(str(token))])
    place, label = int(places[0]), tokens.labels[int(places[0])]
    if len(places) > 1:
        whose = f"mean of {len(places)} of {count} tokens"
    else:
        whose = f"row of token {place}" + (f" ({printable(label, 40)})" if label != str(place) else "")
    return [matrix[places].mean(axis=0) for matrix in (rolled.matrix, *(m for m, _ in rolled.across))], whose


def _found(
    case: Case, graph: AttentionGraph, rolled: Sequence[Rollout], rows: Sequence[tuple[list[Array], str]]
) -> Found:
    """Return the rows of each sample on the grid of patches, and over the tokens of a text."""
    sides = [(rolled[0].tokens, *(tokens for _, tokens in one.across)) for one in rolled]
    if len({tuple(tokens.blocks for tokens in side) for side in sides}) > 1:
        raise SelectionError("the samples have different tokens", hint="give one at a time")
    how = f"through {len(rolled[0].layers)} layers of attention"
    notes = list(dict.fromkeys(text for _, text in rows))[:2]
    maps: dict[str, Array] = {}
    layers: list[Layer] = []
    for place, tokens in enumerate(sides[0]):
        values = np.stack([own[place] for own, _ in rows])
        layer = _layer(case, graph, tokens, how, place)
        if layer.block is not None:
            notes += _outside(values, layer.block)
            values = values[:, layer.block.start : layer.block.stop].reshape(len(values), *layer.size)
        layers.append(layer)
        maps[layer.name] = values
    notes += [part for part in (rolled[0].note, graph.refusals()) if part]
    # The one that lies on a picture is drawn there.
    drawn = next((layer for layer in layers if layer.block is not None), layers[0])
    axes = {layer.name: "NHW" if layer.block is not None else "NT" for layer in layers}
    return Found(maps, notes=tuple(notes), layer=drawn, axes=axes)


def _layer(case: Case, graph: AttentionGraph, tokens: Tokens, how: str, place: int) -> Layer:
    """Return tokens as positions: the patches among them, named after the convolution that cuts them, or all."""
    node = graph.layers[-1]
    streams = [stream for one in reversed(graph.layers) for stream in (one.queries, one.keys)]
    block = tokens.image
    if block is not None and block.grid is not None:
        shapes: Mapping[str, tuple[int, ...]] = case.around.shapes
        planes = (name for stream in streams for name in stream.planes if shapes.get(name, ())[2:] == block.grid)
        return Layer(next(planes, node.tensor), "NWC", block.grid, block, how)
    ids = [name for name in tokens.inputs if case.feeding.rowwise & {name}]
    inner = [name for name in case.sources if name in case.inner]
    name = next(iter([*inner, *ids]), "tokens")
    return Layer(name if not place else f"{name}.{place}", "NWC", (len(tokens),), None, how)


def _outside(values: Array, block: TokenBlock) -> list[str]:
    """Say what the tokens that are no patches have."""
    whole = np.abs(values).sum(axis=1)
    inside = np.abs(values[:, block.start : block.stop]).sum(axis=1)
    share = float(np.max(1 - inside / np.where(whole > 0, whole, 1.0)))
    return [f"up to {100 * share:.2g} % lies on tokens that are no patches"] if share > 1e-6 else []
