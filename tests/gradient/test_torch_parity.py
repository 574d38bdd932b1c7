"""Gradients of exported networks against torch's autograd: the input, every weight, and tensors between."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "converters"))
import torch_zoo  # noqa: E402

from onnxviz.gradient.registry import standard_table  # noqa: E402
from onnxviz.graph.model import from_proto  # noqa: E402
from onnxviz.runtime.capture import capture  # noqa: E402
from tests.gradient.numeric import gradients  # noqa: E402

LIMIT = 1e-5  # of the L2 norm of the difference to that of torch's gradient


def exported(net: Any, x: Any, exporter: str) -> ir.Model:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "torch.export":
            program = torch.onnx.export(net, (x,), dynamo=True, optimize=False, verbose=False)
            return from_proto(program.model_proto)
        file = io.BytesIO()
        torch.onnx.export(
            net, (x,), file, dynamo=False, opset_version=17, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
        return from_proto(onnx.load_from_string(file.getvalue()))


def network(name: str) -> Any:
    """Return a network whose weights differ from one another, so that a value tells which of them it is.

    Exporters merge equal ones. What works in place overwrites the tensor whose gradient a hook keeps.
    """
    torch.manual_seed(0)
    net = getattr(torch_zoo, name)().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
                parameter.add_(0.1 * torch.randn_like(parameter))
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return net


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.float64(a) - b) / max(np.linalg.norm(np.float64(b)), 1e-30))


class Autograd:
    """A network run by torch, with the gradients of its parameters and of what its modules return."""

    def __init__(self, net: Any, x: Any) -> None:
        self.kept: list[Any] = []
        hooks = [m.register_forward_hook(self._keep) for m in net.modules() if not list(m.children())]
        self.x = x.clone().requires_grad_()
        self.y = net(self.x)
        for hook in hooks:
            hook.remove()
        torch.manual_seed(3)
        self.seed = torch.randn_like(self.y)
        self.y.backward(self.seed)
        self.parameters = {name: p for name, p in net.named_parameters() if p.grad is not None}

    def _keep(self, module: Any, inputs: Any, output: Any) -> None:
        if torch.is_tensor(output) and output.requires_grad:
            output.retain_grad()
            self.kept.append((output, output.detach().clone()))


def counterparts(model: ir.Model, theirs: Autograd) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return ONNX tensor -> its gradient by torch and its value, matched by value: weights, and three tensors between."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    constants = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    for parameter in theirs.parameters.values():
        array, grad = parameter.detach().numpy(), parameter.grad.numpy()
        for name, constant in constants.items():
            if name in found or constant.dtype != np.float32 or constant.size < 2:
                continue
            if constant.shape == array.shape and np.array_equal(constant, array):
                found[name] = grad, constant
                break
            if array.ndim == 2 and constant.shape == array.shape[::-1] and np.array_equal(constant, array.T):
                found[name] = grad.T, constant
                break
    captured = capture(
        model, {str(model.graph.inputs[0].name): theirs.x.detach().numpy()}, providers="cpu", bodies=False
    )
    between = []
    for output, value in theirs.kept:
        if output.grad is None or output is theirs.y:
            continue
        for name, record in captured.items():
            same = record.array.shape == tuple(value.shape) and record.array.dtype == np.float32
            if same and name not in found and np.allclose(record.array, value.numpy(), rtol=1e-4, atol=1e-5):
                found[name] = output.grad.numpy(), record.array
                between.append(name)
                break
    for name in between[3:] if len(between) > 3 else []:
        del found[name]
    return found


@pytest.mark.parametrize("exporter", ["torch.export", "torchscript"])
@pytest.mark.parametrize("name", sorted(torch_zoo.SHAPES))
def test_every_gradient_is_that_of_autograd(name: str, exporter: str) -> None:
    net = network(name)
    x = torch.randn(*torch_zoo.SHAPES[name])
    theirs = Autograd(net, x)
    model = exported(net, x, exporter)
    matched = counterparts(model, theirs)
    feed, of = str(model.graph.inputs[0].name), str(model.graph.outputs[0].name)
    wrt = [feed, *matched]
    ours, _ = gradients(model, {feed: x.numpy()}, of, wrt, theirs.seed.numpy())
    wanted = {feed: theirs.x.grad.numpy()} | {tensor: grad for tensor, (grad, _) in matched.items()}
    errors = {tensor: relative(ours[tensor], wanted[tensor]) for tensor in wrt}
    assert {tensor: error for tensor, error in errors.items() if error > LIMIT} == {}
    weights = sum(tensor in model.graph.initializers for tensor in matched)
    assert len(matched) - weights >= (3 if name != "recurrent" else 1)
    assert weights == len(theirs.parameters)


def test_the_gradient_of_a_merged_weight_is_the_sum_of_theirs() -> None:
    """The exporter keeps one of equal weights: here the norms' ones, the biases' zeros."""
    torch.manual_seed(0)
    net = torch_zoo.vit().eval()
    x = torch.randn(*torch_zoo.SHAPES["vit"])
    theirs = Autograd(net, x)
    model = exported(net, x, "torchscript")
    sums: dict[tuple[Any, bytes], np.ndarray] = {}
    for parameter in theirs.parameters.values():
        key = tuple(parameter.shape), parameter.detach().numpy().tobytes()
        sums[key] = sums.get(key, 0) + parameter.grad.numpy()
    arrays = {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value is not None}
    wanted = {n: sums[a.shape, a.tobytes()] for n, a in arrays.items() if (a.shape, a.tobytes()) in sums}
    assert len(wanted) < len(theirs.parameters)
    feed, of = str(model.graph.inputs[0].name), str(model.graph.outputs[0].name)
    ours, _ = gradients(model, {feed: x.numpy()}, of, list(wanted), theirs.seed.numpy())
    assert {name: error for name, grad in wanted.items() if (error := relative(ours[name], grad)) > LIMIT} == {}


def test_a_rule_off_by_a_thousandth_is_caught() -> None:
    net = network("resnet")
    x = torch.randn(*torch_zoo.SHAPES["resnet"])
    theirs = Autograd(net, x)
    model = exported(net, x, "torch.export")
    feed, of = str(model.graph.inputs[0].name), str(model.graph.outputs[0].name)
    relu = standard_table().rows["", "Relu"][0].rule
    off = standard_table().changed({("", "Relu"): lambda s, dy: s.ops.Mul(relu(s, dy), s.ops.scalar(1.001, dy))})
    ours, _ = gradients(model, {feed: x.numpy()}, of, [feed], theirs.seed.numpy(), table=off)
    assert relative(ours[feed], theirs.x.grad.numpy()) > 100 * LIMIT
