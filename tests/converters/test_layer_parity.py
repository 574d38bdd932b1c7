"""Layers of a network beside the tensors of its ONNX model, and that a planted error is found where it was planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

import torch_zoo  # noqa: E402

from onnxviz import api  # noqa: E402
from onnxviz.converters import convert  # noqa: E402
from onnxviz.converters.base import Conversion, ConvertOptions, LayerCall, Source  # noqa: E402
from onnxviz.converters.layers import compare_layers  # noqa: E402
from onnxviz.converters.parity import measure_parity, parity_feeds  # noqa: E402
from onnxviz.converters.torch import TorchConverter  # noqa: E402
from onnxviz.errors import ConversionError, ParityError, SelectionError  # noqa: E402
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance  # noqa: E402
from onnxviz.graph.select import select  # noqa: E402

NETS = sorted(torch_zoo.SHAPES)


def conversion_of(name: str, **options: Any) -> Conversion:
    torch.manual_seed(0)
    network = getattr(torch_zoo, name)()
    return TorchConverter().convert(
        Source(name, network=network), ConvertOptions(input_shapes=(torch_zoo.SHAPES[name],), **options)
    )


@pytest.fixture(scope="module")
def resnet() -> Conversion:
    return conversion_of("resnet")


def change(conversion: Conversion, weight: str, how: Any) -> None:
    value = conversion.model.graph.initializers[weight]
    assert value.const_value is not None
    value.const_value = ir.tensor(np.ascontiguousarray(how(value.const_value.numpy())), name=weight)


@pytest.mark.parametrize("name", NETS)
def test_every_layer_agrees_at_every_batch(name: str) -> None:
    torch.manual_seed(0)
    result = convert(getattr(torch_zoo, name)(), input_shape=torch_zoo.SHAPES[name])
    assert result.exporter == "torch.export"
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)
    (layers,) = result.parity.layers
    assert layers.passed
    assert layers.worst is not None
    assert layers.worst.relative < 1e-5
    assert layers.missing == {}
    shape = result.model.graph.inputs[0].shape
    assert shape is not None
    assert str(shape[0]) == "batch"


def test_layers_stand_in_order_with_what_was_folded_into_them(resnet: Conversion) -> None:
    (layers,) = measure_parity(resnet).layers
    names = [layer.name for layer in layers.layers]
    assert names[:4] == ["conv1 + bn1", "relu", "maxpool", "layer1.0.conv1 + bn1"]
    assert names[-2:] == ["avgpool", "fc"]
    assert "layer1.0.relu (2)" in names
    assert layers.layers[0].class_name == "torch.nn.modules.conv.Conv2d"


@pytest.mark.parametrize(
    ("weight", "layer"),
    [("layer2.0.conv1.weight", "layer2.0.conv1"), ("layer1.1.conv2.weight", "layer1.1.conv2"), ("fc.weight", "fc")],
)
def test_a_weight_one_percent_off_is_located(weight: str, layer: str) -> None:
    conversion = conversion_of("resnet")
    change(conversion, weight, lambda w: w * np.float32(1.01))
    (layers,) = measure_parity(conversion).layers
    assert layers.first is not None
    assert layers.first.layer == layer
    assert 1e-3 < layers.first.relative < 3e-2


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet", "layer1.0.conv2"), ("vit", "blocks.1.linear1"), ("unet", "middle"), ("recurrent", "shared")],
)
def test_a_transposed_weight_is_located(name: str, layer: str) -> None:
    conversion = conversion_of(name)
    source = next(n for n in conversion.model.graph if (p := provenance_of(n)) and p.layer == layer and n.op_type in
                  ("Conv", "Gemm", "MatMul"))  # fmt: skip
    weight = source.inputs[1]
    assert weight is not None
    change(conversion, str(weight.name), lambda w: w.swapaxes(0, 1).reshape(w.shape))
    (layers,) = measure_parity(conversion).layers
    assert layers.first is not None
    assert layers.first.layer == layer


def test_two_planted_errors_first_and_worst_are_told_apart() -> None:
    conversion = conversion_of("resnet")
    change(conversion, "conv1.weight", lambda w: w * np.float32(1.001))
    change(conversion, "fc.weight", lambda w: w[::-1])
    (layers,) = measure_parity(conversion).layers
    assert layers.first is not None
    assert layers.worst is not None
    assert (layers.first.layer, layers.worst.layer) == ("conv1", "fc")
    assert layers.worst.relative > 0.1 > layers.first.relative


def test_a_wrong_model_is_an_error_that_names_the_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TorchConverter.convert

    def broken(self: TorchConverter, source: Source, options: ConvertOptions) -> Conversion:
        conversion = whole(self, source, options)
        change(conversion, "layer2.1.conv1.weight", lambda w: w * np.float32(1.01))
        return conversion

    monkeypatch.setattr(TorchConverter, "convert", broken)
    table, picture = tmp_path / "p.json", tmp_path / "p.png"
    torch.manual_seed(0)
    with pytest.raises(ParityError, match=r"the first layer that differs is layer2\.1\.conv1 \+ bn1 \(Conv2d\)"):
        api.convert(
            torch_zoo.resnet(),
            tmp_path / "n.onnx",
            input_shape=torch_zoo.SHAPES["resnet"],
            parity_file=[table, picture],
        )
    assert not (tmp_path / "n.onnx").exists()
    assert json.loads(table.read_text())["layers"][0]["first"] == "layer2.1.conv1"
    assert picture.stat().st_size > 10_000


def test_kept_batchnorm_is_a_layer_of_its_own() -> None:
    conversion = conversion_of("resnet", keep_batchnorm=True)
    assert sum(node.op_type == "BatchNormalization" for node in conversion.model.graph) == 10
    (layers,) = measure_parity(conversion).layers
    assert [layer.name for layer in layers.layers][:3] == ["conv1", "bn1", "relu"]
    assert layers.passed


def test_a_batchnorm_without_shift_is_known_to_be_folded_too() -> None:
    """The exporter then takes the bias away again, and writes down both rules."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    (layers,) = measure_parity(
        TorchConverter().convert(Source("n", network=net), ConvertOptions(input_shapes=((1, 3, 8, 8),)))
    ).layers
    assert [layer.name for layer in layers.layers] == ["0 + 1", "2"]
    assert layers.missing == {}


def test_other_precisions_are_compared_in_the_same_tensors(resnet: Conversion) -> None:
    float32, float16, int8 = measure_parity(resnet, precisions=["float16", "int8"]).layers
    assert [c.precision for c in (float32, float16, int8)] == ["float32", "float16", "int8"]
    assert len(float16.layers) == len(float32.layers)
    assert float32.worst is not None
    assert float16.worst is not None
    assert int8.worst is not None
    assert float32.worst.relative < 1e-5 < float16.worst.relative < 2e-3 < int8.worst.relative < 0.1
    # A convolution whose Relu became the lower end of its range has no tensor of its own.
    assert {"conv1", "layer1.0.conv1"} <= {name.replace("bn1", "conv1") for name in int8.missing}
    assert all("converted model" in why for why in int8.missing.values())


def test_an_unknown_precision_is_named(resnet: Conversion) -> None:
    with pytest.raises(ConversionError, match="no precision 'fp4'"):
        convert(torch_zoo.volume(), input_shape=torch_zoo.SHAPES["volume"], precisions=["fp4"])


def test_exported_programs_have_layers_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch_zoo.resnet().eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (torch.zeros(2, 3, 64, 64),), dynamic_shapes={"image": {0: batch}})
    (layers,) = measure_parity(TorchConverter().convert(Source("p", network=program), ConvertOptions())).layers
    assert layers.passed
    names = [layer.name for layer in layers.layers]
    assert "layer1.0.conv1 + bn1" in names
    assert len(names) >= 20


def test_the_fallback_has_layers_by_its_names() -> None:
    class Branch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.abs().sum() >= 0:
                x = self.body(x)
            return x + 1

    result = convert(Branch(), input_shape=(2, 4))
    assert "fallback" in result.exporter
    assert result.parity is not None
    (layers,) = result.parity.layers
    assert [layer.layer for layer in layers.layers] == ["body.0", "body.1", "body.2"]
    assert layers.passed


def test_channels_last_is_compared_in_the_sources_layout() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 5, 6, 3] x) => (float[n, 3, 5, 6] y) { t = Transpose<perm = [0, 3, 1, 2]>(x) y = Relu(t) }""")
    set_provenance(model.graph[1], Provenance("act", "Layer"))
    example = {"x": np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)}

    def record(feed: Any) -> list[LayerCall]:
        return [LayerCall("act", "Layer", (np.maximum(feed["x"], 0),))]

    conversion = Conversion(model, "test", "test", lambda feed: [], example, record=record)
    (layers,) = compare_layers(conversion, [example])
    assert layers.passed
    assert layers.layers[0].layout == "channels first"
    wrong = Conversion(model, "test", "test", lambda feed: [], example, record=lambda feed: [
        LayerCall("act", "Layer", (np.maximum(feed["x"], 0)[:, ::-1],))
    ])  # fmt: skip
    (layers,) = compare_layers(wrong, [example])
    assert not layers.passed


def test_a_layer_without_nodes_is_listed_unless_it_hands_on(resnet: Conversion) -> None:
    assert resnet.record is not None
    calls = resnet.record(parity_feeds(resnet)[0])
    extra = [
        LayerCall("ghost", "Layer", (np.ones(3, np.float32),)),
        LayerCall("dropout", "Dropout", (np.ones(3, np.float32),), (), hands_on=True),
    ]
    conversion = Conversion(
        resnet.model, "t", "t", resnet.reference, resnet.example, record=lambda feed: [*calls, *extra]
    )
    (layers,) = compare_layers(conversion, parity_feeds(resnet)[:1])
    assert layers.missing == {"ghost": "no node of it is left in the graph"}


def test_source_layers_are_selected(resnet: Conversion) -> None:
    def names(pattern: str) -> list[str | None]:
        return [value.name for value in select(resnet.model, pattern)]

    assert names("source:layer1.0.bn1") == names("source:layer1.0.conv1") == ["layer1.0.conv1"]
    assert names("source:layer2") == names("source:layer2.1")
    assert len(names("source:*.downsample.*")) == 1
    with pytest.raises(SelectionError, match="no layer of the source matches 'layer9'") as error:
        names("source:layer9")
    assert "layer1" in str(error.value.hint)
    bare = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Relu(x)}')
    with pytest.raises(SelectionError, match="does not say which layers"):
        select(bare, "source:conv1")


def test_lines_and_classes_are_on_the_nodes(resnet: Conversion) -> None:
    found = [str(provenance_of(node)) for node in resnet.model.graph]
    assert "layer1.0.conv1 + bn1 (Conv2d) at torch_zoo.py:24" in found
    assert all(text.endswith(tuple("0123456789")) and "torch_zoo.py:" in text for text in found)


def test_further_axes_stay_open() -> None:
    conversion = conversion_of("unet", dynamic={"image": {2: "height", -1: "width"}})
    shape = conversion.model.graph.inputs[0].shape
    assert shape is not None
    assert [str(n) for n in shape] == ["batch", "1", "height", "width"]
    feeds = [{"image": np.random.default_rng(1).standard_normal((3, 1, 16, 40)).astype(np.float32)}]
    parity = measure_parity(conversion, feeds)
    assert parity.passed
    assert parity.layers[0].passed


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"picture": {2: "h"}}, "no input 'picture'"),
        ({"image": {7: "h"}}, "no axis 7"),
        ({"image": {1: "c"}}, "size 1"),
    ],
)
def test_axes_that_cannot_stay_open(dynamic: dict[str, dict[int, str]], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        conversion_of("unet", dynamic=dynamic)
