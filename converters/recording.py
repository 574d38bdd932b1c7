"""Watching a network run: which layer gave what, and whose outputs it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from onnxviz.converters.base import Array, LayerCall

__all__ = ["Recorder"]


class Recorder:
    """Collects the calls of layers from a framework's hooks, in the order in which they end.

    Tensors are told apart by identity, so every one that is seen is kept alive until the recorder goes.

    >>> import numpy as np
    >>> recorder, x = Recorder(np.asarray), np.zeros(2)
    >>> h = x + 1
    >>> recorder.add("conv", "Conv2d", [x], [h])
    >>> recorder.add("relu", "ReLU", [h], [np.maximum(h, 0)])
    >>> [(call.layer, call.reads) for call in recorder.calls]
    [('conv', ()), ('relu', (0,))]
    """

    def __init__(self, to_array: Callable[[Any], Array]) -> None:
        self.calls: list[LayerCall] = []
        self._to_array = to_array
        self._made_by: dict[int, int] = {}
        self._alive: list[object] = []

    def add(
        self, layer: str, class_name: str, inputs: Iterable[Any], outputs: Iterable[Any], aliases: tuple[str, ...] = ()
    ) -> None:
        """Note a call that has ended; a container that only hands on what its last part gave is left out.

        Of several outputs, those that are what the layer took are left out: exporters leave no tensor for them.

        Args:
            layer: The layer's path.
            class_name: Its class.
            inputs: The framework's tensors that it took, flattened.
            outputs: Those that it gave.
            aliases: Further paths of the layer.
        """
        taken, given = list(inputs), list(outputs)
        reads = dict.fromkeys(self._made_by[id(t)] for t in taken if id(t) in self._made_by)
        if not given or all(id(t) in self._made_by and not any(t is i for i in taken) for t in given):
            return
        self._alive += [*taken, *given]
        self._made_by |= {id(tensor): len(self.calls) for tensor in given}
        arrays = tuple(self._to_array(tensor) for tensor in given)
        fresh = tuple(array for array in arrays if not any(self._same(array, tensor) for tensor in taken))
        self.calls.append(LayerCall(layer, class_name, fresh or arrays, tuple(reads), not fresh, aliases))

    def _same(self, array: Array, tensor: Any) -> bool:
        return tuple(tensor.shape) == array.shape and np.array_equal(array, self._to_array(tensor))
