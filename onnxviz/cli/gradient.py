"""``onnxviz gradient``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onnxviz.cli.options import AllowCut, StraightThrough, Target, echo_json
from onnxviz.errors import InputError, listed, printable

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.gradient.model import GradientModel

_MOST = 40  # cuts that are told one by one


def gradient(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The .onnx file to write.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="T", help="The tensor that is differentiated; OUT takes its gradient as T.grad."),
    ] = None,
    wrt: Annotated[
        list[str] | None,
        typer.Option(
            "--wrt", metavar="X",
            help="Whose gradient is asked for, as X.grad: an input, a weight, any tensor; may be repeated. "
            "By default every float input.",
        ),
    ] = None,
    target: Target = None,
    allow_cut: AllowCut = False,
    straight_through: StraightThrough = False,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules", metavar="NAME",
            help="Other rules than the true gradient's: guided, deconvnet, redirected, deeplift, lrp-epsilon-plus, "
            "lrp-gamma:gamma=0.5 and more (docs/gradient_rules.md); X.grad then holds what they carry back.",
        ),
    ] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Print which operators have a gradient, version by version; no MODEL.")
    ] = False,
    format: Annotated[
        Literal["text", "json", "tsv"], typer.Option("--format", metavar="text|json|tsv", help="Of --coverage.")
    ] = "text",
) -> None:  # fmt: skip
    """Write a model that computes gradients beside its outputs, for any runtime."""
    if coverage:
        _coverage(format)
        return
    if model is None or output is None:
        raise InputError(
            f"there is no {'MODEL' if model is None else 'file to write'}",
            hint="onnxviz gradient MODEL -o OUT --of T, or onnxviz gradient --coverage",
        )
    from onnxviz.api import gradient as build

    made = build(
        model, of, wrt, output, target=target, allow_cut=allow_cut, straight_through=straight_through, rules=rules
    )
    _tell(made, output)


def _tell(made: GradientModel, output: Path) -> None:
    """Say what was made: what goes in, what comes out, what is cut, and how it is run."""
    graph = made.model.graph
    fed = [value for value in graph.inputs if not value.is_initializer()]
    lines = [
        str(output),
        f"inputs: {', '.join(map(_described, fed))}",
        f"outputs: {', '.join(map(_described, graph.outputs))}",
        *(f"{name} is the gradient of {made.target} with respect to {x}" for x, name in made.gradients.items()),
    ]
    if made.seed is not None:
        lines.append(f"{made.seed} is the gradient that enters at {made.target}: ones differentiate its sum")
    if made.left_out:
        lines.append(f"left out: {listed(made.left_out)}, to which no gradient of {made.target} leads")
    lines += [f"note: {note}" for note in made.notes]
    lines += [f"cut: {cut}" for cut in made.cuts[:_MOST]]
    if len(made.cuts) > _MOST:
        lines.append(f"cut: {len(made.cuts) - _MOST} more")
    feeds = ", ".join(f"{json.dumps(value.name)}: ..." for value in fed)
    wanted = json.dumps(list(made.gradients.values()))
    lines.append(f"run: onnxruntime.InferenceSession({json.dumps(str(output))}).run({wanted}, {{{feeds}}})")
    for line in lines:
        typer.echo(printable(line, 2000))


def _described(value: ir.Value) -> str:
    shape = "?" if value.shape is None else f"[{', '.join(str(size) for size in value.shape)}]"
    return f"{value.name} {value.dtype.name.lower() if value.dtype is not None else value.type} {shape}"


def _coverage(format: str) -> None:
    from onnxviz.gradient.coverage import HEADER, STATUSES, coverage, matrix

    rows = coverage()
    if format == "json":
        echo_json([dict(zip(HEADER, row.cells(), strict=True)) for row in rows])
    elif format == "tsv":
        for cells in (HEADER, *(row.cells() for row in rows)):
            typer.echo("\t".join(map(str, cells)))
    else:
        typer.echo(f"{matrix(rows)}\n")
        for status, (sign, meaning) in STATUSES.items():
            count = sum(row.status == status for row in rows)
            typer.echo(f"{sign} {status}, {count} operators and versions: {meaning}")
        reasons = [row for row in rows if row.status in ("partly", "refused", "untested")]
        for row in reasons:
            typer.echo(f"{STATUSES[row.status][0]} {row.operator}-{row.version}: {row.why or 'no case'}")
