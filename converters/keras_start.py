"""Starting Keras quietly, on the backend that is asked for or else on the first one installed."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

from onnxviz.errors import ConversionError, MissingDependencyError
from onnxviz.runtime.quiet import quiet

__all__ = ["start_keras"]

_BACKENDS = ("tensorflow", "torch", "jax")
_NEEDS = {"tensorflow": ("tensorflow", "tf2onnx"), "torch": ("torch", "onnxscript"), "jax": ("jax", "jax2onnx")}
_INSTALL = {
    "tensorflow": "pip install 'onnxviz[tensorflow]'",
    "torch": "pip install 'onnxviz[keras,torch]'",
    "jax": "pip install 'onnxviz[keras]' jax jax2onnx",
}


def start_keras() -> Any:
    """Import Keras and return it.

    A Keras that is imported already keeps its backend. Else it is the one that ``KERAS_BACKEND`` names, or the first
    installed of TensorFlow, torch and JAX.

    Raises:
        MissingDependencyError: Keras, its backend or the backend's exporter is not installed.
        ConversionError: The backend has no exporter.
    """
    if find_spec("keras") is None:
        raise MissingDependencyError("converting Keras models needs keras", hint="pip install 'onnxviz[tensorflow]'")
    if "keras" not in sys.modules:
        backend = os.environ.get("KERAS_BACKEND") or next((b for b in _BACKENDS if find_spec(b)), None)
        if backend is None:
            raise MissingDependencyError("Keras has no backend", hint=_INSTALL["tensorflow"])
        _require(backend)
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
            import keras
    except ImportError as error:
        raise MissingDependencyError(f"keras cannot be imported: {error}", hint=_INSTALL["tensorflow"]) from error
    if int(keras.__version__.split(".")[0]) < 3:
        raise MissingDependencyError(f"keras {keras.__version__} is too old", hint="pip install 'keras>=3.13.2'")
    _require(keras.backend.backend())
    return keras


def _require(backend: str) -> None:
    if backend not in _NEEDS:
        raise ConversionError(
            f"the Keras backend {backend!r} has no ONNX exporter", hint="set KERAS_BACKEND=tensorflow"
        )
    missing = [name for name in _NEEDS[backend] if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"converting Keras models on the {backend} backend needs {' and '.join(missing)}", hint=_INSTALL[backend]
        )
