"""How long the static checks of a model take: ``python benchmarks/checks.py``.

A ResNet-50 and a transformer of 50,000 nodes, by the command line from its start to its end, and by check.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from large_graphs import transformer
from resnet import resnet

from onnxviz.checks.registry import all_checks
from onnxviz.checks.run import run_checks
from onnxviz.checks.subject import Options, Subject

ROUNDS = 3
LIMITS = {"resnet50": 2.0, "transformer50k": 10.0}  # seconds


def command(path: Path) -> float:
    """Return the seconds that ``onnxviz check --static`` takes, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "onnxviz", "check", str(path), "--static"], stdout=subprocess.DEVNULL, check=False
        )
        assert done.returncode in (0, 1), "the checks did not run"
        best = min(best, time.perf_counter() - start)
    return best


def slowest(path: Path, count: int = 5) -> list[tuple[float, str]]:
    """Return the checks that take longest, each with the seconds of what it is the first to ask for."""
    subject = Subject(path, Options(static=True))
    times = []
    for one in all_checks()[0]:
        start = time.perf_counter()
        run_checks(subject, checks=[one])
        times.append((time.perf_counter() - start, one.id))
    return sorted(times, reverse=True)[:count]


def main() -> int:
    """Print a table; exit code 1 if a limit is passed."""
    gc.set_threshold(100_000, 20, 100)  # as the command line does
    late = 0
    with tempfile.TemporaryDirectory() as folder:
        models = {"resnet50": Path(folder) / "resnet50.onnx", "transformer50k": Path(folder) / "transformer.onnx"}
        resnet(50, models["resnet50"])
        transformer(50_000, models["transformer50k"])
        for name, path in models.items():
            seconds = command(path)
            late += seconds > LIMITS[name]
            parts = ", ".join(f"{id} {took:.2f}" for took, id in slowest(path))
            print(f"{name:15} {seconds:6.2f} s of {LIMITS[name]:g}   slowest: {parts}")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
