"""A model that is run again and again on what it gave before: its state stays where the model runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.runtime.explain import explain_failure
from onnxviz.runtime.session import Session
from onnxviz.runtime.values import extended_dtypes, to_value

__all__ = ["StatefulSession"]


class StatefulSession(Session):
    """A session whose state is held on the device: what an output gives enters an input of the next run.

    What is fed once (:meth:`hold`) and the state are OrtValues on the device, bound by name; only what :meth:`step` is
    given goes there at each run, and only the outputs that it names come back. On the CPU it is the same path.

    Args:
        model: The model.
        state: Input -> the output that replaces it, of one shape and type.
        providers, op_library: As :class:`onnxviz.runtime.session.Session` takes them.
        optimize: Let onnxruntime fuse and rewrite the graph, which is what makes many runs worth it.

    Raises:
        ExecutionError, ProviderError: As :class:`onnxviz.runtime.session.Session`.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x, float[2] by) => (float[2] y, float[1] total) {y = Add(x, by) total = ReduceSum(y)}''')
    >>> session = StatefulSession(model, {"x": "y"}, "cpu")
    >>> session.hold({"x": np.zeros(2, np.float32), "by": np.ones(2, np.float32)})
    >>> [session.step({}, ["total"])["total"].tolist() for _ in range(3)], session.value("x").tolist()
    ([[2.0], [4.0], [6.0]], [3.0, 3.0])
    """

    def __init__(
        self,
        model: ir.Model,
        state: Mapping[str, str],
        providers: str | Sequence[str] = "auto",
        *,
        optimize: bool = True,
        op_library: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(model, providers, optimize=optimize, op_library=op_library)
        self.state = dict(state)
        self._device = "cuda" if self.providers[0] in ("cuda", "tensorrt") else "cpu"
        self.steps = 0  # how often the state has moved on
        self._held: dict[str, ort.OrtValue] = {}
        self._next: dict[str, ort.OrtValue] = {}

    def hold(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Put arrays on the device, where they stay until they are held again; those of the state begin it."""
        for name, array in feeds.items():
            own = np.array(array, order="C")  # a state that lies on the host is written to
            if self._device == "cpu" or own.dtype.kind in "OUS" or own.dtype in extended_dtypes():
                value = to_value(name, own)
            else:
                value = ort.OrtValue.ortvalue_from_numpy(own, self._device, 0)
            self._held[name] = value
            self._next.pop(name, None)

    def value(self, name: str) -> np.ndarray:
        """Return a copy of what is held."""
        return np.array(self._held[name].numpy())

    def step(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], *, advance: bool = True
    ) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: What is neither held nor state.
            outputs: What to return.
            advance: Whether the state takes what the run gave it.

        Returns:
            Output name -> array.

        Raises:
            ExecutionError: A node failed.
        """
        options = ort.RunOptions()
        options.log_severity_level = 4
        try:
            binding = self._bound(feeds, outputs)
            self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise explain_failure(error) from error
        if advance:
            now = {name: self._held[name] for name in self.state}
            self._held |= {name: self._next[name] for name in self.state}
            self._next = now
            self.steps += 1
        return {name: np.array(value.numpy()) for name, value in zip(outputs, binding.get_outputs(), strict=False)}

    def _bound(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]) -> Any:
        binding = self._session.io_binding()
        for name, value in self._held.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.asarray(array, order="C"))
        for name in outputs:
            binding.bind_output(name, "cpu")
        for name, output in self.state.items():
            if name not in self._next:
                now = self._held[name]
                kind = now.numpy().dtype
                self._next[name] = ort.OrtValue.ortvalue_from_shape_and_type(now.shape(), kind, self._device, 0)
            binding.bind_ortvalue_output(output, self._next[name])
        return binding
