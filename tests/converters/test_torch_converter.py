"""PyTorch to ONNX."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from onnxviz.converters import convert  # noqa: E402
from onnxviz.converters.torch import TorchConverter  # noqa: E402
from onnxviz.errors import ConversionError, MissingDependencyError, ParityError, TrustError  # noqa: E402
from onnxviz.graph.model import to_proto  # noqa: E402
from onnxviz.runtime.session import run_model  # noqa: E402

NETS = Path(__file__).with_name("torch_nets.py")
LENET = Path(__file__).resolve().parents[2] / "models" / "lenet5_torch.py"


def net(name: str) -> str:
    return f"{NETS}:{name}"


@pytest.fixture(scope="module")
def lenet_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The trained weights, taken back out of the bundled ONNX file."""
    from onnxviz.graph.io import open_model

    model = open_model(LENET.with_name("lenet5.onnx"))
    return {
        name: torch.from_numpy(np.array(value.const_value.numpy()))
        for name, value in model.graph.initializers.items()
        if "." in name and value.const_value is not None
    }


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_trained_lenet_comes_back_through_its_state_dict(ending, lenet_weights, tmp_path):
    from onnxviz.graph.io import open_model

    weights = tmp_path / f"lenet{ending}"
    if ending == ".pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in lenet_weights.items()}}, weights)
    else:
        pytest.importorskip("safetensors.torch").save_file(lenet_weights, weights)
    result = convert(f"{LENET}:lenet5", weights=weights, input_shape=(1, 1, 32, 32), trust=True)
    assert result.exporter == "torch.export"
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)
    assert (result.notes != ()) == (ending == ".pt"), "the prefix that was taken off is told"
    x = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
    bundled = run_model(open_model(LENET.with_name("lenet5.onnx")), {"image": x})["output"]
    np.testing.assert_allclose(run_model(result.model, {"image": x})["output"], bundled, rtol=1e-5, atol=1e-5)


def test_layers_keep_their_names_and_the_file_tells_nothing_about_the_machine():
    result = convert(net("residual"), input_shape=(1, 3, 8, 8), trust=True)
    names = [node.name for node in result.model.graph]
    assert {"stem", "blocks.0.conv", "blocks.1.conv", "head"} <= set(names)
    assert len(names) == len(set(names))
    assert [str(d) for d in result.model.graph.inputs[0].shape] == ["batch", "3", "8", "8"]
    data = to_proto(result.model).SerializeToString()
    assert b"torch_nets.py" in data
    for folder in (NETS.parent, Path(sys.prefix), Path(torch.__file__).parent, Path.home()):
        assert str(folder).encode() not in data
    assert result.model.metadata_props["onnxviz.source"] == "torch_nets.py:residual"
    assert result.model.metadata_props["onnxviz.exporter"] == "torch.export"


def test_the_same_factory_gives_the_same_bytes_and_another_seed_other_weights():
    first, again, other = (
        to_proto(convert(net("residual"), input_shape=(1, 3, 8, 8), trust=True, parity=False, seed=s).model)
        for s in (0, 0, 1)
    )
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert first.SerializeToString(deterministic=True) != other.SerializeToString(deterministic=True)


@pytest.mark.parametrize("factory", ["two", "two_by_name"])
def test_several_inputs_and_outputs(factory):
    result = convert(net(factory), trust=True)
    assert [value.name for value in result.model.graph.inputs] == ["tokens", "scale"]
    assert result.parity is not None
    assert [output.dtype for output in result.parity.outputs] == ["int64", "float32"]
    assert [output.shape[0] for output in result.parity.outputs] == [5, 5]


def test_static_keeps_the_batch():
    result = convert(net("fixed_batch"), trust=True, static=True)
    assert list(result.model.graph.inputs[0].shape) == [2, 4]
    assert result.parity is not None
    assert result.parity.batches == (2, 2, 2)


def test_a_network_that_fixes_its_batch_says_so():
    with pytest.raises(ConversionError, match=r"batch.*--static"):
        convert(net("fixed_batch"), trust=True)


def test_opset_is_obeyed():
    assert convert(torch.nn.Linear(3, 2), input_shape=(1, 3), opset=18).model.opset_imports[""] == 18
    with pytest.raises(ConversionError, match=r"writes opset \d+, not 99"):
        convert(torch.nn.Linear(3, 2), input_shape=(1, 3), opset=99)


def test_half_precision_is_compared_in_half_precision():
    result = convert(torch.nn.Linear(8, 8).half(), input_shape=(1, 8))
    assert result.parity is not None
    assert result.parity.outputs[0].dtype == "float16"


def test_bfloat16_converts_and_what_cannot_run_it_says_so():
    assert convert(torch.nn.Linear(8, 8).bfloat16(), input_shape=(1, 8), parity=False).exporter == "torch.export"
    with pytest.raises(ConversionError, match="converted model does not run"):
        convert(torch.nn.Linear(8, 8).bfloat16(), input_shape=(1, 8))


def test_the_callers_module_stays_as_it_was():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(), torch.nn.BatchNorm1d(3))
    module[0].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = convert(module, input_shape=(4, 3))
    assert [part.training for part in module] == [False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        module[0].weight.fill_(7)
    assert not any(
        (v.const_value.numpy() == 7).any() for v in result.model.graph.initializers.values() if v.const_value
    )


def test_the_fallback_is_declared():
    result = convert(net("always_one_branch"), trust=True)
    assert result.exporter.startswith("TorchScript (fallback: ")
    assert "torch_nets.py:" in result.exporter, "the line that torch.export refused"
    assert "torch.export failed" in result.notes[0]
    assert result.model.metadata_props["onnxviz.exporter"] == result.exporter
    assert [str(d) for d in result.model.graph.inputs[0].shape] == ["batch", "4"]


def test_a_fallback_that_lost_a_branch_is_caught():
    with pytest.raises(ParityError, match="differs"):
        convert(net("both_branches"), trust=True)


def test_exported_program(tmp_path):
    batch = torch.export.Dim("batch")
    program = torch.export.export(torch.nn.Linear(3, 2).eval(), (torch.ones(2, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(TrustError, match=r"net\.pt2 is a torch\.export program"):
        convert(tmp_path / "net.pt2")
    result = convert(tmp_path / "net.pt2", trust=True)
    assert result.exporter == "torch.export"
    assert result.parity is not None
    assert result.parity.batches == (1, 2, 5)


def test_torchscript_archive(tmp_path):
    from onnxviz.runtime.quiet import quiet

    with quiet():  # tracing is deprecated, and says so
        torch.jit.trace(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.ones(2, 3)).save(
            tmp_path / "net.pt"
        )
    with pytest.raises(TrustError, match="TorchScript program"):
        convert(tmp_path / "net.pt")
    result = convert(tmp_path / "net.pt", trust=True, input_shape=(1, 3))
    assert result.exporter == "TorchScript (fallback: the source is a TorchScript archive)"


def test_a_state_dict_alone_names_the_command_that_works(tmp_path):
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "weights.pt")
    for trust in (False, True):
        with pytest.raises(ConversionError, match=r"weights but no network.*--weights weights\.pt"):
            convert(tmp_path / "weights.pt", trust=trust)


def test_a_pickled_module_names_what_it_would_load(tmp_path):
    torch.save(torch.nn.Linear(3, 2), tmp_path / "net.pt")
    with pytest.raises(TrustError, match=r"it loads torch\.nn\.modules\.linear\.Linear"):
        convert(tmp_path / "net.pt", input_shape=(1, 3))
    assert convert(tmp_path / "net.pt", input_shape=(1, 3), trust=True).parity is not None


def test_weights_that_would_run_code_are_refused(tmp_path):
    torch.save({"a": torch.nn.Linear(3, 2)}, tmp_path / "weights.pt")
    with pytest.raises(TrustError, match="unpickling it would run code"):
        convert(net("residual"), weights=tmp_path / "weights.pt", input_shape=(1, 3, 8, 8), trust=True)


def test_a_state_dict_that_does_not_fit_names_every_key(lenet_weights, tmp_path):
    bad = dict(lenet_weights)
    del bad["conv1.bias"]
    bad["fc9.weight"] = torch.zeros(2)
    bad["output.bias"] = torch.zeros(11)
    torch.save(bad, tmp_path / "bad.pt")
    with pytest.raises(ConversionError) as caught:
        convert(f"{LENET}:lenet5", weights=tmp_path / "bad.pt", input_shape=(1, 1, 32, 32), trust=True)
    message = str(caught.value)
    assert "missing conv1.bias" in message
    assert "unexpected fc9.weight" in message
    assert "output.bias is 11 but the network has 10" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("name", ["net.pt", "net.pt2", "net.safetensors"])
def test_damaged_files(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        convert(tmp_path / name, trust=True)
    assert name in str(caught.value)


def test_wrong_and_missing_shapes():
    with pytest.raises(ConversionError, match=r"input shape of Linear is not known.*--input-shape"):
        convert(torch.nn.Linear(3, 2))
    with pytest.raises(ConversionError, match="does not run on inputs of shape 1×4"):
        convert(torch.nn.Linear(3, 2), input_shape=(1, 4))
    with pytest.raises(ConversionError, match="below 1"):
        convert(torch.nn.Linear(3, 2), input_shape=(0, 3))


def test_missing_onnxscript_names_the_command(monkeypatch):
    import onnxviz.converters.torch_call as call

    monkeypatch.setattr(call, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingDependencyError, match=r"needs onnxscript; pip install 'onnxviz\[torch\]'"):
        convert(torch.nn.Linear(3, 2), input_shape=(1, 3))


def test_nothing_is_printed(capfd, recwarn):
    convert(net("always_one_branch"), trust=True)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not list(recwarn)


def test_it_does_not_accept_other_things(tmp_path):
    from onnxviz.converters import Source

    converter = TorchConverter()
    assert not converter.accepts(Source("x.keras", path=Path("x.keras")))
    assert not converter.accepts(Source("list", network=[]))
    assert converter.accepts(Source("Linear", network=torch.nn.Linear(1, 1)))


def test_outputs_are_named_as_the_network_names_them() -> None:
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            y = self.fc(x)
            return {"logits": y, "parts": [y.mean(1), y * 2]}

    def names(network: torch.nn.Module) -> list[str | None]:
        return [v.name for v in convert(network, input_shape=(1, 4)).model.graph.outputs]

    assert names(Named()) == ["logits", "parts", "parts_1"]
    assert names(torch.nn.Sequential(torch.nn.Linear(4, 2))) == ["output"]


def test_nodes_that_torch_puts_in_outside_of_any_module_have_no_made_up_layer(monkeypatch):
    from onnxviz.converters import torch_export
    from onnxviz.graph.provenance import NO_MODULE

    source = f"{LENET.with_name('vit_digits_torch.py')}:vit_digits"

    def exported() -> bytes:
        return to_proto(convert(source, trust=True, parity=False).model).SerializeToString()

    assert NO_MODULE.encode() not in exported()
    monkeypatch.setattr(torch_export, "drop_empty_scopes", lambda model: None)
    assert NO_MODULE.encode() in exported(), "torch no longer writes it: this need not be done"
