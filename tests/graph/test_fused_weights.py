"""Weights of com.microsoft attention against the operators themselves: weights times values is what they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxviz.graph.attention import find_attention
from onnxviz.runtime.capture import capture

RNG = np.random.default_rng(5)
N, S, K, HEADS, D = 2, 5, 7, 2, 4
WIDTH = HEADS * D
Arrays = dict[str, np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def split(x: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def presents(op: str, given: list[str]) -> list[str]:
    if not {"past", "pk"} & set(given):
        return []
    return ["present"] if op == "Attention" else ["present_k", "present_v"]


def model_of(
    op: str, inputs: Arrays, fixed: Arrays, given: list[str], opset: int, attributes: dict[str, Any]
) -> onnx.ModelProto:
    node = helper.make_node(
        op, given, ["y", *presents(op, given)], name="att", domain="com.microsoft", num_heads=HEADS, **attributes
    )
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in fixed.items()],
    )  # fmt: skip
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def weights_and_output(
    op: str, inputs: Arrays, fixed: Arrays, given: list[str], opset: int = 17, **attributes: Any
) -> tuple[np.ndarray, np.ndarray]:
    model = ir.from_proto(model_of(op, inputs, fixed, given, opset, attributes))
    found = find_attention(model)
    (layer,) = found.layers
    got = capture(found.model, inputs, [layer.tensor, "y"], bodies=False, providers="cpu")
    return got[layer.tensor].array, got["y"].array


def check(weights: np.ndarray, values: np.ndarray, output: np.ndarray, tolerance: float = 2e-5) -> None:
    """Compare weights times values, heads joined, with what the operator gave."""
    assert weights.shape == (*values.shape[:2], weights.shape[2], values.shape[2])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    joined = (weights @ values).transpose(0, 2, 1, 3).reshape(output.shape)
    np.testing.assert_allclose(joined, output, atol=tolerance)


LENGTHS = np.array([3, 5], np.int32)
KEYS = (np.arange(S) < LENGTHS[:, None]).astype(np.int32)
EACH = np.tril(np.ones((N, S, S), np.int32)) * KEYS[:, None]
EACH[..., 0] = 1
MASKS: dict[str, tuple[np.ndarray | None, dict[str, Any]]] = {
    "none": (None, {}),
    "scale": (None, {"scale": 0.2}),
    "keys": (KEYS, {}),
    "keys, other number": (KEYS, {"mask_filter_value": -2.0}),
    "lengths": (LENGTHS, {}),
    "ends and starts": (np.array([4, 5, 1, 2], np.int32), {}),
    "each query": (EACH, {}),
    "causal": (None, {"unidirectional": 1}),
    "causal and keys": (KEYS, {"unidirectional": 1}),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("opset", [11, 17])
def test_attention(mask: str, opset: int) -> None:
    given, attributes = MASKS[mask]
    x, w, b = normal(N, S, 6), normal(6, 3 * WIDTH), normal(3 * WIDTH)
    inputs = {"x": x} | ({} if given is None else {"mask": given})
    names = ["x", "w", "b"] + ([] if given is None else ["mask"])
    weights, output = weights_and_output("Attention", inputs, {"w": w, "b": b}, names, opset, **attributes)
    values = split((x @ w + b)[..., 2 * WIDTH :])
    check(weights, values, output)
    if given is not None:  # the oracle sees a mask that is left out
        unmasked, _ = weights_and_output("Attention", {"x": x}, {"w": w, "b": b}, names[:3], opset)
        with pytest.raises(AssertionError):
            check(unmasked, values, output)


@pytest.mark.parametrize("mask", MASKS)
def test_quantised_attention(mask: str) -> None:
    given, attributes = MASKS[mask]
    codes, w = RNG.integers(90, 170, (N, S, 6)).astype(np.uint8), RNG.integers(-90, 90, (6, 3 * WIDTH)).astype(np.int8)
    fixed = {"w": w, "b": normal(3 * WIDTH), "xs": np.array(0.02, np.float32), "ws": np.array(0.01, np.float32),
             "xz": np.array(128, np.uint8), "wz": np.array(3, np.int8)}  # fmt: skip
    inputs = {"x": codes} | ({} if given is None else {"mask": given})
    names = ["x", "w", "b", "xs", "ws", "mask" if given is not None else "", "xz", "wz"]
    weights, output = weights_and_output("QAttention", inputs, fixed, names, **attributes)
    packed = (codes.astype(np.float32) - 128) * 0.02 @ ((w.astype(np.float32) - 3) * 0.01) + fixed["b"]
    check(weights, split(packed[..., 2 * WIDTH :]), output, 1e-4)


PADDED = np.array([4, 7], np.int32)
HEAD_MASKS: dict[str, Callable[[], tuple[Arrays, list[str], dict[str, Any]]]] = {
    "none": lambda: ({}, [], {}),
    "bias": lambda: ({"b": normal(3 * WIDTH)}, ["b"], {}),
    "keys": lambda: ({"m": (np.arange(K) < PADDED[:, None]).astype(np.int32)}, ["", "m"], {}),
    "lengths": lambda: ({"m": PADDED}, ["", "m"], {}),
    "scores": lambda: ({"s": normal(N, HEADS, S, K)}, ["", "", "s"], {}),
    "scores for all": lambda: ({"s": normal(1, 1, S, K)}, ["", "", "s"], {"scale": 0.3}),
}


@pytest.mark.parametrize("mask", HEAD_MASKS)
def test_multi_head_attention(mask: str) -> None:
    more, names, attributes = HEAD_MASKS[mask]()
    x = {"q": normal(N, S, WIDTH), "k": normal(N, K, WIDTH), "v": normal(N, K, WIDTH)}
    weights, output = weights_and_output("MultiHeadAttention", x | more, {}, [*x, *names], **attributes)
    values = x["v"] + (more["b"][2 * WIDTH :] if "b" in more else 0)
    check(weights, split(values), output)


def test_multi_head_attention_that_is_causal() -> None:
    x = {name: normal(N, S, WIDTH) for name in "qkv"}
    weights, output = weights_and_output("MultiHeadAttention", x, {}, list(x), unidirectional=1)
    check(weights, split(x["v"]), output)
    assert not np.triu(weights, 1).any()


def test_keys_apart_by_head() -> None:
    x = {"q": normal(N, S, WIDTH), "k": normal(N, HEADS, K, D), "v": normal(N, HEADS, K, D)}
    weights, output = weights_and_output("MultiHeadAttention", x, {}, list(x))
    check(weights, x["v"], output)


def test_a_past_of_keys() -> None:
    x = {name: normal(N, S, WIDTH) for name in "qkv"}
    past = {"pk": normal(N, HEADS, 3, D), "pv": normal(N, HEADS, 3, D)}
    names = [*x, "", "", "", *past]
    weights, output = weights_and_output("MultiHeadAttention", x | past, {}, names, unidirectional=1)
    check(weights, np.concatenate([past["pv"], split(x["v"])], axis=2), output)


def test_a_past_of_attention() -> None:
    x, w, b, past = normal(N, S, 6), normal(6, 3 * WIDTH), normal(3 * WIDTH), normal(2, N, HEADS, 3, D)
    fixed = {"w": w, "b": b}
    weights, output = weights_and_output(
        "Attention", {"x": x, "past": past}, fixed, ["x", "w", "b", "", "past"], unidirectional=1
    )
    check(weights, np.concatenate([past[1], split((x @ w + b)[..., 2 * WIDTH :])], axis=2), output)
