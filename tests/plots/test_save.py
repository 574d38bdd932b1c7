"""Writing figures: formats, determinism, text, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxviz.analysis.feature_maps import feature_maps
from onnxviz.errors import OutputError
from onnxviz.plots.feature_maps import plot_feature_maps
from onnxviz.plots.save import save_figure
from onnxviz.plots.style import name_lines, safe

ARRAY = np.random.default_rng(0).normal(size=(1, 5, 6, 6)).astype(np.float32)
ARRAY[0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_the_ending_chooses_the_format_and_bytes_repeat(tmp_path: Path, ending: str, magic: bytes) -> None:
    for name in ("a", "b"):
        save_figure(plot_feature_maps(feature_maps(ARRAY)), tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
    assert first.startswith(magic)
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{ending}", f"b.{ending}"]


def test_text_stays_text_in_svg(tmp_path: Path) -> None:
    save_figure(plot_feature_maps(feature_maps(ARRAY, name="conv_one")), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "conv_one" in text
    assert "5 channels" in text
    assert "<dc:date>" not in text


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svgz"])
def test_unknown_endings_name_the_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"use \.png, \.svg, \.pdf"):
        save_figure(plot_feature_maps(feature_maps(ARRAY)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        save_figure(plot_feature_maps(feature_maps(ARRAY)), tmp_path / "none" / "a.png")


def test_names_are_cut_in_the_middle() -> None:
    assert len(safe("x" * 10_000, 40)) == 40
    lines = name_lines("encoder/" + "block/" * 40 + "conv_last", 20).split("\n")
    assert len(lines) == 2
    assert all(len(line) <= 20 for line in lines)
    assert lines[1].endswith("conv_last")
