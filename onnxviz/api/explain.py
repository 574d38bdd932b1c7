"""The verb ``explain``: which parts of an input an answer came from, as pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.api.attribution import case_of
from onnxviz.api.attribution_model import export_attribution
from onnxviz.api.common import DATA, PICTURES, check_outputs, save_view, write_numbers
from onnxviz.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.attribution.methods import Method
    from onnxviz.analysis.attribution.result import Attribution
    from onnxviz.analysis.attribution.targets import TargetSpec
    from onnxviz.api.attribution import Progress
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["explain"]


def explain(
    model: Model,
    inputs: Feed = None,
    methods: str | Sequence[str] = "grad-cam",
    picture: Path_ | None = None,
    *,
    data: Path_ | None = None,
    target: TargetSpec | Sequence[TargetSpec] = None,
    layer: str | None = None,
    output: str | None = None,
    labels: Sequence[str] | Path_ | None = None,
    tokens: Path_ | None = None,
    contours: Sequence[float] = (0.5,),
    parameters: Mapping[str, Any] | None = None,
    batch: int | None = None,
    max_memory: str | int | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
    fallback: bool = False,
    certify: bool | Mapping[str, Any] = False,
    certificate: Path_ | None = None,
    export: Path_ | None = None,
    export_target: str | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw attributions: the input beside a map a method, of one target or of several contrasted.

    Args:
        model, inputs, layer, output, labels, tokens, batch, max_memory, allow_cut, straight_through, fallback,
            progress: As for :func:`attribute`.
        target: As for :func:`attribute`, or several: a row a method with a map a target, all on one scale; of two, the
            difference of their maps as well.
        contours: Where lines are drawn over the map of a layer, as shares of its largest magnitude; empty for none.
        methods: One or several.
        picture: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture.
        parameters: Of the methods; each goes to those that have it.
        certify: Examine the maps, as for :func:`attribute`.
        certificate: ``.png``, ``.svg`` or ``.pdf``: the certificates as a figure, or ``.json``: as data; asks for an
            examination.
        tell: Called with a line for each thing that a reader should know, such as which layer was taken.
        export: ``.onnx``: one file that gives the model's outputs and the map, as :func:`attribution_model` returns it.
        export_target: ``"argmax"``, ``"input"`` or ``"fixed"``, see there.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        SelectionError, InputError, GradientError: As :func:`attribute`; a parameter is none of any method.
    """
    from onnxviz.analysis.attribution.certificate import certified, cost, examination_of
    from onnxviz.analysis.attribution.contrast import contrasts
    from onnxviz.analysis.attribution.methods import attribution, find_method
    from onnxviz.analysis.attribution.result import attribution_data
    from onnxviz.plots.attribution import plot_attributions

    check_outputs((picture, PICTURES), (data, DATA), (certificate, (*PICTURES, ".json")), (export, (".onnx",)))
    examined = certify is not False or certificate is not None
    examination = examination_of(certify if isinstance(certify, Mapping) else {}) if examined else None
    rows = [find_method(name) for name in ([methods] if isinstance(methods, str) else methods)]
    targets: list[TargetSpec] = [target] if target is None or isinstance(target, (int, str)) else list(target)
    if export is not None:
        _check_one(rows, targets)
    own = _shared_out(parameters or {}, rows)
    inner = None if any("layer" in row.needs for row in rows) else layer
    how = {
        "batch": batch, "max_memory": max_memory, "allow_cut": allow_cut, "straight_through": straight_through,
        "tokens": tokens, "progress": progress,
    }  # fmt: skip
    each = []
    for wanted in targets:
        case = case_of(model, inputs, wanted, inner, output, labels, how, options)
        found = []
        for row in rows:
            one = attribution(case, row.name, layer=layer, fallback=fallback, **own[row.name])
            if export is not None:
                export_attribution(case, one, own[row.name], wanted, export_target, export, tell)
            if tell is not None and examination is not None:
                tell(cost(case, one, examination))
            found.append(certified(case, one, own[row.name], examination, progress))
        each.append(found)
    differences, lost = contrasts(each)
    plain = [one for several in each for one in several]
    for line in dict.fromkeys([*(line for one in plain for line in _told(one)), *lost]) if tell is not None else ():
        tell(line)  # type: ignore[misc]
    if data is not None:
        write_numbers(data, *attribution_data([*plain, *differences]))
    if certificate is not None:
        _write_certificates(plain, certificate)
    figure = plot_attributions([*plain, *differences], contours=contours)
    save_view(figure, picture)
    return figure


def _shared_out(given: Mapping[str, Any], rows: Sequence[Method]) -> dict[str, dict[str, Any]]:
    """Return the parameters that each method has."""
    if lost := [key for key in given if not any(key in row.parameters for row in rows)]:
        known = list(dict.fromkeys(key for row in rows for key in row.parameters))
        raise InputError(f"no method here has a parameter {lost[0]!r}", hint=f"they have {', '.join(known) or 'none'}")
    return {row.name: {key: value for key, value in given.items() if key in row.parameters} for row in rows}


def _check_one(rows: Sequence[Method], targets: Sequence[TargetSpec]) -> None:
    """Refuse to write one file for several maps, or for a method that no graph can hold."""
    from onnxviz.analysis.attribution.deploy import check_deployable

    if len(rows) * len(targets) > 1:
        raise InputError(
            f"one file holds one map, not {len(rows) * len(targets)}", hint="give one --method and one --target with it"
        )
    check_deployable(rows[0].name)


def _write_certificates(found: Sequence[Attribution], path: Path_) -> None:
    import json

    from onnxviz.graph.files import atomic_write
    from onnxviz.plots.certificate import plot_certificates

    if os.fspath(path).lower().endswith(".json"):
        made = [one.certificate.to_dict() for one in found if one.certificate is not None]
        atomic_write(path, json.dumps(made, indent=1, allow_nan=False) + "\n")
    else:
        save_view(plot_certificates(found), path)


def _told(one: Attribution) -> list[str]:
    lines = [f"{one.method}: layer {one.layer}"] if one.layer is not None else []
    verdicts = one.certificate.lines() if one.certificate is not None else ()
    return [*lines, *(f"cut: {cut}" for cut in one.cuts), *one.notes, *(f"{one.method}: {line}" for line in verdicts)]
