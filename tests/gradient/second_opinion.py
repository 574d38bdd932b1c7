"""The graphs that another implementation, onnx-ad, differentiates as well."""

from __future__ import annotations

from pathlib import Path

import onnx

HEAD = '<ir_version: 8, opset_import: ["": 18]> g '
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
MODELS = ["lenet5", "digits_cnn", "vit_digits"]


def parsed(name: str) -> onnx.ModelProto:
    """Return a graph."""
    return onnx.parser.parse_model(HEAD + TEXTS[name])


def operators() -> set[tuple[str, str, int]]:
    """Return domain, name and version of the operators in these graphs."""
    folder = Path(__file__).parents[2] / "models"
    found = set()
    for model in (*map(parsed, TEXTS), *(onnx.load(folder / f"{name}.onnx") for name in MODELS)):
        opset = next(o.version for o in model.opset_import if not o.domain)
        for node in model.graph.node:
            found.add((node.domain, node.op_type, onnx.defs.get_schema(node.op_type, opset, "").since_version))
    return found
