"""What is installed, what really loads, and what stands in its way."""

from __future__ import annotations

import importlib
import platform
from dataclasses import asdict, dataclass
from html import escape
from importlib import metadata
from typing import Any

import onnxruntime as ort

from onnxviz._version import __version__
from onnxviz.runtime.providers import ProviderStatus, distributions, missing_libraries, provider_status, short_name

__all__ = ["Diagnosis", "diagnose"]

_PACKAGES = (
    "onnx", "onnx-ir", "numpy", "matplotlib", "safetensors", "Pillow", "torch", "onnxscript", "keras", "tensorflow",
    "tensorflow-cpu", "tf2onnx", "jax", "scikit-learn",
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`diagnose`.

    Attributes:
        python: Version and platform.
        versions: Distribution -> version, or None where it is not installed (optional ones included).
        onnxruntime: Distributions that provide onnxruntime -> version.
        providers: Each provider of this build, and whether it loads.
        missing_libraries: Provider -> shared libraries that the loader does not find.
        problems: What should be put right, one line each with the way out; empty if nothing.
    """

    python: str
    versions: dict[str, str | None]
    onnxruntime: dict[str, str]
    providers: tuple[ProviderStatus, ...]
    missing_libraries: dict[str, list[str]]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain JSON types."""
        data = asdict(self)
        data["providers"] = [
            {"name": p.provider, "short": short_name(p.provider), "loads": p.loads, "reason": p.reason}
            for p in self.providers
        ]
        return data

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(short_name(p.provider))}</th><td>{escape(p.reason or 'loads')}</td></tr>"
            for p in self.providers
        )
        return f"<table>{rows}</table>"


def diagnose() -> Diagnosis:
    """Examine this installation: versions, providers that really load, a double onnxruntime, missing CUDA libraries.

    Each provider is tried by making a session with it; frameworks are not imported.

    >>> [p.provider for p in diagnose().providers if p.loads][-1]
    'CPUExecutionProvider'
    """
    installed = distributions()
    statuses = tuple(provider_status(name) for name in ort.get_available_providers())
    missing = {s.provider: names for s in statuses if not s.loads and (names := missing_libraries(s.provider))}
    return Diagnosis(
        python=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        versions={"onnxviz": __version__, **{name: _version(name) for name in _PACKAGES}},
        onnxruntime=installed,
        providers=statuses,
        missing_libraries=missing,
        problems=tuple(_problems(installed, statuses)),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _problems(installed: dict[str, str], statuses: tuple[ProviderStatus, ...]) -> list[str]:
    problems = []
    if len(installed) > 1:
        names = list(installed)
        keep = next((n for n in names if n.endswith("-gpu")), names[0])
        problems.append(
            f"{' and '.join(names)} are both installed and overwrite each other: "
            f"pip uninstall -y {' '.join(names)} && pip install {keep}"
        )
    if not any(s.loads for s in statuses):
        problems.append("onnxruntime has no provider that loads: reinstall it")
    try:
        importlib.import_module("onnx_ir")
    except ImportError as error:
        problems.append(f"onnx-ir cannot be imported ({error}): pip install --upgrade onnx-ir")
    return problems
