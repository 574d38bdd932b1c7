"""The layer of a class activation map: found, named, or refused with those that would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.api import attribute, open_model
from onnxviz.errors import SelectionError

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
TWO_HEADS = (
    HEAD
    + """g (float[N, 1, 4, 4] x) => (float[N, 2] y, float[N, 2] z)
<float[2, 1, 1, 1] w = {1, 2}> {
  c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p)
  d = Sigmoid(c) q = GlobalAveragePool(d) z = Flatten(q)
}"""
)
X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) - 3


def layer(model: Any, x: Any, **options: Any) -> Any:
    opened = ir.from_onnx_text(model) if isinstance(model, str) else model
    fed = x if isinstance(x, list) else {str(opened.graph.inputs[0].name): x}
    return attribute(opened, fed, providers="cpu", **options).layer


def test_the_last_map_that_leads_to_the_target_is_taken() -> None:
    assert layer(TWO_HEADS, X).name == "r"
    assert layer(TWO_HEADS, X, output="z").name == "d"
    assert str(layer(TWO_HEADS, X)) == "r (4 × 4; the last tensor with spatial axes)"


def test_a_layer_by_name_or_pattern() -> None:
    assert layer(TWO_HEADS, X, layer="c").how == "as asked"
    assert layer(TWO_HEADS, X, layer="op:Conv").name == "c"


@pytest.mark.parametrize(
    ("name", "words"),
    [("y", "y has no spatial axes; those that have are r, c"),
     ("d", "d does not lie between the input and y; those that do are r, c"), ("nonsense", "no tensor matches")],
)  # fmt: skip
def test_what_is_no_such_layer_is_refused_with_those_that_are(name: str, words: str) -> None:
    with pytest.raises(SelectionError) as caught:
        layer(TWO_HEADS, X, layer=name)
    assert words in str(caught.value)


def test_a_model_without_positions_says_what_to_do_instead() -> None:
    text = (
        HEAD
        + "g (float[N, 2] x) => (float[N, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> {a = Relu(x) y = MatMul(a, w)}"
    )
    with pytest.raises(
        SelectionError, match="no tensor between the input and the target has spatial axes; take a method"
    ):
        layer(text, np.ones((1, 2), np.float32))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_two_and_three_spatial_axes(rank: int) -> None:
    ones, sizes = ", ".join("1" * rank), ", ".join("5" * rank)
    text = (
        HEAD
        + f"""g (float[N, 1, {sizes}] x) => (float[N, 2] y) <float[2, 1, {ones}] w = {{1, 2}}> {{
      c = Conv(x, w) p = GlobalAveragePool(c) y = Flatten(p)}}"""
    )
    model = ir.from_onnx_text(text)
    found = attribute(model, {"x": np.ones((3, 1, *(5,) * rank), np.float32)}, target=1, providers="cpu")
    assert found.layer.size == (5,) * rank
    assert found.values.shape == (3, *(5,) * rank)
    np.testing.assert_allclose(found.values, 2 / 5**rank, rtol=1e-5)


def test_channels_last_of_a_keras_export(models: Path) -> None:
    model = open_model(models / "digits_cnn.onnx")
    picture = [str(models / "samples" / "digit_3.png")]
    first, last = layer(model, picture), layer(model, picture, layer="conv3/Conv")
    assert (first.letters, last.letters) == ("NHWC", "NCHW")
    assert first.size == last.size == (3, 3)


def test_patches_without_the_class_token_before_the_last_attention(models: Path) -> None:
    found = layer(open_model(models / "vit_digits.onnx"), [str(models / "samples" / "digit_3.png")])
    assert (found.name, found.size) == ("blocks.1.norm1", (7, 7))
    assert (found.block.start, found.block.stop) == (1, 50)


def test_a_recurrence_of_which_the_last_step_counts_is_passed_over(models: Path) -> None:
    found = layer(open_model(models / "signal_cnn_lstm.onnx"), [str(models / "samples" / "signals" / "chirp.npy")])
    assert (found.name, found.size) == ("pool2", (32,))


SEGMENTATION = (
    HEAD
    + """g (float[N, 1, 4, 4] x) => (float[N, 2, 8, 8] p)
<float[3, 1, 1, 1] w = {1, 2, -1}, float[2, 3, 1, 1] u = {1, 2, 3, 4, 5, 6}, float[1, 2, 1, 1] bias = {1, 2},
 float[4] twice = {1, 1, 2, 2}> {
  c = Conv(x, w) r = Relu(c) s = Conv(r, u) b = Add(s, bias) z = Resize<mode = "linear">(b, , twice)
  p = Softmax<axis = 1>(z)
}"""
)


def test_scores_before_a_bias_or_a_change_of_resolution_are_no_layer() -> None:
    """A map of them would show the score that is explained, and nothing of what it came from."""
    assert layer(SEGMENTATION, X, target="mask:1").name == "r"
    assert layer(SEGMENTATION, X, target="mask:1", layer="s").name == "s", "unless asked for"
