from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from onnxviz.errors import InputError
from onnxviz.graph.io import open_model
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.preprocess import PRESETS, Preprocessing


def model_of(signature: str) -> ir.Model:
    outputs = ", ".join(f"{part.split()[0]} out{i}" for i, part in enumerate(split(signature)))
    body = " ".join(f"out{i} = Identity({part.split()[-1]})" for i, part in enumerate(split(signature)))
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 19]> g ({signature}) => ({outputs}) {{ {body} }}')


def split(signature: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for c in signature:
        depth += (c == "[") - (c == "]")
        if c == "," and not depth:
            parts.append(current.replace(", ", ","))
            current = ""
        else:
            current += c
    return [*parts, current.replace(", ", ",")]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_layout_size_and_channels_are_those_of_the_model(picture: Path) -> None:
    pixels = np.asarray(Image.open(picture), np.float64) / 255
    nchw = load_inputs(model_of("float[n,3,6,8] x"), [picture])
    np.testing.assert_allclose(nchw.feeds["x"][0], pixels.transpose(2, 0, 1), rtol=1e-6)
    nhwc = load_inputs(model_of("float[1,6,8,3] x"), [f"x={picture}"])
    np.testing.assert_allclose(nhwc.feeds["x"][0], pixels, rtol=1e-6)
    grey = load_inputs(model_of("float[1,1,3,4] x"), [picture])
    assert grey.feeds["x"].shape == (1, 1, 3, 4)
    assert "converted to greyscale" in grey.records[0].steps
    assert "resized to 3×4 (height×width), stretch, bilinear" in grey.records[0].steps
    byte = load_inputs(model_of("uint8[1,6,8,3] x"), [picture])
    np.testing.assert_array_equal(byte.feeds["x"][0], np.asarray(Image.open(picture)))
    half = load_inputs(model_of("float16[1,3,6,8] x"), [picture])
    assert half.feeds["x"].dtype == np.float16


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("unit", [1.0, 0.0, 100 / 255]),
        ("raw", [255, 0, 100]),
        ("imagenet", [(1 - 0.485) / 0.229, -0.456 / 0.224, (100 / 255 - 0.406) / 0.225]),
        ("keras-tf", [1.0, -1.0, 100 / 127.5 - 1]),
        ("keras-caffe", [100 - 103.939, 0 - 116.779, 255 - 123.68]),  # BGR
    ],
)
def test_presets_are_what_the_frameworks_do(tmp_path: Path, preset: str, expected: list[float]) -> None:
    Image.new("RGB", (2, 2), (255, 0, 100)).save(tmp_path / "p.png")
    feeds = load_inputs(model_of("float[1,3,2,2] x"), [tmp_path / "p.png"], preprocessing=PRESETS[preset]).feeds
    np.testing.assert_allclose(feeds["x"][0, :, 0, 0], expected, rtol=1e-5)


def test_resizing_modes(tmp_path: Path) -> None:
    Image.fromarray(np.tile(np.repeat(np.uint8([0, 255, 0]), 10), (10, 1))).save(tmp_path / "p.png")  # 10 high, 30 wide
    model = model_of("float[1,1,10,10] x")

    def fed(mode: str) -> np.ndarray:
        return load_inputs(model, [tmp_path / "p.png"], preprocessing=Preprocessing(resize=mode)).feeds["x"][0, 0]

    assert fed("crop").min() > 0.9  # the white middle third
    assert fed("pad")[0].max() == 0  # black borders above and below
    assert 0 < fed("stretch").mean() < 0.5
    with pytest.raises(InputError, match="10×30 and the input 10×10"):
        fed("none")


def test_a_free_size_is_the_picture_s_in_steps_of_32(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 700)).save(tmp_path / "p.png")
    model = model_of("float[n,3,?,?] x")
    assert load_inputs(model, [tmp_path / "p.png"]).feeds["x"].shape == (1, 3, 448, 640)
    sized = Preprocessing().replace(resize="crop:65x33")
    assert load_inputs(model, [tmp_path / "p.png"], preprocessing=sized).feeds["x"].shape == (1, 3, 65, 33)
    raw = Preprocessing(resize="none")
    assert load_inputs(model, [tmp_path / "p.png"], preprocessing=raw).feeds["x"].shape == (1, 3, 700, 1000)


def test_transparent_deep_and_rotated_pictures(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # quarter turn
    turned.save(tmp_path / "turned.jpg", exif=exif)
    model = model_of("float[1,3,4,4] x")
    assert load_inputs(model, [tmp_path / "clear.png"]).feeds["x"].min() == 1  # on white
    assert load_inputs(model, [tmp_path / "deep.png"]).feeds["x"].min() == 1  # not clipped
    steps = load_inputs(model, [tmp_path / "turned.jpg"]).records[0].steps
    assert "2×4" in steps[0]


def test_what_the_model_s_metadata_say_is_done(picture: Path) -> None:
    model = model_of("float[1,3,6,8] x")
    model.metadata_props.update({"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"})
    pixels = np.asarray(Image.open(picture), np.float64)
    np.testing.assert_array_equal(load_inputs(model, [picture]).feeds["x"][0], pixels[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("signature", "how", "what"),
    [
        ("float[1,12,8,8] x", {}, "takes 12 channels|not a picture"),
        ("float[1,1,8,8] x", {"color": "rgb"}, "takes 1 channels, rgb has 3"),
        ("float[1,784] x", {}, "not a picture's"),
        ("float[1,3,8,8] x", {"mean": (1.0, 2.0)}, "--mean has 2 numbers for 3 channels"),
        ("float[1,3,8,8] x", {"resize": "9x9"}, "cannot be 9×9"),
        ("float[1,3,?,?] x", {"resize": "0x0"}, "no resize '0x0'"),
        ("float[1,3,?,?] x", {"resize": "99999x99999"}, "too many"),
        ("float[1,3,8,8] x", {"layout": "CHWN"}, "no layout 'CHWN'"),
        ("float[1,3,8,8] x", {"std": (0.0,)}, "--std cannot be 0"),
    ],
)
def test_pictures_that_do_not_fit(picture: Path, signature: str, how: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        load_inputs(model_of(signature), [picture], preprocessing=Preprocessing().replace(**how))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_pictures_that_cannot_be_decoded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(InputError, match="cannot be decoded"):
        load_inputs(model_of("float[1,3,8,8] x"), [tmp_path / "p.png"])


def test_arrays_by_file_name_and_value(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.float64([[1, 2]]))
    np.savez(tmp_path / "b.npz", a=np.float32([[3, 4]]), k=np.int64(5))
    model = model_of("float[n,2] a, int64[] k")
    one = load_inputs(model, [tmp_path / "a.npy", "k=7"])
    assert (one.feeds["a"].tolist(), one.feeds["k"].tolist()) == ([[1, 2]], 7)
    assert one.feeds["a"].dtype == np.float32
    two = load_inputs(model, [tmp_path / "b.npz"])
    assert (two.feeds["a"].tolist(), two.feeds["k"].tolist()) == ([[3, 4]], 5)
    assert load_inputs(model, ["a=zeros", "k=ones"]).feeds["a"].tolist() == [[0, 0]]
    assert load_inputs(model, ["a=[[5, 6], [7, 8]]", "k=1"]).feeds["a"].shape == (2, 2)
    assert load_inputs(model, {"a": [1, 2], "k": 3}).feeds["a"].shape == (1, 2), "a missing batch axis is added"


@pytest.mark.parametrize(
    ("sources", "what"),
    [
        (["b=1"], "no input 'b'"),
        (["a=[[1, 2, 3]]"], r"takes float32 \(n, 2\), not shape \(1, 3\)"),
        (["a=[[1, 2]]", "a=[[1, 2]]"], "given twice"),
        (["k=1.5"], "takes int64"),
        (["a=hello"], "no such file"),
        (["missing.npy"], "no file"),
        (["missing.png"], "no file"),
    ],
)
def test_values_that_do_not_fit(sources: list[str], what: str) -> None:
    with pytest.raises(InputError, match=what):
        load_inputs(model_of("float[n,2] a, int64[] k"), sources)


def test_sizes_that_contradict_are_refused(tmp_path: Path) -> None:
    model = model_of("float[n,?] a")
    given = {"a": np.zeros((2, 3), np.float32)}
    for wrong in ({"n": 4}, {"a:1": 4}, {"m": 1}):
        with pytest.raises(InputError, match="contradicts|no dimension"):
            load_inputs(model, given, dims=wrong)
    assert load_inputs(model, given, dims={"n": 2}).feeds["a"].shape == (2, 3)
    np.savez(tmp_path / "z.npz", a=given["a"])
    for source in (f"b={tmp_path / 'z.npz'}", f"b={tmp_path / 'none.npy'}"):
        with pytest.raises(InputError, match="no input 'b'"):
            load_inputs(model, [source])
    assert load_inputs(model, [f"a={tmp_path / 'z.npz'}"]).feeds["a"].shape == (2, 3)


def test_an_input_with_a_default_can_be_overridden() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }'
    )
    assert list(load_inputs(model, {"x": np.zeros(2, np.float32)}).feeds) == ["x"]
    assert load_inputs(model, ["w=[5, 6]"]).feeds["w"].tolist() == [5, 6]


@pytest.mark.parametrize("signature", ["bool[1,3,8,8] x", "string[1,3,8,8] x"])
def test_pictures_are_numbers(picture: Path, signature: str) -> None:
    with pytest.raises(InputError, match="which no picture is"):
        load_inputs(model_of(signature), [picture])


def test_dark_deep_pictures_stay_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "dark.png")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "unit.tiff")
    model = model_of("float[1,1,4,4] x")
    assert load_inputs(model, [tmp_path / "dark.png"]).feeds["x"].max() < 0.01
    assert abs(load_inputs(model, [tmp_path / "unit.tiff"]).feeds["x"].max() - 0.5) < 0.01


def test_damaged_and_pickled_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 cut")
    for name in ("a.npy", "b.npy", "c.npz"):
        with pytest.raises(InputError, match="cannot be read"):
            load_inputs(model_of("float[n,2] a"), [tmp_path / name])


def test_what_nobody_gave_is_random_seeded_and_said() -> None:
    model = model_of("float[batch,seq,8] x, float[batch,seq] m, int64[batch] k, bool[] b, uint8[1,3,?,?] u")
    first, again, other = (load_inputs(model, seed=s) for s in (0, 0, 1))
    assert first.feeds["x"].shape == (1, 16, 8)
    assert first.feeds["m"].shape == (1, 16)
    assert first.feeds["u"].shape == (1, 3, 224, 224)
    assert first.assumed == {"batch": 1, "seq": 16, "u:2": 224, "u:3": 224}
    assert all(record.made_up for record in first.records)
    np.testing.assert_array_equal(first.feeds["x"], again.feeds["x"])
    assert not np.array_equal(first.feeds["x"], other.feeds["x"])
    assert load_inputs(model_of("float[batch,samples] w")).feeds["w"].shape == (1, 512)
    assert load_inputs(model, dims={"seq": 5}).feeds["m"].shape == (1, 5)
    given = load_inputs(model, {"m": np.zeros((2, 7), np.float32)})
    assert given.feeds["x"].shape == (2, 7, 8), "sizes follow from what was given"


def test_random_tokens_are_rows_of_the_table() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (int64[1, 50] ids) => (float[1, 50, 1] y)'
        "<float[3, 1] table = {1, 2, 3}> { y = Gather(table, ids) }"
    )
    ids = load_inputs(model).feeds["ids"]
    assert set(np.unique(ids)) == {0, 1, 2}


@pytest.mark.parametrize(("preset", "best"), [("keras-caffe", 1), (None, None)])
@pytest.mark.corpus
def test_a_goldfish_is_one_to_squeezenet(corpus: Path, preset: str | None, best: int | None) -> None:
    """Trained with BGR minus a mean: the right preprocessing finds class 1 (goldfish); the planted wrong one does not."""
    from onnxviz.runtime.capture import capture

    model = open_model(corpus / "models/classifier/SqueezeNet_fp32.onnx")
    how = PRESETS[preset] if preset else Preprocessing(mean=(500.0,))
    result = capture(model, corpus / "images/ort_goldfish.jpg", preprocessing=how, providers="cpu")
    scores = result[result.outputs[0]].array
    assert bool(scores.argmax() == 1) is (best == 1)


@pytest.mark.parametrize("fill", ["random", "zeros", "ones"])
def test_filled_inputs_take_sizes_from_dims_and_from_other_inputs(fill: str) -> None:
    model = model_of("float[n,w] a, float[n] b")
    assert load_inputs(model, [f"a={fill}"], dims={"n": 3, "w": 2}).feeds["a"].shape == (3, 2)
    assert load_inputs(model, [f"a={fill}", "b=[1,2,3,4]"], dims={"w": 2}).feeds["a"].shape == (4, 2)
    with pytest.raises(InputError, match="given twice"):
        load_inputs(model, [f"a={fill}", "a=zeros"])
