"""LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998) in PyTorch.

``lenet5()`` is the factory that ``onnxviz convert models/lenet5_torch.py:lenet5 --input-shape 1,1,32,32 --trust``
calls. Run as a script, it trains on scikit-learn's digits with a fixed seed and writes ``models/lenet5.onnx``::

    python models/lenet5_torch.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

EPOCHS = 60
BATCH = 64


class LeNet5(nn.Module):
    """C1-S2-C3-S4-C5-F6-output of the paper's figure 2; every map of C3 sees every map of S2.

    Input ``image``: (N, 1, 32, 32) ``float32`` in 0-1. Output: (N, 10) logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5)
        self.tanh1 = nn.Tanh()
        self.pool2 = nn.AvgPool2d(2)
        self.conv3 = nn.Conv2d(6, 16, kernel_size=5)
        self.tanh3 = nn.Tanh()
        self.pool4 = nn.AvgPool2d(2)
        self.conv5 = nn.Conv2d(16, 120, kernel_size=5)
        self.tanh5 = nn.Tanh()
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(120, 84)
        self.tanh6 = nn.Tanh()
        self.output = nn.Linear(84, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool2(self.tanh1(self.conv1(image)))
        x = self.pool4(self.tanh3(self.conv3(x)))
        x = self.flatten(self.tanh5(self.conv5(x)))
        return self.output(self.tanh6(self.fc6(x)))


def lenet5() -> LeNet5:
    """Return an untrained LeNet-5."""
    return LeNet5()


def train(images: np.ndarray, classes: np.ndarray, seed: int) -> LeNet5:
    """Train on (N, 32, 32) images, each shifted by up to two pixels in every epoch."""
    from digits import shifted

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = lenet5()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        moved = shifted(images, rng)
        for chosen in np.array_split(order, -(-len(order) // BATCH)):
            logits = net(torch.from_numpy(moved[chosen, None]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(classes[chosen]), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def main() -> None:
    """Train, convert, write ``lenet5.onnx`` and print the accuracy on the held-out digits."""
    import digits
    from safetensors.torch import save_file

    from onnxviz.converters import convert
    from onnxviz.graph.io import save_model

    torch.set_num_threads(1)  # the same sums in the same order on any machine, and faster for a net this small
    data = digits.load()
    net = train(digits.network_input(data.train.pictures, 32), data.train.classes, digits.SEED)
    with torch.no_grad():
        found = net(torch.from_numpy(digits.network_input(data.test.pictures, 32)[:, None])).argmax(1).numpy()
    print(f"LeNet-5: {np.sum(found == data.test.classes)} of {len(found)} held-out digits are right")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "lenet5.safetensors")
        save_file(net.state_dict(), weights)
        result = convert(f"{__file__}:lenet5", weights=weights, input_shape=(1, 1, 32, 32), trust=True)
    save_model(result.model, Path(__file__).with_name("lenet5.onnx"))
    print(f"{result.exporter}: {result.parity}")


if __name__ == "__main__":
    main()
