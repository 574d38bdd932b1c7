"""Feeding a session on an accelerator: what is fed again unchanged stays there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxviz.runtime.explain import explain_failure
from onnxviz.runtime.values import to_array, to_value

__all__ = ["BoundSession"]


class BoundSession:
    """A session whose inputs are bound to a device, for runs in which few inputs change.

    An array that is the very object that was fed before is not sent again; it must not have been changed since.

    Args:
        session: The session.
        device: Where its inputs lie: ``"cuda"`` or ``"cpu"``.

    >>> import onnx
    >>> model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]>'
    ...     'g (float[2] x, float[2] w) => (float[2] y) {y = Mul(x, w)}')
    >>> session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    >>> bound = BoundSession(session, "cpu")
    >>> w = np.float32([2, 3])
    >>> [bound.run({"x": np.float32([1, i]), "w": w}, ["y"])["y"].tolist() for i in (1, 2)]
    [[2.0, 3.0], [2.0, 6.0]]
    """

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._kept: dict[str, tuple[np.ndarray, Any]] = {}

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, Any]:
        """Run once; see :meth:`onnxviz.runtime.session.Session.run`.

        Raises:
            InputError: A feed is no array.
            ExecutionError: A node failed.
        """
        values = {name: self._value(name, array) for name, array in feeds.items()}
        options = ort.RunOptions()
        options.log_severity_level = 4
        try:
            binding = self._session.io_binding()
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding, options)
            found = binding.get_outputs()
        except Exception as error:
            raise explain_failure(error) from error
        return {name: to_array(value) for name, value in zip(outputs, found, strict=True)}

    def _value(self, name: str, array: np.ndarray) -> Any:
        kept = self._kept.get(name)
        if kept is not None and kept[0] is array:
            return kept[1]
        plain = array.dtype.kind in "fiub" and self._device != "cpu"
        value = ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self._device, 0) if plain else None
        value = to_value(name, array) if value is None else value
        self._kept[name] = (array, value)
        return value
