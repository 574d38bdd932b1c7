"""Whole graphs against onnx-ad, an implementation of others: https://pypi.org/project/onnx-ad."""

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

onnx_ad = pytest.importorskip("onnx_ad", reason="onnx-ad is not installed (pip install onnx-ad)")

HEAD = '<ir_version: 8, opset_import: ["": 18]> g '
LIMIT = 1e-5
TEXTS = {
    "convolutions": """(float[2, 3, 9, 8] x, float[4, 3, 3, 3] w, float[4] b) => (float[2, 4, A, B] y) {
      c = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w, b) r = LeakyRelu(c)
      p = MaxPool <kernel_shape = [2, 2]> (r) y = AveragePool <kernel_shape = [2, 3], strides = [1, 2]> (p)}""",
    "a normalised block": """(float[2, 5, 6] x, float[6] g, float[6] b, float[6, 6] w) => (float[2, 5, 6] y) {
      n = LayerNormalization(x, g, b) m = MatMul(n, w) e = Erf(m) h = Mul(m, e) y = Add(h, x)}""",
    "attention": """(float[2, 5, 4] q, float[2, 6, 4] k, float[2, 6, 3] v) => (float[2, 5, 3] y) {
      t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t) a = Softmax <axis = -1> (s) y = MatMul(a, v)}""",
    "indices": """(float[5, 4] x, float[2, 4] u) => (float[3, 8] y) <int64[2, 1] i = {4, 1}, int64[3] j = {2, 0, 2}> {
      s = ScatterND(x, i, u) a = Gather <axis = 0> (s, j) b = Gather <axis = 0> (x, j) c = Mul(a, b)
      y = Concat <axis = 1> (c, b)}""",
    "products": """(float[2, 3, 4] a, float[2, 4, 5] b, float[5] c) => (float[2, 3] y) {
      p = MatMul(a, b) y = Einsum <equation = "bij,j->bi"> (p, c)}""",
    "reductions": """(float[3, 4, 5] x) => (float[3, 5] y) <int64[1] i = {1}> {
      a = ReduceLogSumExp <keepdims = 0> (x, i) b = ReduceL2 <keepdims = 0> (x, i) c = ReduceMax <keepdims = 0> (x, i)
      d = Mul(a, b) y = Add(c, d)}""",
    "sizes": """(float[1, 2, 4, 5] x) => (float[1, 2, A, B] y) <float[4] s = {1, 1, 2, 1.6}, int64[8] p = {0, 0, 1, 0, 0, 0, 2, 1}> {
      r = Resize <mode = "linear"> (x, , s) q = Pad(r, p) y = Tanh(q)}""",
    "a loop": """(float[2] s, float[2] k) => (float[2] y) <int64 n = {4}, bool c = {1}> {
      y = Loop(n, c, s) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
        co = Identity(ci) p = Mul(v, k) w = Sin(p)}>}""",
    "recurrence": """(float[6, 2, 3] x, float[1, 16, 3] w, float[1, 16, 4] r, float[1, 32] b) => (float[1, 2, 4] y) {
      , y = LSTM <hidden_size = 4> (x, w, r, b)}""",
    "samples": """(float[1, 2, 5, 5] x, float[1, 3, 4, 2] g) => (float[1, 2, 3, 4] y) {
      t = Tanh(g) y = GridSample <align_corners = 1> (x, t)}""",
}


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
    model = onnx.parser.parse_model(HEAD + TEXTS[name])
    assert worst(model, inputs_of(model)) < LIMIT


@pytest.mark.parametrize("name", ["lenet5", "digits_cnn", "vit_digits"])
def test_trained_models(name: str, models: Path) -> None:
    model = onnx.load(models / f"{name}.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2  # onnx-ad takes convolutions of known sizes alone
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    assert worst(model, inputs_of(model)) < 5 * LIMIT


def test_a_rule_off_by_a_thousandth_is_seen() -> None:
    model = onnx.parser.parse_model(HEAD + TEXTS["attention"])
    rule = standard_table().rows["", "Softmax"][-1].rule
    off = standard_table().changed({("", "Softmax"): lambda s, dy: s.ops.Mul(rule(s, dy), s.ops.scalar(1.001, dy))})
    assert worst(model, inputs_of(model), table=off) > 10 * LIMIT
