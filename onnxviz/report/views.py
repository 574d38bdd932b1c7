"""Further views on the page: each a section of cards with charts and pictures, made from the one run.

A view is a row of :data:`onnxviz.report.page.VIEWS`: an id, a title, and a function that takes what was seen and
returns a :class:`Section`, or None where the model has nothing of the kind. A card may hold SVG (small, styled by
classes: the page's policy forbids inline styles), a figure as an image
(:func:`onnxviz.report.charts.figure_image`), and pictures that share the page's budget. The page does the rest:
navigation, links from the architecture and from feature maps, search, deep links.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx_ir as ir
from markupsafe import Markup

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.gradient_statistics import GradientStatistics
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import OnnxvizError, printable
from onnxviz.report.budget import Panel
from onnxviz.report.prepare import Prepared
from onnxviz.runtime.batches import Batches
from onnxviz.runtime.record import Capture

__all__ = ["Card", "Section", "Seen", "View", "limited", "link_views", "make_sections", "panel", "refusals"]

_REFUSALS = 12  # reasons that a section prints


@dataclass(frozen=True, eq=False)
class Seen:
    """What views are made from.

    Attributes:
        model: As it was opened.
        prepared: As it was run.
        captured: The run, with what only the prepared model has.
        batches: What was fed, where it was several samples; their names and pictures.
        labels: A CSV file with the class of each sample; None takes their folders, where there are several.
        backward: Runs the model backward over the same inputs; None where that is not wanted.
        attribute: Explains the answer to the same inputs; None where that is not wanted.
    """

    model: ir.Model
    prepared: Prepared
    captured: Capture
    batches: Batches | None = None
    labels: str | os.PathLike[str] | None = None
    backward: Callable[[], GradientStatistics] | None = None
    attribute: Callable[[], Sequence[Attribution]] | None = None

    @cached_property
    def weights(self) -> list[LayerWeights]:
        """The learned tensors, each with the numbers that were worked out of it."""
        return layer_weights(self.model)


@dataclass
class Card:
    """One layer of a view.

    Attributes:
        name: What stands above it, such as the tensor's name.
        kind: What it is in a word or two, such as the operator.
        shape: Sizes, in words.
        tensors: Tensors that it shows: their blocks in the architecture and their feature maps link to it.
        captions: Parts of the line below it.
        chart: SVG or an image.
        panels: Pictures, each with its label.
        note: What a reader must see.
        id: Set by the page: ``VIEW-NUMBER``.
        block: Set by the page: the block of the architecture that makes its tensor, where it shows one.
    """

    name: str
    kind: str = ""
    shape: str = ""
    tensors: tuple[str, ...] = ()
    captions: list[str] = field(default_factory=list)
    chart: Markup = field(default_factory=Markup)
    panels: list[tuple[str, Panel]] = field(default_factory=list)
    note: str = ""
    id: str = ""
    block: str | None = None


@dataclass
class Section:
    """A view as a section of the page.

    Attributes:
        lead: What a reader must know to read it.
        cards: Its layers.
        notes: What is not shown, and why; one line each.
        over: Whether its pictures can be laid over the picture that was fed.
        id: Set by the page.
        title: Set by the page.
    """

    lead: str = ""
    cards: list[Card] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    over: bool = False
    id: str = ""
    title: str = ""

    @property
    def panels(self) -> list[Panel]:
        """All pictures."""
        return [one for card in self.cards for _, one in card.panels]


@dataclass(frozen=True)
class View:
    """How a section is made.

    Attributes:
        id: Of the section, and the start of its cards' ids.
        title: In the navigation and above the section.
        link: What links to a card of it are called.
        make: Returns the section; None where the model has nothing of the kind. Any error of this package makes a
            section that says why.
    """

    id: str
    title: str
    link: str
    make: Callable[[Seen], Section | None]


def make_sections(views: Sequence[View], seen: Seen) -> list[Section]:
    """Return the sections that have something to show or a reason to tell."""
    sections = []
    for view in views:
        try:
            section = view.make(seen)
        except OnnxvizError as error:
            section = Section(notes=[str(error)])
        if section is None:
            continue
        section.id, section.title = view.id, view.title
        for number, card in enumerate(section.cards):
            card.id = f"{view.id}-{number}"
            for place, (_, one) in enumerate(card.panels):
                one.row["id"] = f"{card.id}-{place}"
        sections.append(section)
    return sections


def link_views(
    views: Sequence[View], sections: Sequence[Section], makers: dict[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """Give cards their blocks, and return tensor -> (what the link is called, id of the card), a link a view."""
    names = {view.id: view.link for view in views}
    found: dict[str, dict[str, str]] = {}
    for section in sections:
        for card in section.cards:
            card.block = makers.get(card.tensors[0]) if len(card.tensors) == 1 else None
            for tensor in card.tensors:
                found.setdefault(tensor, {}).setdefault(names[section.id], card.id)
    return {tensor: list(links.items()) for tensor, links in found.items()}


def panel(kind: str, name: str, draw: Callable[[int], tuple[dict[str, Any], str]]) -> Panel:
    """Return a picture of a card.

    Args:
        kind: How the viewer lays it out: ``"grid"`` (a tile a channel), ``"heads"`` (larger tiles), ``"image"``,
            ``"vector"`` or ``"matrix"``.
        name: For those who hear the page.
        draw: As :class:`onnxviz.report.budget.Panel` has it.
    """
    return Panel({"id": "", "name": name, "kind": kind, "caption": ""}, draw)


def limited(count: int, most: int, what: str) -> list[str]:
    """Return a note where not all are shown.

    >>> limited(100, 80, "functions"), limited(3, 80, "functions")
    (['80 of 100 functions are shown, evenly spread'], [])
    """
    return [f"{most} of {count} {what} are shown, evenly spread"] if count > most else []


def refusals(not_drawn: Sequence[NotDrawn]) -> list[str]:
    """Return a line for each tensor that could not be drawn.

    >>> refusals([NotDrawn("y", "it holds no numbers")])
    ['y: it holds no numbers']
    """
    lines = [f"{printable(one.name, 80)}: {one.reason}" for one in not_drawn[:_REFUSALS]]
    left = len(not_drawn) - len(lines)
    return [*lines, f"and {left} more"] if left else lines
