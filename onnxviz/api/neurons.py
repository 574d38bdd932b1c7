"""The verb ``neurons``: run a model on many samples, and draw what the units of a layer answer to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import (
    DATA,
    PICTURES,
    batches_for,
    check_outputs,
    save_view,
    tell_refused,
    write_numbers,
)
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.neuron_answers import NeuronAnswers, Outcome
    from onnxviz.analysis.neuron_choice import UnitOrder, UnitScore
    from onnxviz.analysis.neurons import NeuronLayer, Neurons
    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.analysis.sample_labels import SampleLabels
    from onnxviz.analysis.unit_values import Over
    from onnxviz.graph.receptive_field import ReceptiveField
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import Feed
    from onnxviz.runtime.inputs import Inputs
    from onnxviz.runtime.record import Capture

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["neuron_views", "neurons"]

_MOST_LAYERS = 6


def neurons(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    data: Path_ | None = None,
    table: Path_ | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw what the units of a layer answer to many samples.

    A heat map of units × samples grouped by class, class means, class selectivity and ROC-AUC, how the units of the
    whole layer are distributed with dead and always-on ones counted, and for the best units the samples that they
    answer most and least.

    Args:
        model: A path or an opened model.
        inputs: The samples: a folder, a folder of class folders, a list of files, an array; see :func:`neuron_views`.
        tensors: Which layers (names, globs, ``op:TYPE``), a section each; by default the last hidden layer.
        output: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture, see :func:`onnxviz.analysis.neuron_data.neuron_data`.
        table: ``.csv``: a line for every unit, see :func:`onnxviz.analysis.neuron_data.neuron_table`.
        tell: Called with a line for each tensor that cannot be shown, and each note on the samples.
        options: As :func:`neuron_views` takes them.

    Raises:
        SelectionError, InputError: As :func:`neuron_views`.
    """
    from onnxviz.plots.neurons import plot_neurons

    check_outputs((output, PICTURES), (data, DATA), (table, (".csv",)))
    found = neuron_views(model, inputs, tensors, **options)
    for line in found.notes if tell is not None else ():
        tell(line)  # type: ignore[misc]
    tell_refused(tell, found.not_drawn)
    if data is not None:
        from onnxviz.analysis.neuron_data import neuron_data

        write_numbers(data, *neuron_data(found))
    if table is not None:
        from onnxviz.analysis.neuron_data import neuron_table
        from onnxviz.graph.files import atomic_write

        atomic_write(table, neuron_table(found))
    figure = plot_neurons(found)
    save_view(figure, output)
    return figure


def neuron_views(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] | None = None,
    *,
    labels: Path_ | None = None,
    over: Over = "mean",
    top: int = 48,
    by: UnitScore = "auto",
    order: UnitOrder = "auto",
    z_score: bool = False,
    pictures: int = 12,
    units: Sequence[int] | None = None,
    tokens: Path_ | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Neurons:
    """Run a model on samples and return what the units of its layers answer.

    Args:
        model: A path or an opened model.
        inputs: The samples, as :func:`onnxviz.runtime.batches.load_batches` takes them.
        tensors: Which layers; by default the last hidden one. Of more than six the first six are taken.
        labels: ``"folders"``, or a ``.csv`` file; see :func:`onnxviz.analysis.sample_labels.sample_labels`. None takes
            the folders where the samples lie in several.
        over: What is made of the positions of a channel: ``"mean"``, ``"max"`` or ``"energy"`` (mean of x²).
        top, by, order, z_score, pictures, units: As :func:`onnxviz.analysis.neurons.neuron_layer` takes them.
        tokens: A vocabulary (:func:`onnxviz.runtime.words.read_vocabulary`), to show texts as words.
        batch: Samples a batch, where the model leaves that open.
        progress: Called after each batch with the number of batches that are done and of all.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Returns:
        The numbers, and what the samples among the extremes look like.

    Raises:
        SelectionError: None of the layers has units over the samples.
        InputError: An input or the labels do not fit.
    """
    from onnxviz.analysis.neuron_answers import answer_reducer
    from onnxviz.analysis.neurons import Neurons
    from onnxviz.analysis.sample_labels import sample_labels
    from onnxviz.analysis.sample_views import sample_names, sample_views
    from onnxviz.graph.inline import inline_functions
    from onnxviz.graph.layouts import tensor_layouts
    from onnxviz.graph.quantised import decoders
    from onnxviz.graph.shapes import infer_shapes
    from onnxviz.runtime.capture import capture
    from onnxviz.runtime.words import read_vocabulary

    opened = infer_shapes(inline_functions(as_model(model)))
    vocabulary = None if tokens is None else read_vocabulary(tokens)
    values, role, refused = _chosen(opened, tensors)
    batches, options = batches_for(opened, inputs, batch, options)
    first = batches.first()
    names = sample_names(batches)
    classes = sample_labels(names, labels)
    decode = decoders(values)
    reduce = answer_reducer(_op_types(values), tensor_layouts(opened), over=over, decode=decode)
    wanted = [str(value.name) for value in values]
    run: dict[str, Any] = {"keep": False, "reduce": reduce, "progress": progress, **options}
    captured = capture(opened, batches, wanted, bodies=False, **run)
    done = captured.samples
    layers, more = _layers(values, captured, classes, _sight(opened, first), decode, role=role, top=top, by=by,
                           order=order, z_score=z_score, pictures=pictures, units=units)  # fmt: skip
    refused += more
    if not layers:
        _refuse(refused)
    notes = _notes(batches, captured, first, classes, done)
    found = Neurons(captured.model_name, tuple(layers), tuple(names[:done]), classes, {}, tuple(refused), notes)
    return replace(found, views=sample_views(opened, batches, found.wanted, vocabulary))


def _chosen(model: ir.Model, tensors: str | Sequence[str] | None) -> tuple[list[ir.Value], str, list[NotDrawn]]:
    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.graph.last_hidden import last_hidden
    from onnxviz.graph.select import select

    role = ""
    if tensors is None:
        value, role = last_hidden(model)
        return [value], role, []
    values = select(model, tensors)
    left = [NotDrawn(str(v.name), f"more than {_MOST_LAYERS} layers: ask for it alone") for v in values[_MOST_LAYERS:]]
    return values[:_MOST_LAYERS], role, left


def _op_types(values: Sequence[ir.Value]) -> dict[str, str | None]:
    producers = {str(value.name): value.producer() for value in values}
    return {name: None if node is None else node.op_type for name, node in producers.items()}


def _layers(
    values: Sequence[ir.Value],
    captured: Capture,
    labels: SampleLabels | None,
    sight: tuple[Mapping[str, ReceptiveField], tuple[int, ...] | None],
    decode: Mapping[str, Any],
    **how: Any,
) -> tuple[list[NeuronLayer], list[NotDrawn]]:
    """Return the layers that have units, and why the others are not drawn."""
    layers: list[NeuronLayer] = []
    refused: list[NotDrawn] = []
    for value in values:
        answers, why = _answers(captured, str(value.name), captured.samples)
        if answers is None:
            refused.append(why)
            continue
        layers += _layer(value, answers, labels, sight, refused, decode, **how)
    return layers, refused


def _answers(captured: Capture, name: str, done: int) -> tuple[NeuronAnswers | None, NotDrawn]:
    from onnxviz.analysis.paired import NotDrawn, missing

    absent = missing(captured, name)
    if absent is not None:
        return None, absent
    outcome: Outcome = captured[name].statistics
    if outcome.answers is None:
        return None, NotDrawn(name, outcome.reason)
    rows = outcome.answers.values.samples
    if rows != done:
        shape = "×".join(map(str, outcome.answers.values.shape))
        return None, NotDrawn(
            name, f"its first axis ({shape}) is not the samples: it has {rows} rows for {done} samples"
        )
    return outcome.answers, NotDrawn(name, "")


def _layer(
    value: ir.Value,
    answers: NeuronAnswers,
    labels: SampleLabels | None,
    sight: tuple[Mapping[str, ReceptiveField], tuple[int, ...] | None],
    refused: list[NotDrawn],
    decode: Mapping[str, Any],
    **how: Any,
) -> list[NeuronLayer]:
    from onnxviz.analysis.neurons import neuron_layer
    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.errors import SelectionError

    name, node = str(value.name), value.producer()
    field, notes = sight[0].get(name), []
    if name in decode:
        notes.append("dequantised")
    elif value.dtype is not None and value.dtype.is_integer():
        notes.append(f"quantised codes or integers ({value.dtype.name.lower()}), as they are")
    if field is not None and any(p is not None for p in answers.peaks) and all(field.whole):
        notes.append("each position sees all of the input: no box is drawn")
    rows = answers.values.samples
    if labels is not None and len(labels.labels) > rows:
        labels = labels.first(rows)
    try:
        return [
            neuron_layer(answers, labels, op_type=node.op_type if node else None, field=field, extent=sight[1],
                         notes=notes, **how)
        ]  # fmt: skip
    except SelectionError as error:
        if how["top"] < 1:
            raise
        refused.append(NotDrawn(name, str(error)))
        return []


def _refuse(refused: Sequence[NotDrawn]) -> None:
    from onnxviz.errors import SelectionError, printable

    one = refused[0]
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    reason = one.reason.removeprefix(f"{one.name}: ")
    raise SelectionError(f"no units to draw: {printable(one.name, 80)}: {reason}{more}")


def _sight(model: ir.Model, first: Inputs) -> tuple[dict[str, ReceptiveField], tuple[int, ...] | None]:
    """Return the receptive fields in the input that is drawn, and its sizes along their axes."""
    from onnxviz.errors import InputError
    from onnxviz.graph.receptive_field import receptive_fields
    from onnxviz.graph.shapes import bind_dims, infer_shapes, model_inputs, shape_list

    name = next((r.name for r in first.records if r.picture is not None), None)
    if name is None:
        name = next((r.name for r in first.records if len(r.shape) in (3, 4)), None)
    if name is None:
        return {}, None
    sizes = {r.name: r.shape for r in first.records}
    dims = {
        size or f"{value.name}:{axis}": sizes[str(value.name)][axis]
        for value in model_inputs(model)
        for axis, size in enumerate(shape_list(value) or [])
        if not isinstance(size, int) and len(sizes.get(str(value.name), ())) > axis
    }
    try:
        fields = receptive_fields(infer_shapes(bind_dims(model, dims)), name)
    except InputError:  # an input without axes known to be positions: nothing can be framed in it
        return {}, None
    axes = next((field.axes for field in fields.values()), ())
    return fields, tuple(sizes[name][axis] for axis in axes)


def _notes(
    batches: Batches, captured: Capture, first: Inputs, labels: SampleLabels | None, done: int
) -> tuple[str, ...]:
    from onnxviz.errors import listed, printable

    made_up = [printable(record.name, 40) for record in first.records if record.made_up]
    found = [f"random numbers were fed to {listed(made_up, 3)}"] if made_up else []
    if captured.interrupted:
        found.append(f"interrupted: {done} of {batches.samples} samples")
    if batches.left_over:
        found.append(f"{batches.left_over} samples fill no batch and are left out")
    return (*found, *(labels.notes if labels is not None else ()))
