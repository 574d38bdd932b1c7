"""Profiles of small models of which it is known where the work is, and of real ones."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import ExecutionError, InputError, ModelError
from onnxviz.graph.cost import node_bytes, node_cost
from onnxviz.graph.io import open_model
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.summary import inspect_model
from onnxviz.runtime import events, residence
from onnxviz.runtime.events import read_runs
from onnxviz.runtime.executed import lineage, read_executed, tag_nodes
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.profile import profile
from onnxviz.runtime.profile_result import Profile
from onnxviz.runtime.residence import measure_run
from onnxviz.runtime.trace import chrome_trace

CPU = ["CPUExecutionProvider"]


def text(body: str, opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]> {body}')


def with_weights(model: ir.Model, **shapes: tuple[int, ...]) -> ir.Model:
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        value.shape = ir.Shape(shape)
    return model


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one and holds all temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def one_large_product() -> ir.Model:
    model = text(
        "g (float[n, 512] x) => (float[n, 8] y) <float[512, 2048] big = {0}, float[2048, 8] small = {0}>"
        "{[tiny] a = Relu(x) [huge] b = MatMul(a, big) [little] y = MatMul(b, small)}"
    )
    return with_weights(model, big=(512, 2048), small=(2048, 8))


@pytest.mark.parametrize("mode", ["production", "semantic"])
def test_the_one_large_product_is_on_top(mode: Any, scratch: Path) -> None:
    model = one_large_product()
    measured = profile(model, {"x": np.ones((64, 512), np.float32)}, runs=5, warmup=2, mode=mode, providers="cpu")
    top = measured.top(1)[0]
    assert top.originals == ("huge",)
    assert top.macs == 64 * 512 * 2048
    assert (top.bytes_read, top.weight_bytes, top.bytes_written) == (64 * 512 * 4, 512 * 2048 * 4, 64 * 2048 * 4)
    assert top.intensity == pytest.approx(2 * top.macs / (4 * (64 * 512 + 512 * 2048 + 64 * 2048)))
    assert top.gflops == pytest.approx(2e-9 * top.macs / top.seconds)
    assert top.fastest <= top.low <= top.seconds <= top.high
    assert top.share > 0.5
    assert measured.macs == 64 * 512 * 2048 + 64 * 2048 * 8
    assert sum(row.share for row in measured.rows) + measured.unaccounted == pytest.approx(1, abs=0.1)
    assert measured.runs == 5
    assert list(scratch.iterdir()) == [], "temporary files were left"
    assert model.graph.node(0).name == "tiny", "the caller's model changed"


def test_memory_by_liveness_is_what_the_allocator_was_asked_for() -> None:
    model = text(
        "g (float[1000] x) => (float[2000] y) {a = Softmax(x) b = LogSoftmax(x) c = Concat<axis = 0>(a, b) y = Softmax(c)}"
    )
    memory = profile(model, runs=1, warmup=0, mode="semantic", providers="cpu").memory
    assert memory.bytes == (4000, 8000, 16000, 16000)
    assert memory.peak_bytes == memory.allocator_bytes == 16000
    assert set(memory.alive) == {"a", "b", "c"}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system cannot set the peak back")
def test_resident_memory_is_measured_in_a_fresh_process(scratch: Path) -> None:
    model = text("g (float[4000000] x) => (float[4000000] y) {a = Softmax(x) b = Softmax(a) y = Softmax(b)}")
    found = measure_run(model, {"x": np.ones(4_000_000, np.float32)}, CPU, optimize=False)
    assert found.bytes is not None
    assert 32e6 * 0.9 < found.bytes < 32e6 * 1.5
    assert list(scratch.iterdir()) == []


def test_a_failing_or_slow_process_is_a_reason_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = text("g (float[2] x) => (float[2] y) {y = Relu(x)}"), {"x": np.ones(2, np.float32)}
    for code, timeout, said in (
        ("import os; os.abort()", 60.0, "ended with signal 6"),
        ("raise SystemExit(3)", 60.0, "ended with code 3"),
        ("import time; time.sleep(60)", 0.2, "took over 0.2 s"),
        ("print('nonsense')", 60.0, "not measured"),
    ):
        monkeypatch.setattr(residence, "_CODE", code)
        found = measure_run(model, feeds, CPU, optimize=False, timeout=timeout)
        assert found.bytes is None
        assert said in found.method
    assert "device" in measure_run(model, feeds, ["CUDAExecutionProvider", *CPU], optimize=False).method


LOOP = """g (int64 n, float[2, 16] x) => (float[2, 16] y) <float[16, 16] w = {0}> {
  c = Constant<value = bool {1}>()
  y = Loop(n, c, x) <body = b (int64 i, bool go, float[2, 16] h) => (bool more, float[2, 16] out) {
      more = Identity(go) [inside] t = MatMul(h, w) out = Tanh(t)
  }>
}"""


@pytest.mark.parametrize("mode", ["production", "semantic"])
def test_nodes_in_bodies_are_summed_and_counted(mode: Any) -> None:
    model = with_weights(text(LOOP), w=(16, 16))
    feeds = {"n": np.int64(7), "x": np.ones((2, 16), np.float32)}
    measured = profile(model, feeds, runs=3, warmup=1, mode=mode, providers="cpu")
    rows = {row.op_type: row for row in measured.rows}
    assert rows["MatMul"].calls == 7
    assert rows["MatMul"].macs == 7 * 2 * 16 * 16
    assert rows["MatMul"].in_body
    assert rows["MatMul"].originals == ("inside",)
    assert rows["Loop"].calls == 1
    assert not rows["Loop"].in_body
    assert measured.profiled_seconds >= sum(row.seconds for row in measured.rows) * 0.9, "bodies count twice"


def test_a_sparse_profile_keeps_fewer_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_EVENTS", 50)
    feeds = {"n": np.int64(7), "x": np.ones((2, 16), np.float32)}
    measured = profile(with_weights(text(LOOP), w=(16, 16)), feeds, runs=10, warmup=1, mode="semantic", providers="cpu")
    assert measured.runs == 1
    assert any(note.startswith("2 of 11 runs were recorded: each makes 22 events") for note in measured.notes)


def test_fused_nodes_are_joined_to_the_model(small_cnn: ir.Model) -> None:
    measured = profile(small_cnn, {"x": np.ones((3, 1, 8, 8), np.float32)}, runs=1, warmup=0, providers="cpu")
    joined = {name: row for row in measured.rows for name in row.originals}
    assert {"conv1", "relu1", "pool1", "fc1"} <= joined.keys()
    assert joined["conv1"] is joined["relu1"], "Relu is fused into Conv"
    assert joined["conv1"].main == "conv1"
    assert joined["conv1"].label == "conv1 + relu1"
    assert measured.macs == inspect_model(small_cnn, {"n": 3}).macs, "padding of channels is not counted"


def test_lineage_never_joins_what_was_folded(tmp_path: Path) -> None:
    model = text(
        "g (float[2, 3] x) => (float[6] y) {[shape] s = Constant<value = int64[1] {6}>() [neg] m = Neg(s) [back] k = Neg(m) "
        "[flat] f = Reshape(x, k) [act] y = Relu(f)}"
    )
    measured = profile(model, runs=1, warmup=0, providers="cpu")
    joined = {name for row in measured.rows for name in row.originals}
    assert joined == {"flat", "act"}


def test_names_that_would_garble_a_profile() -> None:
    hostile = 'a"b\n\\c</script>\u202e' + "x" * 10_000
    model = text("g (float[2] x) => (float[2] y) {a = Neg(x) y = Exp(a)}")
    model.graph.node(0).name = model.graph.node(1).name = hostile
    model.graph.node(0).outputs[0].name = hostile + "t"
    measured = profile(model, runs=1, warmup=0, mode="semantic", providers="cpu")
    assert [row.name for row in measured.rows] == [hostile, hostile]
    assert measured.rows[0].outputs == (hostile + "t",)
    json.dumps(measured.to_dict(), allow_nan=False)
    assert "</script>" not in measured._repr_html_()


def test_bad_arguments(small_cnn: ir.Model) -> None:
    for options, said in (({"runs": 0}, "--runs"), ({"warmup": -1}, "--warmup"), ({"mode": "fast"}, "production")):
        with pytest.raises(InputError) as caught:
            profile(small_cnn, **options)  # type: ignore[arg-type]
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_that_onnxruntime_refuses(scratch: Path) -> None:
    model = text("g (float[2] x) => (float[2] y) {[odd] y = com.microsoft.NoSuchThing(x)}")
    with pytest.raises((ExecutionError, ModelError)) as caught:
        profile(model, providers="cpu")
    assert "zq" not in str(caught.value), "a name of the profiler's own reached the user"
    assert list(scratch.iterdir()) == []


def test_a_run_that_fails_names_the_node_and_the_assumed_size(scratch: Path) -> None:
    model = text("g (float[1, seq_len] x, float[3] z) => (float[m] y) {[adder] y = Add(x, z)}")
    with pytest.raises(ExecutionError) as caught:
        profile(model, providers="cpu")
    assert "adder" in str(caught.value)
    assert "seq_len=512" in str(caught.value)
    assert list(scratch.iterdir()) == []


def test_an_interrupt_leaves_nothing(scratch: Path, monkeypatch: pytest.MonkeyPatch, small_cnn: ir.Model) -> None:
    def interrupted(path: Path) -> list[Any]:
        assert any(file.name.startswith("profile") for file in path.parent.iterdir()), "the profile lies elsewhere"
        raise KeyboardInterrupt

    monkeypatch.setattr(events, "read_runs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        profile(small_cnn, runs=1, warmup=0, providers="cpu")
    assert list(scratch.iterdir()) == []


def test_an_interrupt_during_a_run_leaves_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, small_cnn: ir.Model
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(events, "_runs_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        profile(small_cnn, runs=1, warmup=0, providers="cpu")
    assert list(scratch.iterdir()) == []


def test_events_are_sorted_into_their_runs(tmp_path: Path) -> None:
    def node(name: str, ts: int, dur: int) -> dict[str, Any]:
        args = {"op_name": "Relu", "provider": "CPUExecutionProvider", "output_type_shape": [{"float": [2]}]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "ph": "X", "args": args}

    def run(ts: int, dur: int) -> dict[str, Any]:
        return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "ph": "X", "args": {}}

    lines = [node("inner", 12, 3), node("outer", 11, 6), run(10, 9), node("inner", 31, 1), run(30, 5)]
    path = tmp_path / "p.json"
    path.write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n")
    first, second = read_runs(path)
    assert [(e.name, e.start, e.duration) for e in first.events] == [("outer", 1, 6), ("inner", 2, 3)]
    assert [(e.name, e.start) for e in second.events] == [("inner", 1)]
    assert (first.duration, second.duration) == (9, 5)
    assert first.events[0].outputs == (("float", (2,)),)
    assert first.events[0].held is None


def check_trace(trace: dict[str, Any]) -> None:
    """The rules of the trace event format that viewers rely on."""
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace
    open_until: dict[tuple[int, int], list[tuple[float, float]]] = {}
    last = -1.0
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert event["ph"] in ("X", "M", "C")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
            continue
        assert event["dur"] >= 0
        assert isinstance(event["cat"], str)
        assert event["ts"] >= last, "complete events are not in order"
        last = event["ts"]
        stack = open_until.setdefault((event["pid"], event["tid"]), [])
        while stack and stack[-1][1] <= event["ts"]:
            stack.pop()
        if stack:
            assert event["ts"] + event["dur"] <= stack[-1][1], "an event ends after the one around it"
        stack.append((event["ts"], event["ts"] + event["dur"]))


def traced(measured: Profile) -> dict[str, Any]:
    trace = chrome_trace(measured)
    check_trace(trace)
    return trace


def test_the_trace_has_the_median_run_and_a_counter() -> None:
    feeds = {"n": np.int64(3), "x": np.ones((2, 16), np.float32)}
    measured = profile(with_weights(text(LOOP), w=(16, 16)), feeds, runs=5, warmup=1, mode="semantic", providers="cpu")
    trace = traced(measured)
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [span["name"] for span in spans].count("inside") == 3
    assert spans[0]["name"] == "run"
    assert spans[0]["dur"] == round(measured.run_seconds * 1e6)
    assert {"op", "provider", "inputs", "outputs", "MACs a run"} <= spans[1]["args"].keys()
    loop = next(span for span in spans if span["cat"] == "Loop")
    assert all(loop["ts"] <= s["ts"] <= loop["ts"] + loop["dur"] for s in spans if s["name"] == "inside")
    counters = [event["args"]["bytes"] for event in trace["traceEvents"] if event["ph"] == "C"]
    assert counters == [*measured.memory.bytes, 0]
    names = {event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert any("semantic" in name for name in names)


def test_a_trace_that_does_not_nest_is_caught() -> None:
    measured = profile(
        text("g (float[2] x) => (float[2] y) {a = Neg(x) y = Exp(a)}"), runs=1, warmup=0, providers="cpu"
    )
    trace = chrome_trace(measured)
    trace["traceEvents"][-3]["dur"] = 10**9
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    spans[1]["dur"] = 10**9
    with pytest.raises(AssertionError, match="ends after"):
        check_trace(trace)


def test_bytes_of_lookups_and_repeated_inputs() -> None:
    model = infer_shapes(
        text(
            "g (float[10, 4] x, int64[2] i) => (float[2, 4] y) {a = Gather(x, i) b = Mul(a, a) s = Shape(b) y = Expand(b, s)}"
        )
    )
    gather, mul, shape, _ = (node_bytes(node) for node in model.graph)
    assert (gather.read, gather.written) == (32 + 16, 32)
    assert mul.read == 32
    assert (shape.read, shape.written) == (0, 16)


@pytest.mark.parametrize(
    ("node", "inputs", "macs"),
    [
        ("FusedMatMul<transA = 1>(a, b)", ([5, 3], [5, 7]), 3 * 5 * 7),
        ("Attention<num_heads = 2>(a, b)", ([1, 6, 8], [8, 24]), 6 * 8 * 24 + 2 * 6 * 6 * 8),
        ("MultiHeadAttention<num_heads = 2>(a, b, b)", ([1, 6, 8], [1, 5, 8]), 2 * 6 * 5 * 8),
        ("GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(a, b, b)", ([1, 6, 8], [1, 6, 4]), 2 * 6 * 6 * 8),
        ("QGemm(a, s, z, b)", ([4, 3], [3, 2]), 4 * 3 * 2),
        ("MoE(a, b)", ([4, 3], [3, 2]), None),
        ("Gelu(a)", ([4, 3], [1]), 0),
    ],
)
def test_macs_of_fused_operators(node: str, inputs: tuple[list[int], list[int]], macs: int | None) -> None:
    a, b = inputs
    model = text(f"g (float{a} a, float{b} b, float s, float z) => (float[?] y) {{y = com.microsoft.{node}}}")
    assert node_cost(model.graph.node(0)).macs == macs


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "classifier/SqueezeNet_fp32", "generated/hf_clip_vision_mini_dynamo", "generated/ort_resnet18_int8_qoperator",
        "generated/onnxscript_functions_loop_if", "audio/silero_vad_16k_op15", "quantized/tract-qlstm",
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["production", "semantic"])
def test_real_models(corpus: Path, name: str, mode: Any) -> None:
    model = open_model(corpus / "models" / f"{name}.onnx")
    measured = profile(model, runs=2, warmup=1, mode=mode, providers="cpu")
    traced(measured)
    assert measured.macs is not None
    assert not [
        row
        for row in measured.rows
        if row.output_shape is not None and row.bytes is None and row.op_type not in ("If", "Loop", "Scan")
    ]
    assert measured.memory.unknown == ()
    if mode == "semantic":
        assert all(row.originals for row in measured.rows)
    if "resnet" in name or "Squeeze" in name:
        assert measured.macs == inspect_model(model).macs
    if measured.memory.allocator_bytes is not None and mode == "production" and "resnet" in name:
        assert measured.memory.allocator_bytes == pytest.approx(measured.memory.peak_bytes, rel=0.05)


def test_lineage_of_a_saved_graph(tmp_path: Path, small_cnn: ir.Model) -> None:
    tagged = tag_nodes(small_cnn)
    options = events._Maker(tagged.model, CPU, True, None, tmp_path)
    with options.session(save=True) as (_, executed):
        assert executed is not None
    joined = lineage(tagged, executed)
    assert sorted(number for numbers in joined.values() for number in numbers) == list(range(5))
    assert read_executed(tmp_path / "executed.onnx").graph.num_nodes() == executed.graph.num_nodes()


def test_inputs_are_recorded(small_cnn: ir.Model) -> None:
    inputs = load_inputs(small_cnn, dims={"n": 2})
    measured = profile(small_cnn, inputs, runs=1, warmup=0, providers="cpu")
    assert measured.inputs[0].shape == (2, 1, 8, 8)
    assert measured.inputs[0].made_up
    assert os.path.basename(measured.model_name) == measured.model_name  # noqa: PTH119
