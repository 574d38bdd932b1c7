"""Sessions whose inputs stay on the device between runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxviz.errors import ExecutionError
from onnxviz.runtime import binding
from onnxviz.runtime.binding import BoundSession

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x, float[2] w) => (float[n, 2] y, float[n, 2] z)
{y = Mul(x, w) z = Add(x, w)}"""


@pytest.fixture
def session() -> ort.InferenceSession:
    data = onnx.parser.parse_model(MODEL).SerializeToString()
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"])


def test_an_array_that_is_fed_again_is_sent_once(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    to_value = binding.to_value
    monkeypatch.setattr(binding, "to_value", lambda name, array: sent.append(name) or to_value(name, array))
    bound, w = BoundSession(session, "cpu"), np.float32([2, 3])
    for count in (1, 3, 2):
        x = np.ones((count, 2), np.float32)
        found = bound.run({"x": x, "w": w}, ["z", "y"])
        assert list(found) == ["z", "y"]
        np.testing.assert_array_equal(found["y"], x * w)
        np.testing.assert_array_equal(found["z"], x + w)
    assert sent == ["x", "w", "x", "x"]


def test_what_comes_back_stays_when_the_next_run_comes(session: Any) -> None:
    bound = BoundSession(session, "cpu")
    first = bound.run({"x": np.ones((1, 2), np.float32), "w": np.float32([2, 3])}, ["y"])["y"]
    bound.run({"x": np.zeros((1, 2), np.float32), "w": np.float32([2, 3])}, ["y"])
    assert first.tolist() == [[2, 3]]


def test_a_failure_is_one_line(session: Any) -> None:
    with pytest.raises(ExecutionError):
        BoundSession(session, "cpu").run({"x": np.ones((1, 3), np.float32), "w": np.float32([2, 3])}, ["y"])
