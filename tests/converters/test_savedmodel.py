"""TensorFlow SavedModels to ONNX."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if not all(find_spec(name) for name in ("tensorflow", "tf2onnx", "keras")):
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from onnxviz.converters.base import Conversion, ConvertOptions, Source
from onnxviz.converters.parity import measure_parity
from onnxviz.converters.savedmodel import SavedModelConverter
from onnxviz.errors import ConversionError, TrustError
from onnxviz.graph.provenance import provenance_of
from onnxviz.runtime.quiet import quiet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a scope a layer, a constant that it closes over, two inputs and two outputs."""
    import tensorflow as tf

    class Net(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(0)
            self.kernel = tf.Variable(rng.standard_normal((3, 3, 2, 4)).astype("float32"))
            self.dense = tf.Variable(rng.standard_normal((4, 3)).astype("float32"))
            self.mean = tf.constant(rng.standard_normal(2).astype("float32"))

    net = Net()

    @tf.function  # type: ignore[untyped-decorator]
    def call(picture: Any, gain: Any) -> dict[str, Any]:
        with tf.name_scope("net"):
            with tf.name_scope("conv"):
                x = tf.nn.relu(tf.nn.conv2d(picture - net.mean, net.kernel, 1, "SAME"))
            with tf.name_scope("head"):
                score = tf.reduce_mean(x, (1, 2)) @ net.dense * gain
        return {"score": score, "map": x}

    specs = tf.TensorSpec((None, 6, 5, 2), name="picture"), tf.TensorSpec((None, 1), name="gain")
    path = tmp_path_factory.mktemp("saved") / "net"
    with quiet():
        tf.saved_model.save(net, str(path), signatures={"serving_default": call.get_concrete_function(*specs)})
    return path


def converted(path: Path, **options: Any) -> Conversion:
    return SavedModelConverter().convert(Source(path.name, path=path), ConvertOptions(trust=True, **options))


def test_it_computes_what_tensorflow_computes(folder: Path) -> None:
    conversion = converted(folder)
    parity = measure_parity(conversion)
    assert parity.passed
    assert parity.batches == (1, 2, 5)
    assert {value.name for value in conversion.model.graph.inputs} == {"picture", "gain"}
    assert {value.name for value in conversion.model.graph.outputs} == {"score", "map"}
    layers = {source.layer for node in conversion.model.graph if (source := provenance_of(node)) is not None}
    assert {"conv", "head"} <= layers


def test_static_keeps_the_batch(folder: Path) -> None:
    shape = converted(folder, static=True, input_shapes=((2, 1), (2, 6, 5, 2))).model.graph.inputs[0].shape  # gain
    assert shape is not None
    assert shape[0] == 2


def test_it_needs_trust_and_says_why(folder: Path) -> None:
    with pytest.raises(TrustError, match="operators can read and write files"):
        SavedModelConverter().convert(Source("net", path=folder), ConvertOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shapes": ((1, 6, 5, 2),)}, "has 2 inputs"),
        ({"input_shapes": ((1, 6), (1, 1))}, "the shape of input"),
        ({"dynamic": {"photo": {1: "height"}}}, "no input 'photo'"),
        ({"weights": Path("w.h5")}, "finished"),
    ],
)
def test_options_that_do_not_fit(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        converted(folder, **options)


def test_a_damaged_folder_and_one_without_signatures(tmp_path: Path) -> None:
    import tensorflow as tf

    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "saved_model.pb").write_bytes(b"no")
    with pytest.raises(ConversionError, match="cannot open"):
        converted(tmp_path / "bad")
    with quiet():
        tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ConversionError, match="no signature"):
        converted(tmp_path / "empty")


def test_only_folders_with_a_saved_model_are_taken(folder: Path, tmp_path: Path) -> None:
    converter = SavedModelConverter()
    assert converter.accepts(Source("net", path=folder))
    assert not converter.accepts(Source("x", path=tmp_path))
    assert not converter.accepts(Source("x", network=object()))
