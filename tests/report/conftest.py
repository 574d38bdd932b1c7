"""A small network whose feature maps can be worked out, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.report.page import Report, build_report
from onnxviz.runtime.capture import capture
from onnxviz.runtime.record import Capture
from tests.conftest import make_small_cnn


@dataclass(frozen=True)
class Example:
    model: ir.Model
    captured: Capture
    report: Report


@pytest.fixture(scope="session")
def example() -> Example:
    model = make_small_cnn()
    picture = np.random.default_rng(1).standard_normal((1, 1, 8, 8)).astype(np.float32)
    captured = capture(model, {"x": picture}, providers="cpu")
    return Example(model, captured, build_report(model, captured))


@pytest.fixture(scope="session")
def lenet(models: Path) -> Report:
    from onnxviz import api

    return api.report(models / "lenet5.onnx", models / "samples" / "digit_3.png", providers="cpu")


HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)> '--><!--",
    "line one\nline two\tand tab\x07",
    "\u202eevil\u202c and \u0634\u0628\u0643\u0629",
    "long" * 2500,
    "{{ 7 * 7 }}{% raw %}&lt;",
)


@pytest.fixture(scope="session")
def hostile() -> Example:
    """Every name, text and label of this model tries to break out of the page."""
    model = make_small_cnn()
    names = dict(zip(("c", "r", "p", "f", "y", "x"), HOSTILE, strict=True))
    for value in [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]:
        value.name = names[str(value.name)]
    for node, name in zip(model.graph, HOSTILE, strict=False):
        node.name = name
    model.graph.initializers["w"].name = HOSTILE[0] + "w"
    model.producer_name, model.doc_string, model.graph.name = HOSTILE[1], HOSTILE[0], HOSTILE[0]
    model.metadata_props.update({name[:100]: name for name in HOSTILE})
    picture = np.random.default_rng(1).standard_normal((1, 1, 8, 8)).astype(np.float32)
    captured = capture(model, {names["x"]: picture}, providers="cpu")
    return Example(model, captured, build_report(model, captured, labels=[HOSTILE[0], HOSTILE[1], HOSTILE[4]]))
