"""How wide text is, and how it is cut to fit: so that labels fit their boxes whatever common sans font shows them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from onnxviz.errors import printable

__all__ = ["ellipsize", "fit_text", "text_width"]

# Advance widths of DejaVu Sans for U+0020 … U+007E and a few signs, in 1/2048 em. Arial, Helvetica and Liberation Sans
# are narrower; Verdana has the same proportions.
_ASCII = """
651 821 942 1716 1303 1946 1597 563 799 799 1024 1716 651 739 651 690 1303 1303 1303 1303 1303 1303 1303 1303 1303
1303 690 690 1716 1716 1716 1087 2048 1401 1405 1430 1577 1294 1178 1587 1540 604 604 1343 1141 1767 1532 1612 1235
1612 1423 1300 1251 1499 1401 2025 1403 1251 1403 799 690 799 1716 1024 1024 1255 1300 1126 1300 1260 721 1300 1298
569 569 1186 569 1995 1298 1253 1300 1300 842 1067 803 1298 1212 1675 1212 1212 1075 1303 690 1303 1716
"""
_BOLD = """
713 934 1067 1716 1425 2052 1786 627 936 936 1071 1716 778 850 778 748 1425 1425 1425 1425 1425 1425 1425 1425 1425
1425 819 819 1716 1716 1716 1188 2048 1585 1561 1503 1700 1399 1399 1681 1714 762 762 1587 1305 2038 1714 1741 1501
1741 1577 1475 1397 1663 1585 2259 1579 1483 1485 936 748 936 1716 1024 1024 1382 1466 1214 1466 1389 891 1466 1458
702 702 1362 702 2134 1458 1407 1466 1466 1010 1219 979 1458 1335 1892 1321 1335 1192 1458 748 1458 1716
"""
_SIGNS = {"…": 2048, "×": 1716, "→": 1716, "·": 778, "−": 1716, "÷": 1716, "↓": 1716, "↑": 1716}
_SIGNS |= dict.fromkeys("⌈⌉⌊⌋", 800)
_REGULAR_WIDTHS = {chr(32 + i): int(w) for i, w in enumerate(_ASCII.split())} | _SIGNS | {"·": 651}
_BOLD_WIDTHS = {chr(32 + i): int(w) for i, w in enumerate(_BOLD.split())} | _SIGNS


@lru_cache(maxsize=4096)
def _other(character: str) -> int:
    """Return a generous width for a character outside the table: letters, ideographs, emoji, combining marks."""
    if unicodedata.combining(character):
        return 0
    if unicodedata.east_asian_width(character) in "WF" or unicodedata.category(character) == "So":
        return 2800
    return 1900


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line of text in px at a font size in px.

    >>> round(text_width("Conv", 10.0), 1)
    25.4
    """
    table = _BOLD_WIDTHS if bold else _REGULAR_WIDTHS
    return sum(table.get(c) or _other(c) for c in text) * size / 2048.0


def ellipsize(text: str, limit: int) -> str:
    """Return ``text`` on one line, its middle replaced by ``…`` beyond ``limit`` characters.

    >>> ellipsize("encoder/layer_11/attention/output", 16)
    'encoder…n/output'
    """
    line = printable(text, max(limit * 4, 600))
    if len(line) <= limit:
        return line
    head = (limit - 1) // 2
    return f"{line[:head]}…{line[len(line) - (limit - 1 - head) :]}"


def fit_text(text: str, size: float, width: float, *, bold: bool = False) -> str:
    """Return ``text`` on one line with its middle cut so that it is at most ``width`` px wide.

    >>> fit_text("a_very_long_tensor_name", 10.0, 60.0)
    'a_v…name'
    """
    line = printable(text, 600)
    if text_width(line, size, bold=bold) <= width:
        return line
    low, high = 1, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(ellipsize(line, middle), size, bold=bold) <= width:
            low = middle
        else:
            high = middle - 1
    return ellipsize(line, low)
