from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from onnxviz.diagram.raster import write_pdf, write_png
from onnxviz.diagram.scene import Group, Rect, Scene, Text
from onnxviz.diagram.scene import Path as Line

_STREAM = rb"FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream"


def scene_of(*items: Rect | Line | Text, width: float = 100.0, height: float = 60.0) -> Scene:
    return Scene(width, height, "t", (Group("g", "node", "", items),))


def pixels(scene: Scene, path: Path, scale: float = 2.0) -> np.ndarray:
    assert write_png(scene, path, scale=scale) is None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_png_shows_things_where_the_scene_has_them(tmp_path: Path) -> None:
    scene = scene_of(
        Rect(10, 5, 20, 10, fill="#ff0000"),
        Line(((50, 30), (90, 30)), "ML", stroke="#0000ff", stroke_width=4.0),
        Text(10, 50, "Xg", 12.0, fill="#008000"),
    )
    image = pixels(scene, tmp_path / "a.png")
    assert image.shape == (120, 200, 3)
    assert image[20, 40].tolist() == [255, 0, 0]
    assert image[8, 40].tolist() == [255, 255, 255]
    assert image[60, 140].tolist() == [0, 0, 255]
    green = np.argwhere((image[:, :, 1] > 100) & (image[:, :, 0] < 100))
    top, left = green.min(axis=0)
    bottom, right = green.max(axis=0)
    assert 78 <= top <= 86  # the capital's top, 12 px font: 8.75 px above the baseline at 50
    assert 100 <= bottom <= 107  # the descender of g below it
    assert 19 <= left <= 23
    assert right <= 2 * scene.groups[0].items[2].extent[1]  # type: ignore[union-attr]


def test_anchors_place_text(tmp_path: Path) -> None:
    for anchor, low, high in (("start", 50, 100), ("middle", 30, 70), ("end", 0, 50)):
        image = pixels(scene_of(Text(50, 30, "mmm", 12.0, anchor=anchor)), tmp_path / "a.png", 1.0)
        columns = np.flatnonzero(image.min(axis=(0, 2)) < 128)
        assert low <= columns.min()
        assert columns.max() <= high


def test_unknown_glyphs_and_dollar_signs_are_drawn_without_warnings(tmp_path: Path) -> None:
    scene = scene_of(Text(2, 20, "漢字 😀 $x^2$ _a", 10.0))
    assert pixels(scene, tmp_path / "a.png").min() < 128
    assert write_pdf(scene, tmp_path / "a.pdf") is None


def test_pdf_holds_text_as_text_and_no_date(tmp_path: Path) -> None:
    scene = scene_of(Text(10, 20, "MaxPool", 10.0), Text(10, 40, "MaxPool", 10.0, bold=True))
    write_pdf(scene, tmp_path / "a.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    streams = [zlib.decompress(stream) for stream in re.findall(_STREAM, data, re.DOTALL)]
    shown = [re.sub(rb"[^A-Za-z]", b"", b"".join(re.findall(rb"\((.*?)\)", stream))) for stream in streams]
    assert b"MaxPoolMaxPool" in shown  # letters, in pieces where the font has kerning
    assert b"CreationDate" not in data
    assert b"/Subtype /TrueType" in data or b"/Subtype /Type0" in data
    assert b"[ 0 0 75 45 ]" in data  # 100 × 60 px are 75 × 45 points


def test_huge_scenes_are_scaled_down_with_a_remark(tmp_path: Path) -> None:
    scene = scene_of(Rect(0, 0, 50, 900_000, fill="#336699"), width=100.0, height=1_000_000.0)
    remark = write_png(scene, tmp_path / "a.png")
    assert remark is not None
    assert "scaled" in remark
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) <= 30_000
    assert "scaled" in (write_pdf(scene, tmp_path / "a.pdf") or "")


def test_matplotlib_settings_are_left_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_png(scene_of(Text(1, 10, "a", 9.0)), tmp_path / "a.png")
    write_pdf(scene_of(Text(1, 10, "a", 9.0)), tmp_path / "a.pdf")
    assert dict(matplotlib.rcParams) == before
