"""The verb ``attention``: find it in a model, run the model, draw the weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnxviz.api.common import DATA, PICTURES, check_outputs, save_view, split_options, write_numbers
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.attention import AttentionMaps
    from onnxviz.runtime.capture import Feed
    from onnxviz.runtime.inputs import Inputs

__all__ = ["AttentionView", "attention", "attention_weights"]

_RESIDUAL = 0.5
AttentionView = Literal["auto", "grid", "matrix", "blocks", "rollout", "heads"]


def attention_weights(
    model: ir.Model | str | os.PathLike[str],
    inputs: Feed = None,
    layer: str | int | None = None,
    *,
    head: int | None = None,
    tokens: str | None = None,
    sample: int = 0,
    window: int = 0,
    **options: Any,
) -> AttentionMaps:
    """Run a model and return its attention weights, with what queries and keys stand for.

    Args:
        model: A path or an opened model.
        inputs: What to feed it, of one batch; None feeds seeded random numbers.
        layer: Which attention layer: its number from 0 (negative from the end), or a part of its name; by default all.
        head: Which head; by default all.
        tokens: Words of the text: a vocabulary file (a token a line, or ``tokenizer.json``), or a comma list.
        sample: Which sample of the batch.
        window: Which window of the sample, where attention is in windows.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Returns:
        The weights; see :class:`onnxviz.analysis.attention.AttentionMaps`.

    Raises:
        SelectionError: The model has no attention, or no such layer, head or sample.
        InputError: An input or the tokens do not fit.
    """
    from onnxviz.analysis.attention import choose_layers, layers_named
    from onnxviz.analysis.attention_run import attention_maps
    from onnxviz.errors import listed, printable
    from onnxviz.graph.attention import find_attention
    from onnxviz.runtime.capture import capture

    opened = as_model(model)
    found = find_attention(opened)
    refused = {place: one.line for place, one in found.refused.items()}
    layers = layers_named(found.layers, None if layer is None else str(layer), refused)
    fed = _inputs(opened, inputs, split_options(options)[0])
    captured = capture(found.model, fed, found.tensors(layers), bodies=False, **options)
    batch = next((array.shape[0] for array in fed.feeds.values() if getattr(array, "ndim", 0) > 1), 1)
    maps = attention_maps(captured, layers, sample=sample, window=window, batch=batch)
    if tokens is not None:
        words = _words(maps, fed, tokens, sample)
        maps = attention_maps(captured, layers, sample=sample, window=window, batch=batch, words=words)
    made_up = fed.made_up
    said = [f"random numbers for {listed([printable(name, 40) for name in made_up], 3)}"] if made_up else []
    told = found.refusals()
    maps = replace(maps, notes=(*said, *([told] if told else []), *maps.notes), refused=told)
    return choose_layers(maps, None, head)


def _inputs(model: ir.Model, inputs: Feed, options: dict[str, Any]) -> Inputs:
    from onnxviz.errors import InputError
    from onnxviz.runtime.batches import Batches, load_batches
    from onnxviz.runtime.inputs import Inputs

    if isinstance(inputs, Inputs):
        return inputs
    sources: Any = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs or ()
    batches = inputs if isinstance(inputs, Batches) else load_batches(model, sources, **options)
    if len(batches) > 1:
        raise InputError(f"{len(batches)} batches were given", hint="attention is drawn of one input: give one")
    return batches.first()


def _words(maps: AttentionMaps, fed: Inputs, tokens: str, sample: int) -> list[str]:
    from onnxviz.runtime.words import words_of

    sides = [side for layer in maps.layers for side in (layer.queries, layer.keys)]
    texts = [(side, b) for side in sides for b in side.blocks if b.kind == "text"]
    texts = texts or [(side, b) for side in sides for b in side.blocks if b.kind in ("signal", "tokens")]
    count = len(texts[0][1]) if texts else None
    ids = texts[0][0].inputs if texts else ()
    fitting = [name for name in ids if _length(fed.feeds.get(name)) == count]
    named = sorted(fitting, key=lambda name: ("type" in name.lower() or "mask" in name.lower(), fitting.index(name)))
    return words_of(tokens, fed.feeds, named, sample, count)


def _length(array: Any) -> int | None:
    return array.shape[-1] if getattr(array, "ndim", 0) in (1, 2) else None


def attention(
    model: ir.Model | str | os.PathLike[str],
    inputs: Feed = None,
    layer: str | int | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    view: AttentionView = "auto",
    query: str | int | None = None,
    data: str | os.PathLike[str] | None = None,
    residual: float = _RESIDUAL,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw the attention of a model.

    Args:
        model: A path or an opened model.
        inputs: What to feed it, of one batch; None feeds seeded random numbers.
        layer: Which attention layer, as :func:`attention_weights` takes it.
        output: ``.png``, ``.svg`` or ``.pdf``.
        view: ``"grid"``: where a query looks in the picture; ``"matrix"``: queries by keys; ``"blocks"``: mass between
            kinds of tokens; ``"rollout"``: through all layers; ``"heads"``: head against head. ``"auto"`` takes the
            grid where keys are patches of a picture, else the matrix.
        query: Whose attention the grid and the rollout show: ``"cls"``, an index, ``"row,column"``, a word, ``"all"``.
        data: ``.npz`` for the numbers behind the picture.
        residual: Weight of the residual connection in a rollout.
        tell: Called with a line where layers keep their weights.
        options: ``head``, ``tokens``, ``sample``, ``window``, and those of the run, as :func:`attention_weights` takes
            them.

    Raises:
        SelectionError, InputError: As :func:`attention_weights`, or the view does not fit the model.
    """
    from onnxviz.errors import InputError

    if view not in get_args(AttentionView):
        raise InputError(f"there is no view {view!r}", hint=f"choose {', '.join(get_args(AttentionView))}")
    if query is not None and view in ("matrix", "blocks", "heads"):
        raise InputError(f"a query is no part of the view {view}", hint="it goes with --view grid and --view rollout")
    if residual != _RESIDUAL and view != "rollout":
        raise InputError(f"a residual is no part of the view {view}", hint="it goes with --view rollout")
    check_outputs((output, PICTURES), (data, DATA))
    maps = attention_weights(model, inputs, layer, **options)
    if tell is not None and maps.refused:
        tell(maps.refused)
    figure, more = _draw(maps, view, None if query is None else str(query), residual)
    if data is not None:
        from onnxviz.analysis.view_data import attention_data

        arrays, manifest = attention_data(maps)
        write_numbers(data, {**arrays, **more}, manifest)
    save_view(figure, output)
    return figure


def _draw(
    maps: AttentionMaps, view: AttentionView, query: str | None, residual: float
) -> tuple[Figure, dict[str, Any]]:
    from onnxviz.analysis.head_distance import head_distances
    from onnxviz.analysis.rollout import rollout
    from onnxviz.errors import InputError
    from onnxviz.plots.attention_grid import plot_attention_grid
    from onnxviz.plots.attention_matrices import plot_attention_blocks, plot_attention_matrices, plot_head_distances
    from onnxviz.plots.attention_rollout import plot_rollout

    if view == "rollout":
        rolled = rollout(maps.layers, residual=residual)
        if query is not None and rolled.tokens.image is None:
            raise InputError("the rollout of a text is drawn as a whole matrix", hint="leave out --query")
        title = f"Attention rollout of {maps.model_name}"
        return plot_rollout(rolled, picture=maps.picture, query=query, title=title), {"rollout": rolled.matrix}
    if view == "heads":
        distances = head_distances(maps.layers)
        title = f"How far apart the heads of {maps.model_name} are"
        return plot_head_distances(distances, title=title), {"head_distances": distances.matrix}
    if view == "blocks":
        return plot_attention_blocks(maps), {}
    if view == "grid" or (view == "auto" and any(layer.keys.image is not None for layer in maps.layers)):
        return plot_attention_grid(maps, query=query), {}
    if query is not None:
        raise InputError("no keys are patches of a picture, so there is no grid of a query", hint="leave out --query")
    return plot_attention_matrices(maps), {}
