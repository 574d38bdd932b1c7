"""``onnxviz explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Batch, Input, ModelFile, Vocabulary, draws_a_picture, runs_a_model, tell
from onnxviz.cli.progress import shown_progress


def parameters_of(given: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """Read ``NAME=VALUE`` options: numbers, true and false, texts.

    Raises:
        InputError: One is not of that form.

    >>> parameters_of(["steps=100", "noise=0.1", "relu=false", "baseline=blur"])
    {'steps': 100, 'noise': 0.1, 'relu': False, 'baseline': 'blur'}
    """
    from onnxviz.errors import InputError

    found: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{option} {text!r} is not NAME=VALUE", hint=f"write {option} steps=100")
        found[name.strip().replace("-", "_")] = _value(value.strip())
    return found


def shares_of(text: str) -> tuple[float, ...]:
    """Read shares between 0 and 1.

    Raises:
        InputError: One is none.

    >>> shares_of("0.25,0.5"), shares_of("none")
    ((0.25, 0.5), ())
    """
    from onnxviz.errors import InputError

    try:
        shares = tuple(float(part) for part in text.split(",")) if text.strip().lower() != "none" else ()
    except ValueError:
        shares = (-1.0,)
    if not all(0 < share < 1 for share in shares):
        raise InputError(f"--contours {text!r} are no shares between 0 and 1", hint="write --contours 0.25,0.5 or none")
    return shares


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _print_methods(value: bool) -> None:
    if not value:
        return
    from onnxviz.analysis.attribution.methods import broken_methods, known_methods

    for name, row in known_methods().items():
        own = " ".join(f"{key}={_written(default)}" for key, default in row.parameters.items())
        typer.echo(f"{name:22}{row.about}\n{'':22}{row.source}{f'; --set {own}' if own else ''}")
    for line in broken_methods():
        tell(line)
    raise typer.Exit


def _written(default: Any) -> str:
    """Return a default as it is written on the command line; nothing where there is none."""
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


@runs_a_model
@draws_a_picture
def explain(
    model: ModelFile,
    input: Input = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="M", help="grad-cam by default; several are drawn side by side."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="T",
            help="A class by index or name, box:0, mask:CLASS, token:POSITION, TENSOR:CHANNEL,ROW,COLUMN, or an "
            "expression; the highest class by default. Two are contrasted.",
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="T", help="The layer of a CAM, or what other methods attribute to."),
    ] = None,
    of: Annotated[
        str | None, typer.Option("--of", metavar="T", help="Which output or inner tensor holds the scores of classes.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Names of the classes: one a line, or JSON.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the methods; may be repeated."),
    ] = None,
    contours: Annotated[
        str, typer.Option("--contours", metavar="S[,S…]", help="Lines at shares of a layer's largest value; or none.")
    ] = "0.5",
    tokens: Vocabulary = None,
    batch: Batch = None,
    max_memory: Annotated[
        str | None, typer.Option("--max-memory", metavar="SIZE", help="What the tensors of a run may take: 2GB.")
    ] = None,
    allow_cut: Annotated[
        bool, typer.Option("--allow-cut", help="Go on without paths through operators that have no gradient.")
    ] = False,
    straight_through: Annotated[
        bool, typer.Option("--straight-through", help="Pass gradients through quantisation as if it did not round.")
    ] = False,
    fallback: Annotated[
        bool,
        typer.Option("--fallback", help="Where no gradient leads to the input, take a method that needs none."),
    ] = False,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify", help="Examine the maps: deletion and insertion beside controls, random weights, noise."
        ),
    ] = False,
    certify_set: Annotated[
        list[str] | None,
        typer.Option("--certify-set", metavar="NAME=VALUE", help="A setting of --certify, such as stages=4."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate", metavar="FILE", help="What --certify found, as .png, .svg, .pdf or .json; implies it."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="An .onnx file that gives the model's outputs and the map."),
    ] = None,
    export_target: Annotated[
        Literal["argmax", "input", "fixed"] | None,
        typer.Option(
            "--export-target",
            help="Whose map: that of the highest class, of a class that is fed, or of --target (where given).",
        ),
    ] = None,
    methods: Annotated[
        bool, typer.Option("--methods", callback=_print_methods, is_eager=True, help="List the methods.")
    ] = False,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """Show which parts of an input an answer came from: gradients, integrated gradients, class activation maps, …"""
    from onnxviz.api import explain as draw

    settings = parameters_of(certify_set, "--certify-set")
    with shown_progress() as show:
        draw(
            model, input, method or "grad-cam", output, data=data, target=target or None, layer=layer, output=of,
            labels=labels, tokens=tokens, contours=shares_of(contours), parameters=parameters_of(set), batch=batch,
            max_memory=max_memory, allow_cut=allow_cut, straight_through=straight_through, fallback=fallback,
            certify=settings or certify, certificate=certificate, export=export, export_target=export_target,
            progress=None if show is None else lambda what, done, of: show(done, of, what), tell=tell, **options,
        )  # fmt: skip
