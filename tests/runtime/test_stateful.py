"""Sessions that keep their state where they run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import ExecutionError
from onnxviz.runtime.providers import provider_status
from onnxviz.runtime.stateful import StatefulSession

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[n, 2] x, float[n, 2] y, float[2] by) => (float[n, 2] p, float[n, 2] q, float[n] total)
<int64[1] one = {1}> {p = Add(x, by) q = Mul(y, p) total = ReduceSum<keepdims = 0>(q, one)}"""


def counted(provider: str) -> None:
    session = StatefulSession(ir.from_onnx_text(TEXT), {"x": "p", "y": "q"}, provider)
    x, y, by = np.float32([[1, 2], [3, 4], [0, 1]]), np.ones((3, 2), np.float32), np.float32([1, 0.5])
    given = x.copy()
    session.hold({"x": x, "y": y})
    for step in range(5):
        seen = session.step({"by": by}, ["total"], advance=False)["total"]
        found = session.step({"by": by}, ["total"])["total"]
        x = x + by
        y = y * x
        np.testing.assert_allclose(found, y.sum(axis=1), rtol=1e-5)
        np.testing.assert_array_equal(seen, found)
        np.testing.assert_array_equal(session.value("x"), x)
        assert session.steps == step + 1
    np.testing.assert_array_equal(given, [[1, 2], [3, 4], [0, 1]])
    session.hold({"x": given})  # begins again, with another y
    np.testing.assert_allclose(session.step({"by": by}, ["total"])["total"], (y * (given + by)).sum(axis=1), rtol=1e-5)


def test_the_state_moves_on_and_what_was_given_stays() -> None:
    counted("cpu")


@pytest.mark.cuda
def test_the_state_moves_on_on_the_device() -> None:
    if not provider_status("CUDAExecutionProvider").loads:
        pytest.skip("onnxruntime finds no CUDA device")
    counted("cuda")


def test_a_node_that_fails_is_an_error_of_ours() -> None:
    session = StatefulSession(ir.from_onnx_text(TEXT), {"x": "p", "y": "q"}, "cpu")
    session.hold({"x": np.ones((3, 2), np.float32), "y": np.ones((2, 2), np.float32)})
    with pytest.raises(ExecutionError):
        session.step({"by": np.ones(2, np.float32)}, ["total"])
