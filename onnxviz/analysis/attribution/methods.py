"""The registry of attribution methods: a row a method, from which the verb, the help and the docs are made."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.baselines import spatial_axes
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.layers import Layer, choose_layer
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.placement import Placement, place
from onnxviz.errors import InputError, listed

__all__ = ["METHODS", "Found", "Method", "attribution", "find_method", "known_methods", "method"]

#: The group of entry points whose objects are :class:`Method`.
ENTRY_POINTS = "onnxviz.attribution"


@dataclass(frozen=True, eq=False)
class Found:
    """What the function of a method returns.

    Attributes:
        maps: Attributed tensor, or layer -> ``(N, …)``.
        baseline_score: ``(N,)``, where there is a baseline.
        completeness: ``(N,)``, where the method promises 0.
        cuts: Where gradients end.
        notes: What a reader should know.
        parameters: Those that only running told, or that are written differently.
    """

    maps: Mapping[str, npt.NDArray[Any]]
    baseline_score: npt.NDArray[np.float64] | None = None
    completeness: npt.NDArray[np.float64] | None = None
    cuts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    Attributes:
        name: As users write it.
        about: One line that says what it shows.
        source: Where it is published.
        run: Gets the :class:`~onnxviz.analysis.attribution.case.Case`, of a method that needs a layer also the
            :class:`~onnxviz.analysis.attribution.layers.Layer`, and its parameters by keyword; returns :class:`Found`.
        needs: What must be there: ``"gradient"``, ``"layer"``.
        unit: What its numbers are measured in: ``"score"``, ``"score / input"`` and the like.
    """

    name: str
    about: str
    source: str
    run: Callable[..., Found]
    needs: frozenset[str] = frozenset({"gradient"})
    unit: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters and their defaults."""
        kinds = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in kinds if p.kind is p.KEYWORD_ONLY}


#: Name -> method; :func:`known_methods` has it filled.
METHODS: dict[str, Method] = {}


def method(
    name: str, about: str, *, source: str, needs: tuple[str, ...] = ("gradient",), unit: str = ""
) -> Callable[[Callable[..., Found]], Callable[..., Found]]:
    """Enter a function into the registry: a decorator. Its keyword-only arguments are the method's parameters."""

    def enter(function: Callable[..., Found]) -> Callable[..., Found]:
        METHODS[name] = Method(name, about, source, function, frozenset(needs), unit)
        return function

    return enter


def known_methods() -> dict[str, Method]:
    """Return all methods by name: those of this package, then those that other packages bring by entry points."""
    families = importlib.import_module("onnxviz.analysis.attribution.families")
    for module in sorted(pkgutil.iter_modules(families.__path__), key=lambda module: module.name):
        importlib.import_module(f"{families.__name__}.{module.name}")
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        if point.name not in METHODS:
            METHODS[point.name] = point.load()
    return METHODS


def find_method(name: str) -> Method:
    """Return a method by name; spaces and underscores read as hyphens.

    Raises:
        InputError: There is none.

    >>> find_method("Grad_CAM").name
    'grad-cam'
    """
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    known = METHODS if plain in METHODS else known_methods()
    if plain not in known:
        raise InputError(f"there is no method {name!r}", hint=f"choose {', '.join(known)}")
    return known[plain]


def attribution(case: Case, name: str, *, layer: str | None = None, **parameters: Any) -> Attribution:
    """Explain a case by one method.

    Args:
        case: What is explained.
        name: The method.
        layer: Of a method that attributes to a layer, which; by default the last with spatial axes.
        parameters: Of the method; those left out have its defaults.

    Raises:
        InputError: There is no such method, or it has no such parameter.
        SelectionError: The layer has no spatial axes.
        GradientError: No gradient leads there.
    """
    row = find_method(name)
    if unknown := [key for key in parameters if key not in row.parameters]:
        own = listed([f"{key} ({value})" for key, value in row.parameters.items()], 12)
        raise InputError(f"{row.name} has no parameter {unknown[0]!r}", hint=f"it has {own or 'none'}")
    given = {**row.parameters, **parameters}
    chosen = choose_layer(case, layer) if "layer" in row.needs else None
    found = row.run(case, chosen, **given) if chosen is not None else row.run(case, **given)
    maps = {}
    for key, array in found.maps.items():
        maps[key] = np.ascontiguousarray(array, np.float32)
        maps[key].flags.writeable = False
    told = {**given, **found.parameters}
    return Attribution(
        row.name, maps, dict(case.feeds), case.target.texts, case.scores, {k: _plain(v) for k, v in told.items()},
        case.target.classes, chosen, found.baseline_score, found.completeness, found.cuts, case.providers,
        (*case.notes, *found.notes), case.name, case.canvases,
        None if chosen is None else _placement(case, chosen), unit=row.unit,
        axes={name: _axes(case, name, chosen) for name in maps}, words=case.words,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _axes(case: Case, name: str, layer: Layer | None) -> str:
    """Return a letter an axis of a map."""
    if layer is not None and name == layer.name:
        return "N" + ("DHW"[-len(layer.size) :] if len(layer.size) > 1 else "T")
    rank = case.value(name).ndim
    spatial = spatial_axes(case, name)
    if not spatial and rank == 3 and name in case.inner:
        return "NTC"  # embeddings
    left = iter("DHW"[-len(spatial) :] if spatial else "")
    return "N" + "".join(next(left, "C") if axis in spatial else "C" for axis in range(1, rank))


def _placement(case: Case, layer: Layer) -> Placement | None:
    """Return where the cells of a layer lie on the picture or signal; None where there is none."""
    canvas = next((c for c in case.canvases if c is not None), None)
    if canvas is None or len(canvas.size) != len(layer.size):
        return None
    if layer.name not in case.places:
        fields = [case.around.fields(canvas.name, gates=gates) for gates in (True, False)]
        case.places[layer.name] = place(layer.name, layer.size, canvas.size, case.around, fields)
    return case.places[layer.name]
