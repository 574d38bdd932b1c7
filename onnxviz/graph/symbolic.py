"""Sizes that depend on open dimensions: sums, products and whole-number quotients of names, without sympy.

A size is an ``int``, an :class:`Expression`, or None where it is unknown; what is worked out with an unknown size is
unknown. So is what grows too large to be read (or to be computed with: the names and numbers of a file are untrusted).
An open dimension is taken to be at least 1: so ``x[1:]`` of ``H`` elements has ``H - 1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd

__all__ = [
    "Expression", "Size", "add", "ceil_divide", "divide_product", "floor_divide", "largest", "lower_bound", "multiply",
    "smallest", "subtract", "symbol",
]  # fmt: skip

_LARGEST = 2**62
_MOST_PARTS = 24  # names and numbers of an expression
_PLAIN = re.compile(r"[^\s+*/(),-]+")


@dataclass(frozen=True, slots=True)
class _Atom:
    """What cannot be taken apart further: a name, a quotient rounded down, the largest or smallest of several sizes."""

    text: str
    parts: int = 1
    least: int = 1
    ratio: tuple[Expression, int] | None = None
    among: tuple[Size, ...] = ()

    def __hash__(self) -> int:
        return hash(self.text)


_Product = tuple[_Atom, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """A sum of products with whole-number factors, in a canonical order: equal sizes are equal objects.

    Its text is what :meth:`onnx_ir.SymbolicDim.evaluate` reads: ``floor((H + 1)/2)``.

    >>> h = symbol("H")
    >>> str(add(floor_divide(subtract(h, 1), 2), 1)), str(floor_divide(floor_divide(h, 2), 2))
    ('floor((H + 1)/2)', 'floor(H/4)')
    """

    terms: tuple[tuple[_Product, int], ...]
    parts: int = field(default=1, compare=False)  # names and numbers that it is written with

    def __str__(self) -> str:
        text = ""
        for atoms, factor in self.terms:
            product = "*".join(atom.text for atom in atoms)
            size = abs(factor)
            shown = str(size) if not atoms else product if size == 1 else f"{size}*{product}"
            sign = "-" if factor < 0 else "+"
            text += f" {sign} {shown}" if text else (f"-{shown}" if factor < 0 else shown)
        return text


Size = int | Expression | None


@lru_cache(maxsize=4096)
def symbol(name: str) -> Expression:
    """Return an open dimension; a name with signs in it is put in brackets."""
    text = name if _PLAIN.fullmatch(name) else f"({name})"
    return Expression((((_Atom(text),), 1),))


def _terms(size: int | Expression) -> Mapping[_Product, int]:
    return dict(size.terms) if isinstance(size, Expression) else {(): size} if size else {}


def _made(terms: Mapping[_Product, int]) -> Size:
    kept, parts = [], 0
    for product, factor in terms.items():
        if factor:
            kept.append((product, factor))
            parts += factor != 1
            for atom in product:
                parts += atom.parts
            if not -_LARGEST <= factor <= _LARGEST or parts > _MOST_PARTS:
                return None
    if not kept or (len(kept) == 1 and not kept[0][0]):
        return kept[0][1] if kept else 0
    if len(kept) > 1:
        kept.sort(key=_order)
    return Expression(tuple(kept), parts)


def _order(term: tuple[_Product, int]) -> tuple[bool, bool, list[str]]:
    return not term[0], term[1] < 0, [atom.text for atom in term[0]]


@lru_cache(maxsize=4096)
def add(a: Size, b: Size) -> Size:
    """Return ``a + b``."""
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a + b if abs(a + b) <= _LARGEST else None
    terms = dict(_terms(a))
    for product, factor in _terms(b).items():
        terms[product] = terms.get(product, 0) + factor
    return _made(terms)


def subtract(a: Size, b: Size) -> Size:
    """Return ``a - b``."""
    return add(a, multiply(b, -1))


@lru_cache(maxsize=4096)
def multiply(a: Size, b: Size) -> Size:
    """Return ``a * b``."""
    if a == 0 or b == 0:
        return 0
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a * b if abs(a * b) <= _LARGEST else None
    terms: dict[_Product, int] = {}
    for one, left in _terms(a).items():
        for other, right in _terms(b).items():
            product = tuple(sorted(one + other, key=lambda atom: atom.text))
            terms[product] = terms.get(product, 0) + left * right
    return _made(terms)


@lru_cache(maxsize=4096)
def floor_divide(a: Size, by: int) -> Size:
    """Return ``a`` divided by a positive whole number, rounded down; quotients of quotients become one.

    >>> str(floor_divide(add(multiply(symbol("n"), 4), 6), 4))
    'n + 1'
    """
    if a is None or by < 1:
        return None
    if isinstance(a, int):
        return a // by
    whole = {product: factor // by for product, factor in a.terms if product and factor % by == 0}
    rest = {product: factor for product, factor in a.terms if product and factor % by}
    constant = _terms(a).get((), 0)
    if rest:
        common = gcd(by, *rest.values())
        rest = {product: factor // common for product, factor in rest.items()}
        constant, by = constant // common, by // common
        (product, factor), *others = rest.items()
        if not others and factor == 1 and len(product) == 1 and product[0].ratio is not None:
            inner, below = product[0].ratio
            return add(_made(whole), floor_divide(add(inner, constant * below), by * below))
    whole[()] = constant // by
    if rest:
        if (numerator := _made({**rest, (): constant % by})) is None or isinstance(numerator, int):
            return None
        whole[(_quotient(numerator, by),)] = 1
    return _made(whole)


def _quotient(numerator: Expression, by: int) -> _Atom:
    text = str(numerator)
    if len(numerator.terms) > 1:
        text = f"({text})"
    least = lower_bound(numerator)
    least = -_LARGEST if least is None else least // by
    return _Atom(f"floor({text}/{by})", numerator.parts + 1, least, ratio=(numerator, by))


def ceil_divide(a: Size, by: int) -> Size:
    """Return ``a`` divided by a positive whole number, rounded up."""
    return floor_divide(add(a, by - 1), by)


def divide_product(sizes: Iterable[Size], others: Iterable[Size]) -> Size:
    """Return the product of ``sizes`` divided by that of ``others``, which is known to divide it, as in a Reshape.

    >>> n, h = symbol("n"), symbol("h")
    >>> str(divide_product([n, 8, h], [4, h]))
    '2*n'
    """
    left, right = list(sizes), []
    for size in others:  # what occurs on both sides falls away, whatever it is
        if size is not None and size in left:
            left.remove(size)
        else:
            right.append(size)
    above, below = _product(left), _product(right)
    if above is None or below is None or below == 0:
        return None
    if isinstance(below, int):
        return floor_divide(above, below) if below > 0 else None
    return _cancelled(above, below)


def _product(sizes: Iterable[Size]) -> Size:
    made: Size = 1
    for size in sizes:
        made = multiply(made, size)
    return made


def _cancelled(above: int | Expression, below: Expression) -> Size:
    """Divide every term by the one term of ``below``; None where that leaves a fraction."""
    if len(below.terms) != 1 or isinstance(above, int):
        return 1 if above == below else None
    (atoms, factor), terms = below.terms[0], {}
    for product, amount in above.terms:
        left = list(product)
        for atom in atoms:
            if atom not in left:
                return None
            left.remove(atom)
        terms[tuple(left)] = amount
    made = _made(terms)
    return floor_divide(made, factor)


def lower_bound(a: Size) -> int | None:
    """Return a number that a size is never below, where every name stands for 1 or more; None where none is known."""
    if a is None or isinstance(a, int):
        return a
    total = 0
    for product, factor in a.terms:
        least = 1
        for atom in product:
            least *= max(atom.least, 0)
        if (factor < 0 and product) or any(atom.least < 0 for atom in product):
            return None
        total += factor * least
    return total


def largest(*sizes: Size) -> Size:
    """Return the largest of several sizes, as ``max(a, b)`` where that is open."""
    return _extreme(sizes, "max")


def smallest(*sizes: Size) -> Size:
    """Return the smallest of several sizes, as ``min(a, b)`` where that is open.

    >>> str(smallest(symbol("tokens"), 512)), smallest(add(symbol("n"), 3), 4)
    ('min(tokens, 512)', 4)
    """
    return _extreme(sizes, "min")


def _extreme(sizes: Iterable[Size], name: str) -> Size:
    flat: list[int | Expression] = []
    for size in sizes:
        if size is None:
            return None
        atoms = size.terms[0][0] if isinstance(size, Expression) and len(size.terms) == 1 else ()
        nested = len(atoms) == 1 and atoms[0].text.startswith(f"{name}(") and size.terms[0][1] == 1  # type: ignore[union-attr]
        flat += [part for part in atoms[0].among if part is not None] if nested else [size]
    kept = _undominated(list(dict.fromkeys(flat)), name)
    if len(kept) == 1:
        return kept[0]
    kept.sort(key=lambda size: (isinstance(size, int), str(size)))
    bounds = [lower_bound(size) for size in kept]
    known = [bound for bound in bounds if bound is not None]
    complete = known if len(known) == len(kept) else []
    least = max(known, default=-_LARGEST) if name == "max" else min(complete, default=-_LARGEST)
    parts = sum(size.parts if isinstance(size, Expression) else 1 for size in kept)
    text = f"{name}({', '.join(map(str, kept))})"
    return _made({(_Atom(text, parts, least, among=tuple(kept)),): 1})


def _undominated(sizes: list[int | Expression], name: str) -> list[int | Expression]:
    """Leave out what another one of the sizes always exceeds (of a smallest one: never exceeds)."""
    kept: list[int | Expression] = []
    for size in sizes:
        beaten = False
        for other in list(kept):
            ahead, behind = (size, other) if name == "max" else (other, size)
            if (bound := lower_bound(subtract(ahead, behind))) is not None and bound >= 0:
                kept.remove(other)
            elif (bound := lower_bound(subtract(behind, ahead))) is not None and bound >= 0:
                beaten = True
        if not beaten:
            kept.append(size)
    return kept
