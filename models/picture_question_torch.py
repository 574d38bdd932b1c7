"""Answers questions about a picture: tokens that look at it through cross-attention, in PyTorch.

The picture goes through two convolutions; the question's tokens go through the decoder blocks of Vaswani et al.,
"Attention is all you need", 2017 (without the causal mask), whose cross-attention looks at the picture.

``picture_question()`` is the factory that ``onnxviz convert models/picture_question_torch.py:picture_question --trust``
calls. Run as a script, it trains on scikit-learn's digits with a fixed seed and writes ``picture_question.onnx``::

    python models/picture_question_torch.py
"""

from __future__ import annotations

import numpy as np
import torch
from attention import MLP, MultiHeadAttention
from questions import ANSWERS, LENGTH, PAD, VOCABULARY
from torch import Tensor, nn

SIZE, GRID = 28, 7
WIDTH, HEADS, HIDDEN, DEPTH = 32, 4, 64, 2
EPOCHS = 60
QUESTIONS_A_PICTURE = 3


class PictureEncoder(nn.Module):
    """Turns the picture into 7×7 patches, row by row, each one token that knows its place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, WIDTH, kernel_size=3, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.position = nn.Parameter(0.02 * torch.randn(1, GRID * GRID, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.relu1(self.conv1(image))))
        return self.norm(x.flatten(2).transpose(1, 2) + self.position)


class TokenEmbedding(nn.Module):
    """A learnt vector a token and a learnt vector a place."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(len(VOCABULARY), WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(1, LENGTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token(tokens) + self.position


class DecoderBlock(nn.Module):
    """Self-attention of the tokens, cross-attention to the patches, MLP; LayerNorm before each, a shortcut beside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.self_attention = MultiHeadAttention(WIDTH, HEADS)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.cross_attention = MultiHeadAttention(WIDTH, HEADS)
        self.norm3 = nn.LayerNorm(WIDTH)
        self.mlp = MLP(WIDTH, HIDDEN)

    def forward(self, x: Tensor, patches: Tensor, padding: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.self_attention(normal, normal, padding)
        x = x + self.cross_attention(self.norm2(x), patches)
        return x + self.mlp(self.norm3(x))


class PictureQuestion(nn.Module):
    """Two decoder blocks of four heads.

    Inputs ``image``: (N, 1, 28, 28) ``float32`` in 0-1; ``tokens``: (N, 7) ``int64``, ``[CLS]`` first. Output: (N, 12)
    logits of the answers 0-9, no and yes, read from the CLS token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.picture = PictureEncoder()
        self.embedding = TokenEmbedding()
        self.blocks = nn.ModuleList(DecoderBlock() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(ANSWERS))

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        patches, x = self.picture(image), self.embedding(tokens)
        for block in self.blocks:
            x = block(x, patches, tokens == PAD)
        return self.head(self.norm(x[:, 0]))


def picture_question() -> tuple[PictureQuestion, tuple[Tensor, Tensor]]:
    """Return an untrained network and an example of its inputs."""
    tokens = torch.arange(LENGTH, dtype=torch.int64)[None]
    return PictureQuestion(), (torch.zeros(1, 1, SIZE, SIZE), tokens)


def main() -> None:
    """Train, convert, write ``picture_question.onnx`` and print the share of right answers on held-out digits."""
    import digits
    import held_out
    import training
    from questions import random_pairs

    data = digits.load().train
    images = digits.network_input(data.pictures, SIZE)

    def draw(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
        pairs = random_pairs(data.classes, rng, QUESTIONS_A_PICTURE)
        return [digits.shifted(images, rng)[pairs.pictures, None], pairs.tokens], pairs.answers

    net = training.train(PictureQuestion, draw, seed=digits.SEED, epochs=EPOCHS, rate=3e-3)
    feeds, classes = held_out.of("picture_question.onnx")
    print(
        f"picture and question: {np.sum(training.predict(net, feeds) == classes)} of {len(classes)} answers are right"
    )
    result = training.save(net, __file__, "picture_question", "picture_question.onnx")
    print(f"{result.exporter}: {result.parity}")


if __name__ == "__main__":
    main()
