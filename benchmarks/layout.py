"""Layout of large transformer graphs with a mask that fans out to every block: ``python benchmarks/layout.py``."""

from __future__ import annotations

import time

import numpy as np

from onnxviz.diagram.layout import compute_layout

SIZES = {1_000: None, 10_000: 0.4, 50_000: 2.0}
ROUNDS = 5


def transformer(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return box sizes and edges of blocks of attention and feed-forward, at least ``nodes`` nodes in all."""
    edges: list[tuple[int, int]] = []
    count = 0

    def node(*inputs: int) -> int:
        nonlocal count
        edges.extend((source, count) for source in inputs)
        count += 1
        return count - 1

    def chain(start: int, length: int) -> int:
        for _ in range(length):
            start = node(start)
        return start

    mask, x = node(), node()
    while count < nodes:
        norm = node(x)
        query, key, value = chain(norm, 3), chain(norm, 4), chain(norm, 3)
        scores = node(node(chain(node(query, key), 1), mask))
        x = node(x, chain(node(scores, value), 3))
        x = node(x, chain(x, 5))
    return np.tile([90.0, 20.0], (count, 1)), np.array(edges)


def main() -> int:
    missed = 0
    for wanted, target in SIZES.items():
        sizes, edges = transformer(wanted)
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            compute_layout(sizes, edges)
            seconds.append(time.perf_counter() - start)
        best = sorted(seconds)[ROUNDS // 2]
        missed += target is not None and best > target
        print(
            f"{len(sizes):>7,} nodes {len(edges):>7,} edges {best:6.2f} s" + (f", target {target} s" if target else "")
        )
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
