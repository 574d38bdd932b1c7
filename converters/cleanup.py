"""A graph as one would draw it: without layout transposes, casts and identities, BatchNorm folded; each step proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxviz.converters.base import Array
from onnxviz.errors import OnnxvizError
from onnxviz.graph.convolutions import drop_unit_axes
from onnxviz.graph.fold import fold_affine
from onnxviz.graph.model import INLINE_LIMIT, copy_model, weight_bytes
from onnxviz.graph.products import drop_flattening
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.graph.transposes import move_transposes
from onnxviz.runtime.production import optimized_model
from onnxviz.runtime.session import run_model

__all__ = ["clean"]

#: onnxruntime's own folding: fold_affine does the same and writes down which layers went where.
_FOLDS = ("ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "MatMulBNFusion", "MatMulAddFusion")
Rewrite = Callable[[ir.Model], ir.Model]
_TOLERANCE = 1e-5  # largest difference over largest magnitude


def clean(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    *,
    foldable: Callable[[ir.Node], bool] = lambda node: True,
    last: Sequence[tuple[str, Callable[[ir.Model], object]]] = (),
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return a model with what exporters leave behind taken out, and notes on steps that were not taken.

    onnxruntime's basic level pushes transposes through and cancels them, and removes casts, identities and constant
    parts; BatchNorm and other per-channel arithmetic then goes into the weights before it. After each step both
    models run on ``feeds``; a step that changes an output by more than rounding is taken back.

    Args:
        model: The model, its nodes named; it is not changed.
        feeds: Inputs to prove each step on.
        foldable: Which nodes of per-channel arithmetic may be folded.
        last: Rewrites of a copy in place that come last, each with what it does.
    """
    if weight_bytes(model) > INLINE_LIMIT:
        return model, ("the graph was not cleaned up: it is larger than 2 GB",)
    steps: list[tuple[str, Rewrite]] = [
        ("dropping reshapes around products", _in_copy(drop_flattening)),  # first: shapes are still as exported
        ("removing transposes, casts and identities", _without_clutter),
        ("dropping axes of size 1", _in_copy(drop_unit_axes)),
        ("moving transposes", _moved),
        ("removing transposes, casts and identities", _without_clutter),
    ]
    folding = ("folding BatchNorm", _in_copy(partial(fold_affine, accept=foldable)))
    steps = [entry for step in steps for entry in (folding, step)] + [folding]
    steps += [(what, _in_copy(rewrite)) for what, rewrite in last]
    try:
        proof = [(feed, run_model(model, feed)) for feed in feeds]
    except OnnxvizError as error:
        return model, (f"the graph was not cleaned up: it does not run: {error.message}",)
    notes: dict[str, None] = {}
    for what, rewrite in steps:
        try:
            changed = rewrite(model)
            if changed is model or _same(changed, model):
                continue
            differences = (_difference(outputs, run_model(changed, feed)) for feed, outputs in proof)
            problem = next(filter(None, differences), "")
        except OnnxvizError as error:
            problem = error.message
        if problem:
            notes[f"{what} was left out: {problem}"] = None
        else:
            model = changed
    return model, tuple(notes)


def _same(a: ir.Model, b: ir.Model) -> bool:
    """Say whether nothing was rewritten: the same operators on tensors of the same names."""
    return [(n.op_type, [v and v.name for v in n.inputs]) for n in a.graph] == [
        (n.op_type, [v and v.name for v in n.inputs]) for n in b.graph
    ]


def _difference(before: Mapping[str, Array], after: Mapping[str, Array]) -> str:
    for name, expected in before.items():
        got = after[name]
        if got.shape != expected.shape or got.dtype != expected.dtype:
            return f"output {name!r} would be {got.dtype} {list(got.shape)}"
        if expected.dtype.kind not in "fc":
            if not np.array_equal(got, expected):
                return f"output {name!r} would differ"
            continue
        finite = np.isfinite(expected)
        scale = float(np.abs(expected[finite]).max(initial=0.0))
        if not np.allclose(got, expected, rtol=0, atol=_TOLERANCE * scale, equal_nan=True):
            off = float(np.abs(got[finite] - expected[finite]).max(initial=0.0))
            return f"output {name!r} would differ by {off:.1e}, its largest value is {scale:.1e}"
    return ""


def _without_clutter(model: ir.Model) -> ir.Model:
    changed = optimized_model(model, "cpu", level="basic", without=_FOLDS)
    if set(changed.opset_imports) - set(model.opset_imports) - {"", "ai.onnx"} and any(
        node.domain not in model.opset_imports for node in changed.graph.all_nodes()
    ):
        return model  # operators of onnxruntime's own are no ONNX
    for domain in [d for d in changed.opset_imports if d and d not in model.opset_imports]:
        del changed.opset_imports[domain]
    _carry_over(model, changed)
    return changed


def _in_copy(rewrite: Callable[[ir.Model], object]) -> Rewrite:
    def rewritten(model: ir.Model) -> ir.Model:
        changed = copy_model(model)
        rewrite(changed)
        return changed

    return rewritten


def _moved(model: ir.Model) -> ir.Model:
    changed = copy_model(model)
    move_transposes(changed)
    return changed if changed.graph.num_nodes() <= model.graph.num_nodes() else model


def _carry_over(old: ir.Model, new: ir.Model) -> None:
    """Give the new nodes the provenance of the old ones of their name, and the model its names and metadata."""
    new.metadata_props.update(old.metadata_props)
    new.producer_name, new.producer_version = old.producer_name, old.producer_version
    new.graph.name, new.graph.doc_string, new.doc_string = old.graph.name, old.graph.doc_string, old.doc_string
    known: dict[str, Provenance | None] = {node.name: provenance_of(node) for node in old.graph if node.name}
    waiting = []
    for node in new.graph:
        source = known.get(node.name or "") or _of_longest_prefix(node.name or "", known)
        if source is None:
            waiting.append(node)
        else:
            set_provenance(node, source)
    for node in waiting:  # a transpose that was moved here, say: it belongs to what it feeds, else to what feeds it
        around = [user for value in node.outputs for user in value.consumers()]
        around += [p for value in node.inputs if value is not None and (p := value.producer()) is not None]
        near = next((s for other in around if (s := provenance_of(other)) is not None), None)
        if near is not None:
            set_provenance(node, Provenance(near.layer, near.class_name, near.line))


def _of_longest_prefix(name: str, known: Mapping[str, Provenance | None]) -> Provenance | None:
    """Return the provenance of the node that a fused one was named after: ``dense/MatMul/MatMulAddFusion``."""
    parts = name.split("/")
    prefixes = ("/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((known[prefix] for prefix in prefixes if known.get(prefix) is not None), None)
