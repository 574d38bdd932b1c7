"""The command ``onnxviz``: one file a verb; each parses, calls one function of :mod:`onnxviz.api`, and prints."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import traceback
from typing import Annotated

import typer

from onnxviz._version import __version__
from onnxviz.cli.activations import activations
from onnxviz.cli.attention import attention
from onnxviz.cli.capture import capture
from onnxviz.cli.check import check
from onnxviz.cli.compare import compare
from onnxviz.cli.convert import convert
from onnxviz.cli.doctor import doctor
from onnxviz.cli.explain import explain
from onnxviz.cli.expose import expose
from onnxviz.cli.features import features
from onnxviz.cli.flow import flow
from onnxviz.cli.gradient import gradient
from onnxviz.cli.graph import graph
from onnxviz.cli.inspect import inspect
from onnxviz.cli.maximize import maximize
from onnxviz.cli.neurons import neurons
from onnxviz.cli.pooling import pooling
from onnxviz.cli.profile import profile
from onnxviz.cli.project import project
from onnxviz.cli.readiness import readiness
from onnxviz.cli.report import report
from onnxviz.cli.sweep import sweep
from onnxviz.cli.weights import weights
from onnxviz.errors import OnnxvizError, printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="onnxviz",
    help="See inside any ONNX model: architecture, feature maps, weights and every intermediate tensor.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    inspect,
    convert,
    expose,
    capture,
    graph,
    features,
    activations,
    pooling,
    neurons,
    weights,
    project,
    attention,
    gradient,
    explain,
    maximize,
    flow,
    profile,
    check,
    compare,
    readiness,
    sweep,
    report,
    doctor,
):
    app.command()(verb)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"onnxviz {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command and end with its exit code: 0 fine, 1 a difference, 2 bad input or usage, 3 could not check."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in a model may hold what the terminal cannot show
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)  # so that temporary files are removed
    # A large model is hundreds of thousands of objects that live to the end: walking through them again and again,
    # to find cycles, took a third of the time.
    gc.set_threshold(100_000, 20, 100)
    code = _run(sys.argv[1:])
    gc.freeze()  # nor is there a point in taking it apart at the end
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments  # taken wherever it stands, as users append it to the command that failed
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = app(arguments or ["--help"], prog_name="onnxviz", standalone_mode=False)
        sys.stdout.flush()
    except OnnxvizError as error:
        return _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130, debug=False)
    except (BrokenPipeError, SystemExit):  # the reader has gone, as in `onnxviz inspect … | head`
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for the flush at exit
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2, debug)
    except Exception as error:  # noqa: BLE001 - the last resort: even a bug ends in one line
        return _usage(error, debug)
    return code if isinstance(code, int) else 0


def _fail(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"onnxviz: {line}", err=True)
    return code


def _usage(error: Exception, debug: bool) -> int:
    """Say what is wrong with the command line, or that onnxviz itself failed."""
    describe = getattr(error, "format_message", None)
    if describe is None:
        what = printable(f"{type(error).__name__}: {error}")
        return _fail(f"internal error: {what}; run it again with --debug and report what it shows", 2, debug)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "onnxviz"
    return _fail(f"{printable(' '.join(describe().split()))}; see {path} --help", getattr(error, "exit_code", 2), debug)
