"""``onnxviz doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxviz.cli.options import echo_json


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Examine the installation: versions, providers that really load, missing CUDA libraries. Exit 1 on a problem."""
    from onnxviz.api import doctor as examine

    found = examine()
    if as_json:
        echo_json(found.to_dict())
    else:
        typer.echo(f"Python {found.python}")
        for name, version in found.versions.items():
            typer.echo(f"  {name:16} {version or 'not installed (optional)'}")
        typer.echo("onnxruntime")
        for name, version in found.onnxruntime.items():
            typer.echo(f"  {name:16} {version}")
        typer.echo("providers")
        for status in found.providers:
            typer.echo(f"  {status.provider:28} {'loads' if status.loads else f'does not load: {status.reason}'}")
        for problem in found.problems:
            typer.echo(f"problem: {problem}")
        if not found.problems:
            typer.echo("no problems found")
    if found.problems:
        raise typer.Exit(1)
