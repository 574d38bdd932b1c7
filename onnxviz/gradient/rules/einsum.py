"""Einsum: the gradient of a factor is the sum of the others with the output's gradient."""

from __future__ import annotations

import string
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step


@dataclass(frozen=True)
class _Equation:
    """Letters of each term; an ellipsis is letters of its own, right-aligned."""

    terms: tuple[str, ...]
    output: str


def _parsed(s: Step) -> _Equation:
    text = "".join(s.attr("equation").split())
    left, arrow, output = text.partition("->")
    terms = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in text]
    widths = []
    for place, term in enumerate(terms):
        if "..." in term:
            rank = s.rank(place)
            if rank is None:
                raise s.refuse(f"the rank of input {place} is not known, and {text!r} has an ellipsis")
            widths.append(rank - len(term) + 3)
    wide = max(widths, default=0)
    if wide > len(free):
        raise s.refuse("there are not letters enough for its axes")
    dots = "".join(free[:wide])
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        output = "..." * bool(widths) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    spelled, remaining = [], iter(widths)
    for term in terms:
        width = next(remaining) if "..." in term else 0
        spelled.append(term.replace("...", dots[wide - width :] if width else ""))
    return _Equation(tuple(spelled), output.replace("...", dots))


@gradient("Einsum")
def einsum(s: Step, dy: ir.Value) -> Grads:
    equation = _parsed(s)
    return tuple(_factor(s, equation, place, dy) if s.need(place) else None for place in range(len(equation.terms)))


def _factor(s: Step, equation: _Equation, place: int, dy: ir.Value) -> ir.Value:
    """Return the gradient of one factor."""
    ops, x, term = s.ops, s[place], equation.terms[place]
    others = [(equation.output, dy)] + [(t, s[i]) for i, t in enumerate(equation.terms) if i != place]
    letters = "".join(dict.fromkeys(term))
    present = "".join(c for c in letters if any(c in t for t, _ in others))
    if len(others) == 1 and present == equation.output:
        grad = dy
    else:
        text = ",".join(t for t, _ in others)
        grad = ops.Einsum(*(value for _, value in others), equation=f"{text}->{present}")
    absent = [i for i, c in enumerate(letters) if c not in present]
    if absent:  # what was summed away gets the gradient everywhere
        grad = ops.Unsqueeze(grad, ops.ints(*absent))
        sizes = [ops.ints(1) if c in present else ops.dim(x, term.index(c)) for c in letters]
        grad = ops.Expand(grad, ops.Concat(*sizes, axis=0) if len(sizes) > 1 else sizes[0])
    grad = _unbroadcast(s, equation, place, ops.typed(grad, dy))
    return grad if letters == term else _on_diagonal(ops, grad, x, term)


def _unbroadcast(s: Step, equation: _Equation, place: int, grad: ir.Value) -> ir.Value:
    """Sum over axes that this factor has with size 1 and another one does not."""
    term, own = equation.terms[place], s[place].shape
    axes, maybe = [], False
    for axis, letter in enumerate(dict.fromkeys(term)):
        mine = own[term.index(letter)] if own is not None else None
        shapes = [(t, s[i].shape) for i, t in enumerate(equation.terms) if i != place and letter in t]
        theirs = [None if shape is None else shape[t.index(letter)] for t, shape in shapes]
        if mine == 1 and any(size != 1 for size in theirs):
            axes.append(axis)
        elif not isinstance(mine, int) and any(size is None or size not in (1, mine) for size in theirs):
            maybe = True
    if not maybe:
        return s.ops.sum(grad, axes, keep=True)
    if len(set(term)) < len(term):
        raise s.refuse("sizes of an input with a repeated letter are not known, and it may be broadcast")
    return s.ops.sum_to(grad, s[place])


def _on_diagonal(ops: Ops, grad: ir.Value, x: ir.Value, term: str) -> ir.Value:
    """Return a tensor of the whole term from one in which repeated letters stand once: zero off the diagonal."""
    letters = list(dict.fromkeys(term))
    firsts = [term.index(c) for c in letters]
    again = [i for i in range(len(term)) if i not in firsts]
    order = sorted(range(len(letters)), key=lambda i: firsts[i])
    if order != list(range(len(letters))):
        grad = ops.Transpose(grad, perm=order)
    grad = ops.Unsqueeze(grad, ops.ints(*again))
    for place in again:
        first = term.index(term[place])
        numbers = ops.Range(ops.integer(0), ops.Squeeze(ops.dim(x, first)), ops.integer(1))
        along = [
            ops.Reshape(numbers, ops.ints(*(-1 if i == axis else 1 for i in range(len(term)))))
            for axis in (first, place)
        ]
        grad = ops.Where(ops.Equal(*along), grad, ops.scalar(0, grad))
    return grad
