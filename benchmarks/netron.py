"""Layout against Netron's, the same graphs in the same run: ``python benchmarks/netron.py [FOLDER OF NETRON]``.

Netron's part runs under Node.js: its ``dagre.js``, with the settings of its ``grapher.js``, from the Python package
(``pip install netron``, or unpacked into the folder that is named).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from layout import transformer

from onnxviz.diagram.layout import compute_layout

SIZES = (2_000, 5_000, 10_000)
LIMIT = 120  # seconds a case
HEAP = 4096  # MiB; what a tab of Chrome gets
ROUNDS = 3


def find_dagre(arguments: list[str]) -> Path | None:
    """Return Netron's ``dagre.js``, from the folder that is named or the installed package."""
    spec = importlib.util.find_spec("netron")
    folders = [Path(argument) for argument in arguments]
    folders += [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((found for folder in folders for found in sorted(folder.rglob("dagre.js"))), None)


def own_seconds(sizes: np.ndarray, edges: np.ndarray) -> float:
    """Return the median time of onnxviz's layout."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        compute_layout(sizes, edges)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[ROUNDS // 2]


def netron_seconds(node: str, library: Path, graph: Path) -> float | str:
    """Return the time of Netron's layout alone, without starting Node.js; or why there is none."""
    script = Path(__file__).with_name("netron_layout.mjs")
    command = [node, "--stack-size=4000", f"--max-old-space-size={HEAP}", str(script), str(library), str(graph)]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"over {LIMIT} s"
    if done.returncode:
        if "heap out of memory" in done.stderr:
            return f"out of memory ({HEAP} MiB) after {time.perf_counter() - start:.0f} s"
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        return f"failed: {(lines or [done.stderr])[0].strip()[:100]}"
    return float(done.stdout)


def main() -> int:
    node, dagre = shutil.which("node"), find_dagre(sys.argv[1:])
    if node is None or dagre is None:
        print(
            "skipped:", "Node.js is not installed" if node is None else "Netron is not installed (pip install netron)"
        )
        return 0
    with tempfile.TemporaryDirectory() as folder:
        library, graph = Path(folder, "dagre.mjs"), Path(folder, "graph.json")
        shutil.copyfile(dagre, library)
        for masked in (True, False):
            print("with a mask that every block reads" if masked else "without the mask")
            for size in SIZES:
                sizes, edges = transformer(size)
                if not masked:
                    edges = edges[edges[:, 0] != 0]
                graph.write_text(json.dumps({"sizes": sizes.tolist(), "edges": edges.tolist()}), encoding="utf-8")
                own, other = own_seconds(sizes, edges), netron_seconds(node, library, graph)
                known = isinstance(other, float)
                text = f"{other:7.2f} s, {other / own:,.0f} times as long" if known else str(other)
                print(f"{len(sizes):>7,} nodes {len(edges):>7,} edges: onnxviz {own:5.2f} s, Netron {text}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
