"""Methods that need no gradient: by hand on small models, on any batch, quantised and cut models, several inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.case import open_case
from onnxviz.analysis.attribution.families.rise import Grid, mask
from onnxviz.analysis.attribution.methods import attribution, known_methods, without_gradient
from onnxviz.analysis.attribution.resizing import enlarged
from onnxviz.analysis.attribution.run import How
from onnxviz.analysis.attribution.windows import windows
from onnxviz.api import attribute, explain
from onnxviz.errors import ExecutionError, GradientError, InputError, SelectionError
from onnxviz.graph.io import as_model, save_model
from onnxviz.runtime.batches import load_batches
from onnxviz.runtime.session import Session
from tests.conftest import make_small_cnn

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
X = np.random.default_rng(5).standard_normal((5, 1, 8, 8)).astype(np.float32)
FREE = ("occlusion", "feature-ablation", "rise", "score-cam", "ablation-cam")


def small(batch: int | str = "n") -> ir.Model:
    model = make_small_cnn()
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([batch, *value.shape[1:]])
    return model


def linear() -> ir.Model:
    return ir.from_onnx_text(
        HEAD
        + """g (float[N, 4] x) => (float[N, 2] y)
        <float[4, 2] w = {1, 0, -2, 1, 3, 0, 0.5, 1}, float[2] b = {7, 0}> {m = MatMul(x, w) y = Add(m, b)}"""
    )


FED = {"x": np.float32([[1, 2, 3, 4]])}


def test_a_sum_is_taken_apart_exactly() -> None:
    for name in ("occlusion", "feature-ablation"):
        found = attribute(linear(), FED, method=name, target=0, providers="cpu")
        np.testing.assert_allclose(found.values, [[1, -4, 9, 2]], rtol=1e-6)
    ones = attribute(linear(), FED, method="occlusion", target=0, fill=np.ones(4), providers="cpu")
    np.testing.assert_allclose(ones.values, [[0, -2, 6, 1.5]], rtol=1e-6)
    both = attribute(linear(), FED, method="occlusion", target=0, fill=["zeros", np.ones(4)], providers="cpu")
    np.testing.assert_allclose(both.values, [[0.5, -3, 7.5, 1.75]], rtol=1e-6)
    grouped = attribute(linear(), FED, method="feature-ablation", target=0, groups=[7, 7, 1, 7], providers="cpu")
    np.testing.assert_allclose(grouped.values, [[-1, -1, 9, -1]], rtol=1e-6)


def test_overlapping_windows_are_averaged_and_cut_off_at_the_end() -> None:
    found = attribute(linear(), FED, method="occlusion", target=0, patch=3, stride=2, providers="cpu")
    np.testing.assert_allclose(found.values, [[6, 6, (6 + 11) / 2, 11]], rtol=1e-6)


def test_sizes_of_windows() -> None:
    case = open_case(small(), load_batches(small(), {"x": X}), how=How("cpu"))
    assert (windows(case, "x").patch, windows(case, "x").stride) == ((1, 1), (1, 1))
    assert windows(case, "x", "4x2", 2).counts == (3, 4)
    for patch, stride, words in (
        ("9", "auto", "patch of 9 × 9 is larger than 'x', 8 × 8"),
        (2, 3, "a stride of 3 × 3 leaves gaps"),
        ("2x2x2", "auto", "does not fit 2 axes"),
        ("wide", "auto", "is no size"),
        (0, "auto", "does not fit"),
    ):
        with pytest.raises(InputError, match=words):
            windows(case, "x", patch, stride)  # type: ignore[arg-type]


def test_rise_of_a_sum_finds_its_terms() -> None:
    options: dict[str, Any] = {"target": 0, "probability": False, "masks": 4000, "providers": "cpu"}
    found = attribute(linear(), FED, method="rise", **options)
    np.testing.assert_allclose(found.values[0], np.array([1, -4, 9, 2]) / 2, atol=0.5)
    assert found.unit == "score"
    plain = attribute(linear(), FED, method="rise", centred=False, **options)
    expected = np.array([1, -4, 9, 2]) / 2 + (7 + 8 / 2)  # what a feature adds, and the mean of all copies
    np.testing.assert_allclose(plain.values[0], expected, atol=0.8)
    told = next(note for note in found.notes if note.startswith("standard error"))
    error = float(told.split(",")[0].rsplit(" ", 1)[1])
    seeds = [attribute(linear(), FED, method="rise", seed=i, **options).values[0] for i in range(12)]
    assert 0.5 < np.median(np.std(seeds, axis=0)) / error < 2, "the standard error is that of repeated runs"


def test_masks_are_random_cells_stretched_and_shifted() -> None:
    grid = Grid((2, 3), (28, 30), (7, 7), True)
    made = np.stack([mask(grid, 0.5, 0, i) for i in range(400)])
    assert made.shape == (400, 28, 30)
    assert (made.min(), made.max()) == (0, 1)
    assert abs(made.mean() - 0.5) < 0.02
    np.testing.assert_array_equal(made[3], mask(grid, 0.5, 0, 3))
    assert not np.array_equal(made[3], mask(grid, 0.5, 1, 3))
    assert not np.array_equal(made[3], mask(grid, 0.5, 0, 3, 1))


def test_probabilities_are_those_of_the_model() -> None:
    text = "g (float[N, 4] x) => (float[N, 2] p) <float[4, 2] w = {1, 0, -2, 1, 3, 0, 0.5, 1}> {y = MatMul(x, w) p = %s(y)}"
    fed = {"x": np.float32([[0.1, 0.2, 0.3, 0.4]])}
    for op, by in (("Softmax", "softmax"), ("Sigmoid", "sigmoid")):
        model = ir.from_onnx_text(HEAD + text % op)
        found = attribute(model, fed, method="rise", masks=50, target=1, centred=False, providers="cpu")
        assert f"probabilities are the {by} of y" in found.notes
        total = np.zeros(4)
        for i in range(50):
            m = mask(Grid((1,), (4,), (4,), False), 0.5, 0, i)
            y = (fed["x"][0] * m) @ np.array([[1, 0], [-2, 1], [3, 0], [0.5, 1]])
            p = np.exp(y) / np.exp(y).sum() if by == "softmax" else 1 / (1 + np.exp(-y))
            total += p[1] * m / 50 / 0.5
        np.testing.assert_allclose(found.values[0], total, rtol=1e-4)
        assert found.unit == "probability"


def test_score_and_ablation_cam_by_hand() -> None:
    model = ir.from_onnx_text(
        HEAD
        + """g (float[N, 1, 2, 2] x) => (float[N, 1] y) <float[3, 1, 1, 1] w = {1, -1, 0}, float[3, 1] v = {2, 1, 5}> {
          a = Conv<kernel_shape = [1, 1]>(x, w) s = GlobalAveragePool(a) f = Flatten(s) y = MatMul(f, v)}"""
    )
    fed = {"x": np.float32([[[[1, 2], [3, 6]]]])}
    ablated = attribute(model, fed, method="ablation-cam", relu=False, providers="cpu")  # y = 2·3 - 3 = 3
    np.testing.assert_allclose(ablated.values[0], np.array([[1, 2], [3, 6]]) * (2 + 1), rtol=1e-5)
    scored = attribute(model, fed, method="score-cam", relu=False, providers="cpu")
    a = np.array([[1.0, 2], [3, 6]])
    y = [np.mean(a * (h - h.min()) / np.ptp(h)) for h in (a, -a)]  # y is the mean of x; the third channel is flat
    weights = np.exp(y) / np.exp(y).sum()
    np.testing.assert_allclose(scored.values[0], a * (weights[0] - weights[1]), rtol=1e-5)
    negative = attribute(model, {"x": -fed["x"]}, method="ablation-cam", relu=False, providers="cpu")
    np.testing.assert_allclose(negative.values[0], 3 * a, rtol=1e-5)  # weights -2 and 1


@pytest.mark.parametrize("name", [*FREE, "deeplift", "lrp", "guided-backprop", "guided-grad-cam"])
def test_any_batch_gives_the_same(name: str) -> None:
    options: dict[str, Any] = {"masks": 50} if name == "rise" else {}
    whole = attribute(small(), {"x": X}, method=name, providers="cpu", **options)
    assert np.abs(whole.values).max() > 0
    for batch, rows in ((1, None), (5, None), ("n", 2)):
        other = attribute(small(batch), {"x": X}, method=name, providers="cpu", batch=rows, **options)
        np.testing.assert_allclose(other.values, whole.values, rtol=1e-3, atol=1e-5)
        if whole.completeness is not None:
            np.testing.assert_allclose(other.completeness, whole.completeness, rtol=1e-3, atol=1e-4)


def test_rows_of_a_run_follow_the_memory_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = Session.run
    monkeypatch.setattr(
        Session, "run", lambda self, feeds, outputs=None: sizes.append(len(feeds["x"])) or run(self, feeds, outputs)
    )
    told: list[tuple[str, int, int]] = []
    attribute(
        small(), {"x": X[:2]}, method="rise", masks=60, max_memory=10_000, providers="cpu",
        progress=lambda *counted: told.append(counted),
    )  # fmt: skip
    assert max(sizes) < 20
    assert told == sorted(told)
    assert told[-1] == ("copies of samples", 120, 120)


def test_a_model_that_takes_one_row_in_spite_of_what_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """g (float[N, 4] x) => (float[N, 2] y) <float[4, 2] w = {1, 0, -2, 1, 3, 0, 0.5, 1}, int64[2] one = {1, 4}> {
      r = Reshape(x, one) y = MatMul(r, w)}"""
    x = np.float32([[1, 2, 3, 4]])
    for name, wanted in (("occlusion", [1, -4, 9, 2]), ("integrated-gradients", [1, -4, 9, 2])):
        found = attribute(ir.from_onnx_text(HEAD + text), {"x": x}, method=name, target=0, providers="cpu")
        np.testing.assert_allclose(found.values[0], wanted, rtol=1e-4)
    with pytest.raises(ExecutionError, match="Reshape"):
        attribute(ir.from_onnx_text(HEAD + text), {"x": x}, method="occlusion", target=0, batch=2, providers="cpu")


def test_numbers_without_any_axis_are_refused() -> None:
    text = "g (float a, float b) => (float[1, 1] y) <int64[2] one = {1, 1}> {m = Mul(a, b) y = Reshape(m, one)}"
    feeds = {"a": np.array(2, np.float32), "b": np.array(3, np.float32)}
    with pytest.raises(SelectionError, match="a holds no row a sample"):
        attribute(ir.from_onnx_text(HEAD + text), feeds, method="occlusion", layer="a", target=0, providers="cpu")


def test_other_inputs_stay_as_they_are() -> None:
    text = HEAD + "g (float[N, 2] a, float[N, 2] b) => (float[N, 2] y) {y = Mul(a, b)}"
    feeds = {"a": np.float32([[1, 2]]), "b": np.float32([[3, 4]])}
    found = attribute(ir.from_onnx_text(text), feeds, method="occlusion", target=1, providers="cpu")
    np.testing.assert_allclose(found.maps["a"], [[0, 8]])
    np.testing.assert_allclose(found.maps["b"], [[0, 8]])


def test_texts_are_covered_word_by_word() -> None:
    text = """g (int64[N, 3] ids) => (float[N, 2] y)
    <float[5, 2] table = {0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, int64[1] one = {1}>
    {e = Gather(table, ids) y = ReduceSum<keepdims = 0>(e, one)}"""
    ids = {"ids": np.int64([[1, 2, 4], [0, 0, 3]])}
    found = attribute(ir.from_onnx_text(HEAD + text), ids, method="occlusion", target=1, providers="cpu")
    np.testing.assert_allclose(found.values[..., 0], [[2, 4, 8], [0, 0, 6]])
    assert found.axes[found.tensor] == "NTC"
    explain(ir.from_onnx_text(HEAD + text), ids, ["occlusion", "rise"], parameters={"masks": 20}, providers="cpu")


CUT = (
    HEAD
    + """g (float[N, 1, 4, 4] x) => (float[N, 2] y) <float[2, 1, 1, 1] w = {1, 2}> {
      r = Round(x) c = Conv<kernel_shape = [1, 1]>(r, w) q = Ceil(c) p = GlobalAveragePool(q) y = Flatten(p)}"""
)
STEPS = {"x": np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)}


def test_a_cut_path_is_refused_with_what_needs_no_gradient() -> None:
    model = ir.from_onnx_text(CUT)
    for name in ("saliency", "grad-cam", "lrp", "deeplift", "guided-backprop"):
        layer = "c" if name == "grad-cam" else None
        with pytest.raises(
            GradientError, match="needs no gradient: ablation-cam.* occlusion, rise.*--fallback"
        ) as caught:
            attribute(model, STEPS, method=name, layer=layer, target=1, providers="cpu")
        assert "--wrt" not in str(caught.value), "that is an option of another verb"


def test_the_fallback_is_taken_only_if_asked_and_says_so() -> None:
    model = ir.from_onnx_text(CUT)
    found = attribute(model, STEPS, method="saliency", target=1, fallback=True, providers="cpu")
    assert found.method == "occlusion"
    np.testing.assert_allclose(found.values[0, 0], np.arange(16).reshape(4, 4) / 8, rtol=1e-6)
    assert any(note.startswith("instead of saliency, for which no gradient leads") for note in found.notes)
    cam = attribute(model, STEPS, method="grad-cam", target=1, fallback=True, relu=False, layer="c", providers="cpu")
    assert (cam.method, cam.layer.name, cam.parameters["relu"]) == ("ablation-cam", "c", False)
    smooth = attribute(model, STEPS, method="smoothgrad", copies=3, target=1, fallback=True, providers="cpu")
    assert "copies" not in smooth.parameters
    whole = attribute(small(), {"x": X}, method="saliency", fallback=True, providers="cpu")
    assert whole.method == "saliency"
    for row in known_methods().values():
        assert "gradient" not in known_methods()[without_gradient(row)].needs


def quantised(tmp_path: Path, kind: str) -> ir.Model:
    """Return a quantised copy of LeNet-5."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"image": digit(i)["image"]} for i in range(10)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    source = Path(__file__).parents[3] / "models" / "lenet5.onnx"
    target = tmp_path / f"{kind}.onnx"
    quantization.quantize_static(str(source), str(target), Reader(), quant_format=quantization.QuantFormat[kind])
    return as_model(str(target))


def digit(number: int) -> dict[str, np.ndarray]:
    from onnxviz.runtime.inputs import load_inputs

    models = Path(__file__).parents[3] / "models"
    return dict(load_inputs(as_model(models / "lenet5.onnx"), [models / "samples" / f"digit_{number}.png"]).feeds)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["QDQ", "QOperator"])
def test_a_quantised_model_has_the_maps_of_the_one_it_was_made_of(tmp_path: Path, kind: str) -> None:
    whole = as_model(Path(__file__).parents[3] / "models" / "lenet5.onnx")
    model = quantised(tmp_path, kind)
    with pytest.raises(GradientError, match="occlusion"):
        attribute(model, digit(3), method="saliency", target=3, providers="cpu")
    for name in ("occlusion", "rise", "ablation-cam", "score-cam"):
        options: dict[str, Any] = {"target": 3, "providers": "cpu"} | ({"masks": 300} if name == "rise" else {})
        options |= {"relu": False} if "cam" in name else {}
        ours = attribute(model, digit(3), method=name, **options)
        wanted = attribute(whole, digit(3), method=name, layer=None if "cam" not in name else "pool4", **options)
        assert ours.values.shape == wanted.values.shape
        limit = 0.7 if name == "ablation-cam" else 0.9
        assert np.corrcoef(ours.values.ravel(), wanted.values.ravel())[0, 1] > limit, name
        if name == "occlusion":
            single = attribute(model, digit(3), method="feature-ablation", **options)
            assert any("the score moves in steps of" in note for note in single.notes)
        if name == "score-cam":  # codes are read as the numbers that they stand for
            np.testing.assert_allclose(ours.values, wanted.values, atol=0.1 * np.abs(wanted.values).max())


def test_a_picture_without_an_axis_of_samples() -> None:
    text = """g (float[1, 4, 4] x) => (float[1, 2] y) <float[2, 1, 1, 1] w = {1, 2}, int64[1] zero = {0}> {
      u = Unsqueeze(x, zero) c = Conv(u, w) p = GlobalAveragePool(c) y = Flatten(p)}"""
    feed = {"x": np.arange(16, dtype=np.float32).reshape(1, 4, 4)}
    for name in FREE:
        options: dict[str, Any] = {"masks": 20} if name == "rise" else {}
        found = attribute(ir.from_onnx_text(HEAD + text), feed, method=name, target=1, providers="cpu", **options)
        assert found.values.shape[-2:] == (4, 4)
        assert np.abs(found.values).max() > 0
    covered = attribute(ir.from_onnx_text(HEAD + text), feed, method="occlusion", target=1, providers="cpu")
    np.testing.assert_allclose(covered.values[0], feed["x"][0] / 8, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    for options, words in (
        ({"method": "rise", "share": 1.0}, "a share of 1.0 cells is no chance"),
        ({"method": "rise", "fill": "zeros,mean"}, "RISE takes one fill"),
        ({"method": "score-cam", "fill": "zeros,mean"}, "Score-CAM takes one fill"),
        ({"method": "feature-ablation", "groups": np.zeros(5, int)}, "do not fit 'x'"),
        ({"method": "feature-ablation", "groups": np.zeros(8)}, "are no numbers of groups"),
        ({"method": "feature-ablation", "groups": "nowhere.npy"}, "cannot be read"),
        ({"method": "lrp", "composite": "magic"}, "no composite 'magic'; choose epsilon"),
        ({"method": "lrp", "composite": "epsilon", "gamma": 1}, "has no parameter 'gamma=1'"),
        ({"method": "lrp", "epsilon": -1}, "not below 0"),
        ({"method": "guided-grad-cam", "interpolation": "cubic"}, "no interpolation 'cubic'"),
    ):
        with pytest.raises(InputError, match=words):
            attribute(small(), {"x": X}, providers="cpu", **options)
    with pytest.raises(SelectionError, match="no attention in the model"):
        attribute(small(), {"x": X}, method="attention-rollout", providers="cpu")
    with pytest.raises(SelectionError, match="no tensor between"):
        attribute(linear(), FED, method="score-cam", providers="cpu")


def test_maps_of_all_channels_alike_are_not_added_up(tmp_path: Path) -> None:
    from onnxviz.analysis.attribution.views import attribution_view

    model = ir.from_onnx_text(
        HEAD
        + """g (float[N, 3, 4, 4] x) => (float[N, 3] y) <float[3, 3, 1, 1] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}> {
          c = Conv<kernel_shape = [1, 1]>(x, w) p = GlobalAveragePool(c) y = Flatten(p)}"""
    )
    fed = {"x": np.float32(np.random.default_rng(0).standard_normal((1, 3, 4, 4)))}
    found = attribute(model, fed, method="occlusion", target=1, patch=1, providers="cpu")
    view = attribution_view(found, "x", 0)
    np.testing.assert_allclose(view.heat, fed["x"][0, 1] / 16, rtol=1e-4, atol=1e-6)
    assert view.how == "all channels alike"
    save_model(model, tmp_path / "m.onnx")
    explain(
        tmp_path / "m.onnx", fed, ["occlusion", "rise"], tmp_path / "a.png", parameters={"masks": 9}, providers="cpu"
    )
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_enlarging() -> None:
    made = enlarged(np.arange(4.0).reshape(1, 2, 2), (4, 4))
    np.testing.assert_allclose(made[0, 0], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(made.mean(), 1.5)
    np.testing.assert_array_equal(enlarged(np.array([1.0, 2]), (5,), nearest=True), [1, 1, 1, 2, 2])


def test_every_new_row_runs_on_any_model() -> None:
    case = open_case(small(), load_batches(small(), {"x": X}), how=How("cpu"))
    for name in FREE:
        found = attribution(case, name, **({"masks": 20} if name == "rise" else {}))
        assert np.isfinite(found.values).all()
        assert found.unit


def test_small_scores_move_in_no_steps() -> None:
    """What a feature moves the score by is compared with other features, whatever the unit of the score."""
    weights = ", ".join(f"{k}e-13" for k in range(1, 81))
    text = f"g (float[N, 80] x) => (float[N, 1] y) <float[80, 1] w = {{{weights}}}> {{y = MatMul(x, w)}}"
    one = {"x": np.ones((1, 80), np.float32)}
    found = attribute(ir.from_onnx_text(HEAD + text), one, method="feature-ablation", providers="cpu")
    assert not found.notes
