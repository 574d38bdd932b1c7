"""JAX functions and flax.nnx modules to ONNX: outputs and layers agree, and what cannot be converted is said."""

from __future__ import annotations

import functools
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.converters import convert, measure_parity
from onnxviz.converters.base import Conversion, ConvertOptions, Source
from onnxviz.converters.jax import JaxConverter
from onnxviz.errors import ConversionError, MissingDependencyError
from onnxviz.graph.model import to_proto
from onnxviz.graph.provenance import provenance_of

NEEDS = ("jax", "flax", "jax2onnx")
needs_jax = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDS), reason="jax, flax and jax2onnx are not installed"
)

NET = """
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Block(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 6, rngs=rngs)
        self.second = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        return x + self.second(nnx.gelu(self.first(x)))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(3 * 5 * 4, 6, rngs=rngs)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])

    def __call__(self, image):
        x = nnx.relu(self.norm(self.conv(image)))
        x = self.fc(self.drop(x.reshape(x.shape[0], -1)))
        for block in self.blocks:
            x = block(x)
        return x


def net():
    return Net(nnx.Rngs(0)), np.ones((2, 5, 4, 1), np.float32)


def function():
    weights = jnp.arange(12.0).reshape(4, 3) / 7
    return (lambda x: jnp.tanh(x @ weights)), np.ones((2, 4))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "jax_net.py").write_text(NET)
    return tmp_path / "jax_net.py"


def line_of(code: str) -> int:
    return next(number for number, line in enumerate(NET.splitlines(), 1) if code in line)


def conversion_of(network: Any, example: Any = None, **options: Any) -> Conversion:
    return JaxConverter().convert(
        Source("net.py:f", network=network, example_inputs=example), ConvertOptions(**options)
    )


@needs_jax
def test_a_flax_network_agrees_layer_by_layer(file):
    result = convert(f"{file}:net", trust=True)
    assert result.converter == "jax"
    assert result.exporter.startswith("jax2onnx")
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)
    assert [v.name for v in result.model.graph.inputs] == ["image"]
    assert list(result.model.graph.inputs[0].shape) == ["batch", 5, 4, 1]
    (layers,) = result.parity.layers
    assert layers.first is None
    found = [error.layer for error in layers.layers]
    assert found[:2] == ["conv", "norm"]
    assert {"fc", "blocks.0.first", "blocks.0.second", "blocks.0", "blocks.1"} <= set(found)
    sources = {str(provenance_of(node)) for node in result.model.graph}
    assert f"conv (Conv) at jax_net.py:{line_of('self.conv(image)')}" in sources
    assert f"blocks.1 (Block) at jax_net.py:{line_of('self.second(nnx')}" in sources
    assert str(file.parent).encode() not in to_proto(result.model).SerializeToString()


@needs_jax
def test_an_error_in_one_layer_is_located(file):
    from onnxviz.converters.loading import load_source

    source = load_source(f"{file}:net", trust=True, seed=0)
    conversion = JaxConverter().convert(source, ConvertOptions())
    assert not source.network.drop.deterministic, "the user's network was changed"
    (node,) = (n for n in conversion.model.graph if provenance_of(n).layer == "blocks.0.second" and n.op_type == "Gemm")
    weight = node.inputs[1]
    values = weight.const_value.numpy().copy()
    values[np.unravel_index(np.abs(values).argmax(), values.shape)] *= 1.01
    weight.const_value = ir.tensor(values, name=weight.name)
    parity = measure_parity(conversion)
    assert str(parity.layers[0].first).startswith("blocks.0.second")
    assert not parity.passed


@needs_jax
def test_a_function_and_its_line(file):
    result = convert(f"{file}:function", trust=True)
    assert result.parity.passed
    assert [(v.name, list(v.shape)) for v in result.model.graph.inputs] == [("x", ["batch", 4])]
    assert [v.name for v in result.model.graph.outputs] == ["output"]
    assert result.parity.layers == ()
    assert provenance_of(result.model.graph[0]).line == f"jax_net.py:{line_of('jnp.tanh')}"


@needs_jax
def test_nested_arguments_and_outputs_get_names():
    import jax.numpy as jnp

    def f(x: Any, weights: Any) -> Any:
        return {"a": jnp.tanh(x @ weights["k"][0]), "b": (x.sum(1), x.max(1))}

    example = (np.ones((2, 8)), {"k": [np.ones((8, 3))]})
    conversion = conversion_of(f, example)
    assert [(v.name, list(v.shape)) for v in conversion.model.graph.inputs] == [
        ("x", ["batch", 8]),
        ("weights_k_0", [8, 3]),
    ]
    assert [v.name for v in conversion.model.graph.outputs] == ["a", "b_0", "b_1"]
    assert measure_parity(conversion).passed


@needs_jax
def test_open_axes_static_shapes_and_opset():
    import jax
    import jax.numpy as jnp

    ids = {"ids": np.array([[1, 2, 6]])}
    conversion = conversion_of(lambda ids: jnp.take(jnp.eye(7), ids, axis=0), ids, dynamic={"ids": {1: "time"}})
    assert list(conversion.model.graph.inputs[0].shape) == ["batch", "time"]
    assert measure_parity(conversion).passed
    with pytest.raises(ConversionError, match=r"no axis 2 of an input 'ids'; there are ids \[1, 3\]"):
        conversion_of(lambda ids: ids + 1, ids, dynamic={"ids": {2: "time"}})
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda i, a: a * 1.5, x))
    static = conversion_of(loop, static=True, input_shapes=((2, 3),), opset=20)
    assert list(static.model.graph.inputs[0].shape) == [2, 3]
    assert static.model.opset_imports[""] == 20
    assert measure_parity(static).passed


@needs_jax
def test_modules_of_other_libraries():
    import flax.linen
    import jax

    dense = flax.linen.Dense(3)
    variables = dense.init(jax.random.key(0), np.ones((1, 4)))
    assert measure_parity(conversion_of(functools.partial(dense.apply, variables), np.ones((2, 4)))).passed
    equinox = pytest.importorskip("equinox", reason="equinox is not installed")
    mlp = equinox.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    assert measure_parity(conversion_of(jax.vmap(mlp), np.ones((2, 4)))).passed


@needs_jax
@pytest.mark.parametrize(
    ("function", "example", "message"),
    [
        (lambda x: x, None, "inputs of net.py:f are unknown; return .function, example inputs."),
        (lambda x: x, (np.ones(2), np.ones(2)), "takes other inputs: too many positional"),
        (lambda x: x @ np.ones((5, 2)), np.ones((2, 4)), "net.py:f does not run"),
        (lambda x: x.reshape(2, -1) @ np.ones((4, 3)), np.ones((2, 4)), "cannot convert net.py:f.*try --static"),
        (lambda x: x if x.sum() > 0 else -x, np.ones((2, 4)), "jnp.where or lax.cond"),
    ],
)
def test_what_cannot_be_converted_is_said(function, example, message):
    with pytest.raises(ConversionError, match=message) as caught:
        conversion_of(function, example)
    assert "\n" not in str(caught.value)


@needs_jax
def test_conversion_is_repeatable(file):
    first, second = (
        to_proto(convert(f"{file}:net", trust=True, parity=False).model).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingDependencyError, match=r"jax is not installed; pip install 'onnxviz\[jax\]'"):
        conversion_of(lambda x: x, np.ones(2))


def test_what_is_accepted():
    accepts = JaxConverter().accepts
    assert accepts(Source("f", network=lambda x: x))
    assert accepts(Source("f", network=functools.partial(max, 1)))
    assert not accepts(Source("f", network={"a": 1}))
    assert not accepts(Source("f", network=int))
    assert not accepts(Source("net.py", path=Path("net.py")))
