"""Explaining a ResNet-50: onnxviz in onnxruntime beside Captum in PyTorch and a plain forward pass, in turn.

``python benchmarks/attribution.py [grad-cam integrated-gradients smoothgrad]`` (with ``pip install captum`` for the
peer). The network is written in PyTorch, with BatchNorm, and exported, which folds that. Each peer runs in a process of
its own, with as many threads as ``THREADS`` says (2), in float32; rounds alternate, so that a noisy machine disturbs
all alike. Printed are wall-clock time and the processor time of all threads; on a busy machine only the latter, with
``THREADS=1``, is fair.

Peers of Grad-CAM, of the last convolution and a class that is given: ``forward`` is the model alone in onnxruntime;
``onnxviz`` a model that is open, explained for another picture; ``exported`` the file that ``explain --export`` writes;
``captum`` is ``LayerGradCam``, ``torch`` its forward alone. Of the other methods: ``onnxviz`` with four rows a run,
``onnxviz-1`` with one, and ``captum`` with four. Memory is what the process held at most, and beyond what it held with
the model loaded and nothing run. Last, where the time of one ``attribute()`` from a file goes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gradients import _median, _memory

THREADS = int(os.environ.get("THREADS", "2"))
ROUNDS, RUNS, WARMUP = 3, 5, 2
CLASS, STEPS = 7, 16
CASES = {
    "grad-cam": ("forward", "onnxviz", "exported", "captum", "torch"),
    "integrated-gradients": ("onnxviz", "onnxviz-1", "captum"),
    "smoothgrad": ("onnxviz", "onnxviz-1", "captum"),
}
#: Case -> peer -> the most that onnxviz may take of its time.
TARGETS = {"grad-cam": {"forward": 2.2, "captum": 0.8}}
OPTIONS: dict[str, dict[str, Any]] = {
    "grad-cam": {}, "integrated-gradients": {"steps": STEPS}, "smoothgrad": {"copies": STEPS}
}  # fmt: skip
ROWS = 4


def network() -> Any:
    """He et al. 2015, table 1: 50 layers."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)

    def conv(channels: int, width: int, kernel: int, stride: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width)
        )  # fmt: skip

    class Block(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(channels, width, 1), conv(width, width, 3, stride), conv(width, 4 * width, 1)
            self.skip = conv(channels, 4 * width, 1, stride) if channels != 4 * width else nn.Identity()

        def forward(self, x: Any) -> Any:
            return (self.c(self.b(self.a(x).relu()).relu()) + self.skip(x)).relu()

    layers: list[Any] = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for place in range(count):
            layers.append(Block(channels, 64 << stage, 2 if stage and not place else 1))
            channels = 256 << stage
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)).eval()


def export(path: Path) -> None:
    import torch

    made = network().requires_grad_(False)
    torch.onnx.export(made, (torch.zeros(2, 3, 224, 224),), path, input_names=["x"], output_names=["y"], dynamo=True,
                      external_data=False, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},))  # fmt: skip


def feed() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, 3, 224, 224), np.float32)


def by_forward(case: str, path: Path) -> Callable[[], Any]:
    session = _session(path)
    return lambda: session.run(["y"], {"x": feed_})[0]


def by_exported(case: str, path: Path) -> Callable[[], Any]:
    session = _session(path.with_suffix(".explained.onnx"))
    return lambda: session.run(["attribution"], {"x": feed_})[0]


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def by_onnxviz(name: str, path: Path, batch: int | None = None) -> Callable[[], Any]:
    import onnxviz.runtime.session as sessions
    from onnxviz.analysis.attribution.case import open_case
    from onnxviz.analysis.attribution.methods import attribution
    from onnxviz.analysis.attribution.run import How
    from onnxviz.graph.io import open_model
    from onnxviz.runtime.batches import load_batches

    make = sessions.new_options
    sessions.new_options = lambda **given: make(**{**given, "threads": THREADS})  # as many threads as the peers
    model = open_model(path)
    case = open_case(model, load_batches(model, {"x": feed_}), target=CLASS, how=How("cpu", batch=batch or ROWS))
    attribution(case, name, **OPTIONS[name])
    return lambda: attribution(case.fed({"x": feed_}), name, **OPTIONS[name]).values


def by_onnxviz_1(name: str, path: Path) -> Callable[[], Any]:
    return by_onnxviz(name, path, 1)


def by_torch(case: str, path: Path) -> Callable[[], Any]:
    import torch

    made, x = network(), torch.tensor(feed_)

    def run() -> Any:
        with torch.no_grad():
            return made(x).numpy()

    return run


def by_captum(case: str, path: Path) -> Callable[[], Any]:
    import captum.attr
    import torch

    made, x = network().requires_grad_(False), torch.tensor(feed_)
    if case == "grad-cam":
        # The layer needs a gradient, so that the input must: what hooks see is not a leaf.
        method = captum.attr.LayerGradCam(made, made[0])
        x.requires_grad_(True)
        return lambda: method.attribute(x, target=CLASS, relu_attributions=True).detach().numpy()
    if case == "integrated-gradients":
        integrated = captum.attr.IntegratedGradients(made)
        return lambda: integrated.attribute(
            x, target=CLASS, n_steps=STEPS, internal_batch_size=ROWS, method="gausslegendre"
        ).numpy()
    noise = captum.attr.NoiseTunnel(captum.attr.Saliency(made))
    deviation = 0.15 * float(np.ptp(feed_))
    return lambda: noise.attribute(
        x, target=CLASS, nt_samples=STEPS, nt_samples_batch_size=ROWS, stdevs=deviation, abs=False
    ).numpy()  # fmt: skip


MAKERS: dict[str, Callable[[str, Path], Callable[[], Any]]] = {
    "forward": by_forward, "onnxviz": by_onnxviz, "onnxviz-1": by_onnxviz_1, "exported": by_exported,
    "captum": by_captum, "torch": by_torch,
}  # fmt: skip
feed_ = feed()


def measure(peer: str, case: str, path: Path) -> None:
    """Print what one process measures."""
    run = MAKERS[peer](case, path)
    before = _memory("VmRSS")
    runs = RUNS if case == "grad-cam" else 2
    wall, cpu = [], []
    for _ in range(WARMUP if case == "grad-cam" else 1):
        run()
    for _ in range(runs):
        start, used = time.perf_counter(), time.process_time()
        made = run()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    np.save(path.with_suffix(f".{peer}.npy"), made)
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": [_memory("VmHWM")], "more": [_memory("VmHWM") - before]}))


def compare(case: str, path: Path) -> None:
    print(f"\n{case} of a ResNet-50, {THREADS} threads")
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in CASES[case]}
    for _ in range(ROUNDS if case == "grad-cam" else 2):
        for peer in list(found):
            command = [sys.executable, __file__, "--measure", peer, case, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"  {peer}: {done.stderr.strip().splitlines()[-1][:200]}")
                del found[peer]
                continue
            found[peer].append(json.loads(done.stdout.splitlines()[-1]))
    ours = found["onnxviz"]
    reference = np.load(path.with_suffix(".onnxviz.npy")).reshape(-1)
    for peer, runs in found.items():
        wall, cpu = _median(runs, "wall"), _median(runs, "cpu")
        line = f"  {peer:10} wall {1e3 * wall:8.1f} ms  cpu {1e3 * cpu:8.1f} ms"
        line += f"  peak {_median(runs, 'peak'):5.0f} MB (+{_median(runs, 'more'):4.0f})"
        if peer != "onnxviz":
            walls, cpus = _median(ours, "wall") / wall, _median(ours, "cpu") / cpu
            line += f"  onnxviz: {walls:.2f} of its wall, {cpus:.2f} of its cpu"
        made = np.load(path.with_suffix(f".{peer}.npy")).reshape(-1)
        if peer != "onnxviz" and made.shape == reference.shape and case != "smoothgrad":
            line += f"  difference {np.linalg.norm(made - reference) / np.linalg.norm(reference):.0e}"
        target = TARGETS.get(case, {}).get(peer)
        print(line + (f" (at most {target})" if target else ""))


def whole(path: Path) -> None:
    """Print where the time of one ``attribute()`` goes."""
    import onnxviz
    from onnxviz.analysis.attribution import run as running
    from onnxviz.runtime.session import Session

    spent: dict[str, float] = {}

    def timed(owner: Any, name: str, what: str) -> None:
        function = getattr(owner, name)

        def call(*given: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*given, **options)
            finally:
                spent[what] = spent.get(what, 0.0) + time.perf_counter() - start

        setattr(owner, name, call)

    onnxviz.attribute(path, {"x": feed_}, providers="cpu")  # imports
    timed(Session, "__init__", "sessions")
    timed(Session, "run", "runs")
    timed(running, "gradient_model", "gradient graph")
    start = time.perf_counter()
    onnxviz.attribute(path, {"x": feed_}, providers="cpu")
    total = time.perf_counter() - start
    rest = total - sum(spent.values())
    told = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in spent.items())
    print(f"\nattribute() from a file: {total:.2f} s: {told}, the rest (reading, shapes, the layer) {rest:.2f} s")


def main(names: list[str]) -> None:
    import onnxviz

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        export(path)
        onnxviz.attribution_model(
            path, {"x": feed_}, path.with_suffix(".explained.onnx"), target=CLASS, providers="cpu"
        )
        for case in CASES:
            if not names or case in names:
                compare(case, path)
        if not names:
            whole(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main(sys.argv[1:])
