"""Execution providers: which are there, which really load, and why one does not."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import onnxruntime as ort

from onnxviz.errors import ProviderError
from onnxviz.runtime.options import new_options

__all__ = [
    "ProviderStatus",
    "distributions",
    "missing_libraries",
    "provider_problems",
    "provider_status",
    "resolve_providers",
    "short_name",
]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_LIBRARY = {_CUDA: "providers_cuda", "TensorrtExecutionProvider": "providers_tensorrt"}


def short_name(provider: str) -> str:
    """Return the name that users type: ``"CUDAExecutionProvider"`` -> ``"cuda"``."""
    return provider.removesuffix("ExecutionProvider").lower()


def distributions() -> dict[str, str]:
    """Return the installed distributions that provide the module ``onnxruntime`` -> their versions.

    More than one overwrite each other's files: whichever was installed last wins, and its providers with it.
    """
    return {
        name: metadata.version(name) for name in sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    }


def _provider_library(provider: str) -> Path | None:
    stem = _LIBRARY.get(provider)
    if stem is None:
        return None
    name = f"onnxruntime_{stem}.dll" if sys.platform == "win32" else f"libonnxruntime_{stem}.so"
    path = Path(ort.__file__).parent / "capi" / name
    return path if path.exists() else None


@cache
def _preload_cuda() -> None:
    """Load the CUDA and cuDNN that pip packages bring; what onnxruntime prints about it is of no use here."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def missing_libraries(provider: str) -> list[str]:
    """Return the names of shared libraries that a provider needs and the loader does not find (Linux)."""
    library = _provider_library(provider)
    if library is None:
        return []
    if provider == _CUDA:
        _preload_cuda()
    if (ldd := shutil.which("ldd")) is not None:
        listing = subprocess.run([ldd, str(library)], capture_output=True, text=True, timeout=30, check=False).stdout
        names = [line.split("=>")[0].strip() for line in listing.splitlines() if "not found" in line]
        names = [name for name in names if not _loads(name) and not name.startswith("libonnxruntime_providers_shared")]
        if names:
            return names
    problem = _load_problem(library)
    return [problem] if problem else []


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _load_problem(library: Path) -> str | None:
    shared = library.with_name(re.sub("providers_[a-z]+", "providers_shared", library.name))
    try:
        if shared.exists():
            ctypes.CDLL(str(shared), mode=getattr(ctypes, "RTLD_GLOBAL", 0))
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error).split(":")[0] if "cannot open shared object" in str(error) else str(error)
    return None


@dataclass(frozen=True)
class ProviderStatus:
    """Whether a provider can be used.

    Attributes:
        provider: Full name, such as ``"CUDAExecutionProvider"``.
        reason: Why it does not load, in one line; None if it does.
    """

    provider: str
    reason: str | None

    @property
    def loads(self) -> bool:
        """True if onnxruntime runs a session with this provider."""
        return self.reason is None


@cache
def provider_status(provider: str) -> ProviderStatus:
    """Return whether a provider (full name: ``"CUDAExecutionProvider"``) loads, by making a session with it."""
    if provider not in ort.get_available_providers():
        return ProviderStatus(provider, f"this onnxruntime build ({_build()}) does not contain it")
    if provider == _CPU:
        return ProviderStatus(provider, None)
    missing = missing_libraries(provider)
    if missing:
        return ProviderStatus(provider, f"it cannot load: {', '.join(missing)} not found")
    try:
        session = ort.InferenceSession(_probe_model(), new_options(), providers=[provider, _CPU])
    except Exception as error:  # noqa: BLE001 - each provider fails in its own way, and the reason is what is asked for
        return ProviderStatus(provider, str(error).strip().splitlines()[0])
    if provider not in session.get_providers():
        return ProviderStatus(provider, "onnxruntime left it out of the session: no device or driver")
    return ProviderStatus(provider, None)


def provider_problems(names: Sequence[str]) -> dict[str, str]:
    """Return why providers (short or full names) do not load; those that do are left out.

    >>> provider_problems(["cpu", "quantum"])
    {'quantum': 'there is no such provider'}
    """
    known = {short_name(p): p for p in ort.get_all_providers()}
    found = {}
    for name in names:
        provider = known.get(short_name(name) if name.endswith("ExecutionProvider") else name.strip().lower())
        reason = "there is no such provider" if provider is None else provider_status(provider).reason
        if reason is not None:
            found[name] = reason
    return found


def _probe_model() -> bytes:
    from onnx import parser

    text = '<ir_version: 8, opset_import: ["": 13]> probe (float[1] x) => (float[1] y) {y = Identity(x)}'
    data: bytes = parser.parse_model(text).SerializeToString()
    return data


def _build() -> str:
    return (
        ", ".join(f"{name} {version}" for name, version in distributions().items()) or f"onnxruntime {ort.__version__}"
    )


def resolve_providers(request: str | Sequence[str] = "auto") -> list[str]:
    """Return the full names of the providers to use, CPU last.

    Args:
        request: ``"auto"`` (CUDA where it loads, else CPU), ``"cpu"``, ``"cuda"``, another provider's short or full
            name, or several in order of preference.

    Raises:
        ProviderError: A provider that was asked for by name does not load; the text says why. onnxruntime itself
            would run on the CPU without a word.

    >>> resolve_providers("cpu")
    ['CPUExecutionProvider']
    """
    names = [request] if isinstance(request, str) else list(request)
    if names == ["auto"]:
        return [_CUDA, _CPU] if _CUDA in ort.get_available_providers() and provider_status(_CUDA).loads else [_CPU]
    if "auto" in names:
        raise ProviderError("auto cannot be combined with other providers", hint="name them in order: cuda,cpu")
    known = {short_name(p): p for p in ort.get_all_providers()}
    chosen: list[str] = []
    for name in names:
        provider = known.get(short_name(name) if name.endswith("ExecutionProvider") else name.lower())
        if provider is None:
            raise ProviderError(f"there is no provider {name!r}", hint=f"choose auto, {', '.join(sorted(known))}")
        status = provider_status(provider)
        if not status.loads:
            raise ProviderError(
                f"provider {name} was asked for and does not load: {status.reason}",
                hint="use --provider cpu, or see `onnxviz doctor`",
            )
        chosen.append(provider)
    return [*dict.fromkeys(chosen), *([] if _CPU in chosen else [_CPU])]
