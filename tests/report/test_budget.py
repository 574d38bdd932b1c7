from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxviz.report.budget import LEVELS, Panel, fill, fitting_cap


def panel(size: int) -> Panel:
    def draw(level: int) -> tuple[dict[str, Any], str]:
        return {"png": "x" * (size >> level), "labels": [], "ranges": []}, f"level {level}"

    return Panel({"caption": ""}, draw)


@pytest.mark.parametrize("seed", range(5))
def test_the_cap_fills_the_room_and_never_overflows_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 1000, 40).tolist()
    room = int(rng.integers(1, sum(sizes)))
    cap = fitting_cap(sizes, room)
    assert sum(min(size, cap) for size in sizes) <= room
    assert sum(min(size, cap + 1) for size in sizes) > room


def test_everything_is_drawn_in_full_where_there_is_room() -> None:
    panels = [panel(1000), Panel({"caption": "numbers only"}), panel(5000)]
    assert fill(panels, 10_000) == []
    assert [p.row["caption"] for p in panels] == ["level 0", "numbers only", "level 0"]


def test_large_pictures_become_coarser_before_any_is_dropped() -> None:
    panels = [panel(1000), panel(80_000), panel(40_000)]
    notes = fill(panels, 45_000)
    assert sum(p.size() for p in panels) <= 45_000
    assert panels[0].row["caption"] == "level 0"
    assert all(p.picture is not None for p in panels)
    assert notes == ["2 of 3 pictures show fewer channels or less detail, to keep the page small"]


def test_what_cannot_be_made_small_enough_is_left_out_and_counted() -> None:
    panels = [panel(100), panel(100 << (LEVELS + 5))]
    assert fill(panels, 1500) == ["1 of 2 pictures are left out, to keep the page small"]
    assert panels[1].picture is None


def test_no_room_at_all_drops_every_picture() -> None:
    panels = [panel(1000), panel(1000)]
    fill(panels, -5)
    assert [p.picture for p in panels] == [None, None]
