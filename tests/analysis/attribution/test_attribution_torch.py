"""Attributions of exported networks against Captum, and against references written from the papers in torch."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")

sys.path.insert(0, str(Path(__file__).parents[2] / "converters"))
import torch_zoo  # noqa: E402

from onnxviz.analysis.attribution.baselines import blurred  # noqa: E402
from onnxviz.analysis.attribution.families import cam, gradients  # noqa: E402
from onnxviz.analysis.attribution.run import Runner  # noqa: E402
from onnxviz.api import attribute  # noqa: E402
from tests.gradient.test_torch_parity import exported  # noqa: E402

LIMIT = 1e-4  # of the L2 norm of the difference to that of the reference


class Logits(torch_zoo.Volume):  # type: ignore[misc]
    """The network that ends in a softmax, without it: what is explained is the score before."""

    def forward(self, scan: Any) -> Any:
        return self.head(self.features(scan).amax((2, 3, 4)))


class Net:
    """A network in torch and as ONNX, with two samples."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.net = getattr(torch_zoo, name)().eval()
        self.x = torch.randn(2, *torch_zoo.SHAPES[name][1:])
        self.model: ir.Model = exported(self.net, self.x[:1], "torchscript")
        self.feed = {str(self.model.graph.inputs[0].name): self.x.numpy()}
        self.score = self.net
        if name == "volume":
            self.score = Logits()
            self.score.load_state_dict(self.net.state_dict())
            self.score.eval()
        if name == "unet":
            self.score = lambda x: self.net(x)[:, :, 5, 7]
        self.target: Any = f"{self.model.graph.outputs[0].name}:1,5,7" if name == "unet" else None
        self.classes = [1, 1] if name == "unet" else self.score(self.x).argmax(1).tolist()

    def attribute(self, method: str, **options: Any) -> Any:
        return attribute(self.model, self.feed, method=method, target=self.target, providers="cpu", **options)

    def gradient(self, x: Any) -> Any:
        x = x.detach().clone().requires_grad_()
        score = self.score(x)
        score[torch.arange(len(x)), torch.tensor(self.classes)[: len(x)]].sum().backward()
        return x.grad

    def captum(self, method: Callable[..., Any], **options: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = method(self.score).attribute(self.x.clone().requires_grad_(), target=self.classes, **options)
        return np.asarray(found.detach())


@functools.cache
def opened(name: str) -> Net:
    return Net(name)


@pytest.fixture(params=sorted(torch_zoo.SHAPES))
def net(request: pytest.FixtureRequest) -> Net:
    return opened(request.param)


@pytest.fixture
def resnet() -> Net:
    return opened("resnet")


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.float64(a) - b) / max(np.linalg.norm(np.float64(b)), 1e-30))


def test_saliency_is_that_of_captum(net: Net) -> None:
    found = net.attribute("saliency")
    assert relative(found.values, net.captum(captum.Saliency)) < LIMIT
    assert found.classes is None or list(found.classes) == net.classes
    wanted = net.score(net.x)[torch.arange(2), torch.tensor(net.classes)]
    np.testing.assert_allclose(found.score, wanted.detach(), rtol=1e-4, atol=1e-5)


def test_input_x_gradient_is_that_of_captum(net: Net) -> None:
    assert relative(net.attribute("input-x-gradient").values, net.captum(captum.InputXGradient)) < LIMIT


@pytest.mark.slow
def test_integrated_gradients_are_those_of_captum(net: Net) -> None:
    found = net.attribute("integrated-gradients")
    assert relative(found.values, net.captum(captum.IntegratedGradients)) < LIMIT
    with torch.no_grad():
        base = net.score(torch.zeros_like(net.x))[torch.arange(2), torch.tensor(net.classes)].numpy()
    np.testing.assert_allclose(found.baseline_score, base, rtol=1e-4, atol=1e-5)
    delta = found.values.reshape(2, -1).sum(axis=1, dtype=np.float64) - (found.score - base)
    np.testing.assert_allclose(found.completeness, delta, atol=1e-4)


def test_several_baselines_are_the_mean_of_each(resnet: Net) -> None:
    x = resnet.x.numpy()
    other = blurred(np.float64(x), (2, 3), x.shape[2] / 20).astype(np.float32)
    parts = [
        resnet.captum(captum.IntegratedGradients, baselines=torch.tensor(base), n_steps=12)
        for base in (np.zeros_like(x), other)
    ]
    found = resnet.attribute("integrated-gradients", baseline="zeros,blurred", steps=12)
    assert relative(found.values, np.mean(parts, 0)) < LIMIT


@pytest.fixture(scope="module")
def noisy_gradients() -> np.ndarray:
    """Gradients of six noisy copies of each sample of the ResNet, ``(6, N, …)``."""
    net = opened("resnet")
    return np.stack([np.float64(net.gradient(net.x + torch.tensor(one))) for one in _noise(net, 6, 0.1)])


def _noise(net: Net, copies: int, noise: float) -> np.ndarray:
    """Return the noise of the copies of each sample, ``(copies, N, …)``, drawn as the documentation says."""
    x = net.x.numpy()
    drawn = [
        [np.random.default_rng((0, i, place)).standard_normal(one.shape) * noise * np.ptp(np.float64(one))
         for i, one in enumerate(x)]
        for place in range(copies)
    ]  # fmt: skip
    return np.array(drawn, np.float32)


@pytest.mark.parametrize(
    ("method", "combine"),
    [
        ("smoothgrad", lambda g: g.mean(0)),
        ("smoothgrad-squared", lambda g: (g**2).mean(0)),
        ("vargrad", lambda g: g.var(0)),
    ],
)
def test_noisy_gradients_are_those_of_torch(
    resnet: Net, noisy_gradients: np.ndarray, method: str, combine: Callable[[Any], Any]
) -> None:
    assert relative(resnet.attribute(method, copies=6, noise=0.1).values, combine(noisy_gradients)) < LIMIT


def test_gradient_shap_is_the_expectation_over_the_same_draws(resnet: Net) -> None:
    x, total = np.float64(resnet.x.numpy()), np.zeros(resnet.x.shape)
    lows, highs = x.reshape(2, -1).min(1), x.reshape(2, -1).max(1)
    uniform = np.stack([np.random.default_rng((0, i)).uniform(lows[i], highs[i], x.shape[1:]) for i in range(2)])
    bases = [np.zeros_like(x), uniform]
    for place in range(8):
        rows, ways = [], []
        for i in range(2):
            rng = np.random.default_rng((0, i, place))
            base, part = bases[rng.integers(2)][i], rng.random()
            rows.append(base + part * (x[i] - base))
            ways.append(x[i] - base)
        total += np.float64(resnet.gradient(torch.tensor(np.float32(rows)))) * np.stack(ways) / 8
    found = resnet.attribute("gradient-shap", copies=8)
    assert relative(found.values, total) < LIMIT
    delta = found.values.reshape(2, -1).sum(1) - (found.score - found.baseline_score)
    np.testing.assert_allclose(found.completeness, delta, atol=1e-4)


LAYERS = {"resnet": "layer2", "mobilenet": "blocks", "unet": "down2.body", "recurrent": "conv", "volume": "features"}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_grad_cam_is_that_of_captum(name: str) -> None:
    net = opened(name)
    module = net.net.get_submodule(LAYERS[name])
    if name == "volume":
        module = net.score.get_submodule(LAYERS[name])
    kept: list[Any] = []
    handle = module.register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    net.score(net.x[:1])
    handle.remove()
    tensor = _same(net, kept[0])
    found = net.attribute("grad-cam", layer=tensor, relu=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = captum.LayerGradCam(net.score, module).attribute(net.x, target=net.classes) if name != "unet" else None
    if name == "unet":

        class Score(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = net.net

            def forward(self, x: Any) -> Any:
                return self.net(x)[:, :, 5, 7]

        wanted = captum.LayerGradCam(Score(), module).attribute(net.x, target=net.classes)
    assert relative(found.values, np.asarray(wanted.detach())[:, 0]) < LIMIT


def _same(net: Net, value: Any) -> str:
    """Return the ONNX tensor that holds the same values as a tensor of torch, the last where there are several."""
    from onnxviz.runtime.capture import capture

    feed = {name: array[:1] for name, array in net.feed.items()}
    captured = capture(net.model, feed, providers="cpu", bodies=False)
    same = [
        name for name, record in captured.items()
        if record.array.shape == tuple(value.shape) and np.allclose(record.array, value.numpy(), rtol=1e-3, atol=1e-4)
    ]  # fmt: skip
    return same[-1]


def reference(name: str, a: Any, g: Any) -> Any:
    """Return CAM variants of ``(N, K, H, W)`` in torch, from the equations of the papers."""
    relu = torch.relu
    if name == "grad-cam":
        return relu(torch.einsum("nk,nkhw->nhw", g.flatten(2).mean(2), a))
    if name == "grad-cam++":
        alpha = g.pow(2) / (2 * g.pow(2) + a.flatten(2).sum(2)[:, :, None, None] * g.pow(3) + 1e-6)
        return relu(torch.einsum("nk,nkhw->nhw", (alpha * relu(g)).flatten(2).sum(2), a))
    if name == "hires-cam":
        return torch.einsum("nkhw,nkhw->nhw", g, a)
    if name == "layer-cam":
        return relu(torch.einsum("nkhw,nkhw->nhw", relu(g), a))
    if name == "element-wise-cam":
        return relu(g * a).sum(1)
    if name == "xgrad-cam":
        weights = (g * a).flatten(2).sum(2) / (a.flatten(2).sum(2) + 1e-7)
        return relu(torch.einsum("nk,nkhw->nhw", weights, a))
    block = a if name == "eigen-cam" else a * g
    guide = a.mean(1) if name == "eigen-cam" else block.sum(1)
    rows = block.flatten(2).transpose(1, 2)
    rows = rows - rows.mean(1, keepdim=True)
    right = torch.linalg.eigh(rows.transpose(1, 2) @ rows)[1][..., -1]
    along = torch.einsum("npk,nk->np", rows, right)
    sign = torch.sign((along * guide.flatten(1)).sum(1, keepdim=True))
    return relu((along * sign).reshape(guide.shape))


@pytest.mark.parametrize("name", sorted(cam.CAMS))
def test_each_cam_is_that_of_its_paper(resnet: Net, name: str) -> None:
    kept: list[Any] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        output.retain_grad()
        kept.append(output)

    handle = resnet.net.layer2.register_forward_hook(keep)
    score = resnet.net(resnet.x)
    handle.remove()
    score[torch.arange(2), torch.tensor(resnet.classes)].sum().backward()
    wanted = reference(name, kept[0].detach().double(), kept[0].grad.double())
    found = resnet.attribute(name)
    assert found.layer.size == tuple(wanted.shape[1:])
    assert found.layer.how == "the last tensor with spatial axes"
    assert relative(found.values, wanted.numpy()) < LIMIT


def test_captums_published_values() -> None:
    """Captum's tests/attr/layer/test_grad_cam.py: 400; 21; [[11.25, 13.5], [20.25, 22.5]]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv, BasicModel_MultiLayer

    picture = torch.arange(16.0).view(1, 1, 4, 4)
    model = exported(BasicModel_ConvNet_One_Conv(), picture, "torchscript")
    feed = {str(model.graph.inputs[0].name): picture.numpy()}
    conv = next(node for node in model.graph if node.op_type == "Conv")
    relu = next(node for node in model.graph if node.op_type == "Relu")
    for node, wanted in ((conv, [[11.25, 13.5], [20.25, 22.5]]), (relu, [[0.0, 4.0], [28.0, 32.5]])):
        name = str(node.outputs[0].name)
        found = attribute(model, feed, method="grad-cam", target=0, layer=name, relu=False, providers="cpu")
        np.testing.assert_allclose(found.values[0], wanted, atol=1e-4)
    assert _flat(BasicModel_MultiLayer(), [[0.0, 100.0, 0.0]], lambda n: n.op_type == "Gemm") == pytest.approx(
        400, abs=0.01
    )
    net = BasicModel_MultiLayer(multi_input_module=True)
    assert _flat(net, [[0.0, 6.0, 0.0]], lambda n: n.op_type == "Relu") == pytest.approx(21, abs=0.01)


def _flat(net: Any, values: list[list[float]], chosen: Callable[[ir.Node], bool]) -> float:
    """Return Grad-CAM of a layer of neurons, which has no positions."""
    x = torch.tensor(values)
    model = exported(net, x, "torchscript")
    name = str(next(node for node in model.graph if chosen(node)).outputs[0].name)
    options: dict[str, Any] = {"target": 0, "layer": name, "providers": "cpu"}
    feed = {str(model.graph.inputs[0].name): x.numpy()}
    gradient = attribute(model, feed, method="saliency", absolute=False, **options)
    return float(cam.grad_cam(np.float64(gradient.inputs[name]), np.float64(gradient.values))[0])


class TestPlanted:
    """Each comparison above must see an error of a thousandth."""

    def test_a_gradient_off_by_a_thousandth(self, resnet: Net, monkeypatch: pytest.MonkeyPatch) -> None:
        lead = Runner.lead
        monkeypatch.setattr(Runner, "lead", lambda self, name, array, count: lead(self, name, array, count) * 1.001)
        assert relative(resnet.attribute("saliency").values, resnet.captum(captum.Saliency)) > 5 * LIMIT

    def test_noise_of_another_scale(
        self, resnet: Net, noisy_gradients: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn = gradients.noisy
        monkeypatch.setattr(gradients, "noisy", lambda case, s, p, seed, noise: drawn(case, s, p, seed, noise * 1.01))
        found = resnet.attribute("smoothgrad", copies=6, noise=0.1)
        assert relative(found.values, noisy_gradients.mean(0)) > 5 * LIMIT

    def test_another_rule_of_integration(self, resnet: Net, monkeypatch: pytest.MonkeyPatch) -> None:
        even = lambda n: (np.linspace(-1, 1, n), np.full(n, 2 / n))  # noqa: E731
        monkeypatch.setattr(np.polynomial.legendre, "leggauss", even)
        ours = resnet.attribute("integrated-gradients", steps=12)
        monkeypatch.undo()
        assert relative(ours.values, resnet.captum(captum.IntegratedGradients, n_steps=12)) > 5 * LIMIT

    @pytest.mark.parametrize("name", sorted(cam.CAMS))
    def test_activations_of_one_channel_off(self, resnet: Net, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        at_layer = cam.at_layer
        right = resnet.attribute(name).values

        def wrong(*given: Any) -> Any:
            activations, gradients_, cuts = at_layer(*given)
            return activations * np.linspace(1, 1.01, activations.shape[1])[None, :, None, None], gradients_, cuts

        monkeypatch.setattr(cam, "at_layer", wrong)
        assert relative(resnet.attribute(name).values, right) > 5 * LIMIT
