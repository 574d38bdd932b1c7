"""``onnxviz explain``, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from tests.cli.conftest import Onnxviz

LENET, CNN = "models/lenet5.onnx", "models/digits_cnn.onnx"
DIGIT = "models/samples/digit_3.png"


def test_several_methods_on_one_sheet_and_their_numbers(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz(
        "explain", CNN, "-i", DIGIT, "-m", "grad-cam", "-m", "integrated-gradients", "--set", "steps=20",
        "-o", "a.svg", "--data", "a.npz",
    )  # fmt: skip
    assert (run.code, run.files) == (0, ["a.npz", "a.svg"]), run.err
    assert "grad-cam: layer conv3/Transpose (3 × 3; the last tensor with spatial axes)" in run.err
    assert "score before the softmax" in run.err
    with np.load(here / "a.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        assert data["0/map/0"].shape == (1, 3, 3)
        assert data["1/map/0"].shape == (1, 28, 28, 1)
    assert [row["method"] for row in manifest["attributions"]] == ["grad-cam", "integrated-gradients"]
    assert manifest["attributions"][1]["parameters"]["steps"] == 20
    assert manifest["attributions"][0]["target"] == ["class 3"]


def test_grad_cam_is_the_default(onnxviz: Onnxviz) -> None:
    run = onnxviz("explain", LENET, "-i", DIGIT, "--target", "5", "--layer", "conv1")
    assert (run.code, run.files) == (0, ["lenet5_explain.png"]), run.err
    assert "layer conv1 (28 × 28; as asked)" in run.err


def test_the_methods_are_listed(onnxviz: Onnxviz) -> None:
    run = onnxviz("explain", "--methods")
    assert run.code == 0, run.err
    assert "integrated-gradients" in run.out
    assert "arXiv:1610.02391" in run.out
    assert "--set steps=50 baseline=zeros seed=0" in run.out


def test_what_is_wrong_is_one_line(onnxviz: Onnxviz) -> None:
    for arguments, words in (
        (("--method", "magic"), "there is no method 'magic'"),
        (("--target", "11"), "there is no class 11"),
        (("--target", "box:0"), "no scores and boxes of anchors were found"),
        (("--target", "mask:3"), "no output holds scores of classes at pixels"),
        (("--target", "token:3"), "no output holds scores of tokens"),
        (("--contours", "2"), "are no shares between 0 and 1"),
        (("--set", "steps"), "is not NAME=VALUE"),
        (("--set", "steps=3"), "no method here has a parameter 'steps'"),
        (("--layer", "output"), "output has no spatial axes; those that have are pool4"),
    ):
        run = onnxviz("explain", LENET, "-i", DIGIT, *arguments)
        assert (run.code, run.files) == (2, []), arguments
        assert words in run.err
        assert run.err.count("\n") == 1


def test_two_targets_are_contrasted(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz(
        "explain", LENET, "-i", DIGIT, "--target", "3", "--target", "5", "--contours", "none", "-o", "a.svg",
        "--data", "a.npz",
    )  # fmt: skip
    assert (run.code, run.files) == (0, ["a.npz", "a.svg"]), run.err
    with np.load(here / "a.npz") as data:
        np.testing.assert_allclose(data["2/map/0"], data["0/map/0"] - data["1/map/0"])
        assert data["0/map/0"].any()


def test_the_fallback_is_named_and_taken_if_asked(onnxviz: Onnxviz, here: Path) -> None:
    from onnxviz.graph.io import save_model

    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 1, 4, 4] x) => (float[N, 2] y)
        <float[2, 1, 1, 1] w = {1, 2}> {
          r = Round(x) c = Conv<kernel_shape = [1, 1]>(r, w) p = GlobalAveragePool(c) y = Flatten(p)}"""
    )
    save_model(model, here / "cut.onnx")
    np.save(here / "x.npy", np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    refused = onnxviz("explain", "cut.onnx", "-i", "x.npy", "-m", "saliency")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "take a method that needs no gradient: ablation-cam, feature-ablation, occlusion, rise" in refused.err
    run = onnxviz("explain", "cut.onnx", "-i", "x.npy", "-m", "saliency", "--fallback", "-o", "a.svg")
    assert run.code == 0, run.err
    assert "instead of saliency, for which no gradient leads" in run.err
    assert "occlusion" in (here / "a.svg").read_text()
