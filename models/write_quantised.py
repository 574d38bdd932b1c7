"""Write an int8 copy of the bundled LeNet-5, made by onnxruntime's quantiser: something to compare and to check.

    python models/write_quantised.py out/lenet5_int8.onnx

QDQ format, a scale for each channel of a weight, calibrated on the bundled digits.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, quantize_static

from onnxviz.graph.io import open_model
from onnxviz.runtime.inputs import load_inputs

HERE = Path(__file__).parent
SOURCE = HERE / "lenet5.onnx"


class Digits(CalibrationDataReader):  # type: ignore[misc]
    """The bundled digits, one at a time."""

    def __init__(self) -> None:
        model = open_model(SOURCE)
        self._feeds = iter([load_inputs(model, [path]).feeds for path in sorted(HERE.glob("samples/digit_*.png"))])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed; None after the last."""
        return next(self._feeds, None)


def main(target: Path) -> None:
    """Write the copy."""
    logging.getLogger().setLevel(logging.ERROR)  # it advises a pre-processing that this model does not need
    target.parent.mkdir(parents=True, exist_ok=True)
    quantize_static(SOURCE, target, Digits(), per_channel=True)
    print(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python models/write_quantised.py FILE.onnx")
    main(Path(sys.argv[1]))
