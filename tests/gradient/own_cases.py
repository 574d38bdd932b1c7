"""Small models for operators and versions that onnx's node tests leave out. Sizes that are symbols are 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NEVER = 10_000


@dataclass(frozen=True)
class Own:
    """A model of an operator.

    Attributes:
        op_type: The operator that it is of.
        text: Its graph.
        since: The first version that the text is true of.
        until: The last one.
        feeds: What is not random.
        opset: Of the model, where that is not the last of the version.
        expected: Input -> the gradient that a seed of ones gives, where nothing runs the model.
    """

    op_type: str
    text: str
    since: int = 1
    until: int = NEVER
    feeds: Mapping[str, Any] = field(default_factory=dict)
    opset: int | None = None
    expected: Mapping[str, np.ndarray] = field(default_factory=dict)


_X = "(float[2, 3, 4] x) => (float[2, 3, 4] y) "
_ROIS = {"rois": np.float32([[0, 0.2, 0.1, 3.2, 4.4], [0, 1.1, 0.3, 4.2, 3.1]])}
_SIX = np.float32([[1, -2, 3], [0.5, 4, -6]])
OWN = [
    Own("If", """(double[2] x, double[2] w, bool c) => (double[2] y) {y = If(c) <
        then_branch = a () => (double[2] p) {p = Mul(x, w)}, else_branch = b () => (double[2] q) {q = Sin(x)}>}""",
        feeds={"c": np.array(True)}),
    Own("Loop", """(double[2] s, double[2] k, int64 n, bool c) => (double[2] q) {
        q = Loop(n, c, s) <body = b (int64 i, bool ci, double[2] v) => (bool co, double[2] w) {
          co = Identity(ci) p = Mul(v, k) w = Sin(p)}>}""",
        feeds={"n": np.array(3, np.int64), "c": np.array(True)}),
    Own("Scan", """(double[5, 2] x, double[2] s, double[2] w) => (double[2] y, double[5, 2] z) {
        y, z = Scan <num_scan_inputs = 1, body = b (double[2] a, double[2] r) => (double[2] d, double[2] e) {
          k = Tanh(a) l = Mul(k, w) d = Add(l, r) e = Mul(a, d)}>(s, x)}""", since=9),
    Own("Scan", """(float[1, 2] s, float[1, 3, 2] x) => (float[1, 2] y, float[1, 3, 2] z) {
        y, z = Scan <num_scan_inputs = 1, body = b (float[2] a, float[2] r) => (float[2] d, float[2] e) {
          d = Add(a, r) e = Mul(a, d)}>("", s, x)}""".replace('""', ""), until=8),
    Own("GlobalLpPool", "(float[2, 3, 4, 5] x) => (float[2, 3, 1, 1] y) {y = GlobalLpPool <p = 3> (x)}"),
    Own("MaxRoiPool", """(float[1, 2, 6, 6] x, float[2, 5] rois) => (float[2, 2, 2, 2] y) {
        y = MaxRoiPool <pooled_shape = [2, 2]> (x, rois)}""", feeds=_ROIS),
    Own("Trilu", "(float[3, 4] x) => (float[3, 4] y) {y = Trilu <upper = 0> (x)}"),
    Own("Upsample", """(float[1, 2, 3, 3] x) => (float[1, 2, 6, 9] y) {
        y = Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 3.0]> (x)}""", until=7),
    Own("Upsample", """(float[1, 2, 3, 3] x) => (float[1, 2, 6, 9] y) <float[4] s = {1, 1, 2, 3}> {
        y = Upsample <mode = "nearest"> (x, s)}""", since=9, until=9),
    Own("Resize", """(float[1, 2, 3, 3] x) => (float[1, 2, 6, 9] y) <float[4] s = {1, 1, 2, 3}> {
        y = Resize <mode = "linear"> (x, s)}""", until=10),
    Own("Resize", """(float[1, 2, 6, 6] x) => (float[1, 2, 3, 3] y) <float[4] s = {1, 1, 0.5, 0.5}> {
        y = Resize <mode = "nearest"> (x, s)}""", until=10),
    Own("Resize", """(float[1, 2, 3, 3] x) => (float[1, 2, 6, 9] y) <float[0] r = {}, float[4] s = {1, 1, 2, 3}> {
        y = Resize <mode = "cubic"> (x, r, s)}""", since=11),
    Own("Resize", """(float[1, 2, 3, 3] x) => (float[1, 2, 6, 9] y) <float[0] r = {}, float[4] s = {1, 1, 2, 3}> {
        y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, r, s)}""", since=11),
    Own("ConcatFromSequence", """(float[2, 3] a, float[2, 3] b) => (float[4, 3] y) {
        s = SequenceConstruct(a, b) t = ConcatFromSequence <axis = 0> (s) y = Mul(t, t)}"""),
    Own("SequenceConstruct", """(float[2, 3] a, float[2, 3] b) => (float[4, 3] y) {
        s = SequenceConstruct(a, b) t = ConcatFromSequence <axis = 0> (s) y = Mul(t, t)}"""),
    Own("SequenceAt", """(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) <int64 i = {1}> {
        s = SequenceConstruct(a, b) t = SequenceAt(s, i) y = Mul(t, a)}"""),
    Own("SequenceInsert", """(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) <int64 i = {1}> {
        s = SequenceConstruct(a) r = SequenceInsert(s, b, i) t = SequenceAt(r, i) y = Mul(t, a)}"""),
    Own("SequenceErase", """(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) <int64 i = {0}> {
        s = SequenceConstruct(a, b) r = SequenceErase(s, i) t = SequenceAt(r, i) y = Mul(t, a)}"""),
    Own("SplitToSequence", """(float[4, 3] a) => (float[2, 3] y) <int64 i = {1}, int64 n = {2}> {
        s = SplitToSequence <axis = 0> (a, n) t = SequenceAt(s, i) y = Mul(t, t)}"""),
    Own("SequenceMap", """(float[2, 3] a, float[2, 3] b) => (float[4, 3] y) {
        s = SequenceConstruct(a, b)
        t = SequenceMap <body = m (float[2, 3] e) => (float[2, 3] f) {f = Mul(e, e)}> (s)
        y = ConcatFromSequence <axis = 0> (t)}"""),
    Own("Optional", "(float[2, 3] a) => (float[2, 3] y) {o = Optional(a) g = OptionalGetElement(o) y = Mul(g, g)}",
        feeds={"a": _SIX}, expected={"a": 2 * _SIX}),
    Own("OptionalGetElement",
        "(float[2, 3] a) => (float[2, 3] y) {o = Optional(a) g = OptionalGetElement(o) y = Mul(g, g)}",
        feeds={"a": _SIX}, expected={"a": 2 * _SIX}),
    Own("OptionalGetElement", "(float[2, 3] a) => (float[2, 3] y) {g = OptionalGetElement(a) y = Mul(g, g)}", since=18,
        feeds={"a": _SIX}, expected={"a": 2 * _SIX}),
    Own("BatchNormalization", """(float[2, 3, 4] x, float[3] g, float[3] b) => (float[2, 3, 4] y)
        <float[3] m = {0.1, 0.2, -0.3}, float[3] v = {1, 2, 0.5}> {y = BatchNormalization(x, g, b, m, v)}"""),
    Own("PRelu", "(float[2, 3, 4] x, float[3, 1] s) => (float[2, 3, 4] y) {y = PRelu(x, s)}"),
    Own("Dropout", _X + "{y = Dropout(x)}"),
    Own("Unsqueeze", "(float[2, 3] x) => (float[2, 1, 3] y) {y = Unsqueeze <axes = [1]> (x)}", until=11),
    Own("Squeeze", "(float[2, 1, 3] x) => (float[2, 3] y) {y = Squeeze <axes = [1]> (x)}", until=11),
    Own("Slice", "(float[4, 5] x) => (float[2, 3] y) {y = Slice <axes = [0, 1], starts = [1, 0], ends = [3, -2]> (x)}",
        until=1),
    Own("TopK", "(float[4, 5] x) => (float[4, 2] y, int64[4, 2] i) {y, i = TopK <k = 2> (x)}", until=1),
    Own("Split", "(float[4, 5] x) => (float[4, 2] y, float[4, 3] z) {y, z = Split <axis = 1, split = [2, 3]> (x)}",
        until=11),
    Own("Pad", "(float[2, 3] x) => (float[4, 4] y) {y = Pad <pads = [1, 0, 1, 1], value = 0.5> (x)}", until=2),
    Own("Pad", '(float[2, 3] x) => (float[4, 4] y) {y = Pad <pads = [1, 0, 1, 1], mode = "reflect"> (x)}', until=2),
    Own("Clip", _X + "{y = Clip <min = -0.5, max = 0.5> (x)}", until=6),
    Own("Max", "(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) {y = Max(a, b)}"),
    Own("Min", "(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) {y = Min(a, b)}"),
    Own("Sum", "(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) {y = Sum(a, b)}"),
    Own("Mean", "(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) {y = Mean(a, b)}"),
    Own("Gemm", "(float[2, 3] a, float[3, 4] b, float[4] c) => (float[2, 4] y) {y = Gemm <alpha = 0.5> (a, b, c)}"),
    Own("Softmax", _X + "{y = Softmax <axis = 1> (x)}"),
    Own("LogSoftmax", _X + "{y = LogSoftmax <axis = 1> (x)}"),
    Own("Hardmax", _X + "{y = Hardmax <axis = 1> (x)}"),
    Own("MaxPool", "(float[1, 2, 6] x) => (float[1, 2, 5] y) {y = MaxPool <kernel_shape = [2]> (x)}"),
    Own("AveragePool", "(float[1, 2, 6] x) => (float[1, 2, 6] y) {y = AveragePool <kernel_shape = [3], pads = [1, 1]> (x)}"),
    Own("LpPool", "(float[1, 2, 6] x) => (float[1, 2, 5] y) {y = LpPool <kernel_shape = [2], p = 2> (x)}"),
    Own("MaxUnpool", """(float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {
        p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i)}"""),
    Own("ReduceMean", "(float[2, 3, 4] x) => (float[2, 1, 4] y) {y = ReduceMean <axes = [1]> (x)}", until=13),
    Own("RoiAlign", """(float[1, 2, 6, 6] x, float[2, 4] r, int64[2] b) => (float[2, 2, 2, 2] y) {
        y = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 2> (x, r, b)}""",
        feeds={"r": np.float32([[0.3, 0.6, 4.2, 4.7], [1.2, 0.7, 4.4, 3.2]]), "b": np.zeros(2, np.int64)}),
    Own("NegativeLogLikelihoodLoss", """(float[3, 4] x, int64[3] t) => (float y) {
        y = NegativeLogLikelihoodLoss <reduction = "mean"> (x, t)}""", feeds={"t": np.int64([1, 3, 0])}),
    Own("SoftmaxCrossEntropyLoss", """(float[3, 4] x, int64[3] t) => (float y) {
        y = SoftmaxCrossEntropyLoss <reduction = "mean"> (x, t)}""", feeds={"t": np.int64([1, 3, 0])}),
    Own("OneHot", """(int64[3] i, float[2] v) => (float[3, 4] y) <int64 d = {4}> {y = OneHot(i, d, v)}""",
        feeds={"i": np.int64([1, 3, 0])}),
    Own("Mod", "(float[2, 3] a, float[2, 3] b) => (float[2, 3] y) {y = Mod <fmod = 1> (a, b)}"),
]  # fmt: skip

_WITHIN = np.float32([[0.1, -0.2, 0.3], [40, 0.25, -40]])  # the range of 8 bits in steps of a tenth ends at 12.7
_PASSED = {"x": np.float32([[1, 1, 1], [0, 1, 0]])}
_GRID = "(float[2, 3] x) => (float[2, 3] y) <float s = {0.1}, int8 z = {0}> "
#: What rounds has no slope to measure; straight through, a seed of ones comes back where nothing was clipped.
QUANTISED: list[tuple[str, str, Mapping[str, Any], Mapping[str, np.ndarray]]] = [
    (op_type, _GRID + "{q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)}", {"x": _WITHIN}, _PASSED)
    for op_type in ("QuantizeLinear", "DequantizeLinear")
]

_A = "com.microsoft"
FUSED_QUANTISED = [
    (
        op_type,
        text.replace("QuantizeLinear(x", f"{_A}.QuantizeLinear(x").replace(
            "DequantizeLinear(q", f"{_A}.DequantizeLinear(q"
        ),
        *rest,
    )
    for op_type, text, *rest in QUANTISED
]
# Fused operators; those that are a GPU's alone are in reference_ops.py.
_FUSED = {
    "Gelu": f"(float[3, 4] x) => (float[3, 4] y) {{y = {_A}.Gelu(x)}}",
    "BiasGelu": f"(float[3, 4] x, float[4] b) => (float[3, 4] y) {{y = {_A}.BiasGelu(x, b)}}",
    "FastGelu": f"(float[3, 4] x, float[4] b) => (float[3, 4] y) {{y = {_A}.FastGelu(x, b)}}",
    "QuickGelu": f"(float[3, 4] x) => (float[3, 4] y) {{y = {_A}.QuickGelu <alpha = 1.3> (x)}}",
    "FusedMatMul": f"(float[4, 3] a, float[4, 5] b) => (float[3, 5] y) {{y = {_A}.FusedMatMul <transA = 1> (a, b)}}",
    "FusedMatMul in batches": "(float[2, 4, 3] a, float[2, 5, 4] b) => (float[2, 3, 5] y) "
    f"{{y = {_A}.FusedMatMul <alpha = 0.5, transA = 1, transB = 1> (a, b)}}",
    "TransposeMatMul": f"(float[4, 3] a, float[4, 5] b) => (float[3, 5] y) {{y = {_A}.TransposeMatMul <transA = 1> (a, b)}}",
    "FusedGemm": "(float[4, 3] a, float[4, 5] b, float[5] c) => (float[3, 5] y) "
    f'{{y = {_A}.FusedGemm <transA = 1, activation = "LeakyRelu", activation_alpha = 0.2> (a, b, c)}}',
    "FusedConv": "(float[1, 2, 5, 5] x, float[3, 2, 3, 3] w, float[3] b) => (float[1, 3, 3, 3] y) "
    f'{{y = {_A}.FusedConv <activation = "Tanh"> (x, w, b)}}',
    "SkipLayerNormalization": "(float[2, 3, 4] x, float[2, 3, 4] r, float[4] g, float[4] b, float[4] c) "
    f"=> (float[2, 3, 4] y) {{y = {_A}.SkipLayerNormalization <epsilon = 0.01> (x, r, g, b, c)}}",
    "SkipSimplifiedLayerNormalization": "(float[2, 3, 4] x, float[2, 3, 4] r, float[4] g) => (float[2, 3, 4] y) "
    f"{{y = {_A}.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, r, g)}}",
    "MultiHeadAttention": "(float[2, 5, 8] q, float[2, 7, 8] k, float[2, 7, 8] v) => (float[2, 5, 8] y) "
    f"{{y = {_A}.MultiHeadAttention <num_heads = 2> (q, k, v)}}",
    "Attention": "(float[2, 5, 8] x, float[8, 24] w, float[24] b) => (float[2, 5, 8] y) "
    f"{{y = {_A}.Attention <num_heads = 2> (x, w, b)}}",
    "Attention, causal": "(float[2, 5, 8] x, float[8, 24] w, float[24] b) => (float[2, 5, 8] y) "
    f"{{y = {_A}.Attention <num_heads = 2, unidirectional = 1> (x, w, b)}}",
    "GatherND": f"(float[3, 4] x) => (float[2, 4] y) <int64[2, 1] i = {{2, 0}}> {{y = {_A}.GatherND(x, i)}}",
    "Trilu": f"(float[3, 4] x) => (float[3, 4] y) {{y = {_A}.Trilu(x)}}",
    "ExpandDims": f"(float[3, 4] x) => (float[3, 1, 4] y) <int32 a = {{1}}> {{y = {_A}.ExpandDims(x, a)}}",
    "EmbedLayerNormalization": "(float[9, 4] w, float[6, 4] p, float[2, 4] t, float[4] g, float[4] b) => "
    "(float[2, 3, 4] y, int32[2] m) <int32[2, 3] i = {1, 8, 0, 3, 3, 2}, int32[2, 3] s = {0, 1, 0, 1, 1, 0}> "
    f"{{y, m = {_A}.EmbedLayerNormalization <epsilon = 0.01> (i, s, w, p, t, g, b)}}",
}
_FUSED |= {
    "BiasAdd": f"(float[2, 3, 4] x, float[4] b, float[2, 3, 4] s) => (float[2, 3, 4] y) {{y = {_A}.BiasAdd(x, b, s)}}",
    "BiasSplitGelu": f"(float[2, 3, 8] x, float[8] b) => (float[2, 3, 4] y) {{y = {_A}.BiasSplitGelu(x, b)}}",
    "BiasSoftmax": "(float[2, 3, 4] x, float[2, 1, 4] b) => (float[2, 3, 4] y) "
    f"{{y = {_A}.BiasSoftmax <axis = 2, is_inner_broadcast = 0> (x, b)}}",
    "NhwcConv": "(float[1, 5, 5, 2] x, float[3, 3, 3, 2] w, float[3] b) => (float[1, 3, 3, 3] y) "
    f"{{y = {_A}.NhwcConv(x, w, b)}}",
    "NhwcFusedConv": "(float[1, 5, 5, 2] x, float[3, 3, 3, 2] w, float[3] b) => (float[1, 3, 3, 3] y) "
    f'{{y = {_A}.NhwcFusedConv <activation = "Relu"> (x, w, b)}}',
    "SimplifiedLayerNormalization": "(float[2, 3, 4] x, float[4] g) => (float[2, 3, 4] y) "
    "{y = SimplifiedLayerNormalization <axis = -1, epsilon = 0.01> (x, g)}",
    "MatMulNBits": "(float[3, 32] x) => (float[3, 2] y) <uint8[2, 2, 8] w = "
    f"{{{', '.join(str(37 * i % 256) for i in range(32))}}}, float[4] s = {{0.1, 0.2, 0.3, 0.1}}, uint8[2] z = {{120, 87}}> "
    f"{{y = {_A}.MatMulNBits <K = 32, N = 2, bits = 4, block_size = 16> (x, w, s, z)}}",
}
_ML = "ai.onnx.ml"
_LEARNED = {
    "Scaler": f"(float[3, 2] x) => (float[3, 2] y) {{y = {_ML}.Scaler <offset = [1.0, 2.0], scale = [0.5, 3.0]> (x)}}",
    "Normalizer": f'(float[3, 2] x) => (float[3, 2] y) {{y = {_ML}.Normalizer <norm = "L2"> (x)}}',
    "Imputer": f"(float[3, 2] x) => (float[3, 2] y) {{y = {_ML}.Imputer <imputed_value_floats = [0.0]> (x)}}",
    "FeatureVectorizer": "(float[3, 2] a, float[3, 1] b) => (float[3, 3] y) "
    f"{{y = {_ML}.FeatureVectorizer <inputdimensions = [2, 1]> (a, b)}}",
    "ArrayFeatureExtractor": f"(float[3, 2] x) => (float[3, 1] y) <int64[1] i = {{1}}> {{y = {_ML}.ArrayFeatureExtractor(x, i)}}",
    "LinearRegressor": f"(float[3, 2] x) => (float[3, 1] y) {{y = {_ML}.LinearRegressor <coefficients = [0.5, 2.0]> (x)}}",
    "LinearClassifier": "(float[3, 2] x) => (float[3, 2] y) "
    f"{{l, y = {_ML}.LinearClassifier <coefficients = [0.5, 2.0, 1.0, 1.0], classlabels_ints = [0, 1]> (x)}}",
    "SVMRegressor": "(float[3, 2] x) => (float[3, 1] y) "
    f'{{y = {_ML}.SVMRegressor <coefficients = [0.5, 2.0], kernel_type = "LINEAR", rho = [0.1]> (x)}}',
    "SVMClassifier": "(float[3, 2] x) => (float[3, 2] y) {l, y = "
    f'{_ML}.SVMClassifier <coefficients = [0.5, 2.0, 1.0, 1.0], classlabels_ints = [0, 1], kernel_type = "LINEAR", rho = [0.1, 0.2]> (x)}}',
}
#: Domain -> operator, and a note where it has several -> graph.
OTHER_DOMAINS = {
    _A: _FUSED,
    _ML: _LEARNED,
    "ai.onnx.preview": {
        "FlexAttention": "(float[2, 2, 3, 4] q, float[2, 2, 5, 4] k, float[2, 2, 5, 4] v) => (float[2, 2, 3, 4] y) "
        "{y = ai.onnx.preview.FlexAttention(q, k, v)}",
    },
}
