"""Generated signals, of which one of the bundled models tells the waveform: sine, square, sawtooth or chirp.

Every signal is one second of 256 samples, with random frequency, phase, amplitude and offset, under white noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "HELD_OUT", "LENGTH", "NOISE", "SEED", "Signals", "Split", "generate", "load"]

CLASSES = ("sine", "square", "sawtooth", "chirp")
LENGTH = 256
SEED = 11
LEARNT, HELD_OUT = 2400, 800
NOISE = 0.3

FloatArray = npt.NDArray[np.float32]


class Split(NamedTuple):
    """One part of the data.

    Attributes:
        signals: (N, 1, 256) ``float32``.
        classes: (N,) ``int64``, positions in :data:`CLASSES`, each as often as the others.
    """

    signals: FloatArray
    classes: npt.NDArray[np.int64]


class Signals(NamedTuple):
    """The fixed split: ``train`` to learn from, ``test`` held out."""

    train: Split
    test: Split


def generate(count: int, seed: int) -> Split:
    """Generate ``count`` signals.

    With t in [0, 1) s, frequency f of 3-12 Hz, phase p in [0, 1) periods, and turns u = f·t + p: sine sin(2πu); square
    sign(sin(2πu)); sawtooth 2·(u mod 1) - 1; chirp sin(2π(u + (k-1)·f·t²/2)), whose frequency rises from f to k·f
    with k of 2-4. Each is multiplied by an amplitude of 0.5-1.5, moved by -0.5 to 0.5, and given Gaussian noise.
    """
    # Not default_rng: numpy promises for all time the numbers of RandomState alone, and the held-out set hangs on them.
    rng = np.random.RandomState(seed)
    classes = np.arange(count, dtype=np.int64) % len(CLASSES)
    time = np.arange(LENGTH) / LENGTH
    frequency, phase, rise, amplitude, offset = (
        rng.uniform(low, high, (count, 1)) for low, high in ((3, 12), (0, 1), (2, 4), (0.5, 1.5), (-0.5, 0.5))
    )
    turns = frequency * time + phase
    waves = np.stack(
        [
            np.sin(2 * np.pi * turns),
            np.sign(np.sin(2 * np.pi * turns)),
            2 * (turns % 1) - 1,
            np.sin(2 * np.pi * (turns + (rise - 1) * frequency * time**2 / 2)),
        ]
    )
    clean = amplitude * waves[classes, np.arange(count)] + offset
    noisy = clean + NOISE * rng.standard_normal((count, LENGTH))
    return Split(noisy.astype(np.float32)[:, None], classes)


def load() -> Signals:
    """Generate the fixed split: 2400 signals to learn from, 800 held out."""
    return Signals(generate(LEARNT, SEED), generate(HELD_OUT, SEED + 1))
