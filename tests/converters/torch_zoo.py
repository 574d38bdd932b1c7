"""Six networks of the kinds that people export, small, with weights and statistics that let errors show."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + kept)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Residual(8, 8, 1), Residual(8, 8, 1))
        self.layer2 = nn.Sequential(Residual(8, 16, 2), Residual(16, 16, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(image))))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.expand(functional.silu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(scale)


class Inverted(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels))
        self.depthwise = nn.Sequential(
            nn.Conv2d(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels, bias=False),
            nn.BatchNorm2d(4 * channels),
        )
        self.se = SqueezeExcite(4 * channels)
        self.act = nn.Hardswish()
        self.project = nn.Sequential(nn.Conv2d(4 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.se(self.act(self.depthwise(self.act(self.expand(x))))))


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(Inverted(8), Inverted(8))
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.blocks(self.stem(image)).mean((2, 3))))


class Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.body(x)
        return kept, self.pool(kept)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = Down(1, 8), Down(8, 16)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 16, 2, 2)
        self.merge = nn.Conv2d(32, 8, 3, padding=1)
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        first, x = self.down1(image)
        second, x = self.down2(x)
        x = self.merge(torch.cat([self.up(self.middle(x)), second], 1))
        return self.head(torch.cat([self.resize(torch.relu(x)), first], 1))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32) * 0.2)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu")
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Recurrent(nn.Module):
    """A 1-D CNN with an LSTM, as used on sensor data; one convolution is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 16, 5, 2, 2)
        self.shared = nn.Conv1d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.lstm = nn.LSTM(16, 12, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(24, 3)

    def forward(self, signal: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(signal)))
        x = self.shared(torch.relu(self.shared(x)))
        sequence, _ = self.lstm(x.transpose(1, 2))
        return self.fc(sequence[:, -1])


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ELU(), nn.AvgPool3d(2), nn.Conv3d(8, 8, 3, groups=2),
            nn.GroupNorm(4, 8), nn.PReLU(8),
        )  # fmt: skip
        self.head = nn.Linear(8, 4)

    def forward(self, scan: Tensor) -> Tensor:
        return torch.softmax(self.head(self.features(scan).amax((2, 3, 4))), -1)


SHAPES = {
    "resnet": (1, 3, 64, 64),
    "mobilenet": (1, 3, 32, 32),
    "unet": (1, 1, 32, 32),
    "vit": (1, 3, 32, 32),
    "recurrent": (1, 4, 60),
    "volume": (1, 1, 12, 12, 12),
}


def _trained(module: nn.Module) -> nn.Module:
    """Give BatchNorms statistics that are not 0 and 1."""
    torch.manual_seed(7)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in ((part.running_mean, -0.5, 0.5), (part.running_var, 0.5, 2), (part.bias, -1, 1)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return module


def resnet() -> nn.Module:
    return _trained(ResNet())


def mobilenet() -> nn.Module:
    return _trained(MobileNet())


def unet() -> nn.Module:
    return _trained(UNet())


def vit() -> nn.Module:
    return _trained(ViT())


def recurrent() -> nn.Module:
    return _trained(Recurrent())


def volume() -> nn.Module:
    return _trained(Volume())
