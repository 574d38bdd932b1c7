"""Forward and backward to the input: onnxviz's graph in onnxruntime beside PyTorch and onnx-ad, in turn on one machine.

``python benchmarks/gradients.py [resnet18 vit]``. The networks are written in PyTorch and exported; each peer runs in
a process of its own, with two threads and float32, so that the peak of resident memory is its own; rounds alternate,
so that a noisy machine disturbs all alike. Memory is what the process held at most beyond what it held with the model
loaded and nothing run. onnx-ad is optional (``pip install onnx-ad``). Last, the time to build a ResNet-50's backward.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASES = [("resnet18", 1), ("resnet18", 8), ("vit", 1), ("vit", 8)]
PEERS = ("torch", "onnxviz", "onnx-ad")
ROUNDS, RUNS, WARMUP, THREADS = 3, 5, 2, 2
TARGETS = {("resnet18", "torch"): 0.75, ("resnet18", "onnx-ad"): 0.6, ("vit", "torch"): 1.0}


def network(name: str) -> Any:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    return (_resnet18() if name == "resnet18" else _vit()).eval().requires_grad_(False)


def _resnet18() -> Any:
    """He et al. 2015, table 1, with BatchNorm folded as exporters do."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(channels, width, 3, stride, 1), nn.Conv2d(width, width, 3, 1, 1)
            self.skip = nn.Conv2d(channels, width, 1, stride) if channels != width else nn.Identity()

        def forward(self, x: Any) -> Any:
            return (self.b(self.a(x).relu()) + self.skip(x)).relu()

    layers: list[Any] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage in range(4):
        for place in range(2):
            layers.append(Block(channels, 64 << stage, 2 if stage and not place else 1))
            channels = 64 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def _vit() -> Any:
    """Dosovitskiy et al. 2021: ViT-S/16, of six layers."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, length, width = x.shape
            split = self.qkv(self.first(x)).reshape(n, length, 3, self.heads, width // self.heads)
            q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
            weights = (q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5).softmax(-1)
            x = x + self.out((weights @ v).transpose(1, 2).reshape(n, length, width))
            return x + self.down(nn.functional.gelu(self.up(self.second(x))))

    class Vit(nn.Module):
        def __init__(self, width: int = 384) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 16, 16)
            self.place = nn.Parameter(0.02 * torch.randn(1, 196, width))
            self.layers = nn.Sequential(*(Layer(width, 6) for _ in range(6)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2) + self.place
            return self.head(self.norm(self.layers(x)).mean(1))

    return Vit()


def export(name: str, batch: int, path: Path) -> None:
    import torch

    torch.onnx.export(network(name), (torch.zeros(batch, 3, 224, 224),), path, input_names=["x"],
                      output_names=["y"], dynamo=True, external_data=False, verbose=False)  # fmt: skip


def feed(batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, 3, 224, 224), np.float32)


def by_torch(name: str, batch: int, path: Path) -> Callable[[], np.ndarray]:
    import torch

    made, x = network(name), torch.tensor(feed(batch), requires_grad=True)

    def run() -> np.ndarray:
        (grad,) = torch.autograd.grad(made(x).sum(), x)
        return np.asarray(grad)

    return run


def by_onnxviz(name: str, batch: int, path: Path) -> Callable[[], np.ndarray]:
    return _session(path.with_suffix(".gradient.onnx"), "x.grad", {"x": feed(batch), "y.grad": _ones(batch)})


def by_onnx_ad(name: str, batch: int, path: Path) -> Callable[[], np.ndarray]:
    feeds = {"x": feed(batch), "adj_y": _ones(batch)[..., None]}
    return _session(path.with_suffix(".adjoint.onnx"), "adj_x", feeds)


def _ones(batch: int) -> np.ndarray:
    return np.ones((batch, 1000), np.float32)


def _session(path: Path, output: str, feeds: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: np.asarray(session.run([output], feeds)[0])


def build(path: Path) -> float:
    """Write the gradient models of a file beside it; return the seconds that onnxviz's took to build."""
    import onnx

    from onnxviz.gradient.model import gradient_model
    from onnxviz.graph.io import open_model
    from onnxviz.graph.model import to_proto

    model = open_model(path)
    start = time.perf_counter()
    made = gradient_model(model, "y", ["x"])
    seconds = time.perf_counter() - start
    onnx.save(to_proto(made.model), path.with_suffix(".gradient.onnx"))
    return seconds


def build_onnx_ad(path: Path) -> str | None:
    """Write onnx-ad's model; return why there is none."""
    import onnx

    try:
        from onnx_ad import reverse

        onnx.save(reverse(onnx.load(path), layout="onnx"), path.with_suffix(".adjoint.onnx"))
    except ImportError:
        return "it is not installed"
    except Exception as error:  # noqa: BLE001 - what a peer cannot do is part of the result
        return f"{type(error).__name__}: {error}"
    return None


def measure(peer: str, name: str, batch: int, path: Path) -> None:
    """Print what one process measures."""
    run = {"torch": by_torch, "onnxviz": by_onnxviz, "onnx-ad": by_onnx_ad}[peer](name, batch, path)
    before = _memory("VmRSS")
    seconds = []
    for _ in range(WARMUP + RUNS):
        start = time.perf_counter()
        grad = run()
        seconds.append(time.perf_counter() - start)
    np.save(path.with_suffix(f".{peer}.npy"), grad)
    peak = _memory("VmHWM")  # ru_maxrss is inherited from the process that started this one
    print(json.dumps({"seconds": seconds[WARMUP:], "peak": peak, "more": peak - before}))


def _memory(field: str) -> float:
    """Return what /proc says of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def compare(name: str, batch: int, folder: Path) -> None:
    path = folder / f"{name}_{batch}.onnx"
    export(name, batch, path)
    print(f"\n{name}, batch {batch}: backward built in {build(path):.2f} s")
    peers = list(PEERS)
    if (why := build_onnx_ad(path)) is not None:
        peers.remove("onnx-ad")
        print(f"  onnx-ad: {why}")
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer in list(peers):
            command = [sys.executable, __file__, "--measure", peer, name, str(batch), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"  {peer}: {done.stderr.strip().splitlines()[-1][:200]}")
                peers.remove(peer)
                continue
            found[peer].append(json.loads(done.stdout.splitlines()[-1]))
    reference = np.load(path.with_suffix(".torch.npy")).astype(np.float64)
    ours = float(np.median([t for r in found["onnxviz"] for t in r["seconds"]]))
    for peer in peers:
        runs = found[peer]
        median = float(np.median([t for r in runs for t in r["seconds"]]))
        grad = np.load(path.with_suffix(f".{peer}.npy")).reshape(reference.shape)
        error = np.linalg.norm(grad - reference) / np.linalg.norm(reference)
        target = TARGETS.get((name, peer))
        ratio = "" if peer == "onnxviz" else f"  onnxviz takes {ours / median:.2f} of it" + (
            f" (at most {target})" if target else ""
        )  # fmt: skip
        peak, more = (float(np.median([r[key] for r in runs])) for key in ("peak", "more"))
        print(f"  {peer:8} {1e3 * median:8.1f} ms  peak {peak:6.0f} MB (+{more:5.0f})  error {error:.1e}{ratio}")


def main(names: list[str]) -> None:
    from resnet import resnet

    with tempfile.TemporaryDirectory() as folder:
        for name, batch in CASES:
            if not names or name in names:
                compare(name, batch, Path(folder))
        seconds = [build(resnet(50, Path(folder) / "resnet50.onnx")) for _ in range(3)]
        print(f"\nresnet50: backward built in {np.median(seconds):.2f} s (at most 2)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main(sys.argv[1:])
