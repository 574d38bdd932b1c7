"""A 1-D convolutional network with an LSTM (Hochreiter and Schmidhuber, 1997) behind it, in PyTorch.

``signal_cnn_lstm()`` is the factory that ``onnxviz convert models/signal_cnn_lstm_torch.py:signal_cnn_lstm --trust``
calls. Run as a script, it trains on generated waveforms with a fixed seed and writes ``models/signal_cnn_lstm.onnx``::

    python models/signal_cnn_lstm_torch.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

LENGTH = 256
CLASSES = 4
EPOCHS = 30


class CNNLSTM(nn.Module):
    """Two convolutions shorten 256 samples to 32 steps, over which an LSTM runs; its last state tells the class.

    Input ``signal``: (N, 1, 256) ``float32``. Output: (N, 4) logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 8, kernel_size=9, padding=4)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool1d(4)
        self.conv2 = nn.Conv1d(8, 16, kernel_size=5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool1d(2)
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, signal: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(signal)))
        x = self.pool2(self.relu2(self.conv2(x)))
        steps, _ = self.lstm(x.transpose(1, 2))
        return self.head(steps[:, -1])


def signal_cnn_lstm() -> tuple[CNNLSTM, tuple[Tensor]]:
    """Return an untrained network and an example of its input."""
    return CNNLSTM(), (torch.zeros(1, 1, LENGTH),)


def main() -> None:
    """Train, convert, write ``signal_cnn_lstm.onnx`` and print the accuracy on the held-out signals."""
    import held_out
    import signals
    import training

    data = signals.load().train

    def draw(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
        return [data.signals], data.classes

    net = training.train(CNNLSTM, draw, seed=signals.SEED, epochs=EPOCHS)
    feeds, classes = held_out.of("signal_cnn_lstm.onnx")
    print(f"CNN-LSTM: {np.sum(training.predict(net, feeds) == classes)} of {len(classes)} held-out signals are right")
    result = training.save(net, __file__, "signal_cnn_lstm", "signal_cnn_lstm.onnx")
    print(f"{result.exporter}: {result.parity}")


if __name__ == "__main__":
    main()
