"""Reading ``--dim``: sizes of open dimensions."""

from __future__ import annotations

from onnxviz.errors import InputError

__all__ = ["dims", "sizes"]

_MOST = 256


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
    if not 0 < len(span) <= _MOST:
        raise InputError(f"--dim {text!r} is {len(span):,} sizes", hint=f"give 1 to {_MOST}, from small to large")
    return span
