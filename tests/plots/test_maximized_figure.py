"""The sheet of activation maximization, by what it draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxviz
from onnxviz.analysis.maximize import MadePicture, Maximized, Settings
from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.maximize_data import maximized_data
from onnxviz.analysis.paired import NotDrawn
from onnxviz.plots.maximized import plot_maximized
from onnxviz.plots.save import save_figure


def canvas(kind: str, channels: int, size: tuple[int, ...], color: str = "") -> Canvas:
    order = "NCHW" if len(size) == 2 else "NCL" if kind == "signal" else "NL"
    ones = np.ones(channels)
    return Canvas("x", kind, channels, size, order, color, 2 * ones, -ones, None, ("values from -1 to 1",))  # type: ignore[arg-type]


def found(on: Canvas, labels: list[str], copies: int = 1, **changes: Any) -> Maximized:
    rng = np.random.default_rng(0)
    made = [
        MadePicture(label, i, copy, rng.random((on.channels, *on.size)).astype(np.float32), 3.0 + i, 0.5, np.arange(8.0, dtype=np.float32))
        for i, label in enumerate(labels)
        for copy in range(copies)
    ]  # fmt: skip
    result = Maximized("net", "channels", "conv", on, Settings(steps=8, count=copies), tuple(made), 4)
    return replace(result, **changes)


def texts(figure: Any) -> str:
    inner = [t.get_text() for axes in figure.axes for t in (*axes.texts, axes.title)]
    return "\n".join([*(t.get_text() for t in figure.texts), *inner])


def images(figure: Any) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]


def test_pictures_are_drawn_as_they_are_and_named() -> None:
    result = found(canvas("picture", 3, (6, 8), "bgr"), ["channel 3", "channel 7"])
    figure = plot_maximized(result)
    first, second = images(figure)
    np.testing.assert_array_equal(first, result.pictures[0].values[::-1].transpose(1, 2, 0))
    np.testing.assert_array_equal(second, result.pictures[1].values[::-1].transpose(1, 2, 0))
    said = texts(figure)
    for part in ("Channels of conv, maximized", "channel 3", "channel 7", "3 (0.5)", "8 steps of Adam (0.05)", "seed 0",
                 "decorrelated colours", "values from -1 to 1", "pad 12"):  # fmt: skip
        assert part in said


def test_grey_pictures_are_neither_stretched_nor_clipped() -> None:
    figure = plot_maximized(found(canvas("picture", 1, (6, 6), "gray"), ["a"]))
    (image,) = [image for axes in figure.axes for image in axes.get_images()]
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "gray"


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("count", [1, 9, 40])
def test_tiles_stay_on_the_sheet_and_apart(count: int, copies: int) -> None:
    figure = plot_maximized(found(canvas("picture", 1, (8, 8), "gray"), [f"channel {i}" for i in range(count)], copies))
    boxes = [axes.get_position() for axes in figure.axes if axes.get_images()]
    assert len(boxes) == count * copies
    for i, a in enumerate(boxes):
        assert 0 <= a.x0 < a.x1 <= 1
        assert 0 <= a.y0 < a.y1 <= 1
        assert not any(a.overlaps(b) for b in boxes[i + 1 :])


def test_signals_and_vectors_have_the_axis_of_their_values() -> None:
    signal = found(canvas("signal", 2, (32,)), ["class 0"])
    figure = plot_maximized(signal)
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), 2 * signal.pictures[0].values[0] - 1)
    assert figure.axes[0].get_ylim() == pytest.approx((-1.08, 1.08))
    figure = plot_maximized(found(canvas("vector", 1, (5,)), ["y"]))
    assert len(figure.axes[0].patches) == 5
    assert "no transformations" not in texts(figure)


def test_a_dream_stands_beside_its_picture() -> None:
    on = canvas("picture", 1, (8, 8), "gray")
    source = np.random.default_rng(1).random((1, 8, 8)).astype(np.float32)
    figure = plot_maximized(found(on, ["dream"], source=source, what="deep dream"))
    first, second = images(figure)
    np.testing.assert_array_equal(first, source[0])
    assert not np.array_equal(first, second)
    assert "dream: 3 (0.5)" in texts(figure)


def test_hostile_names_notes_and_nothing_at_all() -> None:
    on = canvas("picture", 1, (4, 4), "gray")
    name = "a\n</script>\u202e$x$" + "w" * 9000
    result = found(on, [name, "b"], layer=name, notes=("interrupted",), not_drawn=(NotDrawn("c", "not finite"),))
    said = texts(plot_maximized(result))
    assert "\u202e" not in said
    assert "not drawn: c: not finite" in said
    assert max(map(len, said.split("\n"))) < 220
    empty = plot_maximized(found(on, [], notes=("interrupted",)))
    assert "interrupted" in texts(empty)
    arrays, manifest = maximized_data(found(on, []))
    assert arrays["values"].shape == (0, 1, 4, 4)
    assert manifest["labels"] == []


def test_samples_stand_beside_and_files_are_the_same_bytes(models: Path, tmp_path: Path) -> None:
    digits = sorted((models / "samples").glob("digit_*.png"))
    result = onnxviz.maximized(
        models / "digits_cnn.onnx", "conv2/Relu", channels=[5, 9], inputs=digits, settings={"steps": 4}
    )
    assert result.examples is not None
    units = {one.unit: one for one in result.examples.layers[0].extremes}
    assert set(units) == {5, 9}
    block = np.asarray(onnxviz.capture(models / "digits_cnn.onnx", digits, "conv2/Relu")["conv2/Relu"].array)
    for unit, extremes in units.items():
        answers = (
            block[..., unit].mean(axis=(1, 2)) if block.shape[-1] > block.shape[1] else block[:, unit].mean(axis=(1, 2))
        )
        assert [one.sample for one in extremes.top[:3]] == np.argsort(-answers, kind="stable")[:3].tolist()
    figure = plot_maximized(result)
    assert len(images(figure)) == 2 + 2 * 5
    for name in ("a.png", "b.png"):
        save_figure(plot_maximized(result), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
