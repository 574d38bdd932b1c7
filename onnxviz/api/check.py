"""Is a model fit to deploy: ``onnxviz.check``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import check_outputs

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.checks.mending import Mended
    from onnxviz.checks.run import CheckResult
    from onnxviz.checks.subject import Subject

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["check", "mend"]


def check(
    model: Model,
    inputs: Sequence[Path_] | Mapping[str, Any] | Path_ | None = None,
    *,
    reference: Model | None = None,
    target_opset: int | None = None,
    providers: Sequence[str] | str = (),
    max_memory: str | int | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    static: bool = False,
    baseline: Path_ | None = None,
    save_baseline: Path_ | None = None,
    save_latency: Path_ | None = None,
    **options: Any,
) -> CheckResult:
    """Check whether a model is fit to deploy.

    Args:
        model: A path or an opened model. A file that does not open is a finding, not an error.
        inputs: What to feed it; None feeds seeded random numbers, and the findings say so.
        reference: A model that should compute the same.
        target_opset: Newest opset that the runtime in production knows; None for the one that is installed.
        providers: Where it is to run, such as ``["cpu", "cuda"]``.
        max_memory: Budget of activation memory, in bytes or as ``"2GB"``.
        only: Ids of the checks to run, or globs such as ``"G*"``; all if empty.
        skip: Ids, or globs, of checks to leave out.
        static: Leave out the checks that run the model.
        baseline: A file of findings that are known and let pass.
        save_baseline: Where to write what failed as such a file.
        save_latency: Where to write how long a run takes, for a later ``latency_baseline``.
        options: ``preprocessing``, ``dims``, ``seed``, ``op_library``, ``latency_baseline`` and ``repro``, as
            :class:`onnxviz.checks.subject.Options` has them.

    Returns:
        A finding a check, or several; ``result.exit_code()`` says what a gate would.

    Raises:
        ModelError: There is no such file, or it cannot be read.
        InputError: A check that is named does not exist, an input cannot be read or does not fit, or the baseline is of
            another model.

    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}'
    ... )
    >>> [f.message for f in check(model, only=["G03"]).findings]
    ['1 of 1 nodes have no name: 1 Neg']
    """
    from onnxviz.checks.baseline import apply_baseline, load_baseline
    from onnxviz.checks.baseline import save_baseline as write_baseline
    from onnxviz.checks.run import run_checks
    from onnxviz.checks.subject import Options, Subject
    from onnxviz.errors import InputError

    check_outputs((save_baseline, (".json",)), (save_latency, (".json",)))
    known = None if baseline is None else load_baseline(baseline)
    given = Options(
        inputs=_sources(inputs),
        reference=reference,
        target_opset=target_opset,
        providers=tuple([providers] if isinstance(providers, str) else providers),
        max_memory=_bytes(max_memory),
        static=static,
        **options,
    )
    subject = Subject(model, given)
    _check_given(subject)
    result = run_checks(subject, only, skip)
    if save_latency is not None and subject.model_error is None:
        from onnxviz.checks.latency import save_latency as write_latency

        write_latency(subject, save_latency)
    if subject.model_error is None:
        if known is not None:
            result = apply_baseline(result, known, subject.model)
        if save_baseline is not None:
            write_baseline(result, subject.model, save_baseline)
    elif save_baseline is not None:
        raise InputError(f"no baseline is written of a model that does not open: {subject.model_error.message}")
    elif known is not None:
        result = replace(result, notes=(*result.notes, "the baseline was not used: the model does not open"))
    return result


def _check_given(subject: Subject) -> None:
    """Refuse what was given and cannot be used: that is no property of the model."""
    given = subject.options
    if given.reference is not None:
        _ = subject.reference
    if (given.inputs or given.dims) and subject.model_error is None:
        _ = subject.inputs


def mend(
    model: Model,
    output: Path_ | None = None,
    inputs: Sequence[Path_] | Mapping[str, Any] | Path_ | None = None,
    **options: Any,
) -> Mended:
    """Take out of a model what checks find and what can be taken out safely: see :func:`onnxviz.checks.mending.mend`.

    Args:
        model: A path or an opened model; it is not changed.
        output: Where to write the mended model; another file than ``model``.
        inputs: What to prove each step on; None feeds seeded random numbers.
        options: ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        ModelError: The model does not open.
        OutputError: ``output`` is the model itself, or cannot be written.
    """
    from onnxviz.checks.mending import mend as mend_model
    from onnxviz.checks.subject import Options, Subject
    from onnxviz.graph.io import save_model

    if output is not None:
        check_mended_path(model, output)
    mended = mend_model(Subject(model, Options(inputs=_sources(inputs), **options)))
    if output is not None:
        save_model(mended.model, output)
    return mended


def check_mended_path(model: Model, output: Path_) -> None:
    """Check, before anything runs, that a mended model can be written.

    Raises:
        OutputError: The path is the model itself, is no .onnx, or cannot be written to.
    """
    from onnxviz.errors import OutputError

    check_outputs((output, (".onnx",)))
    if isinstance(model, (str, os.PathLike)) and os.path.realpath(model) == os.path.realpath(output):
        raise OutputError(f"{os.fspath(output)} is the model itself", hint="name another file")


def _sources(inputs: Sequence[Path_] | Mapping[str, Any] | Path_ | None) -> Sequence[Path_] | Mapping[str, Any]:
    return [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs or ()


def _bytes(size: str | int | None) -> int | None:
    if size is None:
        return None
    from onnxviz.runtime.plan import parse_bytes

    return parse_bytes(size)
