"""Certificates: planted evidence is found faithful and random maps are not, maps of random weights, plain references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution import faithfulness as faith
from onnxviz.analysis.attribution import randomization as randomizing
from onnxviz.analysis.attribution.case import Case, open_case
from onnxviz.analysis.attribution.certificate import Examination, TrustCertificate, certified, cost, examination_of
from onnxviz.analysis.attribution.faithfulness import Curves, Faithfulness
from onnxviz.analysis.attribution.methods import METHODS, Found, attribution, known_methods, method
from onnxviz.analysis.attribution.positions import positions_of
from onnxviz.analysis.attribution.randomization import (
    Randomization,
    rank_correlation,
    weight_layers,
    with_random_weights,
)
from onnxviz.analysis.attribution.resizing import enlarged
from onnxviz.analysis.attribution.sensitivity import sensitivity_max
from onnxviz.analysis.attribution.verdicts import curves as verdicts_of_curves
from onnxviz.analysis.attribution.verdicts import infidelity_check, randomized
from onnxviz.api import attribute, explain, preprocessing
from onnxviz.errors import InputError
from onnxviz.gradient.overrides.names import rules_table
from onnxviz.graph.model import copy_model
from onnxviz.runtime.batches import load_batches
from onnxviz.runtime.session import run_model

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
RNG = np.random.default_rng(3)
FAST = {"steps": 8, "stages": 3, "redraws": 1, "copies": 2, "perturbations": 8}


def linear(size: int = 12) -> tuple[ir.Model, np.ndarray, np.ndarray]:
    """A score that is a sum of weighted entries: what each gives is known."""
    model = ir.from_onnx_text(
        HEAD + f"g (float[N, {size}] x) => (float[N, 1] y) <float[{size}, 1] w = {{0}}> {{y = MatMul(x, w)}}"
    )
    weights = RNG.permutation(np.arange(1, size + 1)).astype(np.float32).reshape(-1, 1)
    model.graph.initializers["w"].const_value = ir.Tensor(weights, name="w")
    model.graph.initializers["w"].shape = ir.Shape(weights.shape)
    return model, weights[:, 0], np.ones((2, size), np.float32)


def patch(side: int = 16) -> tuple[ir.Model, np.ndarray]:
    """Two classes that are told apart by the brightness of the top left quarter alone."""
    model = ir.from_onnx_text(
        HEAD
        + f"""g (float[N, 1, {side}, {side}] x) => (float[N, 2] y) <float[{side * side}, 2] w = {{0}}> {{
            f = Flatten(x) y = MatMul(f, w)}}"""
    )
    seen = np.zeros((side, side), np.float32)
    seen[: side // 2, : side // 2] = 1
    weights = np.stack([seen.reshape(-1), -seen.reshape(-1)], axis=1) * np.float32(0.1)
    model.graph.initializers["w"].const_value = ir.Tensor(weights, name="w")
    model.graph.initializers["w"].shape = ir.Shape(weights.shape)
    return model, seen


def case_of(model: ir.Model, feeds: Any, **options: Any) -> Case:
    return open_case(model, load_batches(model, feeds), **options)


def examined(case: Case, name: str, parameters: dict[str, Any] | None = None, **settings: Any) -> TrustCertificate:
    given = parameters or {}
    found = certified(case, attribution(case, name, **given), given, examination_of(FAST | settings))
    assert isinstance(found.certificate, TrustCertificate)
    return found.certificate


@pytest.fixture
def planted() -> Iterator[None]:
    """A method whose map is given."""
    known_methods()

    @method("planted", "a map that is given", source="a test", needs=())
    def run(case: Case, *, value: Any = None) -> Found:
        return Found({name: np.broadcast_to(value, case.value(name).shape).copy() for name in case.sources})

    yield
    METHODS.pop("planted", None)


@pytest.fixture
def guided() -> Iterator[None]:
    def run(case: Case) -> Found:
        runner = case.runner(wrt=case.sources, table=rules_table("guided"))
        return Found(runner(case.feeds, case.everything).gradients)

    before = known_methods().get("guided-backprop")
    method("guided-backprop", "guided backpropagation", source="a test", unit="score / input")(run)
    yield
    METHODS.pop("guided-backprop")
    if before is not None:
        METHODS["guided-backprop"] = before


def reference_curve(model: ir.Model, x: np.ndarray, base: np.ndarray, heat: np.ndarray, cls: int, steps: int,
                    back: bool) -> np.ndarray:  # fmt: skip
    """Deletion or insertion of one sample, written out: one position after the other, one run a step."""
    order = np.argsort(-heat.reshape(-1), kind="stable")
    found = []
    for cut in np.rint(np.linspace(0, heat.size, steps + 1)).astype(int):
        made = (base if back else x).copy().reshape(-1)
        source = (x if back else base).reshape(-1)
        for place in order[:cut]:
            made[place] = source[place]
        scores = np.float64(run_model(model, {"x": made.reshape(1, *x.shape)})["y"][0])
        found.append(np.exp(scores[cls]) / np.exp(scores).sum())
    return np.array(found)


def test_curves_equal_a_plain_reference_and_a_planted_error_does_not() -> None:
    model, _ = patch(4)
    x = RNG.random((2, 1, 4, 4)).astype(np.float32) + 0.2
    case = case_of(model, {"x": x}, target=0)
    heat = RNG.random((2, 1, 4, 4))  # no two alike, so that the order is certain
    one = replace(attribution(case, "saliency"), maps={"x": heat.astype(np.float32)})
    where = positions_of(case, one)
    found = faith.faithfulness(case, where, steps=5, insertion_fill="mean")
    for sample in range(2):
        zeros, mean = np.zeros_like(x[sample]), np.full_like(x[sample], x[sample].mean())
        for curves, base, back in ((found.deletion, zeros, False), (found.insertion, mean, True)):
            wanted = reference_curve(model, x[sample], base, heat[sample], 0, 5, back)
            np.testing.assert_allclose(curves.map[sample], wanted, atol=1e-6)
            np.testing.assert_allclose(curves.areas()["map"][sample], np.trapezoid(wanted, dx=0.2), atol=1e-6)
            wrong = reference_curve(model, x[sample], base, -heat[sample], 0, 5, back)
            assert np.abs(curves.map[sample] - wrong).max() > 0.01
    assert found.deletion.fill == "zeros"
    assert found.insertion.fill == "mean"


def test_the_evidence_of_a_linear_model_is_faithful_and_random_maps_are_not(planted: None) -> None:
    model, weights, x = linear()
    case = case_of(model, {"x": x})
    true = examined(case, "input-x-gradient")
    assert true["deletion"].verdict == true["insertion"].verdict == true["infidelity"].verdict == "pass"
    # The score falls by the weights in order, as a share of their sum.
    falls = 1 - np.cumsum(np.r_[0, np.sort(weights)[::-1]]) / weights.sum()
    assert true.faithfulness is not None
    cut = np.rint(np.linspace(0, 12, 9)).astype(int)
    np.testing.assert_allclose(true.faithfulness.deletion.map[0], falls[cut], atol=1e-6)
    assert np.nanmax(true.infidelity) < 1e-6
    worst = examined(case, "planted", {"value": -weights})
    assert worst["deletion"].verdict == worst["insertion"].verdict == "fail"
    assert "more slowly than in a random order" in worst["deletion"].text
    chance = [examined(case, "planted", {"value": np.random.default_rng(i).random(12)}) for i in range(6)]
    assert np.mean([c["deletion"].value - true["deletion"].value for c in chance]) > 0.1
    assert all(c["infidelity"].value > 0.001 for c in chance)


def test_the_evidence_of_a_patch_beats_the_controls(planted: None) -> None:
    model, seen = patch()
    case = case_of(model, {"x": np.ones((1, 1, 16, 16), np.float32)}, target=0)
    true = examined(case, "planted", {"value": seen}, steps=24)
    assert [true[name].verdict for name in ("deletion", "insertion", "blob")] == ["pass"] * 3
    assert true.faithfulness is not None
    areas = true.faithfulness.deletion.areas()
    assert areas["map"] < min(areas["random"], areas["centre"]) - 0.02
    wrong = examined(case, "planted", {"value": seen[::-1, ::-1]})
    assert wrong["deletion"].verdict == "fail"
    assert wrong["blob"].verdict == "doubt"
    noise = examined(case, "planted", {"value": np.random.default_rng(0).random((16, 16))})
    assert "fail" in (noise["deletion"].verdict, noise["insertion"].verdict)


def test_rank_correlation_equals_its_definition() -> None:
    a, b = np.round(RNG.standard_normal(200), 1), np.round(RNG.standard_normal(200), 1)

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])

    expected = np.corrcoef(ranks(np.abs(a)), ranks(np.abs(b)))[0, 1]
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(a, np.exp(np.abs(a))) == pytest.approx(1)


def test_random_weights_keep_their_numbers_and_come_layer_by_layer(small_cnn: ir.Model) -> None:
    layers = [[node.name for node in layer] for layer in weight_layers(small_cnn, "y")]
    assert layers == [["fc1"], ["conv1"]]
    models = list(with_random_weights(small_cnn, "y", [1, 2], np.random.default_rng(0)))
    assert [name for name, _ in models] == ["fc1", "conv1"]
    before = {
        node.name: node.inputs[1].const_value.numpy() for node in small_cnn.graph if node.name in ("fc1", "conv1")
    }
    for changed, (_, model) in enumerate(models, start=1):
        for place, name in enumerate(("fc1", "conv1")):
            now = next(node for node in model.graph if node.name == name).inputs[1].const_value.numpy()
            np.testing.assert_array_equal(np.sort(now.reshape(-1)), np.sort(before[name].reshape(-1)))
            assert np.array_equal(now, before[name]) is (place >= changed)
    again = next(with_random_weights(small_cnn, "y", [2], np.random.default_rng(0)))[1]
    x = {"x": RNG.random((1, 1, 8, 8)).astype(np.float32)}
    np.testing.assert_array_equal(run_model(again, x)["y"], run_model(models[1][1], x)["y"])


def test_weights_of_constants_and_behind_quantisation_are_drawn() -> None:
    model = ir.from_onnx_text(
        HEAD
        + """g (float[1, 2] x) => (float[1, 2] y) <int8[2, 2] q = {1, 2, 3, 4}, float s = {0.5}> {
            c = Constant<value = float[2, 2] {1, 2, 3, 4}>()
            m = MatMul(x, c) w = DequantizeLinear(q, s) y = MatMul(m, w)}"""
    )
    before = copy_model(model)
    kinds = [[node.op_type for node in layer] for layer in weight_layers(model, "y")]
    assert kinds == [["DequantizeLinear"], ["MatMul"]]
    made = next(with_random_weights(model, "y", [2], np.random.default_rng(1)))[1]
    x = {"x": np.float32([[1, 3]])}
    assert not np.array_equal(run_model(made, x)["y"], run_model(before, x)["y"])
    np.testing.assert_array_equal(run_model(model, x)["y"], run_model(before, x)["y"])


def test_a_map_of_the_picture_alone_fails_and_one_of_the_model_passes(small_cnn: ir.Model) -> None:
    x = RNG.random((4, 1, 8, 8)).astype(np.float32)

    @method("edges", "what changes from pixel to pixel, whatever the model", source="a test", needs=())
    def edges(case: Case) -> Found:
        return Found({"x": np.abs(np.diff(case.value("x"), axis=3, prepend=0.0))})

    try:
        case = case_of(small_cnn, {"x": x})
        found = examined(case, "edges")
    finally:
        METHODS.pop("edges")
    assert found["weights"].verdict == "fail"
    assert found["weights"].value == pytest.approx(1)
    assert "it shows the picture, not the model" in found["weights"].text
    assert examined(case, "hires-cam", redraws=4)["weights"].verdict == "pass"


@pytest.mark.parametrize("which", ["digits", "squeezenet"])
@pytest.mark.corpus
def test_guided_backprop_fails_and_grad_cam_passes(
    which: str, guided: None, models: Path, request: pytest.FixtureRequest
) -> None:
    """What Adebayo et al. 2018 found."""
    options: dict[str, Any] = {
        "providers": "cpu",
        "certify": {"copies": 0, "perturbations": 0, "steps": 2, "stages": 6},
    }
    if which == "digits":
        path: Path = models / "digits_cnn.onnx"
        fed = [str(models / "samples" / f"digit_{i}.png") for i in range(10)]
    else:
        corpus = request.getfixturevalue("corpus")
        path = corpus / "models" / "classifier" / "SqueezeNet_fp32.onnx"
        fed = [str(corpus / "images" / "skimage_chelsea.png")]
        options["preprocessing"] = preprocessing("keras-caffe")
    verdicts = {}
    for name in ("grad-cam", "guided-backprop"):
        found = attribute(path, fed, method=name, **options).certificate
        assert isinstance(found, TrustCertificate)
        verdicts[name] = found["weights"].verdict
    assert verdicts == {"grad-cam": "pass", "guided-backprop": "fail"}


def test_the_randomization_check_sees_an_error_planted_in_it(
    small_cnn: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(small_cnn, {"x": RNG.random((2, 1, 8, 8)).astype(np.float32)})
    true = examined(case, "hires-cam")["weights"].value
    monkeypatch.setattr(randomizing, "_shuffled", lambda graph, tensor, rng: next(
        v for v in graph.initializers.values() if v.const_value is tensor))  # fmt: skip
    wrong = examined(case, "hires-cam")["weights"]  # the weights stay as they are
    assert wrong.value == pytest.approx(1)
    assert wrong.verdict == "fail"
    assert true is not None
    assert true < 0.9


def test_sensitivity_of_a_quadratic_is_that_of_its_gradient() -> None:
    model = ir.from_onnx_text(HEAD + "g (float[N, 3] x) => (float[N, 3] y) {y = Mul(x, x)}")
    x = np.float32([[1, 2, 4]])
    case = case_of(model, {"x": x}, target=1)
    maps = attribution(case, "saliency").maps
    found = sensitivity_max(case, maps, lambda c: attribution(c, "saliency").maps, copies=40, radius=0.1)
    # |gradient| is 2 |x| at the target alone: it changes by 2 · radius · range at most, of 2 · 2.
    assert 0.8 * 0.1 * 3 / 2 < found[0] <= 0.1 * 3 / 2 + 1e-6


def test_infidelity_of_the_truth_is_zero_and_of_a_wrong_map_is_not() -> None:
    model, weights, x = linear()
    case = case_of(model, {"x": x})
    one = attribution(case, "input-x-gradient")
    assert faith.infidelity(case, positions_of(case, one))[0].max() < 1e-6
    scaled = replace(one, maps={"x": 7 * one.values})
    assert faith.infidelity(case, positions_of(case, scaled))[0].max() < 1e-6
    wrong = replace(one, maps={"x": np.broadcast_to(np.float32(1 / weights), one.values.shape)})
    assert faith.infidelity(case, positions_of(case, wrong))[0].min() > 0.05


def test_what_costs_nothing_is_always_there(small_cnn: ir.Model) -> None:
    x = RNG.random((2, 1, 8, 8)).astype(np.float32)
    found = attribute(small_cnn, {"x": x}, method="integrated-gradients", providers="cpu")
    made = found.certificate
    assert isinstance(made, TrustCertificate)
    assert [check.name for check in made.checks] == ["map", "completeness", "gradient"]
    assert made.lines() == (
        "certificate: finite and not constant, its sum is the difference to the baseline, but for "
        f"{100 * made['completeness'].value:.2g} % (limit 5 %), no path is cut; --certify examines it",
    )
    few = attribute(small_cnn, {"x": x}, method="integrated-gradients", steps=1, baseline="uniform", providers="cpu")
    off = replace(few, completeness=few.score * 0.5)
    case = case_of(small_cnn, {"x": x})
    assert certified(case, off).certificate["completeness"].verdict == "fail"  # type: ignore[index]


def test_maps_that_show_nothing_are_not_examined(planted: None) -> None:
    model, _, x = linear()
    made = examined(case_of(model, {"x": x}), "planted", {"value": np.zeros(12)})
    assert made["map"].verdict == "fail"
    assert made["examination"].verdict == "not_checked"
    assert made.faithfulness is None
    nan = examined(case_of(model, {"x": x}), "planted", {"value": np.full(12, np.nan)})
    assert "24 of its numbers are NaN" in nan["map"].text


def test_it_is_data_and_the_same_again(small_cnn: ir.Model, tmp_path: Path) -> None:
    x = RNG.random((2, 1, 8, 8)).astype(np.float32)
    texts = []
    for _ in range(2):
        made = attribute(small_cnn, {"x": x}, method="smoothgrad", copies=4, certify=FAST, providers="cpu")
        assert made.certificate is not None
        texts.append(json.dumps(made.certificate.to_dict(), allow_nan=False))
    assert texts[0] == texts[1]
    data = json.loads(texts[0])
    assert data["format"] == "onnxviz.certificate/1"
    assert data["examination"]["steps"] == 8
    assert data["parameters"]["copies"] == 4
    assert len(data["faithfulness"]["deletion"]["controls"]["random"][0]) == 9
    assert data["randomization"]["layers"] == ["fc1", "conv1"]
    made.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        manifest = json.loads(str(archive["__onnxviz__"]))
    assert manifest["attributions"][0]["certificate"] == data


def test_the_command_writes_figures_and_data(models: Path, tmp_path: Path) -> None:
    said: list[str] = []
    explain(
        models / "lenet5.onnx", [str(models / "samples" / "digit_3.png")], ["grad-cam", "saliency"],
        tmp_path / "a.png", certificate=tmp_path / "c.json", certify=FAST, tell=said.append, providers="cpu",
    )  # fmt: skip
    data = json.loads((tmp_path / "c.json").read_text())
    assert [one["method"] for one in data] == ["grad-cam", "saliency"]
    assert any(line.startswith("examining grad-cam: 152 samples through the model, and up to 5 more") for line in said)
    assert any(line.startswith("grad-cam: certificate: passed map, gradient") for line in said)
    assert sum("weights" in line.split(":")[1] + line.split(":")[2] for line in said if line.count(":") > 1) == 2


def test_settings_that_do_not_exist_are_refused(small_cnn: ir.Model) -> None:
    for given, words in (({"step": 1}, "no setting 'step'"), ({"steps": 0}, "steps of an examination cannot be 0"),
                         ({"radius": 2.0}, "radius"), ({"stages": True}, "stages"), ({"redraws": 0}, "1 or more"),
                         ({"seed": -1}, "seed of an examination cannot be -1"), ({"seed": "a"}, "seed")):  # fmt: skip
        with pytest.raises(InputError) as refused:
            attribute(small_cnn, certify=given, providers="cpu")
        assert words in f"{refused.value.message} {refused.value.hint}"
    assert examination_of({}) == Examination()
    case = case_of(small_cnn, {"x": np.ones((1, 1, 8, 8), np.float32)})
    assert "up to 26 more explanations of 1, 16 of them" in cost(case, attribution(case, "grad-cam"), Examination())


def test_a_map_of_a_layer_is_enlarged_as_it_is_drawn(small_cnn: ir.Model) -> None:
    from onnxviz.analysis.attribution.views import attribution_view

    case = case_of(small_cnn, {"x": RNG.random((1, 1, 8, 8)).astype(np.float32)})
    one = attribution(case, "grad-cam", relu=False)
    where = positions_of(case, one)
    view = attribution_view(one, one.tensor, 0)
    assert view.spatial is not None
    drawn = view.spatial.at(np.arange(8.0), np.arange(8.0))
    mine = enlarged(where.heats(0)[0], (8, 8), cells=where.cells)
    inside = np.isfinite(drawn)
    np.testing.assert_allclose(mine[inside], drawn[inside], rtol=1e-5)


def test_a_blob_that_is_better_at_one_curve_alone_is_said_so() -> None:
    from onnxviz.analysis.attribution.faithfulness import Curves, Faithfulness
    from onnxviz.analysis.attribution.verdicts import curves

    at = np.linspace(0, 1, 3)
    down, up, slow = np.array([[1.0, 0.1, 0.0]]), np.array([[0.0, 0.2, 1.0]]), np.array([[1.0, 0.6, 0.0]])
    deletion = Curves(down, {"random": slow, "centre": slow}, slow[None], "zeros")
    insertion = Curves(up, {"random": up - 0.1, "centre": 1 - down}, up[None] - 0.1, "zeros")
    checks = {check.name: check for check in curves(Faithfulness(at, "probability", deletion, insertion))}
    assert checks["deletion"].verdict == checks["insertion"].verdict == "pass"
    assert checks["blob"].verdict == "doubt"
    assert "does better at insertion" in checks["blob"].text
    same = Curves(np.ones((1, 3)), {"random": np.ones((1, 3))}, np.ones((1, 1, 3)), "blurred")
    assert curves(Faithfulness(at, "probability", same, insertion))[0].verdict == "not_checked"


def test_weights_that_no_order_changes_are_not_checked() -> None:
    text = HEAD + "g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {3, 3, 3, 3}> {m = MatMul(x, w) y = Exp(m)}"
    feeds = {"x": np.float32([[1, 2]])}
    made = examined(case_of(ir.from_onnx_text(text), feeds), "input-x-gradient")
    assert made["weights"].verdict == "not_checked"
    assert "one number alone" in made["weights"].text
    none = examined(case_of(ir.from_onnx_text(HEAD + "g (float[N, 2] x) => (float[N, 2] y) {y = Exp(x)}"), feeds),
                    "input-x-gradient")  # fmt: skip
    assert "no weights" in none["weights"].text


def test_a_method_that_finds_its_own_layer_is_examined(models: Path) -> None:
    """Attention rollout has a grid of tokens, and takes no layer."""
    path, fed = models / "vit_digits.onnx", [str(models / "samples" / "digit_3.png")]
    found = attribute(path, fed, method="attention-rollout", certify=FAST, providers="cpu").certificate
    assert isinstance(found, TrustCertificate)
    assert found.randomization is not None
    assert found["weights"].verdict != "not_checked"


def drawn(correlation: Any, flat: int = 0, total: int = 4) -> Randomization:
    array = np.asarray(correlation, np.float64)
    stages = len(array)
    return Randomization(tuple("abcd"[:stages]), tuple(range(1, stages + 1)), total, array, flat, 0)


def test_a_correlation_that_differs_from_draw_to_draw_gives_no_verdict() -> None:
    one = drawn([[[0.4], [0.5]], [[0.5], [0.4]], [[9.0], [9.0]], [[9.0], [9.0]]])
    assert (one.upper, one.error) == (pytest.approx(0.45), pytest.approx(0))  # of the upper half
    assert randomized(one).verdict == "pass"
    loose = drawn([[[-0.4], [1.0]], [[0.4], [0.8]]])
    assert loose.error == pytest.approx(np.std([0.0, 0.9], ddof=1) / 2**0.5)
    found = randomized(loose)
    assert (found.verdict, "whether it changes is not sure" in found.text, "± 0.45" in found.text) == (
        "doubt", True, True
    )  # fmt: skip
    shown = randomized(drawn([[[0.95], [0.97]]]))
    assert (shown.verdict, shown.text.endswith("it shows the picture, not the model")) == ("fail", True)
    untouched = randomized(drawn([[[1.0], [1.0]], [[0.9], [0.8]], [[0.1], [0.2]]]))
    assert (untouched.verdict, untouched.text.endswith("so it is about no class")) == ("fail", True)
    assert randomized(drawn([[[0.6], [1.0]]])).verdict == "doubt"
    assert randomized(drawn([[[0.6], [0.62]]])).text.startswith("it changes only in part")


def test_maps_of_random_weights_that_hold_nothing_do_not_count() -> None:
    nan = float("nan")
    half = randomized(drawn([[[0.9], [nan], [0.92]]], flat=1))
    assert (half.verdict, "1 of 3 maps left out" in half.text) == ("fail", True)
    none = randomized(drawn([[[nan], [nan]]], flat=2))
    assert (none.verdict, none.text) == (
        "not_checked", "all maps of random weights are the same everywhere, so none can be compared with it"
    )  # fmt: skip


def test_weights_are_drawn_until_the_mean_is_sure(small_cnn: ir.Model) -> None:
    case = case_of(small_cnn, {"x": RNG.random((1, 1, 8, 8)).astype(np.float32)})
    maps = attribution(case, "hires-cam").maps
    same = randomizing.randomization(case, maps, lambda one: maps, stages=2, draws=9)
    assert same.correlation.shape == (2, 3, 1)
    rng = np.random.default_rng(0)
    wild = randomizing.randomization(
        case, maps, lambda one: {n: rng.random(a.shape) for n, a in maps.items()}, stages=2, draws=9
    )
    assert wild.correlation.shape[1] > 3


def test_areas_near_those_of_random_orders_give_no_verdict() -> None:
    def falls(area: float, *chance: float) -> str:
        line = np.array([1.0, 0.0, 0.0])  # the area of a curve is 1/4, and one half of its middle
        middle = np.array([0.0, 2.0, 0.0])
        random = np.stack([line + middle * (a - 0.25) for a in chance])[:, None]
        one = Curves((line + middle * (area - 0.25))[None], {"random": random.mean(axis=0)}, random, "zeros")
        assert one.areas()["map"][0] == pytest.approx(area)
        assert one.spread == pytest.approx(np.std(chance, ddof=1) if len(chance) > 1 else 0)
        found = Faithfulness(np.array([0, 0.5, 1]), "probability", one, one)
        return verdicts_of_curves(found)[0].verdict

    assert falls(0.4, 0.5, 0.51, 0.49) == "pass"
    assert falls(0.5, 0.5, 0.51, 0.49) == "doubt"  # 0.02 better is not out of reach
    assert falls(0.6, 0.5, 0.51, 0.49) == "fail"
    assert falls(0.4, 0.3, 0.5, 0.7) == "doubt"
    assert (falls(0.4, 0.5), falls(0.5, 0.5)) == ("pass", "fail")


def test_infidelity_equals_its_definition_and_has_a_standard_error(small_cnn: ir.Model) -> None:
    x = RNG.random((2, 1, 8, 8)).astype(np.float32)
    case = case_of(small_cnn, {"x": x}, target=1)
    one = attribution(case, "input-x-gradient")
    where = positions_of(case, one)
    values, errors = faith.infidelity(case, where, perturbations=40, seed=3)
    for sample in range(2):
        taken = faith._blocks(where, 40, np.random.default_rng((3, sample, 11)))
        rows = np.where(taken.reshape(40, 1, 8, 8), np.float32(0), x[sample])
        fall = run_model(small_cnn, {"x": x})["y"][sample, 1] - run_model(small_cnn, {"x": rows})["y"][:, 1]
        told = (taken.reshape(40, -1) * one.values[sample].reshape(1, -1)).sum(axis=1)

        def missed(told: np.ndarray, fall: np.ndarray) -> float:
            beta, *_ = np.linalg.lstsq(told[:, None], fall, rcond=None)
            return float(np.mean((beta * told - fall) ** 2) / np.mean(fall**2))

        assert values[sample] == pytest.approx(missed(told, fall), rel=1e-4)
        rest = [missed(np.delete(told, i), np.delete(fall, i)) for i in range(40)]
        jackknife = np.sqrt(39 / 40 * np.sum((np.array(rest) - np.mean(rest)) ** 2))
        assert errors[sample] == pytest.approx(jackknife, rel=1e-3)
        assert missed(np.roll(told, 1), fall) != pytest.approx(values[sample], rel=1e-2)


def test_a_share_that_is_not_sure_gives_no_verdict() -> None:
    def verdict(value: float, error: float) -> str:
        return infidelity_check(np.array([value, np.nan]), np.array([error, np.nan])).verdict

    assert [verdict(0.4, 0.05), verdict(0.4, 0.2), verdict(0.95, 0.2), verdict(0.95, 0.01)] == [
        "pass", "doubt", "doubt", "fail"
    ]  # fmt: skip
    assert "40 % ± 20 % of what" in infidelity_check(np.array([0.4]), np.array([0.2])).text


def test_rounding_of_a_score_is_no_change() -> None:
    model = ir.from_onnx_text(
        HEAD + "g (float[N, 4] x) => (float[N, 1] y) <float[4, 1] w = {1e-6, 2e-6, 1e-6, 3e-6}, float[1] b = {90}>"
        "{m = MatMul(x, w) y = Add(m, b)}"
    )
    case = case_of(model, {"x": np.full((1, 4), 10, np.float32)})
    one = attribution(case, "input-x-gradient")
    values, _ = faith.infidelity(case, positions_of(case, one))
    assert np.isnan(values).all()
    assert infidelity_check(values).verdict == "not_checked"


def test_weights_written_as_lists_are_drawn_each_on_its_own() -> None:
    """A list of floats is a tensor that is made each time it is asked for."""
    body = "".join(
        f"c{i} = Constant<value_floats = [{', '.join(f'{10 * i + k}.0' for k in range(3))}]>() a{i} = Add(m{i}, c{i}) "
        f"m{i + 1} = MatMul(a{i}, w) "
        for i in range(6)
    )
    model = ir.from_onnx_text(
        HEAD + "g (float[1, 3] x) => (float[1, 3] m6) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {"
        f"m0 = Identity(x) {body}}}"
    )
    made = next(with_random_weights(model, "m6", [6], np.random.default_rng(0)))[1]
    adds = [node for node in made.graph if node.op_type == "Add"]
    held = [sorted(node.inputs[1].const_value.numpy().tolist()) for node in adds]
    assert held == [[10.0 * i + k for k in range(3)] for i in range(6)]
