"""Statistics of every tensor: onnxviz beside a plain run and beside Polygraphy's mark-all, in turn on one machine.

``python benchmarks/capture.py``. Each peer runs in processes of its own, so that the peak of resident memory is its
own; rounds alternate, so that a noisy machine disturbs all alike. Polygraphy is optional (``pip install polygraphy``).
Its outputs get the same statistics, written with numpy as one would: min, max, mean, std, L2, zeros, NaN, Inf,
subnormals, nine quantiles and a histogram over the same edges (``polygraphy``), or the first four (``polygraphy-4``).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

CASES = [(18, 1), (18, 8), (50, 1), (50, 8)]
ROUNDS, RUNS, WARMUP = 3, 7, 2
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
        Batches.of(model, [inputs] * (WARMUP + RUNS)),
        keep=False,
        reduce=lambda name, array: Summary.of(array),
        progress=lambda done, of: moments.append(time.perf_counter()),
        providers="cpu",
    )
    return [after - before for before, after in pairwise(moments)][WARMUP:]


def four(array: np.ndarray) -> tuple[float, ...]:
    return float(array.min()), float(array.max()), float(array.mean()), float(array.std())


def every(array: np.ndarray) -> list[object]:
    """What onnxviz makes of a tensor, in numpy."""
    from onnxviz.analysis.histogram import SYMLOG_EDGES
    from onnxviz.analysis.statistics import QUANTILES

    magnitude = np.abs(array)
    tiny = np.finfo(array.dtype).smallest_normal
    return [
        *four(array), float(np.linalg.norm(array)), int(np.count_nonzero(array == 0)), int(np.isnan(array).sum()),
        int(np.isinf(array).sum()), int(((magnitude < tiny) & (magnitude > 0)).sum()),
        np.quantile(array, QUANTILES).tolist(), np.histogram(array, SYMLOG_EDGES)[0].tolist(),
    ]  # fmt: skip


def polygraphy(path: str, batch: int, describe: Callable[[np.ndarray], object] = every) -> list[float]:
    from polygraphy import constants
    from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs, OnnxFromPath
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    marked = BytesFromOnnx(ModifyOutputs(OnnxFromPath(path), outputs=constants.MARK_ALL))
    feeds = {"x": feed(batch)}
    with OnnxrtRunner(SessionFromOnnx(marked, providers=["CPUExecutionProvider"])) as runner:
        return timed(lambda: {name: describe(array) for name, array in runner.infer(feeds).items()})


def polygraphy_4(path: str, batch: int) -> list[float]:
    return polygraphy(path, batch, four)


PEERS = {"plain": plain, "onnxviz": onnxviz, "polygraphy": polygraphy, "polygraphy-4": polygraphy_4}


def child(peer: str, path: str, batch: str) -> None:
    from onnxviz.runtime.memory import peak_rss

    print(json.dumps({"seconds": PEERS[peer](path, int(batch)), "rss": peak_rss()}))


def measured(peer: str, path: Path, batch: int) -> dict[str, float]:
    import statistics  # here, so that the peers' processes hold nothing but what they need
    import subprocess

    command = [sys.executable, __file__, peer, str(path), str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {"ms": 1000 * statistics.median(result["seconds"]), "mb": result["rss"] / 1e6}


def main() -> int:
    import importlib.util
    import statistics
    import tempfile

    from resnet import resnet

    peers = [p for p in PEERS if not p.startswith("polygraphy") or importlib.util.find_spec("polygraphy")]
    print("model      batch         peer       ms   RSS MB  × plain  × polygraphy  × its RSS")
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
                columns = (("plain", 8), ("polygraphy", 13), ("rss", 10))
                told = " ".join(f"{ratios[k]:{width}.2f}" for k, width in columns if k in ratios)
                print(f"ResNet-{depth:<3} {batch:>5} {peer:>12} {best[peer]['ms']:8.1f} {best[peer]['mb']:8.0f} {told}")
    wanted = " ".join(f"{name} ≤ {target}" for name, target in TARGETS.items())
    print(f"targets of onnxviz: {wanted}; {missed} missed")
    return missed


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(*sys.argv[1:])
    else:
        main()
