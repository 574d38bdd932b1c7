"""Whole graphs against onnx-ad, an implementation of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxviz.gradient.registry import standard_table
from onnxviz.graph.model import from_proto
from tests.gradient.numeric import _session as session
from tests.gradient.numeric import gradients
from tests.gradient.rules_case import relative
from tests.gradient.second_opinion import MODELS, TEXTS, parsed

onnx_ad = pytest.importorskip("onnx_ad", reason="onnx-ad is not installed (pip install onnx-ad)")

LIMIT = 1e-5


def theirs(model: onnx.ModelProto, feeds: dict[str, np.ndarray], of: str, seed: np.ndarray) -> dict[str, np.ndarray]:
    """Return the gradients that onnx-ad's model computes."""
    made = onnx_ad.reverse(model, inputs=list(feeds), outputs=[of], layout="onnx")
    names = [f"adj_{name}" for name in feeds]
    found = session(made).run(names, {**feeds, f"adj_{of}": seed[..., None]})
    return {name: grad[..., 0] for name, grad in zip(feeds, found, strict=True)}


def worst(model: onnx.ModelProto, feeds: dict[str, np.ndarray], **options: Any) -> float:
    rng, of = np.random.default_rng(8), str(model.graph.output[0].name)
    base = session(model).run([of], feeds)[0]
    seed = rng.normal(size=base.shape).astype(np.float32)
    expected = theirs(onnx.ModelProto.FromString(model.SerializeToString()), feeds, of, seed)
    found, _ = gradients(from_proto(model), feeds, of, list(feeds), seed, **options)
    return max(relative(found[name], expected[name]) for name in feeds)


def inputs_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    shapes = {v.name: [dim.dim_value or 2 for dim in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: (0.7 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", list(TEXTS))
def test_graphs(name: str) -> None:
    model = parsed(name)
    assert worst(model, inputs_of(model)) < LIMIT


@pytest.mark.parametrize("name", MODELS)
def test_trained_models(name: str, models: Path) -> None:
    model = onnx.load(models / f"{name}.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2  # onnx-ad takes convolutions of known sizes alone
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    assert worst(model, inputs_of(model)) < 5 * LIMIT


def test_a_rule_off_by_a_thousandth_is_seen() -> None:
    model = parsed("attention")
    rule = standard_table().rows["", "Softmax"][-1].rule
    off = standard_table().changed({("", "Softmax"): lambda s, dy: s.ops.Mul(rule(s, dy), s.ops.scalar(1.001, dy))})
    assert worst(model, inputs_of(model), table=off) > 10 * LIMIT
