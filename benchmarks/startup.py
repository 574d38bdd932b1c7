"""How long `import onnxviz` and `onnxviz --help` take, beside the bare interpreter, in turn on the same machine.

Run it with `make bench`. The targets are 0.1 s and 0.3 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import onnxviz": [sys.executable, "-c", "import onnxviz"],
    "onnxviz --help": [sys.executable, "-m", "onnxviz", "--help"],
}
ROUNDS = 15


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)  # warm the disk cache
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    base = statistics.median(times["python -c pass"])
    print(f"{'command':16} {'median s':>9} {'ratio':>6}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:16} {median:9.3f} {median / base:6.1f}")


if __name__ == "__main__":
    main()
