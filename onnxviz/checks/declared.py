"""The part of G02 that runs the model: what is declared against what every tensor really was."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxviz.checks.finding import Problem, Severity, tensor_place
from onnxviz.checks.registry import Evidence
from onnxviz.errors import OnnxvizError

if TYPE_CHECKING:
    from onnxviz.checks.subject import Subject

__all__ = ["compare_with_run"]

Declared = tuple[int, "list[int | str | None] | None"]


def compare_with_run(
    subject: Subject, declared: Mapping[str, Declared], told: Collection[str]
) -> Iterator[Problem | Evidence]:
    """Yield the tensors that ran with another type or shape than they are declared with.

    A model that does not run is told in the evidence: the declarations were compared with what can be inferred.

    Args:
        subject: The model.
        declared: Tensor -> its declared type and shape.
        told: Tensors that need not be told again.
    """
    from onnxviz.checks.running import observed

    try:
        seen = observed(subject)
    except OnnxvizError as error:
        yield {"run": f"not compared with a run: {error.message}"}
        return
    compared = 0
    for name, (dtype, shape) in declared.items():
        one = seen.get(name)
        if one is None or name in told:
            continue
        compared += 1
        expected = _numpy_name(dtype)
        if (
            expected is not None
            and one.dtype not in (expected, "object", "string", "other")
            and not one.dtype.startswith("<U")
        ):
            evidence: dict[str, object] = {"declared": expected, "ran": one.dtype}
            yield Problem(
                f"it is declared as {expected} and ran as {one.dtype}", [tensor_place(name)], evidence, key="dtype run"
            )
        elif shape is not None and not _fits(shape, one.shape):
            evidence = {"declared": shape, "ran": list(one.shape)}
            text = ", ".join("?" if dim is None else str(dim) for dim in shape)
            message = f"it is declared with shape [{text}] and ran with {list(one.shape)}"
            severity: Severity = "warning" if subject.made_up else "error"  # it may follow from what was fed
            yield Problem(message, [tensor_place(name)], evidence, severity=severity, key="shape run")
    yield {"compared_with_run": compared}


def _numpy_name(code: int) -> str | None:
    """Return a type as numpy spells it; None for those that numpy has under several names, or not at all."""
    name = "" if not code else ir.DataType(code).name.lower()
    if name == "string" or name.startswith(("float8", "float4")) or name.endswith(("int4", "int2")):
        return None
    return {"float": "float32", "double": "float64"}.get(name, name) or None


def _fits(shape: list[int | str | None], ran: tuple[int, ...]) -> bool:
    if len(shape) != len(ran):
        return False
    return all(not isinstance(dim, int) or dim < 0 or dim == size for dim, size in zip(shape, ran, strict=True))
