"""Options that several verbs share, and how their texts become values."""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from onnxviz.errors import InputError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from onnxviz.runtime.inputs import InputRecord

__all__ = [
    "AllowCut", "Batch", "ChannelScore", "Data", "Dims", "Input", "Labels", "ModelFile", "MostChannels", "Sample",
    "Seed", "StraightThrough", "Target", "Vocabulary", "console", "dims", "draws_a_picture", "echo_json",
    "picture_path", "runs_a_model", "runs_on_providers", "sizes", "tell", "tell_inputs",
]  # fmt: skip

PICTURE_ENDINGS = (".png", ".svg", ".pdf")
_MOST_SIZES = 256
_OTHER_FILES = ("table", "architecture", "certificate", "export")
Verb = Callable[..., int | None]

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="SOURCE",
        help="A picture, .npy or .npz file, NAME=FILE, NAME=VALUE, or NAME=random|zeros|ones; may be repeated. "
        "Inputs without one are seeded random numbers.",
    ),
]  # fmt: skip
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE",
        help="The picture: .png, .svg or .pdf; MODEL_VERB.png in the working folder where it is left out.",
    ),
]  # fmt: skip
Format = Annotated[
    Literal["png", "svg", "pdf"] | None,
    typer.Option("--format", help="The picture's format, where FILE has no ending."),
]
Data = Annotated[Path | None, typer.Option("--data", metavar="FILE", help="The numbers behind the picture: .npz.")]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=N", help="Size of an open dimension (NAME, or INPUT:AXIS); may be repeated."),
]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Samples a batch, where the model leaves it open.")]
Sample = Annotated[int, typer.Option("--sample", min=0, help="Which sample is drawn.")]
MostChannels = Annotated[int, typer.Option("--top", min=1, help="Most channels of one tensor.")]
ChannelScore = Annotated[Literal["energy", "sparsity", "index"], typer.Option("--by", help="How channels are chosen.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", metavar="folders|FILE.csv",
        help="Class of each sample: its folder, or lines of FILE,CLASS; by default folders where there are several.",
    ),
]  # fmt: skip
Target = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="EXPR",
        help="What is differentiated, a number for each sample: logits[:, 7], logits[argmax], "
        "cross_entropy(logits, labels).",
    ),
]  # fmt: skip
StraightThrough = Annotated[
    bool, typer.Option("--straight-through", help="Gradients pass QuantizeLinear as if it did not round.")
]
AllowCut = Annotated[
    bool, typer.Option("--allow-cut", help="Go on without paths through operators that have no gradient rule.")
]
Vocabulary = Annotated[
    Path | None, typer.Option("--tokens", metavar="FILE", help="Words of token ids: one a line, or tokenizer.json.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all that is random: inputs, clusters, t-SNE, …")]
Provider = Annotated[str, typer.Option("--provider", help="auto, cpu, cuda, … or several: cuda,cpu.")]
OpLibrary = Annotated[
    Path | None,
    typer.Option("--op-library", metavar="FILE", help="Shared library of custom operators; it is executed."),
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Preprocessing of a picture: unit, raw, imagenet, keras-tf, keras-caffe.")
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="M[,M…]", help="Subtracted after scaling, per channel.")]
Std = Annotated[str | None, typer.Option("--std", metavar="S[,S…]", help="Divided by, per channel.")]
Scale = Annotated[str | None, typer.Option("--scale", metavar="F", help="Factor on pixels of 0…255, such as 1/255.")]
Layout = Annotated[str | None, typer.Option("--layout", help="NCHW or NHWC; inferred from the model.")]
Color = Annotated[str | None, typer.Option("--color", help="rgb, bgr, gray or rgba; inferred from the channels.")]
Resize = Annotated[
    str | None,
    typer.Option("--resize", metavar="MODE[:HxW]", help="stretch, crop, pad or none; HxW where the size is free."),
]


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(_number(part) for part in text.split(","))
        if not all(math.isfinite(number) for number in numbers) or (name == "scale" and len(numbers) > 1):
            raise ValueError(text)
        return numbers
    except (ValueError, ZeroDivisionError) as error:
        if name == "scale":
            raise InputError(f"--scale {text!r} is no number", hint="write --scale 1/255") from error
        raise InputError(f"--{name} {text!r} is no list of numbers", hint=f"write --{name} 0.5,0.5,0.5") from error


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / (float(below) if below else 1.0)


def dims(given: list[str] | None) -> dict[str, int]:
    """Read ``NAME=N`` options."""
    sizes = {}
    for text in given or []:
        name, _, size = text.rpartition("=")
        if not name or not size.lstrip("-").isdigit():
            raise InputError(f"--dim {text!r} is not NAME=N", hint="write --dim batch=1")
        sizes[name] = int(size)
    return sizes


def sizes(given: list[str] | None) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Read ``NAME=N`` options, and those that name several sizes: ``NAME=1,2,8``, ``NAME=FROM:TO:STEP``.

    >>> sizes(["batch=1,2", "height=32:96:32", "width=64"])
    ({'width': 64}, {'batch': [1, 2], 'height': [32, 64, 96]})
    """
    fixed: dict[str, int] = {}
    several: dict[str, list[int]] = {}
    for text in given or []:
        name, _, told = text.rpartition("=")
        if not name:
            raise InputError(f"--dim {text!r} names no sizes", hint="write --dim batch=1,2,4 or --dim height=32:512:32")
        if "," in told or ":" in told:
            several[name] = sorted({size for part in told.split(",") for size in _span(text, part)})
        else:
            fixed |= dims([text])
    return fixed, several


def _span(text: str, part: str) -> range:
    """Read ``N``, ``FROM:TO`` or ``FROM:TO:STEP``; the end is included."""
    numbers = part.split(":")
    if len(numbers) > 3 or not all(number.isdigit() for number in numbers):
        raise InputError(f"--dim {text!r} names no sizes", hint="write --dim batch=1,2,4 or --dim height=32:512:32")
    first, last, step = (int(number) for number in [*numbers, *([numbers[0], "1"][len(numbers) - 1 :])])
    if not step:
        raise InputError(f"--dim {text!r} has a step of 0", hint="give a step of 1 or more")
    span = range(first, last + 1, step)
    if not 0 < len(span) <= _MOST_SIZES:
        raise InputError(f"--dim {text!r} is {len(span):,} sizes", hint=f"give 1 to {_MOST_SIZES}, from small to large")
    return span


def _shared(
    provider: Provider = "auto",
    dim: Dims = None,
    seed: Seed = 0,
    op_library: OpLibrary = None,
    preset: Preset = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: Layout = None,
    color: Color = None,
    resize: Resize = None,
) -> dict[str, Any]:
    """Return the keyword arguments of the functions that run a model."""
    from onnxviz.api import preprocessing
    from onnxviz.runtime.options import share_thread_pool

    share_thread_pool()
    factor = _numbers("scale", scale)
    return {
        "providers": provider.split(",") if "," in provider else provider,
        "dims": dims(dim),
        "seed": seed,
        "op_library": op_library,
        "preprocessing": preprocessing(
            preset,
            scale=factor[0] if factor else None,
            mean=_numbers("mean", mean),
            std=_numbers("std", std),
            layout=layout,
            color=color,
            resize=resize,
        ),
    }


def runs_a_model(verb: Verb) -> Verb:
    """Give a verb the options that all verbs share that run a model; it gets them as the argument ``options``.

    An option of the same name that the verb has itself stands in place of the shared one.
    """
    own = inspect.signature(verb).parameters
    shared = [name for name in inspect.signature(_shared).parameters if name not in own]

    def command(**given: Any) -> int | None:
        options = _shared(**{name: given.pop(name) for name in shared if name in given})
        return verb(**given, options=options)

    return _with_options(verb, command, _shared, instead_of=("options",))


def runs_on_providers(verb: Verb) -> Verb:
    """Give a verb the options of :func:`runs_a_model` without ``--provider``: it says itself where it runs."""
    command = runs_a_model(verb)
    signature = inspect.signature(command)
    kept = [p for p in signature.parameters.values() if p.name != "provider"]
    command.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    del command.__annotations__["provider"]
    return command


def _picture(output: Output = None, format: Format = None, data: Data = None) -> None:
    """Hold the options of :func:`draws_a_picture`."""


def draws_a_picture(verb: Verb) -> Verb:
    """Give a verb ``--output``, ``--format`` and ``--data``; what is written is printed at its end.

    It gets the arguments ``output``, None where only other files are asked for, and ``data``. Other files are those of
    its options ``table``, ``architecture``, ``certificate`` and ``export``; the table ``-`` is none.
    """

    def command(**given: Any) -> int | None:
        output, form, data = (given.pop(name) for name in ("output", "format", "data"))
        others = [data, *(given.get(name) for name in _OTHER_FILES)]
        if output is not None or form is not None or not any(others):
            output = picture_path(output, form, f"{given['model'].stem}_{verb.__name__}")
        code = verb(**given, output=output, data=data)
        for file in (output, *others):
            if file is not None and str(file) != "-":
                typer.echo(str(file))
        return code

    return _with_options(verb, command, _picture, instead_of=("output", "data"))


def picture_path(output: Path | None, format: str | None, name: str) -> Path:
    """Return the file that a picture goes to.

    Args:
        output: What ``--output`` says.
        format: What ``--format`` says: the ending of a file that has none of its own.
        name: What the file is called in the working folder where ``output`` is None.

    Raises:
        OutputError: The two contradict each other.

    >>> str(picture_path(None, None, "lenet5_features")), str(picture_path(Path("maps"), "svg", ""))
    ('lenet5_features.png', 'maps.svg')
    """
    from onnxviz.errors import OutputError

    if output is None:
        return Path(f"{name}.{format or 'png'}")
    if format is None or output.suffix.lower() == f".{format}":
        return output
    if output.suffix.lower() in PICTURE_ENDINGS:
        raise OutputError(
            f"{output} is not named as the {format} that --format asks for", hint="leave one of the two out"
        )
    return output.with_name(f"{output.name}.{format}")


def _with_options(verb: Verb, command: Verb, shared: Callable[..., Any], instead_of: tuple[str, ...]) -> Verb:
    """Make ``command`` look like ``verb``, with the parameters of ``shared`` instead of some of its own."""
    own = [p for p in inspect.signature(verb).parameters.values() if p.name not in instead_of]
    taken = {p.name for p in own}
    added = [p for p in inspect.signature(shared).parameters.values() if p.name not in taken]
    hints, theirs = (get_type_hints(one, include_extras=True) for one in (verb, shared))
    hints |= {p.name: theirs[p.name] for p in added}
    parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in (*own, *added)]
    functools.update_wrapper(command, verb)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__dict__["__wrapped__"]  # typer would read the signature of what is wrapped
    return command


def tell(line: str) -> None:
    """Say on standard error what is true of a picture, such as what it does not show."""
    # Not by click, which writes past a progress bar and leaves pieces of it on the screen.
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def console() -> Console:
    """Return a console for tables: as wide as the terminal, and wide enough for every cell in a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def echo_json(data: object) -> None:
    """Print JSON to standard output."""
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


def tell_inputs(records: tuple[InputRecord, ...]) -> None:
    """Say on standard error which inputs nobody gave a value."""
    made_up = [f"{r.name} {r.shape}" for r in records if r.made_up]
    if made_up:
        typer.echo(f"random numbers were fed to {', '.join(made_up)}; give --input for real ones", err=True)
