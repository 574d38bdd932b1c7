"""From a picture to a tensor, with everything that was done written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.layouts import input_layout
from onnxviz.graph.shapes import dtype_name, shape_list
from onnxviz.runtime.storage import numpy_type

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PRESETS", "PictureForm", "Preprocessing", "picture_form", "picture_to_tensor", "picture_values"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHANNELS = {"gray": 1, "rgb": 3, "bgr": 3, "rgba": 4}
_RESIZES = ("stretch", "crop", "pad", "none")
_LONGEST_SIDE = 640  # of a picture given to a model that takes any size
_MOST_PIXELS = 2**27
_STRIDE = 32  # sizes that are multiples of it survive the down- and upsampling of most networks


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a tensor: ``(pixel · scale − mean) / std`` a channel, pixels from 0 to 255.

    Attributes:
        scale: Factor on the pixel. None: 1/255 for floating-point inputs, 1 for integer ones.
        mean: Subtracted after scaling, one number or one a channel, in the channel order that the model sees.
        std: Divisor, likewise.
        layout: ``"NCHW"`` or ``"NHWC"``; None infers it from the graph.
        color: ``"rgb"``, ``"bgr"``, ``"gray"`` or ``"rgba"``; None takes what fits the channels.
        resize: ``"stretch"``, ``"crop"`` (shorter side fits, centre kept), ``"pad"`` (longer side fits, black borders)
            or ``"none"``; bilinear.
        size: (height, width) for a model that takes any size.
    """

    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None
    color: str | None = None
    resize: str = "stretch"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.layout not in (None, "NCHW", "NHWC"):
            raise InputError(f"there is no layout {self.layout!r}", hint="choose NCHW or NHWC")
        if self.color not in (None, *_CHANNELS):
            raise InputError(f"there is no colour order {self.color!r}", hint=f"choose {', '.join(_CHANNELS)}")
        if self.resize not in _RESIZES:
            raise InputError(f"there is no resize {self.resize!r}", hint=f"choose {', '.join(_RESIZES)} or HxW")
        if self.std is not None and not all(self.std):
            raise InputError("--std cannot be 0")

    def replace(self, **changes: Any) -> Preprocessing:
        """Return a copy with the fields that are not None replaced; ``resize`` may be ``"HxW"`` or ``"crop:HxW"``."""
        changes = {name: value for name, value in changes.items() if value is not None}
        if "resize" in changes:
            mode, _, size = changes["resize"].rpartition(":")
            if found := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size):
                changes["size"] = (int(found[1]), int(found[2]))
                changes["resize"] = mode or "stretch"
        if changes.get("layout"):
            changes["layout"] = changes["layout"].upper()
        if changes.get("color"):
            changes["color"] = changes["color"].lower()
        return replace(self, **changes)


#: What the usual training pipelines do to a picture.
PRESETS: Mapping[str, Preprocessing] = {
    "unit": Preprocessing(scale=1 / 255),
    "raw": Preprocessing(scale=1.0),
    "imagenet": Preprocessing(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "keras-tf": Preprocessing(scale=1 / 127.5, mean=(1.0,)),
    "keras-caffe": Preprocessing(scale=1.0, mean=(103.939, 116.779, 123.68), color="bgr"),
}


def _open(path: Path) -> Image.Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} cannot be decoded as a picture: {error}", hint="give a PNG or JPEG, or an .npy array"
        ) from error


def _declared(model: ir.Model, how: Preprocessing) -> Preprocessing:
    """Fill in what the model's own metadata state (the image metadata of the ONNX specification)."""
    props = model.metadata_props
    color = {"Bgr8": "bgr", "Rgb8": "rgb", "Gray8": "gray", "Bgra8": None}.get(props.get("Image.BitmapPixelFormat", ""))
    scale = {"NominalRange_0_255": 1.0, "Normalized_0_1": 1 / 255}.get(props.get("Image.NominalPixelRange", ""))
    return how.replace(color=how.color or color, scale=how.scale if how.scale is not None else scale)


@dataclass(frozen=True)
class _Target:
    """Where a picture has to fit: axes and sizes of one input, None where the size is free."""

    layout: str
    batched: bool
    channels: int | None
    height: int | None
    width: int | None


def _target(model: ir.Model, value: ir.Value, how: Preprocessing) -> _Target:
    shape = shape_list(value)
    if shape is None:
        shape = [None] * 4
    sizes = [dim if isinstance(dim, int) else None for dim in shape]
    layout = how.layout or input_layout(model, value)
    if not (dtype_name(value) or "float32").startswith(("float", "bfloat16", "int", "uint")):
        raise InputError(f"input {value.name!r} is {dtype_name(value)}, which no picture is", hint="give an .npy array")
    if len(sizes) not in (3, 4) or layout is None:
        raise InputError(
            f"input {value.name!r} has shape {shape}, which is not a picture's",
            hint="give an .npy array, or --layout if it is one",
        )
    spatial = sizes[-3:]
    channels, height, width = (
        (spatial[0], spatial[1], spatial[2]) if layout.endswith("CHW") else (spatial[2], spatial[0], spatial[1])
    )
    if channels is None:
        channels = _channels_of_first_conv(value)
    if channels not in (None, 1, 3, 4):
        raise InputError(
            f"input {value.name!r} takes {channels} channels in {layout}; a picture has 1, 3 or 4",
            hint="give an .npy array of that shape, or the right --layout",
        )
    return _Target("NCHW" if layout.endswith("CHW") else "NHWC", len(sizes) == 4, channels, height, width)


def _channels_of_first_conv(value: ir.Value) -> int | None:
    for node in value.consumers():
        if (
            node.op_type == "Conv"
            and len(node.inputs) > 1
            and node.inputs[1] is not None
            and node.inputs[1].shape is not None
        ):
            channels = node.inputs[1].shape[1]
            return channels * node.attributes.get_int("group", 1) if isinstance(channels, int) else None
        if node.op_type == "Transpose":
            return _channels_of_first_conv(node.outputs[0])
    return None


@dataclass(frozen=True, eq=False)
class PictureForm:
    """What an input makes of a picture whose values are from 0 to 1: ``scale * value + shift`` a channel.

    Attributes:
        layout: ``"NCHW"`` or ``"NHWC"``.
        batched: Whether the input has an axis of samples.
        size: (height, width), 0 where it is free.
        color: ``"rgb"``, ``"bgr"``, ``"gray"`` or ``"rgba"``: the order of the channels.
        scale: ``(C,)`` float64, in that order.
        shift: ``(C,)`` float64, likewise.
        steps: What that is, one line a step.
    """

    layout: str
    batched: bool
    size: tuple[int, int]
    color: str
    scale: np.ndarray
    shift: np.ndarray
    steps: tuple[str, ...]


def picture_form(model: ir.Model, value: ir.Value, how: Preprocessing) -> PictureForm:
    """Return what :func:`picture_to_tensor` does to the values of a picture, as a rule for each channel.

    Args:
        model: The model.
        value: The graph input.
        how: What to do; what it leaves open is inferred.

    Raises:
        InputError: The input does not take a picture.
    """
    how = _declared(model, how)
    target = _target(model, value, how)
    channels = target.channels or 3
    color = how.color or {1: "gray", 4: "rgba"}.get(channels, "rgb")
    if _CHANNELS[color] != channels:
        raise InputError(f"input {value.name!r} takes {channels} channels, {color} has {_CHANNELS[color]}")
    steps: list[str] = []
    ends = np.stack([np.zeros((1, channels)), np.full((1, channels), 255.0)])
    low, high = _normalised(ends, color, how, "float64", steps)[:, 0]
    fixed = (target.height or 0, target.width or 0)
    size = how.size or fixed
    if any(a and a != b for a, b in zip(fixed, size, strict=True)):
        raise InputError(f"the input is {fixed[0]}×{fixed[1]} (height×width); it cannot be {size[0]}×{size[1]}")
    return PictureForm(target.layout, target.batched, size, color, high - low, low, tuple(steps))


def picture_values(path: Path, color: str, size: tuple[int, int], resize: str = "crop") -> np.ndarray:
    """Decode a picture and return its values from 0 to 1, ``(C, H, W)`` float32, channels in the order of ``color``.

    Args:
        path: The picture.
        color: ``"rgb"``, ``"bgr"``, ``"gray"`` or ``"rgba"``.
        size: (height, width).
        resize: As :class:`Preprocessing` takes it.

    Raises:
        InputError: The picture cannot be decoded.
    """
    picture = _convert(_open(path), _MODES[_CHANNELS[color]])
    picture = _resized(picture, _Target("NCHW", True, None, None, None), Preprocessing(resize=resize, size=size), [])
    pixels = np.atleast_3d(np.asarray(picture, np.float32)) / 255
    return np.ascontiguousarray(pixels[..., :: -1 if color == "bgr" else 1].transpose(2, 0, 1))


def picture_to_tensor(
    model: ir.Model, value: ir.Value, path: Path, how: Preprocessing
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Decode a picture and shape it for one input of a model.

    Args:
        model: The model.
        value: The graph input.
        path: The picture.
        how: What to do; what it leaves open is inferred.

    Returns:
        The tensor (batch axis of 1 added); the picture as the model sees it, (H, W, 3) uint8 RGB; and what was done,
        one line a step.

    Raises:
        InputError: The picture cannot be decoded, or the input does not take one.
    """
    picture = _open(path)
    how = _declared(model, how)
    target = _target(model, value, how)
    color = how.color or {1: "gray", 4: "rgba"}.get(target.channels or 3, "rgb")
    if target.channels is not None and _CHANNELS[color] != target.channels:
        raise InputError(
            f"input {value.name!r} takes {target.channels} channels, {color} has {_CHANNELS[color]}",
            hint="choose another --color",
        )
    steps = [f"decoded {path.name}: {picture.width}×{picture.height} {picture.mode}"]
    mode = _MODES[_CHANNELS[color]]
    if picture.mode != mode:
        picture = _convert(picture, mode)
        steps.append(f"converted to {'greyscale' if mode == 'L' else mode}")
    picture = _resized(picture, target, how, steps)
    pixels = np.asarray(picture)
    shown = np.asarray(picture.convert("RGB"))
    tensor = _normalised(np.atleast_3d(pixels), color, how, dtype_name(value) or "float32", steps)
    tensor = tensor.transpose(2, 0, 1) if target.layout == "NCHW" else tensor
    steps.append(f"laid out as {target.layout if target.batched else target.layout[1:]}")
    return np.ascontiguousarray(tensor[None] if target.batched else tensor), shown, steps


def _convert(picture: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if picture.mode.startswith(("I", "F")):  # 16- and 32-bit greyscale: Pillow would clip it at 255
        values = np.asarray(picture, np.float64)
        deep = picture.mode.startswith("I;16") or (picture.mode == "I" and values.max(initial=0) > 255)
        top = 65535.0 if deep else 1.0 if picture.mode == "F" and values.max(initial=0) <= 1 else 255.0
        picture = Image.fromarray(np.clip(values * 255 / top, 0, 255).astype(np.uint8))
    if mode != "RGBA" and ("A" in picture.mode or "transparency" in picture.info):
        flat = Image.new("RGBA", picture.size, "white")
        flat.alpha_composite(picture.convert("RGBA"))
        picture = flat
    return picture.convert(mode)


def _resized(picture: Image.Image, target: _Target, how: Preprocessing, steps: list[str]) -> Image.Image:
    from PIL import Image, ImageOps

    height, width = target.height, target.width
    if how.size is not None:
        fixed = (height or how.size[0], width or how.size[1])
        if fixed != how.size:
            raise InputError(f"the input is {height}×{width} (height×width); it cannot be {how.size[0]}×{how.size[1]}")
        height, width = how.size
    if height is None or width is None:
        shrink = min(1.0, _LONGEST_SIDE / max(picture.size))
        free = [max(_STRIDE, round(side * shrink / _STRIDE) * _STRIDE) for side in (picture.height, picture.width)]
        height, width = height or free[0], width or free[1]
        if how.resize == "none":
            height, width = target.height or picture.height, target.width or picture.width
    if (picture.width, picture.height) == (width, height):
        return picture
    if height * width > _MOST_PIXELS:
        raise InputError(f"{height}×{width} pixels are too many", hint="give --resize a smaller size")
    if how.resize == "none":
        raise InputError(
            f"the picture is {picture.height}×{picture.width} and the input {height}×{width} (height×width)",
            hint="let it be resized: --resize stretch, crop or pad",
        )
    filter_ = Image.Resampling.BILINEAR
    steps.append(f"resized to {height}×{width} (height×width), {how.resize}, bilinear")
    if how.resize == "crop":
        return ImageOps.fit(picture, (width, height), filter_)
    if how.resize == "pad":
        return ImageOps.pad(picture, (width, height), filter_)
    return picture.resize((width, height), filter_)


def _normalised(pixels: np.ndarray, color: str, how: Preprocessing, dtype: str, steps: list[str]) -> np.ndarray:
    if color == "bgr":
        pixels = pixels[..., ::-1]
        steps.append("channels reordered to BGR")
    floating = "float" in dtype
    scale = how.scale if how.scale is not None else (1 / 255 if floating else 1.0)
    values = pixels.astype(np.float64)
    if scale != 1:
        values *= scale
        steps.append(f"scaled by {scale:.6g}")
    for name, numbers, apply in (("mean", how.mean, np.subtract), ("std", how.std, np.divide)):
        if numbers is None:
            continue
        if len(numbers) not in (1, pixels.shape[-1]):
            raise InputError(f"--{name} has {len(numbers)} numbers for {pixels.shape[-1]} channels")
        values = apply(values, np.asarray(numbers))
        steps.append(
            f"{name} {', '.join(f'{n:g}' for n in numbers)} {'subtracted' if name == 'mean' else 'divided out'}"
        )
    if floating:
        return values.astype(numpy_type(dtype))
    info = np.iinfo(np.dtype(dtype))
    return np.clip(np.rint(values), info.min, info.max).astype(info.dtype)
