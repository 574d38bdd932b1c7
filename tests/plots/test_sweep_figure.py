"""The figure of a sweep holds what was found: a cell for each size, in the colour of its verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from onnxviz.analysis.size_formulas import OutputSize
from onnxviz.analysis.size_rules import SizeRule
from onnxviz.analysis.sweep_result import SizeChange, SizeFailure, SizeRun, Sweep, SweptDimension, Verdict
from onnxviz.errors import InputError
from onnxviz.plots.save import save_figure
from onnxviz.plots.sweep import plot_sweep

GREEN, ORANGE, RED, GREY = "#3b8f6b", "#e69f00", "#b3261e", "#d9dde1"
ODD = "na$me\n</script>\u202e" + "x" * 10_000


def run(verdict: Verdict, seconds: float = 0.01, **sizes: int) -> SizeRun:
    ran = verdict in ("works", "changes")
    return SizeRun(sizes, verdict, "" if ran else "Add node 'a': no", {}, seconds if ran else None, None)


def dimension(name: str, runs: list[SizeRun], usual: int, samples: bool = False) -> SweptDimension:
    rule = SizeRule(None, 2, 1, 0, 0, (1, 2), (3,))
    return SweptDimension(name, {"x": 0}, usual, samples, False, 1, (), rule, tuple(runs))


def result(name: str = "height") -> Sweep:
    batch = [run("works", **{"n": 1, name: 32}), run("changes", 0.02, **{"n": 2, name: 32})]
    height = [
        run("fails", **{"n": 1, name: 16}),
        run("works", **{"n": 1, name: 32}),
        run("not_tried", **{"n": 1, name: 64}),
    ]
    pairs = [run("fails", **{"n": 2, name: 16})]
    failure = SizeFailure((name,), (height[0].sizes,), "Add node 'a': no", "Add node 'a'")
    change = SizeChange("samples", "y", "it differs", (batch[1].sizes,), "ReduceMean node 'm'")
    size = OutputSize("y", 0, f"floor({name}/32)", "inferred", 5)
    dimensions = (dimension("n", batch, 1, samples=True), dimension(name, height, 32))
    return Sweep(
        "net", dimensions, tuple(pairs), (size,), (change,), (failure,), ("x: random",), ("fed random numbers: x",)
    )


def colours(axes: object) -> list[str]:
    return [to_hex(patch.get_facecolor()) for patch in axes.patches if isinstance(patch, Rectangle)]  # type: ignore[attr-defined]


def test_each_size_has_a_cell_in_the_colour_of_its_verdict() -> None:
    figure = plot_sweep(result())
    _, batch, _, height, grid = figure.axes
    assert colours(batch) == [GREEN, ORANGE]
    assert [label.get_text() for label in height.get_xticklabels()] == ["16", "32", "64"]
    assert colours(height) == [RED, GREEN, GREY]
    assert [text.get_text() for text in height.texts] == ["×", "", "?"]
    assert sorted(colours(grid)) == sorted([GREEN, ORANGE, RED, RED])


def test_time_is_drawn_over_that_of_the_usual_size_and_breaks_where_nothing_ran() -> None:
    figure = plot_sweep(result())
    (line, usual) = figure.axes[0].lines
    assert list(line.get_ydata()) == [1.0, 2.0]
    assert list(usual.get_ydata()) == [1, 1]
    gaps = [value != value for value in figure.axes[2].lines[0].get_ydata()]
    assert gaps == [True, False, True]


def test_the_figure_says_why_sizes_fail_and_where_samples_mix() -> None:
    texts = [text.get_text() for text in plot_sweep(result()).texts]
    assert "at 16: Add node 'a': no" in texts
    assert "y: samples depend on each other, first at ReduceMean node 'm'" in texts
    assert any("floor(height/32)" in text for text in texts)


def test_odd_names_and_many_sizes_are_drawn(tmp_path: Path) -> None:
    save_figure(plot_sweep(result(ODD)), tmp_path / "odd.svg")
    assert "</script>" not in (tmp_path / "odd.svg").read_text()
    many = [run("works", n=size) for size in range(1, 257)]
    figure = plot_sweep(Sweep("net", (dimension("n", many, 1),), (), (), (), (), ()))
    assert figure.get_size_inches()[0] <= 14
    assert len(colours(figure.axes[1])) == 256
    assert len(figure.axes[1].get_xticklabels()) < 60


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save_figure(plot_sweep(result()), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_nothing_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        plot_sweep(Sweep("net", (), (), (), (), (), ()))
