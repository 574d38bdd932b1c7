"""Rules against Captum, on its own test networks and on networks as people export them."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("captum", reason="Captum is not installed")
from torch import nn  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "converters"))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch_zoo
    from captum.attr import LRP, Deconvolution, DeepLift, GuidedBackprop
    from captum.attr._utils.custom_modules import Addition_Module
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
    from captum.testing.helpers import basic_models

from onnxviz.gradient.overrides.names import rules_table  # noqa: E402
from tests.gradient.overrides_nets import LIMIT, apart, carried, exported, planted  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Residual(torch_zoo.Residual):
    """Each rectifier and sum a module of its own, as Captum needs it."""

    def forward(self, x: Any) -> Any:
        kept = x if self.downsample is None else self.downsample(x)
        return self.last(self.total(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))), kept))


class UNet(torch_zoo.UNet):
    def forward(self, image: Any) -> Any:
        first, x = self.down1(image)
        second, x = self.down2(x)
        x = self.merge(torch.cat([self.up(self.middle(x)), second], 1))
        return self.head(torch.cat([self.resize(self.last(x)), first], 1)).amax((2, 3))


class MeanUNet(UNet):
    def forward(self, image: Any) -> Any:
        first, x = self.down1(image)
        second, x = self.down2(x)
        x = self.merge(torch.cat([self.up(self.middle(x)), second], 1))
        return self.head(torch.cat([self.resize(self.last(x)), first], 1)).mean((2, 3))


class OneWay(UNet):
    """Without the ways across: Captum counts the relevance of a tensor that a function reads as well as a module twice."""

    def forward(self, image: Any) -> Any:
        x = self.down2.pool(self.down2.body(self.down1.pool(self.down1.body(image))))
        return torch.flatten(self.mean(self.head(self.last(self.up(self.inner(self.middle(x)))))), 1)


class Volume(torch_zoo.Volume):
    def forward(self, scan: Any) -> Any:
        return self.head(torch.flatten(self.features(scan), 1))


def _leaves(net: nn.Module, change: Callable[[nn.Module], nn.Module]) -> None:
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if not list(child.children()):
                module._modules[name] = change(child)


def resnet() -> nn.Module:
    net = torch_zoo.resnet()
    _leaves(net, lambda child: nn.ReLU() if isinstance(child, nn.ReLU) else child)
    for module in list(net.modules()):
        if isinstance(module, torch_zoo.Residual):
            module.__class__, module.last, module.total = Residual, nn.ReLU(), Addition_Module()
    return net.eval()


def unet() -> nn.Module:
    net = torch_zoo.unet()
    net.__class__, net.last, net.inner, net.mean = UNet, nn.ReLU(), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    _leaves(net, lambda child: nn.ReLU() if isinstance(child, nn.LeakyReLU) else child)
    return net.eval()


def volume() -> nn.Module:
    net = torch_zoo.volume()
    rectified = (nn.ELU, nn.PReLU)
    _leaves(net, lambda child: nn.ReLU() if isinstance(child, rectified) else child)
    net.features[5] = nn.Identity()
    net.head = nn.Linear(8 * 4**3, 4)
    net.__class__ = Volume
    return net.eval()


def without_max_pooling(net: nn.Module) -> nn.Module:
    """Captum's pooling behind a rectifier is none of its rule: what it returns there does not add up."""
    _leaves(net, lambda c: nn.AvgPool2d(c.kernel_size, c.stride, c.padding) if isinstance(c, nn.MaxPool2d) else c)
    return net


ZOO = {"resnet": resnet, "unet": unet, "volume": volume}


def net_of(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(9)
    net = ZOO[name]()
    return net, torch.rand(2, *torch_zoo.SHAPES[name][1:])


def compared(net: nn.Module, x: Any, rules: str, target: int, theirs: Any, op_type: str) -> None:
    model, wanted = exported(net, x), theirs.detach().numpy()
    arrays, _, _ = carried(model, rules, {"x0": x.numpy()}, f"y[:, {target}]")
    assert wanted.any()
    assert apart(arrays[0], wanted) < LIMIT
    wrong, _, _ = carried(model, planted(rules_table(rules), op_type), {"x0": x.numpy()}, f"y[:, {target}]")
    assert apart(wrong[0], wanted) > 5 * LIMIT


@pytest.mark.parametrize("name", list(ZOO))
@pytest.mark.parametrize(("rules", "method"), [("guided", GuidedBackprop), ("deconvnet", Deconvolution)])
def test_rectifiers(name: str, rules: str, method: Any) -> None:
    net, x = net_of(name)
    theirs = method(copy.deepcopy(net)).attribute(x.clone().requires_grad_(), target=1)
    compared(net, x, rules, 1, theirs, "Relu")


@pytest.mark.parametrize("name", list(ZOO))
def test_deeplift(name: str) -> None:
    net, x = net_of(name)
    net = without_max_pooling(net)
    if name == "unet":  # Captum does not see the largest element that a function takes
        net.__class__ = MeanUNet
    theirs = DeepLift(copy.deepcopy(net)).attribute(x, torch.zeros_like(x), target=1)
    compared(net, x, "deeplift", 1, theirs, "Relu")


LAYERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
EPSILON = 1e-3  # with Captum's 1e-9, what float32 rounds decides where a sum is next to 0
RULES: dict[str, Callable[[], Any]] = {
    f"lrp-epsilon:fold=0,epsilon={EPSILON}": EpsilonRule,
    f"lrp-gamma:fold=0,bias=kept,epsilon={EPSILON}": GammaRule,
    f"lrp-z-plus:fold=0,bias=zero,epsilon={EPSILON}": lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True),
}


def stabilised(rule: Any) -> Any:
    rule.STABILITY_FACTOR = EPSILON
    return rule


@pytest.mark.parametrize("name", list(ZOO))
@pytest.mark.parametrize("rules", list(RULES))
def test_lrp(name: str, rules: str) -> None:
    net, x = net_of(name)
    if name == "unet":
        net.__class__ = OneWay
    ruled = copy.deepcopy(net)
    for module in ruled.modules():
        if isinstance(module, LAYERS):
            module.rule = stabilised(RULES[rules]())
        elif not list(module.children()) and not isinstance(module, (nn.ReLU, nn.Dropout)):
            moves = isinstance(module, (nn.MaxPool2d, nn.Identity))  # which divide nothing
            module.rule = EpsilonRule() if moves else stabilised(EpsilonRule())
    theirs = LRP(ruled).attribute(x.clone().requires_grad_(), target=1)
    compared(net, x, rules, 1, theirs, "Conv")


def test_captums_own_networks() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) + 1
    net = basic_models.BasicModel_ConvNet_One_Conv().eval()
    for rules, method in (("guided", GuidedBackprop), ("deconvnet", Deconvolution)):
        theirs = method(copy.deepcopy(net)).attribute(x.clone().requires_grad_(), target=0)
        compared(net, x, rules, 0, theirs, "Relu")
    compared(net, x, "deeplift", 0, DeepLift(copy.deepcopy(net)).attribute(x, torch.zeros_like(x), target=0), "Relu")
    simple, x = basic_models.SimpleLRPModel(inplace=False).eval(), torch.tensor([[1.0, 2.0, 3.0]])
    simple.linear.weight.data[0][0] = -2.0
    for rules, rule in RULES.items():
        ruled = copy.deepcopy(simple)
        ruled.linear.rule, ruled.linear2.rule = stabilised(rule()), stabilised(rule())
        compared(simple, x, rules, 0, LRP(ruled).attribute(x.clone().requires_grad_(), target=0), "Relu")
    pool = basic_models.LinearMaxPoolLinearModel().eval()
    x, baseline = torch.tensor([[1.0, 2, 3, 9], [4, 0, 1, 2]]), torch.tensor([[0.0, 7, 1, 2], [1, 1, 8, 0]])
    theirs = DeepLift(pool).attribute(x, baseline, target=0).detach().numpy()
    arrays, _, _ = carried(exported(pool, x), "deeplift", {"x0": x.numpy(), "x0.baseline": baseline.numpy()}, "y[:, 0]")
    np.testing.assert_allclose(arrays[0], theirs, atol=1e-5)
    tanh = basic_models.TanhDeepLiftModel().eval()
    a, b = torch.tensor([[0.7]]), torch.tensor([[1.2]])
    theirs = DeepLift(tanh).attribute((a, b), (torch.zeros(1, 1), torch.zeros(1, 1)))
    arrays, _, _ = carried(exported(tanh, a, b), "deeplift", {"x0": a.numpy(), "x1": b.numpy()}, "y[:, 0]")
    np.testing.assert_allclose(np.ravel(arrays), [float(t.detach()) for t in theirs], rtol=LIMIT)


def test_a_target_softmax() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Softmax(1)).eval()
    x, baseline = torch.rand(1, 6), torch.zeros(1, 6)
    compared(net, x, "deeplift", 2, DeepLift(copy.deepcopy(net)).attribute(x, baseline, target=2), "Relu")
