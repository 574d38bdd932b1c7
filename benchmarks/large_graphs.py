"""Drawings of large graphs, all told: ``python benchmarks/large_graphs.py``.

An SVG of 10,000 nodes from the command line, and the interactive page of 50,000 nodes, folded and flat: how long it
takes to make, how large it is, and when Chromium shows its first picture.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
from onnx import TensorProto, helper

ROUNDS = 3
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def transformer(nodes: int, path: Path) -> int:
    """Write a transformer with scopes and a mask that fans out to every layer; return how many nodes it has."""
    made: list[onnx.NodeProto] = []

    def node(op: str, scope: str, *inputs: str, **attributes: object) -> str:
        name = f"/model/layers.{scope}/{op}_{len(made)}"
        made.append(helper.make_node(op, list(inputs), [f"{name}_output_0"], name=name, **attributes))
        return made[-1].output[0]

    def chain(scope: str, value: str, *ops: str) -> str:
        for op in ops:
            value = node(op, scope, value, **({"perm": [1, 0, 2]} if op == "Transpose" else {}))
        return value

    x, layer = "x", 0
    while len(made) < nodes:
        scope = f"{layer}/attn"
        normal = node("Softsign", f"{layer}/norm1", x)
        query = chain(scope, normal, "Identity", "Relu", "Transpose")
        key = chain(scope, normal, "Identity", "Relu", "Neg", "Transpose")
        value = chain(scope, normal, "Identity", "Relu", "Transpose")
        scores = node("Add", scope, chain(scope, node("Mul", scope, query, key), "Abs"), "mask")
        mixed = chain(scope, node("Mul", scope, node("Softmax", scope, scores), value), "Transpose", "Identity", "Relu")
        x = node("Add", str(layer), x, mixed)
        x = node("Add", str(layer), x, chain(f"{layer}/mlp", x, "Softsign", "Neg", "Sigmoid", "Neg", "Abs"))
        layer += 1
    shape = [16, 16, 64]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "mask", x)]
    graph = helper.make_graph(made, "transformer", values[:2], values[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return len(made)


def command(*arguments: str) -> float:
    """Run ``onnxviz graph`` and return how many seconds it took from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "onnxviz", "graph", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def first_picture(page: Path) -> float:
    """Return after how many seconds Chromium showed the graph, counted from the start of loading."""
    from playwright.sync_api import sync_playwright

    chromium = next(found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(page.as_uri())
        tab.wait_for_selector(".onnxviz-graph[data-drawn]", timeout=60_000)
        seen = tab.evaluate("performance.getEntriesByName('onnxviz-first-picture')[0].startTime") / 1000
        browser.close()
    return float(seen)


def main() -> int:
    missed = 0

    def report(what: str, value: float, target: float, unit: str = "s") -> None:
        nonlocal missed
        missed += value > target
        print(f"{what:<58} {value:6.2f} {unit}, target {target} {unit}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        model, drawing = Path(folder) / "m.onnx", Path(folder) / "m.svg"
        count = transformer(10_000, model)
        seconds = median([command(str(model), "-o", str(drawing)) for _ in range(ROUNDS)])
        report(f"SVG of {count:,} nodes, all told", seconds, 3.0)
        count = transformer(50_000, model)
        for name, depth, target in (("folded", "1", 2.0), ("flat", "99", 5.0)):
            page = Path(folder) / f"{name}.html"
            seconds = command(str(model), "-o", str(page), "--depth", depth)
            what = f"page of {count:,} nodes, {name}"
            report(f"{what}: size (made in {seconds:.0f} s)", page.stat().st_size / 1e6, 15.0, "MB")
            report(f"{what}: first picture", median([first_picture(page) for _ in range(ROUNDS)]), target)
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
