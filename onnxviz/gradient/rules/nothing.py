"""The explicit list of operators that have no gradient, and why. Rules of the others are beside this."""

from __future__ import annotations

from onnxviz.gradient.registry import no_gradient

no_gradient("it is constant between its steps", "MelWeightMatrix", "Bernoulli")
no_gradient("its result is of integers", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
            "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "BitCast")  # fmt: skip
no_gradient("its result is of truth values", "And", "Or", "Not", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less",
            "LessOrEqual", "IsInf", "IsNaN", "OptionalHasElement")  # fmt: skip
no_gradient("it returns positions", "NonMaxSuppression", "SequenceLength")
no_gradient("it draws at random", "Multinomial", "RandomNormal", "RandomUniform")
no_gradient("it has no input of floating point", "Constant", "ConstantOfShape", "BlackmanWindow", "HammingWindow",
            "HannWindow", "ImageDecoder", "SequenceEmpty")  # fmt: skip
no_gradient("it takes text", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer")
no_gradient("it is constant between its steps", "Binarizer", "TreeEnsemble", "TreeEnsembleClassifier",
            "TreeEnsembleRegressor", domain="ai.onnx.ml")  # fmt: skip
no_gradient("it maps categories", "CastMap", "CategoryMapper", "DictVectorizer", "LabelEncoder", "OneHotEncoder",
            "ZipMap", domain="ai.onnx.ml")  # fmt: skip
no_gradient("it is a step of training, no part of a model", "Adagrad", "Adam", "Gradient", "Momentum",
            domain="ai.onnx.preview.training")  # fmt: skip
