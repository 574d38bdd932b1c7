"""The registry of attribution methods: a row a method, from which the verb, the help and the docs are made."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.axes import input_letters
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.layers import Layer, choose_layer
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.placement import Placement, place
from onnxviz.errors import GradientError, InputError, listed, printable
from onnxviz.graph.model import summary_line

__all__ = ["METHODS", "Found", "Method", "attribution", "broken_methods", "find_method", "known_methods", "method",
           "without_gradient"]  # fmt: skip

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
        layer: The layer whose positions the map is of, where the method finds that itself.
        unit: What the numbers are measured in, where that depends on the case.
        axes: Tensor -> a letter an axis of its map, where the tensor itself does not tell.
    """

    maps: Mapping[str, npt.NDArray[Any]]
    baseline_score: npt.NDArray[np.float64] | None = None
    completeness: npt.NDArray[np.float64] | None = None
    cuts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    layer: Layer | None = None
    unit: str | None = None
    axes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    Attributes:
        name: As users write it.
        about: One line that says what it shows.
        source: Where it is published.
        run: Gets the :class:`~onnxviz.analysis.attribution.case.Case`, of a method that needs a layer also the
            :class:`~onnxviz.analysis.attribution.layers.Layer`, and its parameters by keyword; returns :class:`Found`.
        needs: What must be there: ``"gradient"``, ``"layer"``, ``"attention"``; other methods run on any model.
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
    broken_methods()
    return METHODS


def broken_methods() -> tuple[str, ...]:
    """Enter the methods of other packages; return a line for each entry point that brings none."""
    broken = []
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        if point.name in METHODS:
            continue
        named = f"the method {printable(point.name, 60)!r} of {printable(point.value, 100)}"
        try:
            found = point.load()
        except Exception as error:  # noqa: BLE001 - the code of another package raises what it likes
            broken.append(f"{named} cannot be loaded: {summary_line(error)}")
            continue
        if isinstance(found, Method):
            METHODS.setdefault(found.name, found)
        if point.name not in METHODS:
            broken.append(f"{named} is none: the entry point has to name what is entered by @method, or a Method")
    return tuple(broken)


def find_method(name: str) -> Method:
    """Return a method by name, however it is spaced and hyphenated.

    Raises:
        InputError: There is none.

    >>> find_method("Grad_CAM").name, find_method("gradcam").name
    ('grad-cam', 'grad-cam')
    """
    wanted = _bare(name)
    found = {_bare(key): row for key, row in METHODS.items()}
    if wanted not in found:
        found = {_bare(key): row for key, row in known_methods().items()}
    if wanted in found:
        return found[wanted]
    near = [found[one].name for one in difflib.get_close_matches(wanted, found, 4, 0.5)]
    hint = f"the nearest are {', '.join(near)}" if near else f"choose {', '.join(METHODS)}"
    raise InputError(f"there is no method {printable(name, 60)!r}", hint="; ".join([hint, *broken_methods()]))


def _bare(name: str) -> str:
    return re.sub(r"[-_\s]", "", name.lower())


def attribution(
    case: Case, name: str, *, layer: str | None = None, fallback: bool = False, **parameters: Any
) -> Attribution:
    """Explain a case by one method.

    Args:
        case: What is explained.
        name: The method.
        layer: Of a method that attributes to a layer, which; by default the last with spatial axes.
        fallback: Where no gradient leads there, take the method of :func:`without_gradient` instead, and say so.
        parameters: Of the method; those left out have its defaults.

    Raises:
        InputError: There is no such method, it has no such parameter, or the parameter cannot have that value.
        SelectionError: The layer has no spatial axes.
        GradientError: No gradient leads there; the text names methods that need none.
    """
    row = find_method(name)
    if unknown := [key for key in parameters if key not in row.parameters]:
        own = listed([f"{key} ({value})" for key, value in row.parameters.items()], 12)
        raise InputError(f"{row.name} has no parameter {unknown[0]!r}", hint=f"it has {own or 'none'}")
    _check(row, parameters)
    try:
        return _run(case, row, layer, parameters)
    except GradientError as error:
        if "gradient" not in row.needs:
            raise
        if not fallback:
            own = (error.hint or "").replace("--wrt", "--layer")  # the option's name is another here
            free = sorted(n for n, other in known_methods().items() if not other.needs & {"gradient", "attention"})
            raise GradientError(
                error.message,
                hint=f"{f'{own}; or ' if own else ''}take a method that needs no gradient: "
                f"{', '.join(free)} (--fallback does)",
            ) from error
        other = find_method(without_gradient(row))
        made = _run(case, other, layer, {k: v for k, v in parameters.items() if k in other.parameters})
        return replace(made, notes=(*made.notes, f"instead of {row.name}, for which {error.message}"))


def _check(row: Method, parameters: Mapping[str, Any]) -> None:
    """Refuse what is no number where the default is one, counts below 1, and the like."""
    for key, value in parameters.items():
        default = row.parameters[key]
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        whole = number and isinstance(value, (int, np.integer))
        if isinstance(default, bool):
            fits, hint = isinstance(value, (bool, np.bool_)), "give true or false"
        elif isinstance(default, int):
            least = 0 if key == "seed" else 1
            fits, hint = whole and value >= least, f"give a whole number, {least} or more"
        elif isinstance(default, float):
            fits, hint = number and 0 <= value < np.inf, "give a number, 0 or more"
        else:
            continue
        if not fits:
            raise InputError(f"{key} of {row.name} cannot be {printable(repr(value), 60)}", hint=hint)


def without_gradient(row: Method) -> str:
    """Return the method that stands in for one whose gradient cannot be had.

    >>> without_gradient(find_method("grad-cam")), without_gradient(find_method("saliency"))
    ('ablation-cam', 'occlusion')
    """
    if "attention" in row.needs:
        return "attention-rollout"
    return "ablation-cam" if "layer" in row.needs else "occlusion"


def _run(case: Case, row: Method, layer: str | None, parameters: Mapping[str, Any]) -> Attribution:
    given = {**row.parameters, **parameters}
    chosen = choose_layer(case, layer, codes="gradient" not in row.needs) if "layer" in row.needs else None
    found = row.run(case, chosen, **given) if chosen is not None else row.run(case, **given)
    of_layer = found.layer if found.layer is not None else chosen
    if of_layer is not None and of_layer.name not in found.maps:
        of_layer = None  # it was only looked at: the map is of the input
    maps = {}
    for key, array in found.maps.items():
        maps[key] = np.ascontiguousarray(array, np.float32)
        maps[key].flags.writeable = False
    told = {k: _plain(v) for k, v in {**given, **found.parameters}.items() if v is not None}
    return Attribution(
        row.name, maps, dict(case.feeds), case.target.texts, case.scores, told,
        case.target.classes, of_layer, found.baseline_score, found.completeness, found.cuts, case.providers,
        (*case.notes, *found.notes), case.name, case.canvases,
        None if of_layer is None else _placement(case, of_layer), unit=row.unit if found.unit is None else found.unit,
        axes={name: found.axes.get(name) or _letters(case, name, of_layer) for name in maps}, words=case.words,
        regions=case.target.regions,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _letters(case: Case, name: str, layer: Layer | None) -> str:
    """Return a letter an axis of a map."""
    if layer is None or name != layer.name:
        return input_letters(case, name)
    return "N" + ("DHW"[-len(layer.size) :] if len(layer.size) > 1 else "T")


def _placement(case: Case, layer: Layer) -> Placement | None:
    """Return where the cells of a layer lie on the picture or signal; None where there is none."""
    canvas = next((c for c in case.canvases if c is not None), None)
    if canvas is None or len(canvas.size) != len(layer.size):
        return None
    if layer.name not in case.places:
        fields = [case.around.fields(canvas.name, gates=gates) for gates in (True, False)]
        case.places[layer.name] = place(layer.name, layer.size, canvas.size, case.around, fields)
    return case.places[layer.name]
