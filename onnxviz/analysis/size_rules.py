"""From which size to which a model works, and in which steps: found by trying, the boundaries by bisection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any

from onnxviz.errors import listed

__all__ = ["SizeRule", "find_rule"]

Try = Callable[[int], bool | None]
_MOST_PROBES = 40
_CONFIRMED = 3  # sizes that have to work before a step is told from chance


@dataclass(frozen=True)
class SizeRule:
    """Which sizes of a dimension work.

    Attributes:
        least: The smallest that works: the one before it, in steps, fails. None where none below fails.
        most: The largest that works: the next, in steps, fails. None where none above fails.
        step: Sizes work that leave ``remainder`` when divided by this; 1 for all.
        remainder: See ``step``.
        slack: So much less than such a size works as well.
        works, fails: The sizes that were tried.
        vague: Whether a boundary lies between two sizes that were tried with others between them, the time being over.
    """

    least: int | None
    most: int | None
    step: int
    remainder: int
    slack: int
    works: tuple[int, ...]
    fails: tuple[int, ...]
    vague: bool = False

    @property
    def tried(self) -> int:
        """How many sizes were tried."""
        return len(self.works) + len(self.fails)

    @property
    def exceptions(self) -> tuple[int, ...]:
        """Sizes that do otherwise than the rule says."""
        odd = [*(size for size in self.works if not self.allows(size)), *filter(self.allows, self.fails)]
        return tuple(sorted(odd))

    @property
    def simple(self) -> bool:
        """Whether the rule says more than the list of sizes."""
        return len(self.works) > 1 and 4 * len(self.exceptions) <= self.tried

    def allows(self, size: int) -> bool:
        """Return whether the rule says that a size works."""
        if not size:  # nothing follows from an empty one, nor does it from others
            return 0 in self.works
        inside = (self.least is None or size >= self.least) and (self.most is None or size <= self.most)
        return inside and (self.remainder - size) % self.step <= self.slack

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "simple": self.simple, "exceptions": list(self.exceptions), "text": str(self)}

    def __str__(self) -> str:
        low, high = min(self.works), max(self.works)
        if self.tried == 1:
            return f"works at {low}, the only size that was tried"
        if not self.fails:
            return f"works at all {self.tried} sizes from {low} to {high}"
        if not self.simple:
            return f"works only at {listed([str(s) for s in self.works], 6)}, of {self.tried} sizes"
        parts = ["works"]
        if self.step > 1:
            rest = "divides by" if not self.remainder else f"leaves {self.remainder} when divided by"
            parts.append(f"only where it {rest} {self.step}")
            parts += [f"or is up to {self.slack} less,"] * (self.slack > 0)
        if self.least is not None and (self.step == 1 or self.least > self.step):
            below = max((size for size in self.fails if size < self.least), default=self.least - self.step)
            gap = self.least - below > self.step and self.vague
            parts.append(f"from {self.least}" + (f" (or from less: of the sizes below, {below} fails)" if gap else ""))
        if self.most is not None:
            above = min((size for size in self.fails if size > self.most), default=self.most + self.step)
            gap = above - self.most > self.step and self.vague
            parts.append(f"up to {self.most}, fails from {above if gap else self.most + self.step - self.slack}")
            parts += ["(between them nothing was tried)"] * gap
        else:
            parts.append(f"up to the {high} that was tried")
        odd = self.exceptions
        fails, works = [s for s in odd if s in self.fails], [s for s in odd if s in self.works]
        parts += [f"but not at {listed([str(s) for s in fails], 6)}"] * bool(fails)
        works = [0, *works] if 0 in self.works and self.least is not None else works
        parts += [f"and at {listed([str(s) for s in works], 6)}"] * bool(works)
        return " ".join(parts).replace(" but", ", but").replace(" and at", ", and at")


def find_rule(known: Mapping[int, bool], attempt: Try, stride: int = 1) -> SizeRule | None:
    """Find the rule behind the sizes that work, and try more sizes to make it sharp.

    Args:
        known: Size -> whether it works; some do.
        attempt: Tries a size; None where it could not be tried.
        stride: By how much the coarsest tensor is smaller: a step that is likely.

    Returns:
        None where no size works.

    >>> str(find_rule({1: True, 2: True, 4: True, 8: False}, lambda size: size < 5))
    'works up to 4, fails from 5'
    >>> str(find_rule({8: False, 32: True, 33: False, 64: True, 96: True}, lambda size: size > 0 and size % 32 == 0))
    'works only where it divides by 32 up to the 128 that was tried'
    """
    search = _Search(known, attempt)
    if not search.works:
        return None
    step, remainder = search.step()
    least, most = search.boundary(step, down=True), search.boundary(step, down=False)
    search.confirm(step)
    rule = search.rule(least, most, step, remainder, 0)
    if rule.exceptions and stride > 1 and (slack := search.slack(stride)) is not None:
        search.confirm(stride)
        rounded = search.rule(None, None, stride, 0, slack)
        rule = search.rule(least, most, step, remainder, 0)
        rule = min(rule, rounded, key=lambda one: len(one.exceptions))
    return rule


class _Search:
    def __init__(self, known: Mapping[int, bool], attempt: Try) -> None:
        self.known = dict(known)
        self.vague = False
        self._attempt = attempt
        self._left = _MOST_PROBES

    @property
    def works(self) -> list[int]:
        return sorted(size for size, ok in self.known.items() if ok)

    def rule(self, least: int | None, most: int | None, step: int, remainder: int, slack: int) -> SizeRule:
        """Return a rule beside all that is known."""
        fails = tuple(sorted(size for size, ok in self.known.items() if not ok))
        return SizeRule(least, most, step, remainder, slack, tuple(self.works), fails, self.vague)

    def slack(self, stride: int) -> int | None:
        """Return how much less than a multiple of the stride works as well; None where multiples fail."""
        multiples = [size for size in self.works if size and size % stride == 0]
        if len(multiples) < _CONFIRMED - 1:
            return None
        top, low, high = multiples[-1], 0, stride - 1
        while low < high:
            middle = (low + high + 1) // 2
            result = self.ok(top - middle)
            if result is None:
                return None
            low, high = (middle, high) if result else (low, middle - 1)
        return low

    def ok(self, size: int) -> bool | None:
        """Return whether a size works, tried now where that is not known."""
        if size not in self.known and self._left > 0 and size >= 0:
            self._left -= 1
            if (result := self._attempt(size)) is not None:
                self.known[size] = result
        return self.known.get(size)

    def step(self) -> tuple[int, int]:
        """Return the step between sizes that work, and what is left when they are divided by it."""
        self._look_around()
        works = self.works
        fails = [size for size, ok in self.known.items() if not ok]
        step = 0
        for size in works[1:]:
            step = gcd(step, size - works[0])
        inner = [size for size in fails if works[0] < size < works[-1]]
        if step < 2 or not inner:
            return 1, 0
        for prime in _primes(step):  # sizes were few, and all of them multiples of more than need be
            while step % prime == 0 and step > 1 and self.ok(works[0] + step // prime):
                step //= prime
        if step < 2 or len(self.works) < _CONFIRMED:
            return 1, 0
        return step, works[0] % step

    def _look_around(self) -> None:
        """Try sizes near the one that works, where it is alone: its neighbours and multiples."""
        works = self.works
        if len(works) < _CONFIRMED and len(self.known) > len(works):
            for size in works:
                for other in (size + 1, size - 1, size * 2, size * 3, size // 2, size + 32):
                    if other > 0:
                        self.ok(other)

    def boundary(self, step: int, *, down: bool) -> int | None:
        """Return the last size that works on the way down or up; None where none beyond fails."""
        works = [size for size in self.works if size] or self.works
        inside = works[0] if down else works[-1]
        beyond = [
            size for size, ok in self.known.items()
            if not ok and (size - inside) % step == 0 and (size < inside if down else size > inside)
        ]  # fmt: skip
        if down and step > 1 and not beyond:
            for size in (inside - step, inside % step or step):
                if 0 < size < inside:
                    self.ok(size)
            return self.works[0] if self.works[0] >= step else None
        if not beyond:
            return None
        outside = max(beyond) if down else min(beyond)
        while abs(inside - outside) > step:
            middle = outside + (inside - outside) // (2 * step) * step
            if middle in (inside, outside):
                break
            result = self.ok(middle)
            if result is None:
                self.vague = True
                break
            inside, outside = (middle, outside) if result else (inside, middle)
        return inside

    def confirm(self, step: int) -> None:
        """Try what the step says beyond the sizes that led to it."""
        if step > 1:
            last = self.works[-1]
            self.ok(last + step)
            self.ok(last - step + 1)


def _primes(number: int) -> list[int]:
    found, divisor = [], 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            found.append(divisor)
            while number % divisor == 0:
                number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found
