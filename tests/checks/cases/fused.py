"""The case of Q03: layers that quantisation missed."""

from __future__ import annotations

from tests.checks.cases.given import Case, net, text

_CODES = ", ".join(str(number - 8) for number in range(18))
_WEIGHTS = (
    "float s = {0.1}, uint8 z = {128}, float sw = {0.1}, int8 zw = {0}, float so = {0.5}, "
    f"int8[2, 1, 3, 3] w = {{{_CODES}}}"
)
_CONV = (
    "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, sw, zw) "
    "c = Conv<kernel_shape = [3, 3]>(d, e)"
)
_IO = "float[1, 1, 4, 4] x", "float[1, 2, 2, 2] y"

CASES = {
    "Q03": Case(
        text(net(f"{_CONV} y = Relu(c)", *_IO, _WEIGHTS)),
        text(net(f"{_CONV} r = QuantizeLinear(c, so, z) y = DequantizeLinear(r, so, z)", *_IO, _WEIGHTS)),
        "1 layer dequantised and run in float",
    ),
}
