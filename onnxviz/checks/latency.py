"""Checks of time against a file of earlier ones: P05."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxviz.checks.finding import InapplicableError, Problem
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.running import new_session
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError, InputError
from onnxviz.graph.files import atomic_write

__all__ = ["latency_regression", "measure", "save_latency"]

_WARM_UP, _RUNS = 5, 31
_SLOWER = 1.1
_SCHEMA = 1


@check(
    "P05",
    "warning",
    "slower than before",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Times the optimised session, five runs to warm up and then 31, and compares the median with that of "
    "`--latency-baseline FILE.json`, which `--save-latency FILE.json` writes: slower by more than 10 %, and the 95 % "
    "intervals of the medians apart.",
    why="An exporter's update or another operator can double the time without changing a number.",
    remedy="See where the time goes: `onnxviz profile`, for the model of then and of now.",
    false_positives="Other work on the machine. A baseline of another machine, provider or input size is refused.",
)
def latency_regression(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield a problem where the model has become slower."""
    path = subject.options.latency_baseline
    if path is None:
        raise InapplicableError("no --latency-baseline was given")
    before = _read(Path(path))
    now = measure(subject)
    for what in ("machine", "providers", "inputs"):
        if before[what] != now[what]:
            raise CheckError(f"the baseline was taken with other {what}: {before[what]} and not {now[what]}")
    ratio = now["median"] / before["median"]
    evidence = {
        "seconds": now["median"], "interval": now["interval"], "baseline_seconds": before["median"],
        "baseline_interval": before["interval"], "ratio": ratio, "runs": now["runs"],
    }  # fmt: skip
    if ratio > _SLOWER and now["interval"][0] > before["interval"][1]:
        own, other = (f"{1e3 * each['median']:.3g} ms" for each in (now, before))
        message = f"a run takes {own}, {ratio:.2f} times the {other} of the baseline"
        yield Problem(message, [], evidence, key="latency")
    yield evidence


def measure(subject: Subject) -> dict[str, Any]:
    """Return the median time of a run in seconds, with a 95 % interval by order statistics, and what it holds for.

    The interval needs no distribution: the ranks n/2 ± 1.96·√n/2 of the sorted times (Conover, Practical Nonparametric
    Statistics, 1999, section 3.2).
    """
    providers = subject.providers or ("cpu",)
    session = new_session(subject, providers=list(providers), optimize=True)
    feeds = subject.inputs.feeds
    times = []
    for _ in range(_WARM_UP + _RUNS):
        start = time.perf_counter()
        session.run(feeds)
        times.append(time.perf_counter() - start)
    ordered = sorted(times[_WARM_UP:])
    reach = 1.96 * np.sqrt(_RUNS) / 2
    low, high = int(np.floor(_RUNS / 2 - reach)), int(np.ceil(_RUNS / 2 + reach))
    return {
        "schema": _SCHEMA, "median": ordered[_RUNS // 2],
        "interval": [ordered[max(low, 0)], ordered[min(high, _RUNS - 1)]],
        "runs": _RUNS, "machine": _machine(), "providers": list(providers),
        "inputs": {name: list(np.shape(array)) for name, array in feeds.items()},
    }  # fmt: skip


def save_latency(subject: Subject, path: str | os.PathLike[str]) -> None:
    """Write what :func:`measure` finds, for a later ``--latency-baseline``.

    Raises:
        OutputError: The file cannot be written.
        ExecutionError: The model does not run.
    """
    atomic_write(Path(path), json.dumps(measure(subject), indent=2) + "\n")


def _machine() -> str:
    """Return what tells machines apart, without naming this one."""
    parts = [platform.machine(), platform.processor(), str(os.cpu_count()), _cpu(), onnx.__version__]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] != _SCHEMA or not found["median"] > 0 or len(found["interval"]) != 2:
            raise KeyError("schema")
        return {**found, "machine": found["machine"], "providers": found["providers"], "inputs": found["inputs"]}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no file of times", hint="write one with --save-latency") from error
