"""How the page writes names, numbers, shapes and data: shortened, escaped, the same every time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from markupsafe import Markup

from onnxviz.errors import printable

__all__ = ["embedded", "name", "number", "percent", "shape", "share", "short"]

_TITLE = 500  # characters of a name that a tooltip holds at most


def short(text: object, limit: int = 80) -> str:
    r"""Return untrusted text on one line of at most ``limit`` characters, its middle cut.

    >>> short("a" * 100, 11), short("a\nb")
    ('aaaaaaa…aaa', 'a\\nb')
    """
    line = str(text)
    # A name may hold megabytes: what lies between the ends is never shown.
    return printable(line if len(line) <= 4 * _TITLE else f"{line[: 2 * _TITLE]}…{line[-2 * _TITLE :]}", limit)


@lru_cache(maxsize=16384)
def name(text: object, limit: int = 80) -> Markup:
    """Return a name as HTML, kept apart from the direction of the text around it; cut ones have a tooltip.

    >>> name("<b>")
    Markup('<bdi>&lt;b&gt;</bdi>')
    """
    line = short(text, limit)
    if len(str(text)) <= limit:
        return Markup("<bdi>{}</bdi>").format(line)
    return Markup('<bdi title="{}">{}</bdi>').format(short(text, _TITLE), line)


def number(value: float | None) -> str:
    """Return a value in four significant digits with a true minus sign; a dash for None.

    >>> number(-0.123456), number(None), number(float("-inf"))
    ('−0.1235', '–', '−Inf')
    """
    if value is None:
        return "–"
    return f"{value + 0.0:.4g}".replace("-", "−").replace("nan", "NaN").replace("inf", "Inf")


def percent(value: float) -> str:
    """Return a probability in percent.

    >>> percent(0.99961), percent(2e-7), percent(0.0)
    ('99.96 %', '< 0.01 %', '0 %')
    """
    if 0 < value < 5e-5:
        return "< 0.01 %"
    return f"{100 * value:.2f} %" if value else "0 %"


def share(count: int, total: int) -> str:
    """Return a part of a whole in percent, never rounded to none or all of it.

    >>> share(1, 3), share(1, 100000), share(99999, 100000), share(0, 5)
    ('33 %', '< 1 %', '> 99 %', '0 %')
    """
    exact = 100 * count / total if total else 0.0
    if 0 < exact < 1:
        return "< 1 %"
    return "> 99 %" if 99 < exact < 100 else f"{exact:.0f} %"


def shape(sizes: Sequence[object] | None) -> str:
    """Return a shape as it is written in tables.

    >>> shape([1, "batch", None]), shape([]), shape(None)
    ('1×batch×?', 'scalar', 'shape unknown')
    """
    if sizes is None:
        return "shape unknown"
    return "×".join("?" if size is None else short(size, 40) for size in sizes) or "scalar"


def embedded(data: object) -> str:
    r"""Return JSON that is safe inside a script element: no ``</`` and no ``<!--`` can occur in it.

    >>> embedded("</script>")
    '"\\u003c/script>"'
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
