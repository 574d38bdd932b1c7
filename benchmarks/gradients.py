"""Forward and backward: onnxviz's graph in onnxruntime beside PyTorch and onnx-ad, in turn on one machine.

``python benchmarks/gradients.py [resnet18 vit …]``. The networks are written in PyTorch and exported; each peer runs in
a process of its own, with two threads and float32, so that the peak of resident memory is its own; rounds alternate,
so that a noisy machine disturbs all alike. Both are printed: wall-clock time, and the processor time of all threads,
waiting ones included. On a busy machine two threads wait for each other, PyTorch's most of all, and only
``THREADS=1 python benchmarks/gradients.py`` with its processor times is fair. Memory is what the process held at most
beyond what it held with the model loaded and nothing run.

Cases: ``resnet18`` is the network as it is trained, with BatchNorm, which the exporter folds into the convolutions;
``-kept`` keeps them in the file, ``-folded`` has none in PyTorch either. ``-open`` has a symbolic batch size;
``-weights`` asks for the gradients of all weights instead of the input's.

Peers: ``torch-nhwc`` is PyTorch with ``channels_last``; ``forward`` is the model alone in onnxruntime, a lower bound:
the convolutions of the way back multiply as much as those of the way there. onnx-ad is optional
(``pip install onnx-ad``). Last, the time to build a ResNet-50's backward.
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

CASES = [
    ("resnet18", 1), ("resnet18", 8), ("resnet18-kept", 1), ("resnet18-kept", 8), ("resnet18-folded", 1),
    ("resnet18-folded", 8), ("resnet18-open", 8), ("resnet18-weights", 8), ("vit", 1), ("vit", 8), ("vit-open", 8),
]  # fmt: skip
PEERS = ("torch", "torch-nhwc", "onnxviz", "onnx-ad", "forward")
ROUNDS, RUNS, WARMUP = 3, 5, 2
THREADS = int(os.environ.get("THREADS", "2"))
TARGETS = {("resnet18", "torch"): 0.75, ("resnet18", "onnx-ad"): 0.6, ("vit", "torch"): 1.0}


def network(name: str) -> Any:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    made = _resnet18(folded="-folded" in name) if name.startswith("resnet18") else _vit()
    return made.eval().requires_grad_(name.endswith("-weights"))


def _resnet18(*, folded: bool) -> Any:
    """He et al. 2015, table 1; ``folded`` has convolutions alone, as what exporters make of it."""
    from torch import nn

    def conv(channels: int, width: int, kernel: int, stride: int) -> Any:
        made = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=folded)
        return made if folded else nn.Sequential(made, nn.BatchNorm2d(width))

    class Block(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.a, self.b = conv(channels, width, 3, stride), conv(width, width, 3, 1)
            self.skip = conv(channels, width, 1, stride) if channels != width else nn.Identity()

        def forward(self, x: Any) -> Any:
            return (self.b(self.a(x).relu()) + self.skip(x)).relu()

    layers: list[Any] = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
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

    opened = ({0: torch.export.Dim("batch")},) if name.endswith("-open") else None
    torch.onnx.export(network(name).requires_grad_(False), (torch.zeros(batch, 3, 224, 224),), path, input_names=["x"],
                      output_names=["y"], dynamo=True, optimize="-kept" not in name, external_data=False, verbose=False,
                      dynamic_shapes=opened)  # fmt: skip


def feed(batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, 3, 224, 224), np.float32)


def by_torch(name: str, batch: int, path: Path, *, nhwc: bool = False) -> Callable[[], np.ndarray]:
    import torch

    layout = torch.channels_last if nhwc else torch.contiguous_format
    made, x = network(name).to(memory_format=layout), torch.tensor(feed(batch)).to(memory_format=layout)
    wrt = [weight for key, weight in made.named_parameters() if weight.requires_grad and key.endswith("weight")]
    wrt = wrt or [x.requires_grad_(True)]

    def run() -> np.ndarray:
        return np.asarray(torch.autograd.grad(made(x).sum(), wrt)[0])

    return run


def by_torch_nhwc(name: str, batch: int, path: Path) -> Callable[[], np.ndarray]:
    return by_torch(name, batch, path, nhwc=True)


def by_onnxviz(name: str, batch: int, path: Path) -> Callable[[], np.ndarray]:
    return _session(path.with_suffix(".gradient.onnx"), ".grad", {"x": feed(batch), "y.grad": _ones(batch)})


def by_forward(name: str, batch: int, path: Path) -> Callable[[], np.ndarray]:
    return _session(path, "y", {"x": feed(batch)})


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
    wanted = [value.name for value in session.get_outputs() if value.name.endswith(output)]
    return lambda: np.asarray(session.run(wanted, feeds)[0])


def build(path: Path) -> float:
    """Write the gradient models of a file beside it; return the seconds that onnxviz's took to build."""
    import onnx

    from onnxviz.gradient.model import gradient_model
    from onnxviz.graph.io import open_model
    from onnxviz.graph.model import to_proto

    model = open_model(path)
    start = time.perf_counter()
    weights = [key for key in model.graph.initializers if key.endswith(".weight")]
    made = gradient_model(model, "y", weights if "-weights" in path.name else ["x"])
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
    run = MAKERS[peer](name, batch, path)
    before = _memory("VmRSS")
    wall, cpu = [], []
    for _ in range(WARMUP + RUNS):
        start, used = time.perf_counter(), time.process_time()
        grad = run()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    np.save(path.with_suffix(f".{peer}.npy"), grad)
    peak = _memory("VmHWM")  # ru_maxrss is inherited from the process that started this one
    print(json.dumps({"wall": wall[WARMUP:], "cpu": cpu[WARMUP:], "peak": peak, "more": peak - before}))


MAKERS = {"torch": by_torch, "torch-nhwc": by_torch_nhwc, "onnxviz": by_onnxviz, "onnx-ad": by_onnx_ad,
          "forward": by_forward}  # fmt: skip


def _memory(field: str) -> float:
    """Return what /proc says of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def compare(name: str, batch: int, folder: Path) -> None:
    path = folder / f"{name}_{batch}.onnx"
    export(name, batch, path)
    print(f"\n{name}, batch {batch}: backward built in {build(path):.2f} s")
    peers = list(PEERS)
    if name.startswith("vit"):
        peers.remove("torch-nhwc")
    why = "it takes no weights" if name.endswith("-weights") else build_onnx_ad(path)
    if why is not None:
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
    report(name, found, path)


def report(name: str, found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Print a line for each peer; ratios are onnxviz's medians by its."""
    reference = np.load(path.with_suffix(".torch.npy")).astype(np.float64)
    ours = {key: _median(found["onnxviz"], key) for key in ("wall", "cpu")}
    for peer, runs in ((peer, runs) for peer, runs in found.items() if runs):
        wall, cpu = _median(runs, "wall"), _median(runs, "cpu")
        peak, more = (float(np.median([r[key] for r in runs])) for key in ("peak", "more"))
        line = f"  {peer:10} wall {1e3 * wall:7.1f} ms  cpu {1e3 * cpu:7.1f} ms  peak {peak:5.0f} MB (+{more:4.0f})"
        if peer != "forward":
            grad = np.load(path.with_suffix(f".{peer}.npy")).reshape(reference.shape)
            line += f"  error {np.linalg.norm(grad - reference) / np.linalg.norm(reference):.0e}"
        if peer != "onnxviz":
            line += f"  onnxviz: {ours['wall'] / wall:.2f} of its wall, {ours['cpu'] / cpu:.2f} of its cpu"
        target = None if name.endswith("-weights") else TARGETS.get((name.split("-")[0], peer))
        print(line + (f" (at most {target})" if target else ""))


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(np.median([value for r in runs for value in r[key]]))


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
