"""``onnxviz check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from onnxviz.cli.options import Input, ModelFile, runs_on_providers, tell

if TYPE_CHECKING:
    from onnxviz.checks.mending import Mended

Ids = Annotated[list[str] | None, typer.Option("--only", metavar="ID[,ID…]", help="Only these checks; globs: G*.")]
Skip = Annotated[list[str] | None, typer.Option("--skip", metavar="ID[,ID…]", help="Leave these checks out.")]


@runs_on_providers
def check(
    model: ModelFile,
    input: Input = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="A.onnx", help="A model that should compute the same.")
    ] = None,
    target_opset: Annotated[
        int | None, typer.Option("--target-opset", min=1, metavar="N", help="Newest opset that the target knows.")
    ] = None,
    providers: Annotated[
        str, typer.Option("--providers", metavar="P[,P…]", help="Where the model is to run: cpu,cuda.")
    ] = "",
    max_memory: Annotated[
        str | None, typer.Option("--max-memory", metavar="SIZE", help="Budget of activation memory, such as 2GB.")
    ] = None,
    format: Annotated[
        Literal["text", "json", "sarif", "junit"], typer.Option("--format", help="How the result is written.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output if left out.")
    ] = None,
    fail_on: Annotated[
        Literal["error", "warning"], typer.Option("--fail-on", help="How grave a finding must be to end with 1.")
    ] = "error",
    only: Ids = None,
    skip: Skip = None,
    static: Annotated[bool, typer.Option("--static", help="Leave out the checks that run the model.")] = False,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE.json", help="Findings that are known and let pass.")
    ] = None,
    save_baseline: Annotated[
        Path | None, typer.Option("--save-baseline", metavar="FILE.json", help="Write what is found as a baseline.")
    ] = None,
    latency_baseline: Annotated[
        Path | None, typer.Option("--latency-baseline", metavar="FILE.json", help="Times that it must keep to: P05.")
    ] = None,
    save_latency: Annotated[
        Path | None, typer.Option("--save-latency", metavar="FILE.json", help="Write how long a run takes now.")
    ] = None,
    repro: Annotated[
        Path | None,
        typer.Option("--repro", metavar="FOLDER", help="Write small models that show findings about numbers."),
    ] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT.onnx", help="Write a mended copy, each step proven by a run.")
    ] = None,
    *,
    options: dict[str, Any],
) -> int:
    """Check whether a model is fit to deploy; exit code 1 if not, 3 if something could not be checked."""
    from onnxviz import api
    from onnxviz.api.check import check_mended_path
    from onnxviz.checks.formats import render
    from onnxviz.errors import InputError, OutputError
    from onnxviz.graph.files import atomic_write, check_output

    if static and (input or reference or latency_baseline or save_latency or repro):
        raise InputError("--static runs nothing", hint="leave it out, or what runs the model: --input, --reference …")
    if output is not None:
        check_output(output)
    if fix is not None:
        check_mended_path(model, fix)
    if repro is not None and (repro.is_file() or not repro.absolute().parent.is_dir()):
        raise OutputError(f"cannot write into {repro}: it is no folder, and none can be made", hint="name a folder")
    del options["providers"]  # that of --provider, which this verb does not have
    asked = providers.split(",") if providers else ()
    result = api.check(
        model, input, reference=reference, target_opset=target_opset, providers=asked,
        max_memory=max_memory, only=_ids(only), skip=_ids(skip), static=static, baseline=baseline,
        save_baseline=save_baseline, latency_baseline=latency_baseline, save_latency=save_latency, repro=repro,
        **options,
    )  # fmt: skip
    text = render(result, format, fail_on)
    if output is None:
        typer.echo(text, nl=False)
    else:
        atomic_write(output, text)
        typer.echo(str(output))
    if fix is not None:
        _tell_mended(fix, api.mend(model, fix, input, **options))
    return result.exit_code(fail_on)


def _tell_mended(path: Path, mended: Mended) -> None:
    """Say on standard error what was changed: standard output holds the result alone."""
    proof = f"each step proven on {mended.proof} outputs" if mended.proof else "nothing that is computed was touched"
    tell(f"{path}: {proof if mended.changes else 'nothing to mend'}")
    for change in mended.changes:
        tell(f"  {change}")
    for reason in mended.left_out:
        tell(f"  {reason}")


def _ids(given: list[str] | None) -> list[str]:
    return [id for text in given or () for id in text.split(",") if id.strip()]
