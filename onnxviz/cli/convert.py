"""``onnxviz convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxviz.errors import InputError


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="file.py:factory, .pt2, .keras or .h5.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="The .onnx file to write.")],
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input-shape", metavar="1,3,224,224", help="Shape of an input, batch included; repeat for each input."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="State dict (.pt, .safetensors) or Keras weights.")
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option("--dynamic", metavar="NAME:AXIS", help="Leave a further axis open, as image:2=height."),
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="Keep the batch size fixed.")] = False,
    opset: Annotated[int | None, typer.Option("--opset", help="The ONNX opset; the exporter's own by default.")] = None,
    keep_batchnorm: Annotated[
        bool, typer.Option("--keep-batchnorm", help="Do not fold BatchNorm into the convolution before it.")
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that the source brings.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long the code of a source may take.")
    ] = 1800.0,
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", metavar="8GB", help="How much memory; 80 % of the machine's by default."),
    ] = None,
    no_parity: Annotated[
        bool, typer.Option("--no-parity", help="Do not compare the outputs with the source's.")
    ] = False,
    parity: Annotated[
        list[Path] | None,
        typer.Option(
            "--parity",
            metavar="FILE.json",
            help="Write the comparison here; .png, .svg, .pdf draw it.",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", metavar="float16|int8", help="Compare the layers in this as well."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of example inputs.")] = 0,
) -> None:
    """Convert a PyTorch or Keras network to ONNX and check that both give the same outputs."""
    from onnxviz.api import convert as convert_source

    result = convert_source(
        source,
        output,
        input_shape=[_shape(text) for text in input_shape or []] or None,
        weights=weights,
        static=static,
        opset=opset,
        trust=trust,
        dynamic=_dynamic(dynamic or []),
        keep_batchnorm=keep_batchnorm,
        parity=not no_parity,
        parity_file=parity,
        precisions=precision or [],
        timeout=timeout,
        max_memory=max_memory,
        seed=seed,
    )
    typer.echo(f"{output}: {result.framework}, exported by {result.exporter}")
    for note in result.notes:
        typer.echo(note, err=True)
    if result.parity is not None:
        typer.echo(str(result.parity))
        for layers in result.parity.layers:
            typer.echo(str(layers))
        if not result.parity.layers:
            typer.echo("the layers were not compared: they cannot be watched in this source", err=True)


def _dynamic(given: list[str]) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {}
    for text in given:
        name, colon, rest = text.rpartition(":")
        axis, _, label = rest.partition("=")
        if not colon or not name or not axis.lstrip("-").isdigit():
            raise InputError(f"--dynamic {text!r} names no axis", hint="write --dynamic image:2 or image:2=height")
        axes.setdefault(name, {})[int(axis)] = label or f"{name}_{axis}"
    return axes


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError as error:
        raise InputError(f"--input-shape {text!r} is no shape", hint="write --input-shape 1,3,224,224") from error
