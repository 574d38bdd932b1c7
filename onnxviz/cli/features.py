"""``onnxviz features``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import (
    ChannelScore,
    Input,
    ModelFile,
    MostChannels,
    Sample,
    draws_a_picture,
    runs_a_model,
    tell,
)

_MOST = 4096  # numbers of a list


def numbers_of(option: str, text: str) -> list[int]:
    """Read a list of whole numbers and ranges, both ends included.

    Raises:
        InputError: It is none.

    >>> numbers_of("--channel", "3,7,12-14")
    [3, 7, 12, 13, 14]
    """
    from onnxviz.errors import InputError

    found: list[int] = []
    for part in text.split(","):
        read = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if read is None or (read[2] is not None and int(read[2]) < int(read[1])):
            raise InputError(f"{option} {text!r} is no list of numbers", hint=f"write {option} 3,7,12-20")
        first, last = int(read[1]), int(read[2] or read[1])
        if last - first >= _MOST or len(found) > _MOST:
            raise InputError(f"{option} {text!r} names too many", hint=f"name at most {_MOST}")
        found += range(first, last + 1)
    return found


@runs_a_model
@draws_a_picture
def features(
    model: ModelFile,
    input: Input = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor", "-t", metavar="GLOB", help="Which tensors: names, op:TYPE, @kind; all layers by default."
        ),
    ] = None,
    top: MostChannels = 64,
    by: ChannelScore = "energy",
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="N,N-N", help="Which channels, such as 3,7,12-20.")
    ] = None,
    scaling: Annotated[
        Literal["shared", "channel"],
        typer.Option("--color-scale", help="One colour scale for a tensor, or one a channel."),
    ] = "shared",
    sample: Sample = 0,
    axes: Annotated[
        str | None,
        typer.Option("--axes", metavar="LETTERS", help="A letter an axis of the tensors: NCHW, NTC, CHW, NCTHW, …"),
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option("--slice", metavar="N|strip", help="Of volumes and video: which slices, such as 4 or 0,8-10."),
    ] = None,
    along: Annotated[
        str | None, typer.Option("--along", metavar="AXIS", help="Cut volumes along depth, height, width or time.")
    ] = None,
    overlay: Annotated[
        Literal["mean", "max", "energy"] | None,
        typer.Option("--overlay", help="One heat map a layer, over its channels, on the input picture or signal."),
    ] = None,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:
    """Draw feature maps: a sheet of all layers, a grid of one tensor's channels, or heat maps over the input."""
    from onnxviz.api import features as draw_features

    cut: Any = slices if slices is None or slices == "strip" else numbers_of("--slice", slices)
    draw_features(
        model, input, tensor, output, data=data, top=top, by=by, scale=scaling, sample=sample, axes=axes, along=along,
        channels=None if channel is None else numbers_of("--channel", channel), slices=cut, overlay=overlay,
        tell=tell, **options,
    )  # fmt: skip
