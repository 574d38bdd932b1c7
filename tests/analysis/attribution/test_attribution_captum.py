"""Perturbations, overrides and attention against Captum, and against references written from the papers in torch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
    from captum.testing.helpers import basic_models
from torch.nn import functional  # noqa: E402

from onnxviz.analysis.attribution.families import attention, overrides, rise, score_cam  # noqa: E402
from onnxviz.analysis.attribution.result import Attribution  # noqa: E402
from onnxviz.analysis.attribution.windows import Windows  # noqa: E402
from onnxviz.api import attribute  # noqa: E402
from onnxviz.gradient.overrides.names import rules_table  # noqa: E402
from tests.analysis.attribution.test_attribution_torch import Net, opened, relative  # noqa: E402
from tests.gradient.overrides_nets import exported, planted  # noqa: E402
from tests.gradient.test_captum import MeanUNet, net_of, stabilised, without_max_pooling  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
LIMIT = 1e-4


# perturbations

OCCLUDED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # windows and strides of positions
    "resnet": ((16, 24), (8, 16)),
    "mobilenet": ((8, 8), (8, 8)),
    "vit": ((9, 8), (4, 8)),
    "recurrent": ((9,), (4,)),
    "volume": ((4, 5, 4), (4, 3, 4)),
}


def ours_occluded(own: Net, name: str) -> np.ndarray:
    patch, stride = OCCLUDED[name]
    return own.attribute("occlusion", patch="x".join(map(str, patch)), stride=stride).values


@pytest.mark.parametrize("name", sorted(OCCLUDED))
def test_occlusion_is_that_of_captum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, (patch, stride) = opened(name), OCCLUDED[name]
    channels = own.x.shape[1]
    with torch.no_grad():
        wanted = own.captum(
            captum.Occlusion, sliding_window_shapes=(channels, *patch), strides=(channels, *stride), baselines=0,
            perturbations_per_eval=32,
        )  # fmt: skip
    assert wanted.any()
    assert relative(ours_occluded(own, name), wanted) < LIMIT
    at = Windows.at
    monkeypatch.setattr(Windows, "at", lambda self, place, rank: at(self, max(place - 1, 0), rank))
    assert relative(ours_occluded(own, name), wanted) > 5 * LIMIT, "a window that is off by one must show"


def test_feature_ablation_is_that_of_captum() -> None:
    own = opened("recurrent")
    with torch.no_grad():
        wanted = own.captum(captum.FeatureAblation, perturbations_per_eval=60)
        groups = torch.arange(240).reshape(4, 60) // 17
        grouped = own.captum(
            captum.FeatureAblation, feature_mask=groups[None], baselines=0.3, perturbations_per_eval=15
        )
    assert relative(own.attribute("feature-ablation").values, wanted) < LIMIT
    fill = np.full(own.x.shape[1:], 0.3, np.float32)
    assert relative(own.attribute("feature-ablation", groups=groups.numpy(), fill=fill).values, grouped) < LIMIT
    assert relative(own.attribute("feature-ablation", groups=groups.numpy() // 2, fill=fill).values, grouped) > LIMIT


def rise_reference(own: Net, count: int, probability: bool, centred: bool) -> np.ndarray:
    """Return RISE in torch: masks interpolated as the paper says, from the same random numbers."""
    height, width = own.x.shape[2:]
    cells = [-(-height // 7), -(-width // 7)]
    masks = []
    for place in range(count):
        rng = np.random.default_rng((0, place))
        grid = torch.tensor(rng.random((7, 7)) < 0.5).float()[None, None]
        down, across = (int(rng.integers(cell)) for cell in cells)
        large = functional.interpolate(grid, size=(8 * cells[0], 8 * cells[1]), mode="bilinear", align_corners=False)
        masks.append(large[0, 0, down : down + height, across : across + width].double())
    every = torch.stack(masks)
    with torch.no_grad():
        scores = own.score(torch.cat([own.x * one.float() for one in masks])).reshape(count, 2, -1)
    scores = (scores.softmax(2) if probability else scores)[:, torch.arange(2), torch.tensor(own.classes)].double()
    scores = scores - scores.mean(0) if centred else scores
    return np.asarray(torch.einsum("mn,mhw->nhw", scores, every) / count / 0.5)


@pytest.mark.parametrize(("probability", "centred"), [(True, False), (True, True), (False, True)])
def test_rise_is_that_of_its_paper(probability: bool, centred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened("resnet")
    wanted = rise_reference(own, 24, probability, centred)

    def ours() -> np.ndarray:
        return own.attribute("rise", masks=24, probability=probability, centred=centred).values

    found = ours()
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    assert relative(found[:, 0], wanted) < LIMIT
    mask = rise.mask
    monkeypatch.setattr(rise, "mask", lambda grid, *rest: np.roll(mask(grid, *rest), 1, axis=-1))
    assert relative(ours()[:, 0], wanted) > 5 * LIMIT, "masks that are shifted by a pixel must show"


def at_layer2(own: Net, change: Callable[[Any], Any] | None = None) -> tuple[Any, Any]:
    """Return the last layer of the ResNet and its scores, the layer changed on the way."""
    kept: list[Any] = []

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        kept.append(output)
        return output if change is None else change(output.clone())

    handle = own.net.layer2.register_forward_hook(hook)
    with torch.no_grad():
        scores = own.score(own.x)[torch.arange(2), torch.tensor(own.classes)]
    handle.remove()
    return kept[0], scores


def score_cam_reference(own: Net) -> np.ndarray:
    a, _ = at_layer2(own)
    seen = functional.interpolate(a, size=own.x.shape[2:], mode="bilinear", align_corners=False)
    low, high = seen.amin((2, 3), keepdim=True), seen.amax((2, 3), keepdim=True)
    seen = (seen - low) / (high - low).clamp_min(1e-30)
    scores = []
    for k in range(a.shape[1]):
        with torch.no_grad():
            scores.append(own.score(own.x * seen[:, k : k + 1])[torch.arange(2), torch.tensor(own.classes)])
    stacked = torch.stack(scores, 1)
    stacked[(a.amax((2, 3)) == a.amin((2, 3)))] = -torch.inf
    return np.asarray(torch.relu(torch.einsum("nk,nkhw->nhw", stacked.softmax(1), a)))


def test_score_cam_is_that_of_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened("resnet")
    wanted = score_cam_reference(own)
    assert relative(own.attribute("score-cam").values, wanted) < LIMIT
    enlarged = score_cam.enlarged
    monkeypatch.setattr(score_cam, "enlarged", lambda array, sizes: enlarged(array, sizes, nearest=True))
    assert relative(own.attribute("score-cam").values, wanted) > 5 * LIMIT, "another enlargement must show"


def test_ablation_cam_is_that_of_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened("resnet")
    a, whole = at_layer2(own)

    def without(k: int) -> Any:
        def change(output: Any) -> Any:
            output[:, k] = 0
            return output

        return at_layer2(own, change)[1]

    weights = torch.stack([(whole - without(k)) / whole.abs() for k in range(a.shape[1])], 1)
    wanted = np.asarray(torch.relu(torch.einsum("nk,nkhw->nhw", weights, a)))
    assert wanted.any()
    assert relative(own.attribute("ablation-cam").values, wanted) < LIMIT
    monkeypatch.setattr(score_cam, "_zero", lambda *given: 0.01)
    assert relative(own.attribute("ablation-cam").values, wanted) > 5 * LIMIT, "another zero must show"


# other rules


def carried(net_: Any, x: Any, method: str, target: int = 1, **options: Any) -> Attribution:
    return attribute(exported(net_, x), {"x0": x.numpy()}, method=method, target=target, providers="cpu", **options)


def off(monkeypatch: pytest.MonkeyPatch, op_type: str) -> None:
    """Let the rules of an operator be off by a thousandth."""
    monkeypatch.setattr(overrides, "rules_table", lambda rules: planted(rules_table(rules), op_type))


@pytest.mark.parametrize("name", ["resnet", "unet", "volume"])
@pytest.mark.parametrize(("ours", "method"), [("guided-backprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")])
def test_rectifiers_are_those_of_captum(name: str, ours: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, x = net_of(name)
    wanted = getattr(captum, method)(copy.deepcopy(own)).attribute(x.clone().requires_grad_(), target=1)
    assert relative(carried(own, x, ours).values, wanted.detach().numpy()) < LIMIT
    off(monkeypatch, "Relu")
    assert relative(carried(own, x, ours).values, wanted.detach().numpy()) > 5 * LIMIT


@pytest.mark.parametrize(("ours", "theirs"), [("nearest", "nearest"), ("linear", "bilinear")])
def test_guided_grad_cam_is_that_of_captum(ours: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, x = net_of("resnet")
    twin = copy.deepcopy(own)
    wanted = captum.GuidedGradCam(twin, twin.layer2).attribute(
        x.clone().requires_grad_(), target=1, interpolate_mode=theirs
    )
    found = carried(own, x, "guided-grad-cam", interpolation=ours)
    assert (found.layer, found.values.shape) == (None, tuple(x.shape))
    assert relative(found.values, wanted.detach().numpy()) < LIMIT
    off(monkeypatch, "Relu")
    assert relative(carried(own, x, "guided-grad-cam", interpolation=ours).values, wanted.detach().numpy()) > 5 * LIMIT


@pytest.mark.parametrize("name", ["resnet", "unet", "volume"])
def test_deeplift_is_that_of_captum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, x = net_of(name)
    own = without_max_pooling(own)
    if name == "unet":  # Captum does not see the largest element that a function takes
        own.__class__ = MeanUNet
    base = 0.2 * torch.ones_like(x)
    wanted, delta = captum.DeepLift(copy.deepcopy(own)).attribute(x, base, target=1, return_convergence_delta=True)
    found = carried(own, x, "deeplift", baseline=base.numpy())
    assert relative(found.values, wanted.detach().numpy()) < LIMIT
    np.testing.assert_allclose(found.completeness, delta.detach(), atol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(found.baseline_score, own(base)[:, 1], rtol=1e-4, atol=1e-5)
    off(monkeypatch, "Relu")
    wrong = carried(own, x, "deeplift", baseline=base.numpy())
    assert relative(wrong.values, wanted.detach().numpy()) > 5 * LIMIT
    assert np.abs(wrong.completeness).max() > 10 * np.abs(found.completeness).max(), "the sum tells it, too"


def test_lrp_is_that_of_captum() -> None:
    own, x = net_of("resnet")
    ruled = copy.deepcopy(own)
    for module in ruled.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.rule = stabilised(EpsilonRule())
        elif not list(module.children()) and not isinstance(module, torch.nn.ReLU):
            module.rule = EpsilonRule() if isinstance(module, torch.nn.MaxPool2d) else stabilised(EpsilonRule())
    wanted = captum.LRP(ruled).attribute(x.clone().requires_grad_(), target=1).detach().numpy()
    found = carried(own, x, "lrp", composite="epsilon", epsilon=1e-3, fold=False)
    assert relative(found.values, wanted) < LIMIT
    np.testing.assert_allclose(found.completeness, wanted.reshape(2, -1).sum(1) - found.score, rtol=1e-3, atol=1e-4)
    assert relative(carried(own, x, "lrp", composite="epsilon", epsilon=2e-3, fold=False).values, wanted) > LIMIT


def test_captums_published_values() -> None:
    """Captum's test_guided_backprop, test_deconvolution, test_deeplift_basic and test_lrp."""
    x = torch.arange(16.0).view(1, 1, 4, 4)
    one = basic_models.BasicModel_ConvNet_One_Conv().eval()
    guided = [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
    deconvolved = [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]
    np.testing.assert_allclose(carried(one, x, "guided-backprop", 0).values[0, 0], guided, atol=1e-5)
    np.testing.assert_allclose(carried(one, x, "deconvnet", 0).values[0, 0], deconvolved, atol=1e-5)
    base = np.float32([[1, 2, 3, 9], [4, 8, 6, 7]])
    found = carried(basic_models.LinearMaxPoolLinearModel().eval(), torch.ones(2, 4), "deeplift", 0, baseline=base)
    np.testing.assert_allclose(found.values, [[0, 0, 0, -8], [0, -7, 0, 0]], atol=1e-4)
    np.testing.assert_allclose(found.completeness, [0, 0], atol=1e-4)
    simple, x = basic_models.SimpleLRPModel(inplace=False).eval(), torch.tensor([[1.0, 2.0, 3.0]])
    epsilon = carried(simple, x, "lrp", 0, composite="epsilon", epsilon=1e-9)
    np.testing.assert_allclose(epsilon.values, [[18, 36, 54]], rtol=1e-4)
    simple.linear.weight.data[0][0] = -2.0
    gamma = carried(simple, x, "lrp", 0, composite="gamma", gamma=1, epsilon=1e-9)
    np.testing.assert_allclose(gamma.values, [[28 / 3, 104 / 3, 52]], rtol=1e-4)
    plus = carried(simple, x, "lrp", 0, composite="alpha-beta", alpha=1, beta=0, epsilon=1e-9)
    np.testing.assert_allclose(plus.values, [[12, 33.6, 50.4]], rtol=1e-4)
    assert {EpsilonRule, GammaRule, Alpha1_Beta0_Rule}, "the rules that these values are of"


# attention


def attended(vit: Any, x: Any) -> tuple[Any, list[Any]]:
    """Return what the vision transformer of the zoo gives, and its attention weights, from its own parameters."""
    tokens = vit.patches(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.token.expand(len(x), -1, -1), tokens], 1) + vit.position
    kept = []
    for block in vit.blocks:
        own = block.self_attn
        n, count, width = tokens.shape
        q, k, v = (
            part.reshape(n, count, own.num_heads, -1).transpose(1, 2)
            for part in functional.linear(block.norm1(tokens), own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        )
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        weights.retain_grad()
        kept.append(weights)
        tokens = tokens + own.out_proj((weights @ v).transpose(1, 2).reshape(n, count, width))
        tokens = tokens + block.linear2(functional.gelu(block.linear1(block.norm2(tokens))))
    return vit.head(vit.norm(tokens)[:, 0]), kept


def test_gradient_attention_is_that_of_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened("vit")
    scores, kept = attended(own.net, own.x)
    torch.testing.assert_close(scores, own.net(own.x), rtol=1e-4, atol=1e-5)
    scores[torch.arange(2), torch.tensor(own.classes)].sum().backward()
    relevance = torch.eye(17).expand(2, -1, -1)
    for weights in kept:
        relevance = relevance + (weights.grad * weights).clamp(min=0).mean(1) @ relevance
    wanted = relevance[:, 0, 1:].reshape(2, 4, 4).detach().numpy()
    found = own.attribute("gradient-attention")
    assert "row of token 0 (CLS)" in found.notes
    assert (found.layer.size, found.axes[found.tensor], found.placement.aligned) == ((4, 4), "NHW", True)
    assert relative(found.values, wanted) < LIMIT
    rolled = attention.gradient_rollout
    monkeypatch.setattr(
        attention, "gradient_rollout", lambda layers, given: rolled(layers, {k: v + 0.001 for k, v in given.items()})
    )
    assert relative(own.attribute("gradient-attention").values, wanted) > 5 * LIMIT


def test_attention_rollout_is_that_of_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened("vit")
    _, kept = attended(own.net, own.x)
    whole = torch.eye(17).expand(2, -1, -1)
    for weights in kept:
        whole = (0.5 * weights.mean(1) + 0.5 * torch.eye(17)) @ whole
    wanted = whole[:, 0, 1:].reshape(2, 4, 4).detach().numpy()
    assert relative(own.attribute("attention-rollout").values, wanted) < LIMIT
    mean = own.attribute("attention-rollout", token="mean").values
    assert relative(mean, whole.mean(1)[:, 1:].reshape(2, 4, 4).detach().numpy()) < LIMIT
    rolled = attention.rollout
    monkeypatch.setattr(attention, "rollout", lambda layers, residual: rolled(layers, residual=residual + 0.01))
    assert relative(own.attribute("attention-rollout").values, wanted) > 5 * LIMIT
