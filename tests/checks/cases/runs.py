"""Cases of the checks that run the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from PIL import Image

from onnxviz.checks.latency import measure
from onnxviz.checks.subject import Options, Subject
from tests.checks.cases.given import Case, Given, Maker, net, text

_X = "float[batch, 4] x", "float[batch, 4] y"


def _array(*shape: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return (scale * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def _fed(source: str, x: np.ndarray[Any, Any], **options: Any) -> Maker:
    return text(source, inputs={"x": x}, **options)


@dataclass(frozen=True)
class Prepared(Given):
    """A model with what a device that is not here would have said."""

    there: Mapping[str, Any] | None = None

    def subject(self) -> Subject:
        subject = super().subject()
        for name, value in (self.there or {}).items():
            subject.shared(name, lambda value=value: value)
        return subject


def _prepared(source: str, there: Callable[[ir.Model], Mapping[str, Any]], **options: Any) -> Maker:
    def make(folder: Path) -> Given:
        model = ir.from_onnx_text(source)
        return Prepared(model, options, there(model))

    return make


def _cuda(error: float) -> Maker:
    x = np.float32([1, 2])
    right = {"y": -x}
    off = {"y": -x * np.float32(1 + error)}
    there = {"outputs on CUDA, TF32 False": off, "outputs on CUDA, TF32 True": right}
    return _prepared(net("y = Neg(x)"), lambda model: there, inputs={"x": x})


def _placed(*providers: str) -> Maker:
    def there(model: ir.Model) -> Mapping[str, Any]:
        return {"assignment of nodes": list(zip(model.graph, providers, strict=True))}

    return _prepared(net("a = Exp(x) b = Neg(a) y = Exp(b)"), there, providers=("cuda", "cpu"))


def _copied(**names: str) -> Maker:
    return _prepared(net("y = Neg(x)"), lambda model: {"copies between host and device": names}, providers=("cuda",))


def _timed(median: float) -> Maker:
    def make(folder: Path) -> Given:
        model = ir.from_onnx_text(net("y = Neg(x)"))
        path = folder / "times.json"
        path.write_text(
            json.dumps({**measure(Subject(model, Options())), "median": median, "interval": [median, median]})
        )
        return Given(model, {"latency_baseline": path})

    return make


def _referenced(source: str, other: str) -> Maker:
    return text(source, reference=ir.from_onnx_text(other), inputs={"x": np.float32([1, -2])})


def _picture(channel: int) -> Maker:
    """A classifier that is sure when one channel is high, shown a red picture."""
    columns = ", ".join("40, 0" if i == channel else "0, 0" for i in range(3))
    source = net(
        "a = GlobalAveragePool(x) f = Flatten(a) y = Gemm(f, w)", "float[1, 3, 8, 8] x", "float[1, 2] y",
        f"float[3, 2] w = {{{columns}}}",
    )  # fmt: skip

    def make(folder: Path) -> Given:
        path = folder / "red.png"
        Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
        return Given(ir.from_onnx_text(source), {"inputs": [str(path)]})

    return make


def _qdq(scale: float) -> str:
    """Two layers; the scale of the activation between them says how well it survives."""
    return net(
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w)", "float[1, 4] x", "float[1, 2] y",
        f"float s = {{{scale}}}, uint8 z = {{128}}, float[4, 2] w = {{1, 2, 3, 4, -5, 6, 7, -8}}",
    )  # fmt: skip


_RELU = net(
    "c = Conv<kernel_shape = [1, 1]>(x, w, b) y = Relu(c)", "float[1, 1, 16, 16] x", "float[1, 2, 16, 16] y",
    "float[2, 1, 1, 1] w = {1, 1}, float[2] b = {0, %s}",
)  # fmt: skip
_FUSED = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}'


def _fused(error: float) -> Maker:
    """A model whose optimised run gives something else: there is no such bug in onnxruntime to lean on."""
    x = np.float32([1, 2])
    return _prepared(_FUSED, lambda model: {"outputs, optimised": [{"y": -x + np.float32(error)}]}, inputs={"x": x})


CASES = {
    "C01": Case(
        _referenced(net("y = Neg(x)"), net("y = Relu(x)")),
        _referenced(
            net("y = Neg(x)"),
            net(
                "h = Abs(x) y = Sub(h, h2) h2 = Add(x, h)".replace(
                    "h = Abs(x) y = Sub(h, h2) h2 = Add(x, h)", "h = Abs(x) k = Add(x, h) y = Sub(h, k)"
                )
            ),
        ),
        "differs by",
        evidence={"inputs": 1},
    ),
    "C02": Case(_fused(0.5), _fused(0.0), "optimised, it differs by"),
    "C03": Case(_cuda(0.5), _cuda(0.0), "on CUDA it differs by"),
    "C04": Case(_picture(2), _picture(0), "red and blue exchanged"),
    "D01": Case(
        text(net("f = Reshape(x, s) y = Relu(f)", *_X, "int64[2] s = {1, 4}")),
        text(net("f = Reshape(x, s) y = Relu(f)", *_X, "int64[2] s = {-1, 4}")),
        "fails with 2 and 3 samples",
        evidence={"dimension": "batch"},
    ),
    "D02": Case(
        text(net("m = ReduceMean<axes = [0]>(x) y = Sub(x, m)", *_X)),
        text(net("m = ReduceMean<axes = [1]>(x) y = Sub(x, m)", *_X)),
        "changes when",
    ),
    "D03": Case(
        text(
            net(
                "y = Slice(x, a, b, c)",
                "float[batch, n] x",
                "float[batch, k] y",
                "int64[1] a = {0}, int64[1] b = {1}, int64[1] c = {1}",
            )
            .replace("y = Slice(x, a, b, c)", "h = Add(x, t) y = Slice(h, a, b, c)")
            .replace("int64[1] a", "float[1, 1] t = {1}, int64[1] a")
            .replace("float[1, 1] t = {1}", "float[1, 16] t = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}"),
            dims={"n": 16},
        ),
        text(net("y = Relu(x)", "float[batch, n] x", "float[batch, n] y")),
        "'n' fails at 0 and 33",
    ),
    "N01": Case(
        _fed(net("h = Log(x) y = Neg(h)"), np.float32([1, -1])),
        _fed(net("h = Log(x) y = Neg(h)"), np.float32([1, 2])),
        "gives 1 NaN among 2 values",
        evidence={"op_type": "Log", "outputs_reached": ["y"]},
    ),
    "N03": Case(
        _fed(net("h = Mul(x, x) y = Sqrt(h)"), np.float32([300, 1])),
        _fed(net("h = Mul(x, x) y = Sqrt(h)"), np.float32([200, 1])),
        "it reached 9e+04",
        evidence={"bfloat16_overflows": False},
    ),
    "N05": Case(
        _fed(_RELU % "-1000", _array(1, 1, 16, 16)),
        _fed(_RELU % "1", _array(1, 1, 16, 16)),
        "1 of 2 channels",
        evidence={"first": [1], "samples": 1},
    ),
    "N06": Case(
        _fed(net("h = Mul(x, k) y = Sigmoid(h)", "float[64] x", "float[64] y", "float k = {1000000}"), _array(64)),
        _fed(net("h = Mul(x, k) y = Sigmoid(h)", "float[64] x", "float[64] y", "float k = {1}"), _array(64)),
        "at an end of Sigmoid",
    ),
    "N07": Case(
        text(net("r = RandomNormalLike(x) y = Add(x, r)")),
        text(net("r = RandomNormalLike<seed = 1.0>(x) z = Sub(r, r) y = Add(x, z)")),
        "two runs on the same input differ",
    ),
    "P02": Case(
        _placed("cuda", "cpu", "cuda"), _placed("cuda", "cuda", "cuda"), "does not take 1 node", evidence={"islands": 1}
    ),
    "P03": Case(_copied(h="to the host"), _copied(), "1 tensor copied"),
    "P04": Case(
        text(net("h = Exp(x) y = Neg(h)", "float[4000000] x", "float[4000000] y"), max_memory=1_000_000),
        text(net("h = Exp(x) y = Neg(h)", "float[4000] x", "float[4000] y"), max_memory=1_000_000_000),
        "are allowed",
    ),
    "P05": Case(_timed(1e-9), _timed(10.0), "times the"),
    "Q01": Case(
        _fed(_qdq(3.0), np.float32([[1, -1.2, 0.9, 1.1]])),
        _fed(_qdq(0.01), np.float32([[1, -1.2, 0.9, 1.1]])),
        "signal-to-noise ratio",
    ),
}
