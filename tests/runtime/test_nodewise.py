"""The engine: values, order, memory and control flow."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import ExecutionError, ModelError, SelectionError
from onnxviz.graph.select import all_tensors
from onnxviz.runtime.capture import capture
from onnxviz.runtime.program import make_program


def text(body: str, opset: int = 19) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": {opset}]> {body}')


def mark_all(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a session gives in which every tensor of the main graph is an output: a second implementation."""
    proto = ir.to_proto(model)
    present = {output.name for output in proto.graph.output}
    for node in proto.graph.node:
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in present)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


BRANCHES = """g (float[2] x, bool c) => (float[2] y) {
  d = Add(x, x)
  y = If(c) <
    then_branch = t () => (float[2] tz) { ty = Neg(d) tz = Abs(ty) },
    else_branch = e () => (float[2] ez) { ez = Sqrt(x) }>
}"""

LOOP = """g (float[2] x, int64 n) => (float[2] last, float[k, 2] all) {
  one = Constant<value = float {1.0}>()
  go = Constant<value = bool {1}>()
  last, all = Loop(n, go, x) <body = b (int64 i, bool going, float[2] carried) => (bool still, float[2] next, float[2] each) {
    next = Add(carried, one)
    each = Mul(next, next)
    still = Identity(going)
  }>
}"""

SCAN = """g (float[3, 2] s, float[2] start) => (float[2] total, float[3, 2] sums) {
  total, sums = Scan<num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],
    body = b (float[2] sum, float[2] row) => (float[2] next, float[2] out) { next = Add(sum, row) out = Identity(next) }>(start, s)
}"""


def test_the_branch_that_runs_is_seen_and_the_other_is_not() -> None:
    x = np.float32([4, 9])
    for condition, expected in ((True, {"ty": -2 * x, "tz": 2 * x}), (False, {"ez": np.sqrt(x)})):
        result = capture(text(BRANCHES), {"x": x, "c": np.array(condition)}, providers="cpu")
        assert set(result) == {"d", "y", *expected}
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name].array, value)


def test_a_loop_has_a_record_an_iteration() -> None:
    feeds = {"x": np.float32([0, 1]), "n": np.array(3)}
    result = capture(text(LOOP), feeds, providers="cpu")
    assert [key for key in result if key.startswith("next")] == ["next[0]", "next[1]", "next[2]"]
    for step in range(3):
        np.testing.assert_array_equal(result[f"next[{step}]"].array, feeds["x"] + step + 1)
        assert result[f"each[{step}]"].iteration == (step,)
    whole = mark_all(text(LOOP), feeds)
    np.testing.assert_array_equal(result["all"].array, whole["all"])
    np.testing.assert_array_equal(result["all"].array, np.stack([result[f"each[{i}]"].array for i in range(3)]))


def test_a_loop_without_iterations_gives_what_onnxruntime_gives() -> None:
    feeds = {"x": np.float32([0, 1]), "n": np.array(0)}
    result, whole = capture(text(LOOP), feeds, providers="cpu"), mark_all(text(LOOP), feeds)
    for name in ("last", "all"):
        assert result[name].array.shape == whole[name].shape
        np.testing.assert_array_equal(result[name].array, whole[name])


def test_iterations_beyond_the_limit_are_counted() -> None:
    result = capture(text(LOOP), {"x": np.float32([0, 1]), "n": np.array(5)}, providers="cpu", iterations=2)
    assert [key for key in result if key.startswith("next")] == ["next[0]", "next[1]"]
    assert result.not_captured["next[…]"].startswith("3 more iterations")
    assert result["all"].shape == (5, 2), "the loop itself runs to its end"


def test_a_scan_backwards() -> None:
    feeds = {"s": np.arange(6, dtype=np.float32).reshape(3, 2), "start": np.float32([0, 0])}
    result, whole = capture(text(SCAN), feeds, providers="cpu"), mark_all(text(SCAN), feeds)
    for name in ("total", "sums"):
        np.testing.assert_array_equal(result[name].array, whole[name])
    np.testing.assert_array_equal(result["next[0]"].array, feeds["s"][2])


def test_bodies_are_left_out_where_they_are_not_asked_for() -> None:
    feeds = {"x": np.float32([0, 1]), "n": np.array(2)}
    assert set(capture(text(LOOP), feeds, providers="cpu", bodies=False)) == {"one", "go", "last", "all"}
    assert set(capture(text(LOOP), feeds, "each", providers="cpu")) == {"each[0]", "each[1]"}


def test_names_that_occur_twice_are_told_apart() -> None:
    model = text("""g (bool c, float[1] x) => (float[1] y) {
      y = If<then_branch = t () => (float[1] r) {r = Neg(x)}, else_branch = e () => (float[1] r) {r = Abs(x)}>(c)
    }""")
    names = list(all_tensors(model).values())
    assert len(set(names)) == len(names) == 3
    assert names[-1] == "y"


def test_only_what_is_asked_for_is_computed() -> None:
    model = text(
        "g (float[2] x) => (float[2] z) { y = Neg(x) bad = Reshape(y, s) z = Relu(bad) s = Constant<value_ints = [7]>() }"
    )
    model.graph.sort()
    assert capture(model, {"x": np.float32([1, 2])}, "y", providers="cpu")["y"].array.tolist() == [-1, -2]
    with pytest.raises(ExecutionError, match="Reshape"):
        capture(model, {"x": np.float32([1, 2])}, "z", providers="cpu")


def test_defaults_of_inputs_and_constants() -> None:
    model = text(
        "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {3, 4}> { k = Constant<value_floats=[1.0, 2.0]>() t = Add(w, k) y = Mul(x, t) }"
    )
    x = np.float32([1, 1])
    assert capture(model, {"x": x}, providers="cpu")["y"].array.tolist() == [4, 6]
    fed = capture(model, {"x": x, "w": np.float32([0, 0])}, providers="cpu")
    assert (fed["y"].array.tolist(), fed["k"].array.tolist()) == ([1, 2], [1, 2])


def test_values_outlive_the_run() -> None:
    """Arrays share onnxruntime's memory; nothing of it may be used again while they are held."""
    chain = "".join(f"t{i + 1} = Add(t{i}, t{i}) " for i in range(1, 8))
    model = text(f"g (float[100000] x) => (float[100000] t8) {{ t1 = Neg(x) {chain} }}")
    x = np.random.default_rng(0).standard_normal(100000).astype(np.float32)
    held = [capture(model, {"x": x}, providers="cpu") for _ in range(3)]
    for result in held:
        for i in range(1, 9):
            np.testing.assert_array_equal(result[f"t{i}"].array, -x * 2 ** (i - 1))


def test_a_tensor_that_nothing_gives_is_named() -> None:
    model = text("g (float[2] x) => (float[2] y) { y = Add(x, x) }")
    model.graph.node(0).replace_input_with(1, ir.Value(name="ghost"))
    with pytest.raises(ModelError, match="'ghost'"):
        capture(model, {"x": np.float32([1, 2])}, providers="cpu")
    with pytest.raises(SelectionError):
        capture(model, {"x": np.float32([1, 2])}, "phantom", providers="cpu")


def test_steps_drop_what_nothing_reads_any_more() -> None:
    model = text("g (float[2] x) => (float[2] c) { a = Neg(x) b = Abs(a) c = Relu(b) d = Exp(a) }")
    wanted = set(all_tensors(model))
    program = make_program(model.graph, wanted, lambda v: None, lambda v: 1 << 30)
    died = [sorted(str(v.name) for v in step.dies) for step in program.steps]
    assert died == [["x"], [], ["b", "c"], ["a", "d"]]


def test_a_piece_reads_no_more_weights_than_it_may() -> None:
    """Eight matrices of 4 MB behind tiny outputs: in one session, a model of any size would be held whole."""
    chain = " ".join(f"t{i + 1} = MatMul(t{i}, w{i})" for i in range(8))
    model = text(f"g (float[1,1024] t0) => (float[1,1024] t8) {{ {chain} }}")
    constants: dict[ir.Value, ir.TensorProtocol] = {}
    for node in model.graph:
        weight = node.inputs[1]
        assert weight is not None
        constants[weight] = ir.tensor(np.zeros((1024, 1024), np.float32))
    program = make_program(model.graph, set(model.graph.outputs), constants.get, lambda value: 4096)
    assert [len(step.piece.nodes) for step in program.steps] == [4, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_120_tensors_of_16_mb_fit_into_300_mb() -> None:
    script = textwrap.dedent("""
        import numpy as np, onnx_ir as ir
        from onnxviz.analysis.statistics import Summary
        from onnxviz.runtime.capture import capture
        from onnxviz.runtime.memory import peak_rss
        nodes = " ".join(f"t{i + 1} = {'Neg' if i % 2 else 'Sin'}(t{i})" for i in range(120))
        n = 4 << 20
        model = ir.from_onnx_text(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[{n}] t0) => (float[{n}] t120) {{ {nodes} }}')
        x = np.random.default_rng(0).standard_normal(n, np.float32)
        result = capture(model, {"t0": x}, keep=False, reduce=lambda name, array: Summary.of(array), providers="cpu")
        assert len(result) == 120
        print(peak_rss() // 10**6)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300


_GROWS = (
    "g (int64 n, float[k] x) => (float[k] last, float[m, k] all) { last, all = Loop<body = b (int64 i, bool go, float[k] v)"
    ' => (bool on, float[k] w, float[k] u) { on = Identity(go) w = Concat<axis = 0>(v, v) u = Neg(w) }>(n, "", x) }'
)
_SCANS = (
    "g (float[2] s, float[n, 2] x, float[m, 2] z) => (float[2] t, float[k, 2] y) { t, y = Scan<num_scan_inputs = 2,"
    " body = b (float[2] v, float[2] p, float[2] q) => (float[2] w, float[2] r) { w = Add(v, p) r = Mul(w, q) }>(s, x, z) }"
)


def test_what_control_flow_cannot_take_is_said() -> None:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    grows, scans = ir.from_onnx_text(head + _GROWS), ir.from_onnx_text(head + _SCANS)
    with pytest.raises(ExecutionError, match=r"Loop node .* its shapes differ: \(2,\), \(4,\)"):
        capture(grows, {"n": np.int64(2), "x": np.ones(1, np.float32)}, providers="cpu")
    feeds = {"s": np.ones(2, np.float32), "x": np.ones((2, 2), np.float32), "z": np.ones((3, 2), np.float32)}
    with pytest.raises(ExecutionError, match="inputs of different lengths: 2, 3"):
        capture(scans, feeds, providers="cpu")


def test_a_scan_over_nothing_gives_nothing_of_the_right_shape() -> None:
    scans = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]>' + _SCANS)
    feeds = {"s": np.ones(2, np.float32), "x": np.ones((0, 2), np.float32), "z": np.ones((0, 2), np.float32)}
    result = capture(scans, feeds, providers="cpu")
    assert {name: record.shape for name, record in result.items()} == {"t": (2,), "y": (0, 2)}
