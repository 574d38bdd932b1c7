"""The gradient of a gradient: what the rules write is differentiated again, against torch's double backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from onnxviz.gradient.model import gradient_model  # noqa: E402
from onnxviz.gradient.registry import Table, standard_table  # noqa: E402
from onnxviz.graph.model import to_proto  # noqa: E402
from tests.gradient.rules_case import relative, run  # noqa: E402
from tests.gradient.test_torch_parity import exported  # noqa: E402

LIMIT = 1e-5


class Net(nn.Module):
    """Modules, and what is made of them."""

    def __init__(self, forward: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.called = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.called(x, *self.parts)


def _activations(x: Tensor) -> Tensor:
    mixed = functional.elu(x) * functional.softplus(x) + functional.mish(x) * torch.erf(x) + functional.hardswish(x)
    return torch.log_softmax(mixed + x.norm(dim=-1, keepdim=True), -1)


def _attention(x: Tensor, q: nn.Module, k: nn.Module) -> Tensor:
    return torch.softmax(q(x) @ k(x).transpose(1, 2) / 2.4, -1) @ x


def _resized(x: Tensor, conv: nn.Module) -> Tensor:
    wide = functional.interpolate(torch.tanh(conv(x)), scale_factor=2, mode="bilinear", align_corners=False)
    return wide[:, 1:, 1:].cumsum(-1) ** 2


def _picked(x: Tensor) -> Tensor:
    index = torch.tensor([[[0, 1, 2, 0, 1, 2]]]).expand(2, 1, 6)
    return torch.gather(x**3, 1, index) * x.amax(1, keepdim=True) + x.topk(2, 1)[0].prod(1, keepdim=True)


def _convolved(x: Tensor, first: nn.Module, pool: nn.Module, second: nn.Module) -> Tensor:
    return torch.tanh(second(pool(torch.tanh(first(x)))))


def _pooled(pool: nn.Module, stride: int = 1) -> Net:
    return Net(_convolved, nn.Conv2d(2, 4, 3, stride, 1), pool, nn.Conv2d(4, 3, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer norm, gelu": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)), (4, 6)
    ),
    "average pool": (lambda: _pooled(nn.AvgPool2d(2)), (2, 2, 9, 8)),
    "max pool": (lambda: _pooled(nn.MaxPool2d(3, 2, 1)), (2, 2, 9, 8)),
    "strides": (lambda: _pooled(nn.Identity(), 2), (2, 2, 9, 8)),
    "group norm, transposed, batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.GroupNorm(2, 4), nn.SiLU(),
                              nn.ConvTranspose2d(4, 2, 2, 2), nn.BatchNorm2d(2), nn.Sigmoid()), (2, 2, 8, 8)
    ),
    "attention": (lambda: Net(_attention, nn.Linear(6, 6), nn.Linear(6, 6)), (2, 5, 6)),
    "activations": (lambda: Net(_activations), (3, 7)),
    "resize, slice, sums": (lambda: Net(_resized, nn.Conv2d(2, 3, 3, 1, 1)), (1, 2, 5, 6)),
    "instance norm, prelu, borders": (
        lambda: Net(lambda x, norm, act: functional.pad(act(norm(x)), (1, 2, 0, 1), mode="reflect") ** 2,
                    nn.InstanceNorm2d(2, affine=True), nn.PReLU(2)), (2, 2, 6, 7)
    ),
    "lstm": (lambda: Net(lambda x, lstm: lstm(x)[0], nn.LSTM(6, 5, batch_first=True)), (2, 4, 6)),
    "gru": (lambda: Net(lambda x, gru: gru(x)[0], nn.GRU(6, 5, batch_first=True)), (2, 4, 6)),
    "gather, top k": (lambda: Net(_picked), (2, 3, 6)),
}  # fmt: skip


def second(name: str, exporter: str, table: Table | None = None) -> list[float]:
    """Return the errors of the gradient, and of its own gradients by the input and by what entered the output."""
    torch.manual_seed(1)
    made, shape = NETS[name]
    net = made().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(*shape, requires_grad=True)
    y = net(x)
    u = torch.randn_like(y).requires_grad_()
    (first,) = torch.autograd.grad(y, x, u, create_graph=True)
    v = torch.randn_like(first)
    wanted = [first, *torch.autograd.grad(first, (x, u), v)]
    model = exported(net, x.detach(), exporter)
    of, entering = str(model.graph.outputs[0].name), str(model.graph.inputs[0].name)
    one = gradient_model(model, of, [entering])
    inner = one.gradients[entering]
    two = gradient_model(one.model, inner, [entering, str(one.seed)], table=table)
    onnx.checker.check_model(to_proto(two.model), full_check=True)
    feeds: dict[Any, np.ndarray] = {entering: x, one.seed: u, two.seed: v}
    feeds = {key: tensor.detach().numpy() for key, tensor in feeds.items()}
    found = run(two.model, feeds, [inner, *(two.gradients[key] for key in (entering, str(one.seed)))])
    return [relative(ours, theirs.detach().numpy()) for ours, theirs in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("exporter", ["torch.export", "torchscript"])
def test_the_second_gradient_is_that_of_autograd(name: str, exporter: str) -> None:
    assert max(second(name, exporter)) < LIMIT


def test_a_rule_off_by_a_thousandth_is_caught() -> None:
    off = standard_table().changed({("", "Tanh"): lambda s, dy: s.ops.Mul(
        standard_table().rows["", "Tanh"][0].rule(s, dy), s.ops.scalar(1.001, dy))})  # fmt: skip
    first, by_input, _ = second("average pool", "torchscript", off)
    assert first < LIMIT
    assert by_input > 10 * LIMIT
