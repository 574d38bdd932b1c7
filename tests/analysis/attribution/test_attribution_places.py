"""Boxes of detectors, pixels of classes, tokens: which numbers they are, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.detection import background_of, box_layout
from onnxviz.analysis.attribution.regions import overlap
from onnxviz.analysis.attribution.views import attribution_view
from onnxviz.api import attribute
from onnxviz.api.attribution import answer_maps
from onnxviz.errors import InputError, SelectionError
from onnxviz.runtime.batches import load_batches

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
# A detector of 4 × 4 anchors: the score of an anchor is a pixel (background 2), its box a cell of 2 pixels.
CELLS = [[x / 4, y / 4, (x + 1) / 4, (y + 1) / 4] for y in range(4) for x in range(4)]
DETECTOR = (
    HEAD
    + """g (float[N, 1, 4, 4] x) => (float[N, 16, 2] scores, float[N, 16, 4] boxes)
<float[1, 16, 4] cells = {CELLS}, float[1] two = {2}, int64[3] list = {0, 16, 1}, float zero = {0}>
{ f = Reshape(x, list) b = Mul(f, zero) back = Add(b, two) s = Concat<axis = 2>(back, f)
  scores = Softmax<axis = 2>(s) boxes = Add(cells, b) }""".replace(
        "CELLS", ", ".join(str(c) for row in CELLS for c in row)
    )
)
X = np.full((2, 1, 4, 4), -2, np.float32)
X[0, 0, 1, 2], X[0, 0, 3, 0] = 6, 5
X[1, 0, 0, 3] = 4


def explained(text: str, target: Any, x: np.ndarray = X, method: str = "saliency", **options: Any) -> Any:
    return attribute(ir.from_onnx_text(text), {"x": x}, target=target, method=method, providers="cpu", **options)


def test_the_best_box_is_the_score_of_its_anchor_before_the_softmax() -> None:
    found = explained(DETECTOR, "box:0", absolute=False)
    assert found.score.tolist() == [6, 4]
    assert found.classes is None, "a softmax over all anchors is no probability of a class"
    assert [np.argwhere(one[0]).tolist() for one in found.values] == [[[1, 2]], [[0, 3]]]
    assert found.notes[0] == "score before the softmax"
    assert [region.box for region in found.regions] == [(2, 1, 3, 2), (3, 0, 4, 1)]
    assert found.target[0] == "box 0: class 1, probability 0.982, 2, 1 to 3, 2"


@pytest.mark.parametrize(
    ("target", "at"),
    [("box", (1, 2)), ("box:1", (3, 0)), ("box:class=face", (1, 2)), ("box:class=face,1", (3, 0)),
     ("box:0,2.5,1,4", (3, 0)), ("box:0,0.7,0.3,1", (3, 0)), ("box:2,1,3,2", (1, 2))],
)  # fmt: skip
def test_a_box_by_rank_class_and_place(target: str, at: tuple[int, int]) -> None:
    found = explained(DETECTOR, target, X[:1], labels=["face"])
    assert np.argwhere(found.values[0, 0]).tolist() == [list(at)]
    assert "face" in found.target[0], "one label beside the background"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("box:16", "there is no box 16; 16 are left, counted from 0"),
        ("box:best", "'best' names no box; write box:0"),
        ("box:class=dog", "no class is named 'dog'"),
        ("box:100,100,120,120", "no box overlaps 100,100,120,120; box 0 is box 0: face"),
        (None, "no output is of shape (N, classes)"),
        ("mask:1", "no output holds scores of classes at pixels: they are scores ('N', 16, 2)"),
    ],
)
def test_what_there_is_not_is_one_line(target: str | None, words: str) -> None:
    with pytest.raises(SelectionError) as caught:
        explained(DETECTOR, target, X[:1], labels=["face"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_are_as_many_as_classes_or_one_less() -> None:
    with pytest.raises(InputError, match="3 labels were given for 2 classes"):
        explained(DETECTOR, "box:0", labels=["a", "b", "c"])


def test_a_picture_that_is_no_detector() -> None:
    text = HEAD + "g (float[N, 1, 4, 4] x) => (float[N, 16] y) {y = Flatten(x)}"
    with pytest.raises(SelectionError, match="no scores and boxes of anchors were found"):
        explained(text, "box:0")


# The same with its own suppression, behind a choice of the best anchors, as exporters write it.
SUPPRESSED = (
    DETECTOR[: DETECTOR.rindex("}")]
    .replace("float[N, 16, 2] scores, float[N, 16, 4] boxes", "int64[K, 3] kept")
    .replace("float zero = {0}>", "float zero = {0}, int64[1] at = {1}, int64[1] count = {8}, int64[1] all = {-1}, "
             "int64[1] most = {9}, float[1] share = {0.5}>")
    + """one = Transpose<perm = [0, 2, 1]>(scores) face = Gather<axis = 1>(one, at) best, places = TopK<axis = 2>(face, count)
  flat = Reshape(places, all) near = Gather<axis = 1>(boxes, flat)
  kept = NonMaxSuppression(near, best, most, share) }"""
)  # fmt: skip


def test_boxes_are_found_before_the_models_own_suppression() -> None:
    found = explained(SUPPRESSED, "box:1", X[:1], absolute=False)
    assert found.score.tolist() == [5]
    assert np.argwhere(found.values[0, 0]).tolist() == [[3, 0]]
    with pytest.raises(SelectionError, match=r"the model is a detector.*box:0 \(the best\)"):
        explained(SUPPRESSED, None, X[:1])


# As YOLOv8 has it: columns of boxes (centre and size) and sigmoids of classes, anchors last.
CENTRES = np.array([[2 * x + 1, 2 * y + 1, 2, 2] for y in range(4) for x in range(4)], float).T.tolist()
YOLO = (
    HEAD
    + """g (float[1, 1, 8, 8] x) => (float[1, 6, 16] y)
<float[1, 4, 16] cells = {CELLS}, int64[3] list = {1, 1, 16}, float[1, 1, 2, 2] w = {0.25, 0.25, 0.25, 0.25}>
{ m = Conv<strides = [2, 2]>(x, w) f = Reshape(m, list) n = Neg(f) s = Concat<axis = 1>(f, n) p = Sigmoid(s)
  y = Concat<axis = 1>(cells, p) }""".replace("CELLS", ", ".join(str(c) for row in CENTRES for c in row))
)


def test_boxes_and_sigmoids_in_one_output() -> None:
    x = np.full((1, 1, 8, 8), 0.1, np.float32)
    x[0, 0, 4:6, 2:4], x[0, 0, 0:2, 6:8] = 3, -2
    found = explained(YOLO, "box:0", x, absolute=False)
    assert found.score[0] == pytest.approx(3)
    assert np.argwhere(found.values[0, 0]).tolist() == [[4, 2], [4, 3], [5, 2], [5, 3]]
    assert found.regions[0].box == (2, 4, 4, 6)
    assert found.target[0].startswith("box 0: class 0, ")
    other = explained(YOLO, "box:class=1", x, absolute=False)
    assert other.score[0] == pytest.approx(2)
    assert other.regions[0].box == (6, 0, 8, 2)


# Two maps of anchors of 4 and 2 cells a side, boxes as offsets: where an anchor stands comes from the graph alone.
OFFSETS = (
    HEAD
    + """g (float[1, 1, 8, 8] x) => (float[1, 20, 1] y, float[1, 20, 4] d)
<int64[3] list = {1, -1, 1}, float[1] low = {-3}, float[4] nought = {-1, 1, -1, 1}>
{ a = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x) b = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
  c = Transpose<perm = [0, 2, 3, 1]>(a) e = Transpose<perm = [0, 2, 3, 1]>(b) v = Reshape(c, list) w = Reshape(e, list)
  y = Concat<axis = 1>(v, w) z = Add(y, low) d = Mul(z, nought) }"""
)


def test_the_cell_of_an_anchor_is_told_where_boxes_are_offsets() -> None:
    x = np.full((1, 1, 8, 8), -3, np.float32)
    x[0, 0, 4:6, 2:4] = 3
    x[0, 0, 5, 2] = 2
    found = explained(OFFSETS, "box:0", x, absolute=False)
    assert found.regions[0].box == (2, 4, 4, 6)
    assert "the cell of the anchor is drawn" in found.notes[-1]
    wide = explained(OFFSETS, "box:1", x)
    assert wide.regions[0].box == (0, 4, 4, 8)


def test_offsets_are_no_boxes_and_boxes_are() -> None:
    cells = np.float64(CELLS)
    made = box_layout(cells, (40, 80), None)
    assert made is not None
    assert (made.centred, made.across_first, made.scale) == (False, True, (80, 40))
    down = box_layout(cells[:, [1, 0, 3, 2]], (40, 80), None)
    assert down is not None
    assert not down.across_first
    np.testing.assert_allclose(down.corners(cells[:, [1, 0, 3, 2]]), made.corners(cells))
    offsets = np.random.default_rng(0).standard_normal((16, 4))
    assert box_layout(offsets, (40, 80), None) is None
    assert box_layout(np.abs(offsets) * 0.1, (40, 80), None) is None
    assert background_of(np.full((1, 9, 3), 1 / 3)) is None
    assert overlap([0, 0, 1, 1], np.zeros((0, 4))).shape == (0,)


PIXELS = (
    HEAD
    + """g (float[N, 2, 2, 2] x) => (float[N, 2, 2, 2] p, int64[N, 2, 2] m)
{ y = Identity(x) p = Softmax<axis = 1>(y) m = ArgMax<axis = 1, keepdims = 0>(y) }"""
)
P = np.float32([[[[3, 1], [2, 0]], [[0, 2], [1, 5]]]])


def test_a_mask_is_the_sum_of_a_class_over_its_own_pixels() -> None:
    found = explained(PIXELS, "mask:cat", P, absolute=False, labels=["dog", "cat"])
    assert found.score.tolist() == [7]
    assert found.values.tolist() == [[[[0, 0], [0, 0]], [[0, 1], [0, 1]]]]
    assert found.target == ("cat (class 1): sum over its pixels, 50 % of all",)
    assert found.regions[0].mask.tolist() == [[False, True], [False, True]]
    within = explained(PIXELS, "mask:1@0,0.5,1,1", P, absolute=False)
    assert within.score.tolist() == [6]
    assert explained(PIXELS, "mask", P).target[0].startswith("class 0: ")


def test_the_scores_behind_an_argmax_are_found() -> None:
    text = PIXELS.replace("float[N, 2, 2, 2] p, ", "").replace("p = Softmax<axis = 1>(y) ", "")
    assert explained(text, "mask:1", P).score.tolist() == [7]


def test_a_class_that_is_nowhere_tells_those_that_are() -> None:
    with pytest.raises(
        SelectionError, match=r"no pixel is of class 1; the classes in the picture are class 0 \(100 %\)"
    ):
        explained(PIXELS, "mask:1", P - np.float32([[[[0]], [[9]]]]))


def test_a_token_is_its_likeliest_class_or_one_that_is_named() -> None:
    text = HEAD + "g (float[N, 3, 2] x) => (float[N, 3, 2] y) {y = Softmax(x)}"
    x = np.float32([[[1, 0], [0, 2], [4, 3]]])
    found = explained(text, "token:-1", x, absolute=False)
    assert (found.score.tolist(), found.target) == ([4], ("token 2: class 0",))
    assert explained(text, "token:1,noun", x, labels=["verb", "noun"]).target == ("token 1: noun (class 1)",)
    for target, words in (("token:3", "there is no token 3; y has 3"), ("token:x", "'x' names no token")):
        with pytest.raises(SelectionError, match=words):
            explained(text, target, x)


@pytest.mark.corpus
def test_a_face_of_the_corpus(corpus: Path) -> None:
    model = corpus / "models/detector/ultraface-version-slim-320_simplified.onnx"
    picture = [corpus / "images/ultraface_1.jpg"]
    found = attribute(model, picture, method="layer-cam", target="box:0", providers="cpu")
    assert found.layer is not None
    assert "more than its cell" in found.layer.how
    left, top, right, bottom = found.regions[0].box or (0, 0, 0, 0)
    assert found.placement is not None
    rows, columns = np.unravel_index(found.values[0].argmax(), found.values[0].shape)
    down, across = found.placement.axes
    assert abs(down.first + rows * down.step - (top + bottom) / 2) < 16
    assert abs(across.first + columns * across.step - (left + right) / 2) < 16


# Two anchors a cell and three classes, of which 0 is the background; the second anchor's class 2 is the pixel, on the
# coarser maps three times the mean of four.
MAPS = (
    HEAD
    + """g (float[N, 1, 4, 4] x) => (float[N, 8, 4, 4] a, float[N, 6, 4, 4] b, float[N, 6, 2, 2] c, float[N, 8, 2, 2] d)
<float[8, 1, 1, 1] v = {0, 0, 0, 0, 0, 0, 0, 0}, float[6, 1, 1, 1] w = {0, 0, 0, 0, 0, 1},
 float[6, 1, 1, 1] u = {0, 0, 0, 0, 0, 3}, float[6] back = {4, 0, 0, 4, 0, 0}>
{ p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x) a = Conv(x, v) b = Conv(x, w, back)
  c = Conv(p, u, back) d = Conv(p, v) }"""
)
FINE, COARSE = np.full((2, 1, 4, 4), -2, np.float32)
FINE[0, 1, 2] = 6
COARSE[0, 2:, 2:] = 5


def test_maps_of_scores_and_boxes_are_read_as_anchors() -> None:
    found = explained(MAPS, "box:0", np.stack([FINE, COARSE]), absolute=False)
    wanted = np.zeros((2, 1, 4, 4))
    wanted[0, 0, 1, 2] = 1
    wanted[1, 0, 2:, 2:] = 3 / 4
    np.testing.assert_allclose(found.values, wanted, atol=1e-6)
    assert found.score.tolist() == [6, 15]
    assert [region.box for region in found.regions] == [(2, 1, 3, 2), (2, 2, 4, 4)]
    assert [text.split(",")[0] for text in found.target] == ["box 0: class 2"] * 2
    crossed = MAPS.replace("{0, 0, 0, 0, 0, 1}", "{0, 0, 0, 1, 0, 0}")
    assert explained(crossed, "box:0", FINE[None], absolute=False).score.tolist() != [6], "numbers lie side by side"


def test_maps_of_scores_may_have_channels_last_and_end_in_a_softmax() -> None:
    last = MAPS.replace("float[N, 8, 4, 4] a, float[N, 6, 4, 4] b, float[N, 6, 2, 2] c, float[N, 8, 2, 2] d",
                        "float[N, 4, 4, 4] boxes, float[N, 4, 4, 2] p")  # fmt: skip
    body = """<float[4, 1, 1, 1] v = {0, 0, 0, 0}, float[2, 1, 1, 1] w = {0, 1}>
    { a = Conv(x, v) boxes = Transpose<perm = [0, 2, 3, 1]>(a)
      b = Conv(x, w) s = Transpose<perm = [0, 2, 3, 1]>(b) p = Softmax<axis = 3>(s) }"""
    found = explained(last[: last.index("<float[8")] + body, "box:0", FINE[None], absolute=False)
    assert np.argwhere(found.values[0, 0]).tolist() == [[1, 2]]
    assert (found.score.tolist(), found.notes[0]) == ([6], "score before the softmax")
    assert found.regions[0].box == (2, 1, 3, 2)


def test_maps_that_do_not_belong_together_are_no_detector() -> None:
    with pytest.raises(SelectionError, match="no scores and boxes of anchors were found"):
        explained(MAPS.replace("float[N, 8, 4, 4] a, ", "").replace(", float[N, 8, 2, 2] d", ""), "box:0", FINE[None])


def test_a_layer_of_a_text_is_not_drawn_over_a_signal_beside_it() -> None:
    text = """g (int64[1, 4] ids, float[1, 1, 32] wave) => (float[1, 4, 2] y)
    <float[5, 2] table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, float[1] ten = {10}> {
      e = Gather(table, ids) m = ReduceMean<keepdims = 0>(wave) s = Mul(m, ten) h = Add(e, s) r = Relu(h) y = Neg(r) }"""
    model = ir.from_onnx_text(HEAD + text)
    feeds = {"ids": np.int64([[1, 2, 3, 4]]), "wave": np.random.default_rng(0).random((1, 1, 32), np.float32)}
    found = attribute(model, feeds, method="hires-cam", layer="r", target="token:1", providers="cpu")
    view = attribution_view(found, "r", 0)
    assert (view.kind, view.words) == ("tokens", ("1", "2", "3", "4"))


def test_the_answer_of_a_detector_is_a_box_by_the_method_that_keeps_to_it() -> None:
    # A convolution before the scores, so that there is a layer with positions.
    text = DETECTOR.replace("<float[1, 16, 4]", "<float[1, 1, 3, 3] w = {0, 0, 0, 0, 1, 0, 0, 0, 0}, float[1, 16, 4]")
    text = text.replace("f = Reshape(x, list)", "c = Conv<pads = [1, 1, 1, 1]>(x, w) f = Reshape(c, list)")
    model = ir.from_onnx_text(text)
    found = answer_maps(model, load_batches(model, {"x": X[:1]}), None, {"providers": "cpu"})
    assert [one.method for one in found] == ["layer-cam", "input-x-gradient"]
    assert all(np.argwhere(one.values.reshape(4, 4)).tolist() == [[1, 2]] for one in found)
