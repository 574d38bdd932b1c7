"""Cases of the checks that do not run the model, but for those of the file."""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.checks.cases.given import Case, file, net, text

_CONV = "float[1, 1, 4, 4] x", "float[1, 2, 2, 2] y"
_BIG = ", ".join(str(number % 7) for number in range(256))
_OTHER = ", ".join(str(number % 5) for number in range(256))


def _conv(bias: int) -> str:
    numbers = ", ".join("1" for _ in range(bias))
    weights = f"float[2, 1, 3, 3] w = {{{', '.join('1' for _ in range(18))}}}, float[{bias}] b = {{{numbers}}}"
    return net("[c] y = Conv<kernel_shape = [3, 3]>(x, w, b)", *_CONV, weights)


def _pair(first: str, second: str) -> str:
    weights = f"float[256] a = {{{first}}}, float[256] b = {{{second}}}"
    return net("h = Add(x, a) y = Add(h, b)", "float[256] x", "float[256] y", weights)


def _declare(size: int) -> object:
    def change(proto: onnx.ModelProto, folder: Path) -> None:
        proto.graph.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [size]))

    return change


def _qdq(scale: str) -> str:
    weights = f"float s = {{{scale}}}, uint8 z = {{128}}"
    return net("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", weights=weights)


_CUSTOM = net("[f] y = acme.Frob(x)", head=', "acme": 1')
_FUNCTION = f'{_CUSTOM} <opset_import: ["": 17], domain: "acme"> Frob (a) => (c) {{ c = Relu(a) }}'

CASES = {
    "G01": Case(file(net("y = Relu(x, x)")), file(net("y = Relu(x)")), "has input size 2 not in range"),
    "G02": Case(
        file(net("h = Relu(x) y = Neg(h)"), _declare(3)), file(net("h = Relu(x) y = Neg(h)"), _declare(2)),
        "declared with shape [3] and has [2]", evidence={"declared": [3], "inferred": [2]},
    ),
    "G03": Case(
        text(net("[a] h = Relu(x) [a] y = Neg(h)")), text(net("[a] h = Relu(x) [b] y = Neg(h)")), "called the same",
        evidence={"nodes": 2},
    ),
    "G04": Case(
        text(net("[dead] h = Exp(x) y = Relu(x)")), text(net("[alive] h = Exp(x) y = Relu(h)")), "no output depends on it",
    ),
    "G05": Case(
        text(_pair(_BIG, _BIG)), text(_pair(_BIG, _OTHER)), "hold the same 1,024 bytes", evidence={"wasted_bytes": 1024},
    ),
    "G06": Case(
        text(net("a = Exp(x) b = Neg(a) c = Exp(x) d = Neg(c) y = Sub(b, d)")),
        text(net("a = Exp(x) b = Neg(a) c = Exp(b) d = Neg(c) y = Sub(b, d)")),
        "2 times the same Neg subgraph of 2 nodes", evidence={"times": 2, "nodes": 2},
    ),
    "G07": Case(
        text(net("y = Relu(x)", opset=19), target_opset=18), text(net("y = Relu(x)", opset=17), target_opset=18),
        "needs opset 19 of ai.onnx, and the target knows 18", evidence={"opset": 19, "target_opset": 18},
    ),
    "G08": Case(text(_CUSTOM), text(_FUNCTION), "nothing defines the operator acme:Frob"),
    "G09": Case(
        text(_conv(3)), text(_conv(2)), "'b' has shape [3] where [2] is needed", evidence={"shape": [3], "needed": [2]},
    ),
    "G10": Case(
        text(net("y = Dropout(x, r, t)", weights="float r = {0.5}, bool t = {1}")),
        text(net("y = Dropout(x, r, t)", weights="float r = {0.5}, bool t = {0}")), "it drops: training mode",
    ),
    "G11": Case(
        text(net("[a] t = Transpose<perm = [1, 2, 0]>(x) r = Relu(t) [b] y = Transpose<perm = [2, 0, 1]>(r)",
                 "float[2, 3, 4] x", "float[2, 3, 4] y")),
        text(net("[a] t = Transpose<perm = [1, 2, 0]>(x) r = Softmax(t) [b] y = Transpose<perm = [2, 0, 1]>(r)",
                 "float[2, 3, 4] x", "float[2, 3, 4] y")),
        "two transposes around Relu: they cancel", evidence={"bytes_moved": 4 * 96},
    ),
    "G12": Case(
        text(net("h = Cast<to = 11>(x) y = Cast<to = 1>(h)")), text(net("h = Cast<to = 10>(x) y = Cast<to = 1>(h)")),
        "FLOAT → DOUBLE → FLOAT is nothing",
    ),
    "G13": Case(
        text(net("h = Cast<to = 11>(x) e = Exp(h) y = Cast<to = 1>(e)")), text(net("e = Exp(x) y = Neg(e)")),
        "2 nodes compute in float64: 1 Cast, 1 Exp", evidence={"nodes": 2},
    ),
    "G14": Case(
        text(net("y = Add(x, w)", "int64[2] x", "int64[2] y", "int64[2] w = {1, 2147483648}")),
        text(net("y = Add(x, w)", "int64[2] x", "int64[2] y", "int64[2] w = {1, 2147483647}")),
        "it holds 2147483648", evidence={"beyond": 1},
    ),
    "G15": Case(
        text(net("h = RandomNormalLike(x) y = Add(x, h)")), text(net("h = RandomNormalLike<seed = 1.0>(x) y = Add(x, h)")),
        "has no seed",
    ),
    "D04": Case(
        text(net("n = NonZero(x) y = Cast<to = 1>(n)", outputs="float[1, n] y")),
        text(net("s = Shape(x) h = ConstantOfShape(s) y = Add(x, h)")), "is as its data says",
    ),
    "N02": Case(
        text(net("s = ReduceL2<keepdims = 1>(x) y = Div(x, s)")),
        text(net("s = ReduceL2<keepdims = 1>(x) c = Max(s, e) y = Div(x, c)", weights="float e = {0.001}")),
        "the divisor may be 0; its operand is in [0, inf]",
    ),
    "N04": Case(
        text(net("y = MatMul(x, w)", "float[1, 2] x", "float[1, 2] y", "float[2, 2] w = {1, nan, 3, 4}")),
        text(net("y = MatMul(x, w)", "float[1, 2] x", "float[1, 2] y", "float[2, 2] w = {1, 2, 3, 4}")),
        "1 of 4 elements are NaN", evidence={"nan": 1, "learned": True},
    ),
    "Q02": Case(text(_qdq("0")), text(_qdq("0.1")), "1 of 1 scales are not above 0", severity="error"),
    "P01": Case(
        text(net("y = Relu(x)"), providers=("quantum",)), text(net("y = Relu(x)"), providers=("cpu",)), "quantum does not load",
    ),
}  # fmt: skip
