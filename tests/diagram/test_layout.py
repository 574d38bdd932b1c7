from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from onnxviz.diagram.coordinates import place_in_order
from onnxviz.diagram.layout import Layout, compute_layout
from onnxviz.diagram.ordering import count_crossings, order_ranks
from onnxviz.diagram.ranks import rank_nodes

Pairs = list[tuple[int, int]]


def random_dag(seed: int, count: int, extra: int) -> tuple[np.ndarray, Pairs]:
    """Sizes and edges of a random connected DAG."""
    rng = np.random.default_rng(seed)
    sizes = np.column_stack([rng.uniform(30, 240, count), rng.uniform(18, 60, count)])
    edges = {(int(rng.integers(max(0, i - 8), i)), i) for i in range(1, count)}
    for _ in range(extra):
        a, b = sorted(rng.integers(0, count, 2).tolist())
        if a != b:
            edges.add((a, b))
    return sizes, sorted(edges)


def touching(layout: Layout) -> list[tuple[int, int]]:
    """Pairs of boxes that share any inside."""
    left, top, width, height = layout.boxes.T
    hit = (left[:, None] < left + width - 1e-6) & (left < left[:, None] + width[:, None] - 1e-6)
    hit &= (top[:, None] < top + height - 1e-6) & (top < top[:, None] + height[:, None] - 1e-6)
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(hit, 1))]


def pierced(layout: Layout) -> list[tuple[int, int]]:
    """Edges and the boxes that their vertical pieces run through; and edges that are oblique within a rank."""
    found = []
    for edge in range(len(layout.edges)):
        points = layout.path(edge)
        for (x0, y0), (x1, y1) in pairwise(points):
            if abs(x0 - x1) > 1e-9:
                if any(y0 < bottom - 1e-6 and y1 > top + 1e-6 for top, bottom in layout.bands):
                    found.append((edge, -1))
                continue
            left, top, width, height = layout.boxes.T
            inside = (x0 > left) & (x0 < left + width) & (top < y1 - 1e-6) & (top + height > y0 + 1e-6)
            found += [(edge, int(i)) for i in np.flatnonzero(inside)]
    return found


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_have_no_overlaps_and_no_pierced_boxes(seed: int) -> None:
    sizes, edges = random_dag(seed, 15 + 9 * seed, 6 * seed)
    layout = compute_layout(sizes, edges)
    assert touching(layout) == []
    assert pierced(layout) == []
    assert (layout.boxes[:, :2] >= -1e-6).all()
    assert (layout.boxes[:, 0] + layout.boxes[:, 2] <= layout.width + 1e-6).all()
    assert layout.boxes[:, 2:].tolist() == sizes.tolist()


def test_the_checks_catch_a_shifted_box() -> None:
    sizes, edges = random_dag(3, 40, 20)
    layout = compute_layout(sizes, edges)
    boxes = layout.boxes.copy()
    boxes[7] = boxes[8]
    moved = Layout(**{**{f: getattr(layout, f) for f in Layout.__dataclass_fields__}, "boxes": boxes})
    assert (7, 8) in touching(moved)
    boxes[9, 0], boxes[9, 2] = -1e4, 2e4
    assert pierced(moved)


def test_every_line_starts_and_ends_at_its_boxes() -> None:
    sizes, edges = random_dag(5, 60, 30)
    layout = compute_layout(sizes, edges)
    for i, (source, target) in enumerate(edges):
        first, last = layout.path(i)[[0, -1]]
        left, top, width, height = layout.boxes[source]
        assert first[1] == pytest.approx(top + height)
        assert left < first[0] < left + width
        left, top, width, _ = layout.boxes[target]
        assert last[1] == pytest.approx(top)
        assert left < last[0] < left + width


def test_margins_are_kept_free() -> None:
    margins = np.tile([20.0, 10.0, 50.0, 15.0], (3, 1))
    layout = compute_layout([(40, 20)] * 3, [(0, 1), (0, 2)], margins=margins)
    a, b = sorted(layout.boxes[1:].tolist())
    assert b[0] - (a[0] + a[2]) >= 70
    assert layout.boxes[1, 1] - (layout.boxes[0, 1] + 20) >= 25


def test_a_trunk_stays_straight_beside_its_skip_connections() -> None:
    edges: Pairs = []
    for block in range(6):
        edges += [(3 * block, 3 * block + 1), (3 * block + 1, 3 * block + 2), (3 * block + 2, 3 * block + 3)]
        edges += [(3 * block, 3 * block + 3)]
    layout = compute_layout([(80, 20)] * 19, edges)
    middle = layout.boxes[:, 0] + layout.boxes[:, 2] / 2
    assert np.ptp(middle) < 1e-6


def test_ports_move_the_start_of_a_line() -> None:
    layout = compute_layout([(100, 20), (40, 20), (40, 20)], [(0, 1), (0, 2)], ports=[-30.0, 30.0])
    assert layout.path(1)[0, 0] - layout.path(0)[0, 0] == pytest.approx(60.0)
    assert layout.boxes[1, 0] < layout.boxes[2, 0]


def test_cycles_and_loops_become_stubs() -> None:
    layout = compute_layout([(50, 20)] * 4, [(0, 1), (1, 2), (2, 1), (2, 3), (3, 3)])
    assert layout.back.tolist() == [False, False, True, False, True]
    assert layout.stub.tolist() == layout.back.tolist()
    assert len(layout.path(2)) == 0


def test_only_the_cycle_is_cut_not_what_hangs_below_it() -> None:
    edges = np.array([(1, 0), (2, 1), (3, 2), (2, 3)])  # 0 and 1 are defined first but lie below the cycle 2-3
    assert rank_nodes(4, edges).back.tolist() == [False, False, True, False]


def test_long_edges_and_hubs_become_stubs() -> None:
    chain = [(i, i + 1) for i in range(60)]
    layout = compute_layout([(50, 20)] * 61, [*chain, (0, 60), (0, 30)])
    assert layout.stub.tolist() == [False] * 60 + [True, False]
    fan = [(0, i) for i in range(1, 301)]
    assert compute_layout([(50, 20)] * 301, fan).stub.all()


def test_sources_stand_next_to_their_first_use() -> None:
    ranks = rank_nodes(7, np.array([(0, 1), (1, 2), (2, 3), (4, 3), (5, 6), (6, 3)])).rank
    assert ranks.tolist() == [0, 1, 2, 3, 2, 1, 2]


def test_empty_and_single() -> None:
    empty = compute_layout([], [])
    assert (empty.width, empty.height, len(empty.bands)) == (0.0, 0.0, 0)
    assert compute_layout([(10, 20)], []).boxes.tolist() == [[0, 0, 10, 20]]


def test_the_same_input_gives_the_same_positions() -> None:
    sizes, edges = random_dag(11, 120, 80)
    a, b = compute_layout(sizes, edges), compute_layout(sizes, edges)
    assert a.points.tobytes() == b.points.tobytes()
    assert a.boxes.tobytes() == b.boxes.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        a.boxes[0, 0] = 1.0


def test_place_in_order_is_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted, weights = rng.uniform(0, 50, 6), rng.uniform(0.2, 3, 6)
        room = rng.uniform(2, 20, 5)
        x = np.array(place_in_order(wanted.tolist(), weights.tolist(), room.tolist()))
        assert (np.diff(x) >= room - 1e-9).all()
        cost = (weights * (x - wanted) ** 2).sum()
        for _ in range(200):  # no feasible point nearby is better
            other = x + rng.normal(0, 0.5, 6)
            if (np.diff(other) >= room).all():
                assert (weights * (other - wanted) ** 2).sum() >= cost - 1e-9


def test_ordering_removes_crossings() -> None:
    rng = np.random.default_rng(4)
    shuffled = rng.permutation(10)
    up: list[list[tuple[int, float]]] = [[] for _ in range(20)]
    down: list[list[tuple[int, float]]] = [[] for _ in range(20)]
    for a, b in enumerate(shuffled.tolist()):
        up[10 + b].append((a, 0.0))
        down[a].append((10 + b, 0.0))
    ranks = [list(range(10)), list(range(10, 20))]
    place = [float(i % 10) for i in range(20)]
    assert count_crossings(ranks, up, place) == sum(
        shuffled[i] > shuffled[j] for i in range(10) for j in range(i + 1, 10)
    )
    order_ranks(ranks, up, down)
    for row in ranks:
        for i, v in enumerate(row):
            place[v] = float(i)
    assert count_crossings(ranks, up, place) == 0


def test_large_graphs_stay_quick() -> None:
    chain = compute_layout(np.tile([100.0, 40.0], (100_000, 1)), [(i, i + 1) for i in range(99_999)])
    assert len(chain.bands) == 100_000
    wide = [(0, i) for i in range(1, 50_001)] + [(i, 50_001) for i in range(1, 50_001)]
    assert compute_layout(np.tile([100.0, 40.0], (50_002, 1)), wide).stub.all()


def test_long_graphs_do_not_wander_sideways() -> None:
    edges: Pairs = []
    for cell in range(0, 1500, 5):  # trunk, a side branch that always joins from the right, a skip
        edges += [
            (cell, cell + 1),
            (cell + 1, cell + 3),
            (cell + 2, cell + 3),
            (cell + 3, cell + 4),
            (cell + 4, cell + 5),
        ]
        edges += [(cell, cell + 4)]
    layout = compute_layout([(80, 20)] * 1501, [*edges, (1500, 0)])
    assert layout.width < 600
    assert touching(layout) == []
