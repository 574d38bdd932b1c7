"""See inside any ONNX model: architecture, feature maps, weights and every intermediate tensor.

>>> import onnxviz
>>> onnxviz.__version__
'0.1.0'

Every verb of the command line is a function here, such as ``onnxviz.inspect`` and ``onnxviz.features``; they are
imported when they are first used.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnxviz._version import __version__

if TYPE_CHECKING:
    from onnxviz.api import (
        activations,
        attention,
        attention_weights,
        attribute,
        attribution_methods,
        attribution_model,
        capture,
        check,
        compare,
        convert,
        doctor,
        explain,
        expose,
        features,
        flow,
        flow_numbers,
        gradient_statistics,
        graph_diff,
        inspect,
        maximize,
        maximized,
        mend,
        neuron_views,
        neurons,
        open_model,
        plan,
        pooling,
        preprocessing,
        profile,
        project,
        projection,
        save_model,
        weight_table,
        weights,
    )
    from onnxviz.errors import OnnxvizError

_VERBS = (
    "activations", "attention", "attention_weights", "attribute", "attribution_methods", "attribution_model",
    "capture", "check", "compare", "convert", "doctor", "explain", "expose", "features", "flow", "flow_numbers",
    "gradient", "gradient_statistics", "graph", "graph_diff", "inspect", "maximize", "maximized", "mend",
    "neuron_views", "neurons", "open_model", "plan", "pooling", "preprocessing", "profile", "project", "projection",
    "report", "save_model", "weight_table", "weights",
)  # fmt: skip
__all__ = [
    "OnnxvizError", "__version__", "activations", "attention", "attention_weights", "attribute",
    "attribution_methods", "attribution_model", "capture", "check", "compare", "convert", "doctor", "explain",
    "expose", "features", "flow", "flow_numbers", "gradient_statistics", "graph_diff", "inspect", "maximize",
    "maximized", "mend", "neuron_views", "neurons", "open_model", "plan", "pooling", "preprocessing", "profile",
    "project", "projection", "save_model", "weight_table", "weights",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        import onnxviz.api

        return sys.modules[__name__].__dict__.get(name) or getattr(onnxviz.api, name)
    if name == "OnnxvizError":
        from onnxviz.errors import OnnxvizError

        return OnnxvizError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_VERBS})


class _VerbRoom(ModuleType):
    """A room whose name is a verb as well: ``onnxviz.graph(model)`` draws, ``onnxviz.graph.io`` is its module."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import onnxviz.api

        return getattr(onnxviz.api, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """This package: the import system sets each room as an attribute, and rooms named as a verb become callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("gradient", "graph", "report") and type(value) is ModuleType:
            value.__class__ = _VerbRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
