"""``onnxviz maximize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import ModelFile, draws_a_picture, runs_a_model, tell
from onnxviz.cli.progress import shown_progress

_Text = list[str] | None


@runs_a_model
@draws_a_picture
def maximize(
    model: ModelFile,
    layer: Annotated[
        str | None,
        typer.Option("--layer", "-l", metavar="TENSOR", help="Whose answer; by default the scores of the classes."),
    ] = None,
    channel: Annotated[
        list[int] | None, typer.Option("--channel", "-c", metavar="C", help="A channel; may be repeated.")
    ] = None,
    neuron: Annotated[
        _Text, typer.Option("--neuron", metavar="C[,Y,X]", help="A neuron: in the middle, or at a position.")
    ] = None,
    class_: Annotated[
        _Text, typer.Option("--class", metavar="K|NAME", help="A class, before the softmax; may be repeated.")
    ] = None,
    direction: Annotated[
        Path | None, typer.Option("--direction", metavar="FILE.npy", help="Directions among channels: (C) or (K, C).")
    ] = None,
    dream: Annotated[
        Path | None, typer.Option("--dream", metavar="PICTURE", help="Deep dream of a layer, begun with a picture.")
    ] = None,
    caricature: Annotated[
        Path | None, typer.Option("--caricature", metavar="PICTURE", help="More of what a layer holds for a picture.")
    ] = None,
    also: Annotated[
        _Text, typer.Option("--also", metavar="LAYER:C[*W]", help="A further term, with its weight; may be repeated.")
    ] = None,
    cosine: Annotated[
        float | None, typer.Option("--cosine", min=0, help="Exponent of the cosine of a direction or caricature.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many channels or classes, where none are named.")] = 16,
    labels: Annotated[Path | None, typer.Option("--labels", metavar="FILE", help="Class names, one a line.")] = None,
    input: Annotated[
        _Text,
        typer.Option("--input", "-i", metavar="SOURCE", help="Samples: those answered most are shown beside."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", metavar="PICTURE", help="What to begin with instead of noise.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the optimiser. [default: 512]")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Step size of Adam. [default: 0.05]")] = None,
    parameters: Annotated[
        Literal["fft", "pixel"] | None, typer.Option("--parameters", help="Optimise the spectrum, or pixels.")
    ] = None,
    decay: Annotated[float, typer.Option("--decay", help="Exponent of the frequency in the spectrum's scale.")] = 1.0,
    transform: Annotated[
        bool, typer.Option("--transform/--no-transform", help="Pad, jitter, scale and rotate at each step.")
    ] = True,
    octaves: Annotated[
        int | None, typer.Option("--octaves", min=1, help="How often a dream looks closer. [default: 4]")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Different pictures for each.")] = 1,
    diversity: Annotated[float, typer.Option("--diversity", min=0, help="What likeness of them costs.")] = 0.5,
    wrt: Annotated[str | None, typer.Option("--wrt", metavar="INPUT", help="The input that is made up.")] = None,
    range_: Annotated[
        str | None, typer.Option("--range", metavar="LOW,HIGH", help="Values of an input that takes no picture.")
    ] = None,
    fix: Annotated[
        _Text, typer.Option("--fix", metavar="NAME=VALUE", help="What enters another input; may be repeated.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Most pictures at once.")] = None,
    max_memory: Annotated[str, typer.Option("--max-memory", metavar="SIZE", help="What a step may take.")] = "2GB",
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="FILE.npz", help="Checkpoint: written every 64 steps, gone on from if there."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules", metavar="NAME",
            help="Gradient rules: redirected (at dead rectifiers; the default), gradient, guided and more.",
        ),
    ] = None,
    allow_cut: Annotated[
        bool, typer.Option("--allow-cut", help="Go on without paths through operators that have no gradient rule.")
    ] = False,
    straight_through: Annotated[
        bool, typer.Option("--straight-through", help="Pass gradients through quantisation as if it did not round.")
    ] = False,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """Draw what a model looks for: pictures made so that channels, neurons, classes or directions answer most."""
    from onnxviz.analysis.maximize_views import Views
    from onnxviz.api import maximize as draw

    given = {"steps": steps, "rate": rate, "parameters": parameters, "views": None if transform else Views.none()}
    settings = {name: value for name, value in given.items() if value is not None}
    with shown_progress(what="steps") as progress:
        draw(
            model, layer, output, data=data, tell=tell, channels=channel, neurons=neuron, classes=class_,
            direction=direction, dream=dream, caricature=caricature, also=also or (), cosine=cosine, top=top,
            labels=labels, inputs=input, start=start, octaves=octaves, wrt=wrt, bounds=_bounds(range_), fixed=fix or (),
            settings={**settings, "decay": decay, "count": count, "diversity": diversity}, batch=batch,
            max_memory=max_memory, resume=resume, rules=rules, allow_cut=allow_cut, straight_through=straight_through,
            progress=progress, **options,
        )  # fmt: skip


def _bounds(text: str | None) -> tuple[float, float] | None:
    from onnxviz.errors import InputError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--range {text!r} is no pair of numbers", hint="write --range -1,1") from error
    return low, high
