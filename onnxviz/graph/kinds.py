"""What kind of work an operator does: the vocabulary of ``@kind`` selectors and of the diagrams' colours."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["CONTROL_FLOW", "KINDS", "LAYER_KINDS", "kind_of"]

#: Op types of the standard domain that run graphs which they hold.
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})

#: kind -> op types of that kind, whatever the domain
KINDS: dict[str, frozenset[str]] = {
    kind: frozenset(ops.split())
    for kind, ops in {
        "conv": "Conv ConvTranspose ConvInteger QLinearConv FusedConv NhwcConv NhwcFusedConv DeformConv "
        "ConvTransposeWithDynamicPads Im2Col Col2Im CausalConvWithState",
        "linear": "Gemm MatMul MatMulInteger QLinearMatMul QGemm FusedGemm FusedMatMul Einsum MatMulNBits "
        "DynamicQuantizeMatMul MatMulIntegerToFloat TransposeMatMul GemmFloat8 SparseToDenseMatMul",
        "pool": "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool MaxRoiPool RoiAlign MaxUnpool "
        "QLinearAveragePool QLinearGlobalAveragePool NhwcMaxPool MaxpoolWithMask",
        "activation": "Relu LeakyRelu PRelu Elu Selu Celu Gelu FastGelu QuickGelu BiasGelu Sigmoid HardSigmoid Tanh "
        "Softplus Softsign Softmax LogSoftmax Hardmax HardSwish Mish Swish ThresholdedRelu Erf Clip Shrink "
        "ScaledTanh ParametricSoftplus Affine QLinearSigmoid QLinearLeakyRelu QLinearSoftmax BiasSplitGelu",
        "norm": "BatchNormalization LayerNormalization InstanceNormalization GroupNormalization RMSNormalization "
        "SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization "
        "EmbedLayerNormalization LpNormalization MeanVarianceNormalization LRN GroupNorm SkipGroupNorm",
        "attention": "Attention MultiHeadAttention GroupQueryAttention DecoderMaskedMultiHeadAttention QAttention "
        "LongformerAttention PackedAttention PackedMultiHeadAttention DecoderAttention PagedAttention "
        "SparseAttention LinearAttention RotaryEmbedding FlexAttention RelativePositionBias",
        "recurrent": "LSTM GRU RNN DynamicQuantizeLSTM AttnLSTM",
        "embedding": "Gather GatherND GatherElements GatherBlockQuantized OneHot",
        "quantize": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QuantizeBFP DequantizeBFP",
        "elementwise": "Add Sub Mul Div Pow Sqrt Exp Log Neg Abs Sign Reciprocal Floor Ceil Round Min Max Sum Mean Mod "
        "Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Where And Or Not Xor Equal Greater Less "
        "GreaterOrEqual LessOrEqual IsNaN IsInf BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot "
        "QLinearAdd QLinearMul BiasAdd AddRelu",
        "reduce": "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
        "ReduceSumSquare ArgMax ArgMin TopK CumSum CumProd QLinearReduceMean",
        "shape": "Reshape Flatten Transpose Squeeze Unsqueeze Concat Split Slice Pad Expand Tile Resize Upsample "
        "DepthToSpace SpaceToDepth Shape Size Cast CastLike Identity Dropout ConstantOfShape Range ReverseSequence "
        "Scatter ScatterND ScatterElements NonZero Unique Compress Crop CenterCropPad Trilu EyeLike GridSample "
        "AffineGrid QLinearConcat BitCast TensorScatter",
        "constant": "Constant RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial",
        "control": "If Loop Scan SequenceMap Optional OptionalGetElement OptionalHasElement SequenceAt SequenceErase "
        "SequenceConstruct SequenceEmpty SequenceInsert SequenceLength ConcatFromSequence SplitToSequence "
        "BeamSearch GreedySearch Sampling WhisperBeamSearch",
        "detection": "NonMaxSuppression",
        "signal": "STFT DFT MelWeightMatrix HannWindow HammingWindow BlackmanWindow Rfft Irfft",
    }.items()
}
#: Kinds of the operators that a reader of a network calls its layers.
LAYER_KINDS = frozenset({"conv", "linear", "pool", "activation", "norm", "attention", "recurrent"})
_KIND_OF = {op: kind for kind, ops in KINDS.items() for op in ops}


def kind_of(node: ir.Node) -> str:
    """Return the kind of a node: a key of :data:`KINDS`, ``"ml"`` for the ai.onnx.ml domain, or ``"other"``.

    >>> import onnx_ir as ir
    >>> kind_of(ir.node("Conv", inputs=[]))
    'conv'
    """
    return "ml" if node.domain == "ai.onnx.ml" else _KIND_OF.get(node.op_type, "other")
