"""Pictures on blocks: where they stand, and that every writer draws them as they are."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import PIL.Image
import pytest

from onnxviz.diagram.architecture import Architecture, architecture
from onnxviz.diagram.scene import Group, Image, Rect, Scene, Text
from onnxviz.diagram.svg import scene_to_svg
from onnxviz.diagram.themes import THEMES
from onnxviz.diagram.thumbnails import Thumbnail, make_strip
from onnxviz.errors import InputError
from tests.diagram.scene_geometry import faults, text_box

CHEQUERS = np.kron(np.indices((4, 6)).sum(axis=0) % 2, np.ones((8, 8)))[..., None].astype(np.uint8) * np.array(
    [250, 20, 90], np.uint8
)


def misplaced(drawing: Architecture) -> list[str]:
    """Name the pictures that leave their box, or cover text or one another."""
    found = []
    for group in drawing.scene.groups:
        images = [Rect(i.x, i.y, i.width, i.height) for i in group.items if isinstance(i, Image)]
        texts = [text_box(item) for item in group.items if isinstance(item, Text)]
        for n, image in enumerate(images):
            box = group.box
            inside = (
                box is not None
                and box.x <= image.x
                and image.x + image.width <= box.x + box.width
                and box.y <= image.y
                and image.y + image.height <= box.y + box.height
            )
            if not inside or any(image.overlaps(other) for other in texts + images[n + 1 :]):
                found.append(group.id)
    return found


PICTURES = {
    "x": CHEQUERS,
    "c": Thumbnail((CHEQUERS, CHEQUERS, CHEQUERS), "3 of 64 · 0 … 1.2", "three channels"),
    "r": np.zeros((300, 900, 3), np.uint8),
    "y": Thumbnail((CHEQUERS,), "a caption that is far too long for the block that it stands in, and so is cut"),
}


def test_blocks_grow_to_hold_their_pictures(small_cnn: ir.Model) -> None:
    plain, drawing = architecture(small_cnn), architecture(small_cnn, thumbnails=PICTURES)
    before, after = dict(plain.scene.boxes()), dict(drawing.scene.boxes())
    assert {name for name in after if after[name].height > before[name].height} == {
        "input-x", "node-c", "node-r", "node-y",
    }  # fmt: skip
    assert not faults(drawing.scene)
    assert not misplaced(drawing)
    images = [item for group in drawing.scene.groups for item in group.items if isinstance(item, Image)]
    assert len(images) == 6
    assert all(image.height <= 96 and image.width <= 214 for image in images)
    conv = next(group for group in drawing.scene.groups if group.id == "node-c")
    assert conv.tooltip.endswith("three channels")


def test_a_misplaced_picture_is_caught(small_cnn: ir.Model) -> None:
    drawing = architecture(small_cnn, thumbnails=PICTURES)
    groups = [
        replace(g, items=tuple(replace(i, y=i.y - 20) if isinstance(i, Image) else i for i in g.items))
        for g in drawing.scene.groups
    ]
    assert "node-c" in misplaced(replace(drawing, scene=replace(drawing.scene, groups=tuple(groups))))


def test_signs_and_colours_go_with_pictures(small_cnn: ir.Model) -> None:
    drawing = architecture(small_cnn, thumbnails=PICTURES, color_by="parameters", fold=())
    assert not faults(drawing.scene)
    assert not misplaced(drawing)


@pytest.mark.parametrize("theme", THEMES)
def test_themes_leave_pictures_alone(small_cnn: ir.Model, theme: str) -> None:
    drawing = architecture(small_cnn, thumbnails=PICTURES, theme=theme)
    images = [i for g in drawing.scene.groups if g.id == "node-c" for i in g.items if isinstance(i, Image)]
    assert images[0].rgb == CHEQUERS.tobytes()


def test_svg_holds_the_pixels(small_cnn: ir.Model) -> None:
    svg = scene_to_svg(architecture(small_cnn, thumbnails=PICTURES).scene)
    assert svg == scene_to_svg(architecture(small_cnn, thumbnails=PICTURES).scene)
    found = re.findall(r'<image [^>]*image-rendering:pixelated" href="data:image/png;base64,([^"]+)"/>', svg)
    assert len(found) == 6
    image = PIL.Image.open(io.BytesIO(base64.b64decode(found[0])))
    assert np.array_equal(np.asarray(image), CHEQUERS)


def test_png_and_pdf_draw_the_pixels_upright(tmp_path: Path) -> None:
    corners = np.zeros((2, 2, 3), np.uint8)
    corners[0, 0], corners[0, 1], corners[1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    group = Group("g", "node", "", (Image(10.0, 20.0, 40.0, 40.0, 2, 2, corners.tobytes()),))
    drawing = Architecture(Scene(80.0, 80.0, "t", (group,)), None, lambda: None)  # type: ignore[arg-type, return-value]
    drawing.save(tmp_path / "a.png")
    pixels = np.asarray(PIL.Image.open(tmp_path / "a.png").convert("RGB"))
    for (row, column), colour in {(60, 40): (255, 0, 0), (60, 80): (0, 255, 0), (100, 40): (0, 0, 255)}.items():
        assert tuple(pixels[row, column]) == colour
    assert tuple(pixels[30, 40]) == tuple(pixels[130, 40]) == (255, 255, 255)
    assert tuple(pixels[42, 22]) == (255, 0, 0), "the picture is out of place"
    drawing.save(tmp_path / "a.pdf")
    first = (tmp_path / "a.pdf").read_bytes()
    assert b"/Subtype /Image" in first
    drawing.save(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == first


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 2000, 3), np.uint8),
     Thumbnail((np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8))), Thumbnail(())],
)  # fmt: skip
def test_what_is_no_picture_is_refused(wrong: Thumbnail | np.ndarray) -> None:
    with pytest.raises(InputError, match="thumbnail of 'y'"):
        make_strip("y", wrong)
