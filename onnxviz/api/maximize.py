"""The verb ``maximize``: pictures that make a channel, a neuron, a class or a direction answer most."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import DATA, PICTURES, check_outputs, save_view, write_numbers
from onnxviz.api.maximize_asked import Asked
from onnxviz.graph.io import as_model, check_external_data

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.maximize import MadePicture, Maximized, Settings
    from onnxviz.analysis.neurons import Neurons
    from onnxviz.gradient.registry import Table
    from onnxviz.runtime.capture import Feed
    from onnxviz.runtime.preprocess import Preprocessing

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["maximize", "maximized"]

_TOP = 16
_MEMORY = 2 * 10**9
#: What deep dream does instead of the usual: many small steps from a picture, closer and closer.
_DREAM: dict[str, Any] = {"steps": 200, "rate": 0.02, "parameters": "fft"}


def maximize(
    model: Model,
    layer: str | None = None,
    output: Path_ | None = None,
    *,
    data: Path_ | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw what a model looks for: pictures that make channels, neurons, classes or directions answer most.

    Args:
        model: A path or an opened model.
        layer: The tensor; by default the class scores, before the softmax.
        output: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the pictures as numbers, see :func:`onnxviz.analysis.maximize_data.maximized_data`.
        tell: Called with a line for each note, and for each picture that is not there.
        options: As :func:`maximized` takes them.

    Raises:
        SelectionError, InputError, GradientError: As :func:`maximized`.
    """
    from onnxviz.plots.maximized import plot_maximized

    check_outputs((output, PICTURES), (data, DATA))
    found = maximized(model, layer, **options)
    if tell is not None:
        for line in (*found.notes, *(f"not drawn: {one.name}: {one.reason}" for one in found.not_drawn)):
            tell(line)
    if data is not None:
        from onnxviz.analysis.maximize_data import maximized_data

        write_numbers(data, *maximized_data(found))
    figure = plot_maximized(found)
    save_view(figure, output)
    return figure


def maximized(
    model: Model,
    layer: str | None = None,
    *,
    channels: Sequence[int] | None = None,
    neurons: Sequence[str] | None = None,
    classes: Sequence[int | str] | None = None,
    direction: Path_ | np.ndarray | None = None,
    dream: Path_ | None = None,
    caricature: Path_ | None = None,
    also: Sequence[str] = (),
    cosine: float | None = None,
    top: int = _TOP,
    labels: Sequence[str] | Path_ | None = None,
    start: Path_ | None = None,
    inputs: Feed = None,
    settings: Settings | Mapping[str, Any] | None = None,
    octaves: int | None = None,
    wrt: str | None = None,
    bounds: tuple[float, float] | None = None,
    fixed: Sequence[str] = (),
    batch: int | None = None,
    max_memory: str | int = _MEMORY,
    resume: Path_ | None = None,
    rules: str | None = None,
    table: Table | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
    progress: Callable[[int, int], None] | None = None,
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    providers: str | Sequence[str] = "auto",
    op_library: Path_ | None = None,
) -> Maximized:
    """Make pictures that maximize what a layer answers.

    Args:
        model: A path or an opened model.
        layer: The tensor (a name, a glob that one has, ``source:…``); by default the class scores.
        channels: Of the layer: the mean over their positions. By default the first ``top``.
        neurons: ``"C"``, in the middle of the layer, or ``"C,Y,X"``.
        classes: Numbers, or parts of ``labels``: their scores before the softmax.
        direction: ``(C,)`` or ``(K, C)``, or an ``.npy`` file of it.
        dream: A picture (``.npy`` for other inputs) that is dreamt on: the squares of the layer, or its ``channels``.
        caricature: A picture of which what the layer holds is made more.
        also: Further terms, ``LAYER:CHANNEL`` or ``LAYER:CHANNEL*WEIGHT``.
        cosine: Exponent of the cosine of ``direction`` (0) and ``caricature`` (2).
        top: How many channels or classes, where none are named.
        labels: Class names, or a file of them.
        start: A picture to begin with.
        inputs: Samples; those that the channels answer most are shown beside, as
            :func:`onnxviz.api.neurons.neuron_views` finds them.
        settings: How, see :class:`onnxviz.analysis.maximize.Settings`; what is left out has its default.
        octaves: How many times a dream looks closer; 4 by default, and the picture is as much larger.
        wrt: The input that is made up.
        bounds: Smallest and largest value of an input that takes no picture; -1 and 1 by default.
        fixed: Values of the other inputs, ``NAME=FILE`` or ``NAME=VALUE``.
        batch: Most pictures at once.
        max_memory: Bytes that a step may take, about, such as ``"2GB"``.
        resume: A checkpoint, ``.npz``: written every 64 steps; where it exists, the work goes on from there.
        rules: A named set of gradient rules, see :func:`onnxviz.gradient.overrides.names.rules_table`; by default
            ``"redirected"``, by which dead rectifiers let through what may revive them, where the model takes it.
        table: The rules themselves.
        allow_cut, straight_through: As :func:`onnxviz.gradient.model.gradient_model` takes them.
        progress: Called after each step with the number of steps done and of all.
        preprocessing, dims, seed, providers, op_library: As the other verbs take them.

    Raises:
        SelectionError: There is no such layer, channel, neuron, class or direction.
        InputError: The model takes no floating point, or a file does not fit.
        GradientError: No gradient leads from the layer to the input.
    """
    from onnxviz.analysis.maximize import Maximized
    from onnxviz.analysis.maximize_canvas import find_canvas
    from onnxviz.analysis.maximize_run import maximize_subjects
    from onnxviz.analysis.maximize_subjects import start_values
    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.errors import listed
    from onnxviz.graph.inline import inline_functions
    from onnxviz.graph.model import model_name
    from onnxviz.graph.shapes import infer_shapes
    from onnxviz.runtime.plan import parse_bytes

    opened = infer_shapes(inline_functions(as_model(model)))
    check_external_data(opened)
    canvas = find_canvas(opened, wrt, preprocessing=preprocessing, bounds=bounds, dims=dims)
    how = _settings(settings, seed, dream is not None, octaves)
    asked = Asked(opened, canvas, dims or {}, layer, cosine, top)
    picture = canvas.size
    if dream is not None:
        picture = tuple(round(n * how.views.ratio ** (how.views.octaves - 1)) for n in canvas.size)
    source = None
    photo = dream if dream is not None else caricature
    if photo is not None:
        source = start_values(photo, canvas, picture)
    begun = None if start is None else start_values(start, canvas, picture)
    subjects, what = asked.subjects(channels, neurons, classes, direction, dream, source, labels)
    subjects = [replace(s, start=begun) for s in subjects] if begun is not None else subjects
    goals = tuple(asked.goal(text) for text in also)
    subjects = [replace(s, goals=(*s.goals, *goals)) for s in subjects]
    run: dict[str, Any] = {
        "picture": picture, "dims": dims, "fixed": fixed, "batch": batch, "max_memory": parse_bytes(max_memory),
        "checkpoint": resume, "progress": progress, "allow_cut": allow_cut, "straight_through": straight_through,
        "providers": providers, "op_library": op_library,
    }  # fmt: skip
    (made, size, interrupted, notes), followed = _by_rules(
        lambda chosen: maximize_subjects(opened, canvas, subjects, how, table=chosen, **run), rules, table
    )
    refused = [NotDrawn(m.label, "its score is not finite") for m in made if not math.isfinite(m.score)]
    missing = len(subjects) * how.count - len(made)
    told = [f"also {listed(list(also), 3)}"] if also else []
    if interrupted:
        steps = len(made[-1].history) if made else 0
        told.append(f"interrupted: {steps} of {how.steps} steps in the last round; {missing} pictures not begun")
    if stuck := list(dict.fromkeys(m.label for m in made if m.stuck)):
        told.append(f"{listed(stuck, 4)}: stays at 0, dead or without a gradient through its rectifier; take the tensor"
                    " before it, or another --seed or --start")  # fmt: skip
    examples = None
    name = subjects[0].goals[0].layer
    if inputs is not None and not interrupted:
        units = [s.unit for s in subjects if s.unit is not None]
        reading = {"preprocessing": preprocessing, "dims": dims, "seed": seed, "providers": providers,
                   "op_library": op_library}  # fmt: skip
        examples = _examples(opened, inputs, name, list(dict.fromkeys(units)), neurons is not None, reading)
    finite = tuple(m for m in made if math.isfinite(m.score))
    return Maximized(
        model_name(opened), what, name, canvas, how, finite, size, examples, source,
        tuple(refused), (*told, *notes), interrupted, followed,
    )  # fmt: skip


_Made = tuple[tuple["MadePicture", ...], int, bool, tuple[str, ...]]


def _by_rules(make: Callable[[Table | None], _Made], rules: str | None, table: Table | None) -> tuple[_Made, str]:
    """Make pictures by the rules that were asked for, or by redirected gradients where the model takes them."""
    from onnxviz.errors import GradientError, InputError
    from onnxviz.gradient.overrides.names import rules_table

    if table is not None:
        if rules is not None:
            raise InputError("rules and a table of rules are the same thing", hint="give one of them")
        return make(table), "rules of a table"
    if rules is not None:
        return make(None if rules == "gradient" else rules_table(rules)), f"rules: {rules}"
    try:
        return make(rules_table("redirected")), "gradients redirected at dead rectifiers"
    except GradientError:
        return make(None), "rules: gradient"


def _settings(given: Settings | Mapping[str, Any] | None, seed: int, dreams: bool, octaves: int | None) -> Settings:
    """Return settings with what was left out."""
    from onnxviz.analysis.maximize import Settings
    from onnxviz.errors import InputError

    if octaves is not None and (not dreams or octaves < 1):
        raise InputError("octaves are of --dream, and 1 or more")
    if isinstance(given, Settings):
        how = given
    else:
        how = Settings(**{**(_DREAM if dreams else {}), **dict(given or {}), "seed": seed})
    if dreams:
        how = replace(
            how, views=replace(how.views, octaves=octaves or (4 if how.views.octaves == 1 else how.views.octaves))
        )
    return how


def _examples(
    model: ir.Model, inputs: Feed, layer: str, units: list[int], places: bool, options: dict[str, Any]
) -> Neurons | None:
    """Return the samples that units answer most: a neuron by its largest value, a channel by its mean."""
    from onnxviz.api.neurons import neuron_views

    if not units:
        return None
    given = {name: value for name, value in options.items() if value is not None}
    return neuron_views(
        model, inputs, layer, units=units, top=len(units), pictures=len(units), by="index", order="index",
        over="max" if places else "mean", **given,
    )  # fmt: skip
