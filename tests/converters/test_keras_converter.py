"""Keras to ONNX, on the TensorFlow and the torch backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("keras") is None:  # looked for, not imported: its backend is settled by start_keras
    pytest.skip("keras is not installed", allow_module_level=True)

from onnxviz.converters import convert
from onnxviz.converters.keras_files import check_trust, code_in, read_config
from onnxviz.converters.keras_start import start_keras
from onnxviz.errors import ConversionError, MissingDependencyError, TrustError
from onnxviz.graph.model import to_proto
from onnxviz.runtime.quiet import quiet

NETS = Path(__file__).with_name("keras_nets.py")


@pytest.fixture(scope="module")
def keras() -> Any:
    if not (find_spec("tensorflow") and find_spec("tf2onnx")) and not find_spec("onnxscript"):
        pytest.skip("no Keras backend with an exporter is installed")
    return start_keras()


ZOO = NETS.with_name("keras_zoo.py")


@pytest.fixture(scope="module")
def nets(keras: Any) -> Any:
    from onnxviz.converters.loading import load_source

    return {
        name: load_source(f"{NETS}:{name}", trust=True, seed=0).network
        for name in ("sequential", "branches", "never_built", "subclassed")
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_six_networks_agree_layer_by_layer(backend):
    if not find_spec(backend) or not find_spec({"tensorflow": "tf2onnx", "torch": "onnxscript"}[backend]):
        pytest.skip(f"Keras's {backend} backend is not installed")
    # torch.export takes half a minute for ResNet50, whose blocks it writes as those of MobileNetV2
    large = {"MobileNetV2": 101} if backend == "torch" else {"MobileNetV2": 101, "ResNet50": 123}
    process = subprocess.run(
        [sys.executable, str(ZOO), *large],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads(process.stdout)
    assert {name: found.pop(name)["nodes"] for name in large} == large
    assert found.pop("planted") == {
        "conv1 one percent off": "conv1", "conv1 transposed": "conv1",
        "dense one percent off": "dense", "dense transposed": "dense",
    }  # fmt: skip
    kept, opened = found.pop("kept"), found.pop("opened")
    assert kept["names"] == ["bn1", "bn2", "bn3"]
    assert kept["weights"] == ["bn1/gamma", "bn1/beta", "bn1/moving_mean", "bn1/moving_variance"]
    assert kept["notes"] == []
    assert kept["error"] < 1e-5
    assert opened["conv"].startswith("[batch,time,5] -> [batch,")
    if backend == "torch":
        assert "fixes" in opened["lstm"]
        assert "KERAS_BACKEND=tensorflow" in opened["lstm"]
    else:
        assert opened["lstm"] == "[batch,time,5] -> [batch,2]"
    assert len(found) == 6
    for name, net in found.items():
        assert net["exporter"] == {"tensorflow": "Keras model.export (tf2onnx)", "torch": "torch.export"}[backend]
        assert net["notes"] == []
        assert net["batches"] == [1, 2, 5]
        assert set(net["axes"]) == {"batch"}
        assert net["output_error"] < 1e-5
        assert net["error"] < 1e-5
        assert net["first"] is None
        assert all(layer.endswith("_pad") for layer in net["missing"]), name  # taken into the convolution behind it
        assert not {"Identity", "BatchNormalization"} & set(net["ops"])
    assert found["sequential"]["layers"] == [
        "conv1 + bn1", "relu1", "pool1", "depthwise + bn2", "gelu", "flatten", "dense + bn3", "classes"
    ]  # fmt: skip
    assert {"backbone/conv", "backbone/conv (2)", "excite", "added", "up"} <= set(found["branches"]["layers"])
    blocks = {f"block{number}{part}" for number in range(2) for part in ("/expand + norm", "/shrink", "")}
    assert {"first + norm", "attend", "layer_norm", "second"} | blocks <= set(found["subclassed"]["layers"])
    assert {line.partition(":")[0] for line in found["subclassed"]["lines"]} == {"keras_zoo.py"}
    assert len(found["subclassed"]["lines"]) >= 4
    assert len(found["mobilenet"]["layers"]) > 95
    assert found["preprocessing"]["layers"][:4] == ["rescale", "crop", "resize", "normal"] or backend == "tensorflow"
    assert {"rescale", "crop", "resize", "normal"} <= set(found["preprocessing"]["layers"])
    assert found["recurrent"]["layers"] == ["conv", "both", "lstm", "score"]


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["sequential", "branches"])
def test_saved_models_open_without_trust(nets, name, ending, tmp_path):
    with quiet():  # Keras calls HDF5 a legacy format
        nets[name].save(tmp_path / f"net{ending}")
    result = convert(tmp_path / f"net{ending}")
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)
    assert result.source == f"net{ending}"
    assert str(tmp_path).encode() not in to_proto(result.model).SerializeToString()


def test_conversion_is_repeatable(nets, tmp_path):
    first, second = (to_proto(convert(nets["branches"], parity=False).model) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_factory_with_weights(nets, tmp_path):
    from onnxviz.runtime.session import run_model

    with quiet():  # Keras hands numpy 2 an old __array__
        nets["sequential"].save_weights(tmp_path / "net.weights.h5")
    result = convert(f"{NETS}:sequential", weights=tmp_path / "net.weights.h5", trust=True, seed=5)
    x = np.random.default_rng(0).random((2, 12, 12, 3), dtype=np.float32)
    expected = np.asarray(nets["sequential"](x, training=False))
    np.testing.assert_allclose(run_model(result.model, {"picture": x})["classes"], expected, atol=1e-5)
    with pytest.raises(ConversionError, match="does not fit"):
        convert(f"{NETS}:branches", weights=tmp_path / "net.weights.h5", trust=True)
    with pytest.raises(ConversionError, match="no weights file"):
        convert(f"{NETS}:branches", weights=tmp_path / "absent.weights.h5", trust=True)


def test_a_model_never_built_needs_a_shape(keras, tmp_path):
    fresh = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ConversionError, match=r"never built.*--input-shape"):
        convert(fresh)
    assert convert(fresh, input_shape=(1, 4)).parity is not None


def test_static_and_opset(nets):
    model = convert(
        nets["sequential"], static=True, opset=17 if start_keras().backend.backend() == "tensorflow" else 18
    ).model
    assert list(model.graph.inputs[0].shape) == [1, 12, 12, 3]
    assert model.opset_imports[""] in (17, 18)


def test_open_axes_need_a_shape_and_shapes_must_fit(keras, nets):
    open_size = keras.Sequential([keras.Input((None, None, 3), name="picture"), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ConversionError, match=r"axes of unknown size: \?,\?,\?,3; give --input-shape"):
        convert(open_size)
    assert list(convert(open_size, input_shape=(1, 9, 7, 3)).model.graph.inputs[0].shape)[1:] == [9, 7, 3]
    with pytest.raises(ConversionError, match="is \\?,12,12,3, not 1,8,8,3"):
        convert(nets["sequential"], input_shape=(1, 8, 8, 3))
    with pytest.raises(ConversionError, match="has 2 inputs"):
        convert(nets["branches"], input_shape=(1, 8, 8, 2))


def test_a_lambda_layer_needs_trust(keras, tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2, name="double", output_shape=(3,))]
    )
    model.save(tmp_path / "net.keras")
    with pytest.raises(TrustError, match=r"net\.keras would run code of its own: the Lambda layer 'double'"):
        convert(tmp_path / "net.keras")
    assert convert(tmp_path / "net.keras", trust=True).parity is not None


def test_a_custom_layer_needs_trust(keras, tmp_path):
    @keras.saving.register_keras_serializable(package="Mine")
    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    keras.Sequential([keras.Input((3,)), Twice(name="twice")]).save(tmp_path / "net.keras")
    with pytest.raises(TrustError, match=r"class .*Twice \('twice'\)"):
        convert(tmp_path / "net.keras")


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"module": "keras.layers", "class_name": "Dense", "config": {"name": "d"}, "registered_name": None}, 0),
        (
            {
                "module": "keras",
                "class_name": "Sequential",
                "config": {"layers": [{"class_name": "Lambda", "config": {}}]},
            },
            1,
        ),
        ({"module": "builtins", "class_name": "function", "config": "swish2", "registered_name": "function"}, 1),
        ({"class_name": "__lambda__", "config": {"value": "4wEA"}}, 1),
        ({"module": "kerasx.layers", "class_name": "Dense", "config": {"name": "d"}}, 1),
        ({"module": None, "class_name": "Twice", "config": {"name": "d"}, "registered_name": "Mine>Twice"}, 1),
        (
            {
                "module": "keras",
                "class_name": "Model",
                "config": {},
                "compile_config": {"loss": {"class_name": "Lambda"}},
            },
            0,
        ),
        ({"class_name": "__tensor__", "config": {"value": [1]}}, 0),
    ],
)
def test_what_counts_as_code(config, count):
    assert len(list(code_in(config))) == count
    if count:
        with pytest.raises(TrustError):
            check_trust(Path("net.keras"), config)


def test_an_h5_with_weights_only_says_what_works(nets, tmp_path):
    with quiet():  # Keras hands numpy 2 an old __array__
        nets["sequential"].save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(ConversionError, match=r"holds weights only.*--weights net\.weights\.h5"):
        convert(tmp_path / "net.weights.h5")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken", b"\x89HDF\r\n\x1a\n broken"])
@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_damaged_files(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=name.replace(".", r"\.")):
        convert(tmp_path / name)


@pytest.mark.parametrize("config", [None, "[1]", "{"])
def test_archives_without_a_network(config, tmp_path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        if config is not None:
            archive.writestr("config.json", config)
    with pytest.raises(ConversionError):
        read_config(tmp_path / "net.keras")


def test_layers_have_paths_of_their_own(keras):
    from onnxviz.converters.keras_layers import layers_of

    class Pair(keras.layers.Layer):
        def __init__(self, name: str) -> None:
            super().__init__(name=name)
            self.parts = [keras.layers.Dense(2, name="dense"), keras.layers.Dense(2, name="dense")]
            self.attend = keras.layers.MultiHeadAttention(1, 2, name="attend")

        def call(self, x: Any) -> Any:
            for part in self.parts:
                x = part(x)
            return x + self.attend(x[:, None], x[:, None])[:, 0]

    inner = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="relu")], name="inner")
    model = keras.Sequential([keras.Input((2,)), Pair("pair"), inner])
    assert list(layers_of(model)) == [
        "pair", "pair/dense", "pair/dense_1", "pair/attend", "inner", "inner/relu"
    ]  # fmt: skip
    assert len({id(layer) for layer in layers_of(model).values()}) == 6


def test_layers_are_watched_only_for_a_run(nets):
    from onnxviz.converters.base import ConvertOptions
    from onnxviz.converters.keras_layers import calling_lines, record_model
    from onnxviz.converters.keras_signature import signature_of

    keras = start_keras()
    original = keras.Layer.__call__
    signature = signature_of(nets["branches"], ConvertOptions(), "branches")
    feeds = signature.example(0, batch=2)
    calls = record_model(nets["branches"], signature, feeds)
    assert keras.Layer.__call__ is original
    layers = [call.layer for call in calls]
    assert {"left", "right", "inner/point", "added", "pooled", "joined", "score"} <= set(layers)
    added = calls[layers.index("added")]
    assert {calls[index].layer for index in added.reads} == {"inner/point", "right"}
    assert added.class_name == "keras.layers.Add"
    with pytest.raises(KeyError):
        calling_lines(nets["branches"], signature, {})
    assert keras.Layer.__call__ is original


def test_unknown_open_axes_name_what_there_is(nets):
    with pytest.raises(ConversionError, match=r"has no input 'sound' to leave open; it has picture, side"):
        convert(nets["branches"], dynamic={"sound": {1: "time"}})
    with pytest.raises(ConversionError, match=r"'side' has no axis 2: its shape is \[1, 3\]"):
        convert(nets["branches"], dynamic={"side": {2: "time"}})
    with pytest.raises(ConversionError, match=r"fixes axis 1 of its input 'side' to 3"):
        convert(nets["branches"], dynamic={"side": {1: "time"}})


def test_an_operator_that_tf2onnx_passes_on_is_refused():
    import onnx_ir as ir

    from onnxviz.converters.keras_tensorflow import _check_ops

    model = ir.Model(ir.Graph([], [], nodes=[ir.node("BesselI0e", [], name="net/odd_1/I0e")]), ir_version=9)
    with pytest.raises(ConversionError, match="cannot convert the operator BesselI0e of odd"):
        _check_ops(model, lambda node: "odd")


def test_missing_backends_name_the_command():
    code = (
        "import onnxviz.converters.keras_start as s\n"
        "s.find_spec = lambda name: None if name in ('tensorflow', 'tf2onnx', 'torch', 'jax') else object()\n"
        "try: s.start_keras()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    for backend, answer in (("", "Keras has no backend"), ("tensorflow", "needs tensorflow and tf2onnx; pip install")):
        process = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stdout.startswith(MissingDependencyError.__name__)
        assert answer in process.stdout


def test_nothing_is_printed(nets, capfd, recwarn):
    convert(nets["branches"])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not list(recwarn)
