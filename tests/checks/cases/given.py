"""What a case is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxviz.checks.finding import Severity
from onnxviz.checks.subject import Options, Subject


@dataclass(frozen=True)
class Given:
    """What is checked: a model in memory or a file, and options."""

    model: ir.Model | Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def subject(self) -> Subject:
        return Subject(self.model, Options(**self.options))


Maker = Callable[[Path], Given]


@dataclass(frozen=True)
class Case:
    """Both twins of a check, each made in a folder of its own.

    Attributes:
        bad: What the check must flag.
        clean: The same without the defect.
        says: A part of the message.
        severity: Of the finding, where it is not the check's.
        evidence: Entries that the evidence must have.
    """

    bad: Maker
    clean: Maker
    says: str
    severity: Severity | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def net(body: str, inputs: str = "float[2] x", outputs: str = "float[2] y", weights: str = "", opset: int = 17,
        head: str = "") -> str:  # fmt: skip
    """Return the ONNX text of a model."""
    kept = f"<{weights}>" if weights else ""
    return f'<ir_version: 8, opset_import: ["": {opset}{head}]> g ({inputs}) => ({outputs}) {kept} {{{body}}}'


def text(source: str, **options: Any) -> Maker:
    """Return what makes a model of ONNX text, in memory."""
    return lambda folder: Given(ir.from_onnx_text(source), options)


def file(source: str, change: Callable[[onnx.ModelProto, Path], None] | None = None, **options: Any) -> Maker:
    """Return what writes a model of ONNX text to a file, changed by a function of the proto and its folder."""

    def make(folder: Path) -> Given:
        proto = onnx.parser.parse_model(source)
        if change is not None:
            change(proto, folder)
        path = folder / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        return Given(path, options)

    return make
