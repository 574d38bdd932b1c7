"""A Vision Transformer (Dosovitskiy et al., "An image is worth 16×16 words", 2021), as small as can be, in PyTorch.

``vit_digits()`` is the factory that ``onnxviz convert models/vit_digits_torch.py:vit_digits --trust`` calls. Run as a
script, it trains on scikit-learn's digits with a fixed seed and writes ``models/vit_digits.onnx``::

    python models/vit_digits_torch.py
"""

from __future__ import annotations

import numpy as np
import torch
from attention import MLP, MultiHeadAttention
from torch import Tensor, nn

SIZE, PATCH = 28, 4
WIDTH, HEADS, HIDDEN, DEPTH = 32, 4, 64, 2
EPOCHS = 100


class PatchEmbedding(nn.Module):
    """Cuts the picture into 7×7 patches of 4×4 pixels, row by row, each one token."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(1, WIDTH, kernel_size=PATCH, stride=PATCH)

    def forward(self, image: Tensor) -> Tensor:
        return self.projection(image).flatten(2).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each after a LayerNorm and beside a shortcut (the paper's equations 2 and 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = MultiHeadAttention(WIDTH, HEADS)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = MLP(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.attention(normal, normal)
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """A CLS token and 49 patches through two encoder blocks of four heads.

    Input ``image``: (N, 1, 28, 28) ``float32`` in 0-1. Output: (N, 10) logits, read from the CLS token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = PatchEmbedding()
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + (SIZE // PATCH) ** 2, WIDTH))
        self.blocks = nn.ModuleList(EncoderBlock() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patches(image)
        x = torch.cat((self.cls_token.expand(image.shape[0], -1, -1), patches), dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def vit_digits() -> tuple[VisionTransformer, tuple[Tensor]]:
    """Return an untrained network and an example of its input."""
    return VisionTransformer(), (torch.zeros(1, 1, SIZE, SIZE),)


def main() -> None:
    """Train, convert, write ``vit_digits.onnx`` and print the accuracy on the held-out digits."""
    import digits
    import held_out
    import training

    data = digits.load().train
    images = digits.network_input(data.pictures, SIZE)

    def draw(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
        return [digits.shifted(images, rng)[:, None]], data.classes

    net = training.train(VisionTransformer, draw, seed=digits.SEED, epochs=EPOCHS, rate=3e-3)
    feeds, classes = held_out.of("vit_digits.onnx")
    print(f"ViT: {np.sum(training.predict(net, feeds) == classes)} of {len(classes)} held-out digits are right")
    result = training.save(net, __file__, "vit_digits", "vit_digits.onnx")
    print(f"{result.exporter}: {result.parity}")


if __name__ == "__main__":
    main()
