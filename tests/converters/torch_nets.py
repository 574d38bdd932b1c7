"""Factories that the tests convert by path."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)) + x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)

    def forward(self, picture: Tensor) -> Tensor:
        return self.head(self.dropout(self.blocks(self.stem(picture)).mean((2, 3))))


class TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 6)
        self.mix = nn.Linear(6, 4)

    def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Tensor]:
        mixed = self.mix(self.words(tokens))
        return {"best": mixed.sum(1).argmax(-1), "mixed": mixed * scale[:, :, None]}


class AlwaysOneBranch(nn.Module):
    """torch.export refuses the branch, and what TorchScript traces is right: the condition always holds."""

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().sum() >= 0:
            return x + 1
        return x - 1


class BothBranches(nn.Module):
    """torch.export refuses the branch, and what TorchScript traces is wrong for half of all inputs."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4) * 2


def residual() -> nn.Module:
    return Residual()


def two() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return TwoInTwoOut(), (torch.tensor([[1, 2, 9], [0, 3, 4]]), torch.ones(2, 3))


def two_by_name() -> tuple[nn.Module, dict[str, Tensor]]:
    return TwoInTwoOut(), {"tokens": torch.tensor([[1, 2, 9]]), "scale": torch.ones(1, 3)}


def always_one_branch() -> tuple[nn.Module, Tensor]:
    return AlwaysOneBranch(), torch.ones(2, 4)


def both_branches() -> tuple[nn.Module, Tensor]:
    return BothBranches(), torch.ones(2, 4)


def fixed_batch() -> tuple[nn.Module, Tensor]:
    return FixedBatch(), torch.ones(2, 4)


def no_network() -> None:
    return None


def fails() -> nn.Module:
    raise RuntimeError("the disk is full\nand more")
