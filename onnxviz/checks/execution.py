"""Checks of where a model runs: P01."""

from __future__ import annotations

from collections.abc import Iterator

from onnxviz.checks.finding import Problem
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject


@check(
    "P01",
    "error",
    "requested provider not loaded",
    needs=Need.PROVIDERS,
    what="Makes a small session with each execution provider of `--providers`, and sees whether it is in it.",
    why="onnxruntime runs on the CPU without a word where CUDA or TensorRT cannot be loaded: right, and a hundred "
    "times as slow.",
    remedy="Install what the message names: the onnxruntime build that contains the provider, and its CUDA and cuDNN; "
    "`onnxviz doctor` tells more.",
    false_positives="It holds for the machine that runs the check, which may not be the one in production.",
)
def providers_load(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the providers that do not load."""
    from onnxviz.runtime.providers import provider_problems

    for name, problem in provider_problems(subject.providers).items():
        yield Problem(f"{name} does not load: {problem}", [], {"provider": name, "reason": problem}, key=name)
    yield {"providers": list(subject.providers)}
