"""Write held-out samples of the bundled models' data as files: a folder a class, as `onnxviz` reads them.

    python models/write_samples.py out/samples

gives ``out/samples/digits/<class>/<index>.png`` (40 of each digit) and ``out/samples/signals/<class>/<index>.npy``
(25 of each waveform). Needs scikit-learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import digits
import numpy as np
import signals
from PIL import Image

DIGITS, SIGNALS = 40, 25  # a class


def main(folder: Path) -> None:
    """Write both folders."""
    held_out = digits.load().test
    for label in range(10):
        chosen = np.flatnonzero(held_out.classes == label)[:DIGITS]
        place = folder / "digits" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        for index in chosen:
            Image.fromarray(held_out.pictures[index]).save(place / f"{held_out.indices[index]:04d}.png")
    test = signals.load().test
    for label, name in enumerate(signals.CLASSES):
        place = folder / "signals" / name
        place.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(test.classes == label)[:SIGNALS]:
            np.save(place / f"{index:03d}.npy", test.signals[index])
    print(folder / "digits")
    print(folder / "signals")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python models/write_samples.py FOLDER")
    main(Path(sys.argv[1]))
