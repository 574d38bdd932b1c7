"""Statistics of every tensor: onnxviz beside a plain run and beside Polygraphy's mark-all, in turn on the same machine.

``python benchmarks/capture.py`` (or ``make bench``). Each peer runs in processes of its own, so that the peak of resident
memory is its own; rounds alternate, so that a noisy machine disturbs all alike. Polygraphy is optional:
``pip install polygraphy``. The same statistics are made in both, by the same code: min, max, mean, std, L2, zeros, NaN,
Inf, subnormals, quantiles and the histogram.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CASES = [(18, 1), (18, 8), (50, 1), (50, 8)]
ROUNDS, RUNS, WARMUP = 3, 9, 3
TARGETS = {"plain": 1.5, "polygraphy": 0.5, "rss": 0.4}


def feed(batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, 3, 224, 224), np.float32)


def timed(run: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(WARMUP + RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[WARMUP:]


def plain(path: str, batch: int) -> list[float]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"x": feed(batch)}
    return timed(lambda: session.run(None, feeds))


def onnxviz(path: str, batch: int) -> list[float]:
    from onnxviz.analysis.statistics import Summary
    from onnxviz.graph.io import open_model
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import capture
    from onnxviz.runtime.inputs import load_inputs

    model = open_model(path)
    inputs = load_inputs(model, {"x": feed(batch)})
    moments = [time.perf_counter()]
    capture(
        model,
        Batches.of([inputs] * (WARMUP + RUNS)),
        keep=False,
        reduce=lambda name, array: Summary.of(array),
        progress=lambda done, of: moments.append(time.perf_counter()),
        providers="cpu",
    )
    return [b - a for a, b in zip(moments, moments[1:], strict=False)][WARMUP:]


def polygraphy(path: str, batch: int) -> list[float]:
    from polygraphy import constants
    from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs, OnnxFromPath
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    from onnxviz.analysis.statistics import Summary

    marked = BytesFromOnnx(ModifyOutputs(OnnxFromPath(path), outputs=constants.MARK_ALL))
    feeds = {"x": feed(batch)}
    with OnnxrtRunner(SessionFromOnnx(marked, providers=["CPUExecutionProvider"])) as runner:
        return timed(lambda: {name: Summary.of(array) for name, array in runner.infer(feeds).items()})


PEERS = {"plain": plain, "onnxviz": onnxviz, "polygraphy": polygraphy}


def child(peer: str, path: str, batch: str) -> None:
    from onnxviz.runtime.memory import peak_rss

    print(json.dumps({"seconds": PEERS[peer](path, int(batch)), "rss": peak_rss()}))


def measured(peer: str, path: Path, batch: int) -> dict[str, float]:
    command = [sys.executable, __file__, peer, str(path), str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {"ms": 1000 * statistics.median(result["seconds"]), "mb": result["rss"] / 1e6}


def main() -> int:
    from resnet import resnet

    peers = [p for p in PEERS if p != "polygraphy" or importlib.util.find_spec("polygraphy")]
    print(
        f"{'model':10} {'batch':>5} {'peer':>11} {'ms':>8} {'RSS MB':>8} {'× plain':>8} {'× polygraphy':>13} {'× its RSS':>10}"
    )
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = {depth: resnet(depth, Path(folder) / f"resnet{depth}.onnx") for depth in {d for d, _ in CASES}}
        for depth, batch in CASES:
            rounds = [{peer: measured(peer, paths[depth], batch) for peer in peers} for _ in range(ROUNDS)]
            best = {p: {k: statistics.median(r[p][k] for r in rounds) for k in ("ms", "mb")} for p in peers}
            for peer in peers:
                ratios = {"plain": best[peer]["ms"] / best["plain"]["ms"]}
                if "polygraphy" in best:
                    ratios["polygraphy"] = best[peer]["ms"] / best["polygraphy"]["ms"]
                    ratios["rss"] = best[peer]["mb"] / best["polygraphy"]["mb"]
                if peer == "onnxviz":
                    missed += sum(ratios[k] > TARGETS[k] for k in ratios)
                told = " ".join(
                    f"{ratios.get(k, float('nan')):{w}.2f}" for k, w in (("plain", 8), ("polygraphy", 13), ("rss", 10))
                )
                print(f"ResNet-{depth:<3} {batch:>5} {peer:>11} {best[peer]['ms']:8.1f} {best[peer]['mb']:8.0f} {told}")
    print(
        f"targets: ≤ {TARGETS['plain']} × plain, ≤ {TARGETS['polygraphy']} × Polygraphy, ≤ {TARGETS['rss']} × its memory; {missed} missed"
    )
    return missed


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(*sys.argv[1:])
    else:
        main()
