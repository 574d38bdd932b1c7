"""What the training scripts of the smaller PyTorch models share: one loop, one way into an ``.onnx`` file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["predict", "save", "train"]

Draw = Callable[[np.random.Generator], tuple[Sequence[np.ndarray], np.ndarray]]


def train(
    factory: Callable[[], nn.Module],
    draw: Draw,
    *,
    seed: int,
    epochs: int,
    batch: int = 64,
    rate: float = 6e-3,
    smoothing: float = 0.05,
) -> nn.Module:
    """Train a classifier with AdamW and the one-cycle schedule.

    Args:
        factory: Returns the untrained network; called once the seed is set.
        draw: Returns the inputs and classes of one epoch, augmented with the generator that it is given.
        seed: Of the weights, the order and the augmentation.
        epochs: How often ``draw`` is called.
        batch: Samples a step.
        rate: The highest learning rate.
        smoothing: Of the labels.
    """
    torch.set_num_threads(1)  # the same sums in the same order on any machine, and faster for a net this small
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = factory().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    schedule = None
    for _ in range(epochs):
        inputs, classes = draw(rng)
        parts = np.array_split(rng.permutation(len(classes)), -(-len(classes) // batch))
        if schedule is None:
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=epochs * len(parts))
        for chosen in parts:
            logits = net(*(torch.from_numpy(array[chosen]) for array in inputs))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(classes[chosen]), label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return net.eval()


def predict(net: nn.Module, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Return the (N,) classes that the network finds; ``feeds`` are in the order of its ``forward``."""
    with torch.no_grad():
        return net(*(torch.from_numpy(array) for array in feeds.values())).argmax(1).numpy()


def save(net: nn.Module, script: str, factory: str, file: str) -> Any:
    """Convert the trained network by its factory, write it beside the script, and return the conversion's result."""
    from safetensors.torch import save_file

    from onnxviz.converters import convert
    from onnxviz.graph.io import save_model

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors")
        save_file(net.state_dict(), weights)
        result = convert(f"{script}:{factory}", weights=weights, trust=True)
    save_model(result.model, Path(script).with_name(file))
    return result
