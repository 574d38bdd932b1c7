"""Profile figures, tested by what they draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from onnxviz.plots.profile import (
    plot_activation_memory,
    plot_node_times,
    plot_operator_times,
    plot_profile,
    plot_roofline,
)
from onnxviz.plots.save import save_figure
from onnxviz.runtime.profile_result import MemoryUse, NodeProfile, Profile


def row(name: str, op_type: str, seconds: float, macs: int | None = 0, size: int = 1000) -> NodeProfile:
    return NodeProfile(
        name=name, op_type=op_type, domain="", provider="cpu", calls=1, in_body=False, seconds=seconds,
        low=0.9 * seconds, high=1.2 * seconds, fastest=0.8 * seconds, share=seconds / 1e-2, macs=macs, bytes_read=size,
        weight_bytes=0, bytes_written=size, output_shape=(1,), outputs=(name,), originals=(name, name + "_relu"),
        original_ops=(op_type, "Relu"),
    )  # fmt: skip


def a_profile(rows: list[NodeProfile], sizes: list[int], resident: int | None = 7_000_000) -> Profile:
    peak = max(sizes, default=0)
    memory = MemoryUse(
        tuple(sizes), tuple(range(len(sizes))), peak, sizes.index(peak) if sizes else None, (), (), peak, resident,
        "not measured: no reason" if resident is None else "as told",
    )  # fmt: skip
    return Profile("net", "production", ("cpu",), 5, 1, 9e-3, 1e-2, 0.1, tuple(rows), memory, (), ("a note",), ())


@pytest.fixture
def typical() -> Profile:
    rows = [row(f"conv{i}", "Conv", (i + 1) * 1e-4, macs=10**6 * (i + 1), size=10_000) for i in range(12)]
    return a_profile([*rows, row("add", "Add", 5e-4)], [1_000_000 * (1 + i % 5) for i in range(13)])


def texts(figure: Figure) -> str:
    drawn = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        drawn += [t.get_text() for t in axes.texts]
        drawn += [label.get_text() for label in axes.get_yticklabels()] + [axes.get_title(loc="left")]
    return "\n".join(drawn)


def test_the_longest_nodes_have_bars(typical: Profile) -> None:
    figure = plot_node_times(typical, top=4)
    lengths = [bar.get_width() for bar in figure.axes[0].patches]
    assert lengths == pytest.approx([1.2, 1.1, 1.0, 0.9])
    assert "conv11\n+ conv11_relu" in texts(figure)
    assert "1.2 ms · 12.0% · cpu" in texts(figure)
    assert "The 4 nodes" in texts(figure)
    assert [line.get_xdata()[1] for line in figure.axes[0].lines] == pytest.approx([1.44, 1.32, 1.2, 1.08])


def test_operators_and_what_lies_in_none_of_them(typical: Profile) -> None:
    figure = plot_operator_times(typical, top=1)
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([78, 5, 10])
    assert "Conv × 12" in texts(figure)
    assert "1 other × 1" in texts(figure)
    assert "in no node" in texts(figure)


def test_the_peak_and_what_was_measured(typical: Profile) -> None:
    figure = plot_activation_memory(typical)
    axes = figure.axes[0]
    peak, measured = axes.lines
    assert (peak.get_xdata()[0], peak.get_ydata()[0]) == (5, pytest.approx(5))
    assert measured.get_ydata()[0] == pytest.approx(7)
    assert axes.patches[0].get_data().values.tolist() == [1 + i % 5 for i in range(13)]
    assert "peak 5 MB in conv4" in texts(figure)
    assert "measured: 7 MB more resident memory (asked of the allocator: 5 MB)" in texts(figure)


def test_a_measurement_beyond_the_scale_and_none(typical: Profile) -> None:
    far = replace(typical, memory=replace(typical.memory, resident_bytes=10**9))
    assert "beyond the scale" in texts(plot_activation_memory(far))
    assert plot_activation_memory(far).axes[0].get_ylim()[1] < 10
    none = replace(typical, memory=replace(typical.memory, resident_bytes=None, resident_method="not measured: why"))
    assert "not measured: why" in texts(plot_activation_memory(none))


def test_points_of_the_roofline(typical: Profile) -> None:
    axes = plot_roofline(typical).axes[0]
    points = axes.collections[0].get_offsets()
    assert len(points) == 12, "a node without MACs has no place"
    assert points[3].tolist() == pytest.approx([2 * 4e6 / 20_000, 2e-9 * 4e6 / 4e-4])
    roof = axes.lines[0].get_ydata()
    assert max(roof) == pytest.approx(max(y for _, y in points))
    assert all(y <= max(roof) * 1.001 for _, y in points)


def test_profiles_with_nothing_to_draw(tmp_path: Path) -> None:
    for profile in (a_profile([], [], None), a_profile([row("r", "Relu", 0.0)], [0], 0)):
        figure = plot_profile(profile)
        assert "no node that multiplies tensors" in texts(figure)
        save_figure(figure, tmp_path / "empty.png")


def test_hostile_names_and_the_same_bytes(tmp_path: Path) -> None:
    name = 'a"$x^2$\n</script>\u202e卷' + "x" * 10_000
    profile = replace(a_profile([row(name, "Conv", 1e-3, 10**6)], [5]), model_name=name)
    for file in ("a.svg", "b.svg"):
        save_figure(plot_profile(profile), tmp_path / file)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert "</script>" not in drawn
    assert "\u202e" not in drawn
    assert "x" * 200 not in drawn


def test_the_sheet_states_its_source(typical: Profile) -> None:
    figure = plot_profile(typical)
    for said in (
        "9 ms a run, median of 5 after 1 warm-up",
        "10% of it in no node",
        "optimised session",
        "78 M MACs",
        "a note",
    ):
        assert said in texts(figure)
    assert len(figure.axes) == 4
