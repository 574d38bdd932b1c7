"""Layers of a network beside the tensors of its ONNX model, and that a planted error is found where it was planted."""

from __future__ import annotations

import json
import warnings
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
from onnxviz.errors import ConversionError, InputError, ParityError, SelectionError  # noqa: E402
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


class Twice(torch.nn.Module):
    """One layer under two names, and one in a Sequential as well as beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8)
        self.again = self.first
        self.inner = torch.nn.Linear(8, 8)
        self.block = torch.nn.Sequential(self.inner, torch.nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.again(torch.relu(self.first(x))))  # type: ignore[no-any-return]


class Skipping(torch.nn.Module):
    """Hands a tensor that it took on beside its own, which torch.export leaves no tensor for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.body(x) * 2, skip


class Odd(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleDict({"@1": torch.nn.Linear(8, 8), "a b": torch.nn.Linear(8, 8)})
        self.normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 8))
        self.skipping = Skipping()
        self.states = torch.nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts.values():
            x = torch.tanh(part(x))
        y, x = self.skipping(self.normed(x), x)
        _, (hidden, _) = self.states(torch.stack([y, x, y - x], 1))  # one state is read, the other is not
        return hidden[-1]  # type: ignore[no-any-return]


def test_a_layer_under_two_names_is_one_layer() -> None:
    torch.manual_seed(0)
    source = Source("n", network=Twice())
    conversion = TorchConverter().convert(source, ConvertOptions(input_shapes=((2, 8),)))
    (layers,) = measure_parity(conversion).layers
    assert layers.passed
    assert [layer.layer for layer in layers.layers] == ["first", "first (2)", "inner", "block.1"]
    assert layers.missing == {}
    weight = next(node.inputs[1] for node in conversion.model.graph if node.name == "block.0")
    assert weight is not None
    change(conversion, str(weight.name), lambda w: w * np.float32(1.01))
    (layers,) = measure_parity(conversion).layers
    assert layers.first is not None
    assert layers.first.layer == "inner"


def test_what_leaves_no_tensor_is_not_held_against_another() -> None:
    torch.manual_seed(0)
    (layers,) = measure_parity(
        TorchConverter().convert(Source("n", network=Odd()), ConvertOptions(input_shapes=((2, 8),)))
    ).layers
    assert layers.passed
    assert [layer.layer for layer in layers.layers] == [
        "parts.@1", "parts.a b", "normed", "skipping.body", "skipping", "states"
    ]  # fmt: skip
    assert layers.missing == {}


def test_what_was_folded_is_counted_by_its_own_calls() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.b(torch.relu(self.norm(self.a(x)))))  # type: ignore[no-any-return]

    (layers,) = measure_parity(
        TorchConverter().convert(Source("n", network=Shared()), ConvertOptions(input_shapes=((2, 3, 4, 4),)))
    ).layers
    assert [layer.name for layer in layers.layers] == ["a + norm", "b + norm"]


def test_half_precision_networks_have_its_tolerance() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3)).half()
    result = convert(net, input_shape=(2, 3, 12, 12))
    assert result.parity is not None
    (layers,) = result.parity.layers
    assert (layers.precision, layers.tolerance, layers.passed) == ("float16", 1e-2, True)
    assert result.notes == ()


def test_compiled_networks_show_their_layers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.compile(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()))
    result = convert(network, input_shape=(2, 4))
    assert result.parity is not None
    assert [layer.layer for layer in result.parity.layers[0].layers] == ["0", "1"]


@pytest.mark.parametrize(("opset", "exporter"), [(17, "torch.export"), (15, "torch.export"), (13, "TorchScript")])
def test_lower_opsets_keep_the_layers(opset: int, exporter: str) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.conv(x))).mean((2, 3)).reshape(-1, 2, 2)

    result = convert(Net(), input_shape=(2, 3, 8, 8), opset=opset)
    assert result.exporter.startswith(exporter)
    assert result.model.opset_imports[""] == opset
    assert result.parity is not None
    assert result.parity.layers[0].passed
    assert result.parity.layers[0].layers[0].layer == "conv"
    if exporter != "torch.export":
        assert "cannot be written in opset 13" in result.exporter


def test_the_batch_may_be_another_axis_of_a_state() -> None:
    class Stepping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = torch.nn.GRU(4, 3, batch_first=True)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.cells(x, h)  # type: ignore[no-any-return]

    shapes = [(2, 5, 4), (1, 2, 3)]
    with pytest.raises(ConversionError) as error:
        convert(Stepping(), input_shape=shapes)
    assert "--dynamic h:1=batch" in str(error.value.hint)
    result = convert(Stepping(), input_shape=shapes, dynamic={"h": {1: "batch"}})
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)


def test_a_size_that_the_network_fixes_is_named() -> None:
    with pytest.raises(ConversionError, match=r"fixes a size that is to stay open: .*static shape of 4 .*shape\[1\]"):
        convert(torch.nn.Linear(4, 2), input_shape=(2, 4), dynamic={"input": {1: "n"}})


def test_what_cannot_be_compared_is_told_apart() -> None:
    class Noisy(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + torch.randn_like(input)

    with pytest.raises(ParityError, match="something else each time"):
        convert(Noisy(4, 4), input_shape=(2, 4))
    with pytest.raises(ConversionError, match="nothing can be compared.*no kernel for Conv") as error:
        convert(torch.nn.Conv2d(3, 4, 3).double(), input_shape=(2, 3, 8, 8))
    assert "float32" in str(error.value.hint)


def test_a_picture_of_nothing_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(torch.nn.Linear(4, 2), torch.zeros(2, 4))
    table, picture, model = tmp_path / "p.json", tmp_path / "p.png", tmp_path / "n.onnx"
    with pytest.raises(InputError, match=r"no layer was compared, so .*p\.png would be empty"):
        api.convert(script, model, input_shape=(2, 4), parity_file=[table, picture])
    with pytest.raises(InputError, match="without a comparison"):
        api.convert(script, model, input_shape=(2, 4), parity_file=table, parity=False)
    assert list(tmp_path.iterdir()) == []


def test_open_axes_of_arguments_that_are_not_named_are_refused() -> None:
    class Gathering(torch.nn.Module):
        def forward(self, x: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
            return x + more["b"]

    source = Source("n", network=Gathering(), example_inputs={"x": torch.ones(2, 3), "b": torch.ones(2, 3)})
    with pytest.raises(ConversionError, match=r"axis of b open: forward takes it as \*\*more"):
        TorchConverter().convert(source, ConvertOptions())
    assert measure_parity(TorchConverter().convert(source, ConvertOptions(static=True))).passed
