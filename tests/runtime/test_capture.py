from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import ExecutionError, InputError, ModelError, OutputError, ProviderError, SelectionError
from onnxviz.graph.io import open_model
from onnxviz.runtime import providers
from onnxviz.runtime.capture import capture
from onnxviz.runtime.diagnosis import diagnose
from onnxviz.runtime.providers import ProviderStatus, missing_libraries, provider_status, resolve_providers
from onnxviz.runtime.record import load_capture
from onnxviz.runtime.session import Session, run_model


def text(body: str, opset: int = 19) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": {opset}, "custom": 1]> {body}')


def numpy_cnn(model: ir.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """The small network in numpy: a second implementation."""
    w, b, fw, fb = (model.graph.initializers[name].const_value.numpy() for name in ("w", "b", "fw", "fb"))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    c = np.einsum("nchwij,mcij->nmhw", windows, w) + b[:, None, None]
    r = np.maximum(c, 0)
    p = r.reshape(*r.shape[:2], 3, 2, 3, 2).max((3, 5))
    f = p.reshape(len(x), -1)
    return {"c": c, "r": r, "p": p, "f": f, "y": f @ fw + fb}


def test_every_tensor_is_what_numpy_computes(small_cnn: ir.Model) -> None:
    x = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)
    result = capture(small_cnn, {"x": x}, providers="cpu")
    expected = numpy_cnn(small_cnn, x)
    assert list(result) == ["c", "r", "p", "f", "y"]
    for name, value in expected.items():
        np.testing.assert_allclose(result[name].array, value, rtol=1e-5, atol=1e-5)
    assert (result["c"].producer, result["c"].op_type, result["f"].producer) == ("conv1", "Conv", "Flatten")
    assert (result["c"].mode, result["c"].provider, result.outputs) == ("semantic", "cpu", ("y",))
    wrong = numpy_cnn(small_cnn, x * 1.001)
    assert not np.allclose(result["y"].array, wrong["y"], rtol=1e-5, atol=1e-5), "a planted error must show"


def test_arrays_cannot_be_changed_by_accident(small_cnn: ir.Model) -> None:
    result = capture(small_cnn, providers="cpu")
    with pytest.raises(ValueError, match="read-only"):
        result["c"].array[:] = 0


def test_an_array_alone_is_refused_with_the_way_out(small_cnn: ir.Model) -> None:
    with pytest.raises(InputError, match=r"give \{'x': array\}"):
        capture(small_cnn, np.zeros((2, 1, 8, 8), np.float32), providers="cpu")  # type: ignore[arg-type]


def test_only_what_was_asked(small_cnn: ir.Model) -> None:
    assert list(capture(small_cnn, tensors=["@conv", "fc1"], providers="cpu")) == ["c", "y"]
    with pytest.raises(SelectionError):
        capture(small_cnn, tensors="nothing*", providers="cpu")


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_saved_and_loaded(small_cnn: ir.Model, tmp_path: Path, ending: str) -> None:
    small_cnn.graph.node(0).outputs[0].name = "file"  # numpy.savez's own argument
    small_cnn.graph.node(1).outputs[0].name = "../a/b\n"
    result = capture(small_cnn, providers="cpu")
    result.save(tmp_path / f"c{ending}")
    again = load_capture(tmp_path / f"c{ending}")
    assert again.manifest() == result.manifest()
    for name in result:
        np.testing.assert_array_equal(again[name].array, result[name].array)
    assert [p.name for p in tmp_path.iterdir()] == [f"c{ending}"]


def test_npz_is_read_by_numpy(small_cnn: ir.Model, tmp_path: Path) -> None:
    result = capture(small_cnn, providers="cpu")
    result.save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as archive:
        np.testing.assert_array_equal(archive["c"], result["c"].array)
        assert json.loads(str(archive["__onnxviz__"]))["model"] == result.model_name


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_odd_names_types_and_shapes_survive(tmp_path: Path, ending: str) -> None:
    model = text(
        "g (float[] x) => (float[] y) { b = Cast<to = 16>(x) f = Cast<to = 17>(x) g = Cast<to = 18>(x)"
        " k = Cast<to = 9>(x) i = Cast<to = 7>(x) t = Cast<to = 8>(x) y = Neg(x) }"
    )
    for node, name in zip(model.graph, ("__metadata__", "__onnxviz__", "a\0b"), strict=False):
        node.outputs[0].name = name
    result = capture(model, {"x": np.float32(2.5)}, providers="cpu")
    result.save(tmp_path / f"c{ending}")
    again = load_capture(tmp_path / f"c{ending}")
    assert result.unsaved(f"c{ending}") == (["t"] if ending == ".safetensors" else [])
    assert set(again) == set(result) - set(result.unsaved(f"c{ending}"))
    for name, record in again.items():
        assert (record.array.shape, record.array.dtype) == ((), result[name].array.dtype), name
        assert record.array.tobytes() == result[name].array.tobytes() or record.dtype == "string"
    assert again["__metadata__"].array.astype(np.float32) == 2.5


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_types_of_four_bits_are_saved(tmp_path: Path, ending: str) -> None:
    model = text("g (float[3] x) => (float[3] y) { i = Cast<to = 22>(x) u = Cast<to = 21>(x) y = Neg(x) }")
    result = capture(model, {"x": np.float32([1, 3, 7])}, providers="cpu")
    result.save(tmp_path / f"c{ending}")
    again = load_capture(tmp_path / f"c{ending}")
    assert {name: str(record.array.dtype) for name, record in again.items()} == {
        "i": "int4",
        "u": "uint4",
        "y": "float32",
    }
    assert again["i"].array.astype(int).tolist() == [1, 3, 7]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory is read from /proc")
@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_saving_what_lies_on_disk_needs_no_memory(tmp_path: Path, ending: str) -> None:
    script = f"""
import numpy as np
from onnxviz.runtime.memory import peak_rss
from onnxviz.runtime.spill import Spill
from onnxviz.runtime.storage import write_arrays
spill, part = Spill(), np.zeros((1, 8_000_000), np.float32)
arrays = {{"joined": spill.join([spill.put(part) for _ in range(4)]), "alone": spill.put(part)}}
before = peak_rss()
write_arrays({str(tmp_path / f"c{ending}")!r}, arrays, {{}})
print(peak_rss() - before, before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    saving, before = map(int, done.stdout.split())
    assert saving < 16e6
    assert before < 200e6


def test_bfloat16_and_sequences_can_be_fed() -> None:
    model = text("g (bfloat16[n] x) => (float[n] y) { y = Cast<to = 1>(x) }")
    x = np.array([1, 2.5], ml_dtypes.bfloat16)
    assert capture(model, {"x": x}, providers="cpu")["y"].array.tolist() == [1, 2.5]
    assert capture(model, {"x": np.float32([1, 2.5])}, providers="cpu")["y"].array.tolist() == [1, 2.5]
    assert capture(model, providers="cpu")["y"].shape == (1,)
    sequence = text("g (seq(float[2]) s, int64 i) => (float[2] y) { y = SequenceAt(s, i) }")
    feeds = {"s": [np.float32([1, 2]), np.float32([3, 4])], "i": np.int64(1)}
    assert capture(sequence, feeds, providers="cpu")["y"].array.tolist() == [3, 4]
    with pytest.raises(InputError, match="takes a sequence"):
        capture(sequence, {"s": np.zeros(2), "i": 0}, providers="cpu")


@pytest.mark.parametrize(
    ("head", "what"),
    [
        ("<ir_version: 10, opset_import: ['': 28]>", "needs opset 28, newer than"),
        ("<ir_version: 14, opset_import: ['': 21]>", "IR version 14, newer"),
    ],
)
def test_a_runtime_older_than_the_model_says_so(head: str, what: str) -> None:
    model = ir.from_onnx_text(head.replace("'", '"') + " g (float[2] x) => (float[2] y) {y = Relu(x)}")
    with pytest.raises(ExecutionError, match=f"{what}.*; upgrade onnxruntime"):
        capture(model, providers="cpu")


def test_a_model_without_nodes_runs() -> None:
    assert len(capture(text("g (float[2] x) => (float[2] y) <float[2] y = {1, 2}> {}"), providers="cpu")) == 0


def test_files_that_are_no_capture(small_cnn: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.safetensors or \.npz"):
        capture(small_cnn, providers="cpu").save(tmp_path / "c.txt")
    (tmp_path / "c.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "d.npz", a=np.zeros(1))
    for name in ("c.npz", "d.npz"):
        with pytest.raises(InputError, match="not a capture"):
            load_capture(tmp_path / name)
    with pytest.raises(InputError, match="no file"):
        load_capture(tmp_path / "e.npz")


def test_types_that_numpy_lacks() -> None:
    model = text(
        "g (float[3] x) => (float[3] y) { b = Cast<to = 16>(x) f = Cast<to = 17>(x) h = Cast<to = 10>(x)"
        " s = SequenceConstruct(x, x) t = Cast<to = 8>(x) e = Cast<to = 9>(x) y = Neg(x) }"
    )
    x = np.float32([1, -2.5, 300])
    result = capture(model, {"x": x}, providers="cpu")
    np.testing.assert_array_equal(result["b"].array.astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(
        result["f"].array.astype(np.float32), x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    )
    assert (result["b"].dtype, result["f"].dtype, result["t"].dtype) == ("bfloat16", "float8_e4m3fn", "string")
    assert "not one array" in result.not_captured["s"]


def test_a_custom_operator_is_named(tmp_path: Path) -> None:
    model = text("g (float[3] x) => (float[3] y) { y = custom.Frobnicate(x) }")
    with pytest.raises(ExecutionError, match=r"no kernel for the custom operator custom:Frobnicate; .*--op-library"):
        capture(model, providers="cpu")
    (tmp_path / "lib.so").write_bytes(b"no library")
    with pytest.raises(ExecutionError, match="cannot register"):
        capture(model, providers="cpu", op_library=tmp_path / "lib.so")


def test_a_failure_names_the_sizes_that_were_assumed() -> None:
    model = text(
        "g (float[n, k] x) => (float[n, 4] y) <float[3, 4] w = {1,1,1,1,1,1,1,1,1,1,1,1}> { y = MatMul(x, w) }"
    )
    with pytest.raises(ExecutionError, match=r"sizes were assumed \(n=1, k=1\): set them with --dim"):
        capture(model, providers="cpu")
    assert capture(model, dims={"k": 3}, providers="cpu")["y"].shape == (1, 4)


def test_a_provider_that_does_not_load_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderError, match="no provider 'quantum'; choose auto, .*cpu"):
        resolve_providers("quantum")
    monkeypatch.setattr(
        providers, "provider_status", lambda p: ProviderStatus(p, "libcudart.so.99 not found" if "CUDA" in p else None)
    )
    with pytest.raises(ProviderError, match=r"cuda was asked for and does not load: libcudart\.so\.99 not found"):
        resolve_providers("cuda")
    with pytest.raises(ProviderError):
        resolve_providers(["cuda", "cpu"])
    assert resolve_providers("auto") == ["CPUExecutionProvider"]
    assert resolve_providers("CPUExecutionProvider") == ["CPUExecutionProvider"]


def test_cuda_is_never_silently_the_cpu(small_cnn: ir.Model) -> None:
    status = provider_status("CUDAExecutionProvider")
    if status.loads:
        pytest.skip("CUDA works here; tests marked cuda look at it")
    with pytest.raises(ProviderError, match="cuda was asked for"):
        capture(small_cnn, providers="cuda")
    assert status.reason


@pytest.mark.cuda
def test_cuda_gives_the_same_values(small_cnn: ir.Model) -> None:
    if not provider_status("CUDAExecutionProvider").loads:
        pytest.skip(f"no CUDA: {provider_status('CUDAExecutionProvider').reason}")
    x = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)
    on_cpu, on_gpu = (capture(small_cnn, {"x": x}, providers=p) for p in ("cpu", "cuda"))
    assert on_gpu["c"].provider == "cuda"
    for name in on_cpu:
        np.testing.assert_allclose(on_gpu[name].array, on_cpu[name].array, rtol=1e-3, atol=1e-3)


def test_missing_libraries_have_names() -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    names = missing_libraries("CUDAExecutionProvider")
    assert all(name.startswith("lib") and ".so" in name for name in names)
    assert bool(names) is not provider_status("CUDAExecutionProvider").loads or not names


def test_doctor_names_a_double_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert diagnose().problems == ()
    from onnxviz.runtime import diagnosis

    monkeypatch.setattr(diagnosis, "distributions", lambda: {"onnxruntime": "1", "onnxruntime-gpu": "2"})
    (problem,) = diagnose().problems
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in problem


def test_optimised_and_not_agree(small_cnn: ir.Model) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    plain, fused = (run_model(small_cnn, {"x": x}, optimize=o)["y"] for o in (False, True))
    np.testing.assert_allclose(plain, fused, rtol=1e-5, atol=1e-5)


def threads_after(script: str) -> list[int]:
    code = f"""if True:
        import os, sys, onnxruntime as ort
        from onnx import parser
        import onnx_ir as ir
        from onnxviz.runtime.options import share_thread_pool
        from onnxviz.runtime.session import Session
        os.sched_getaffinity = lambda pid: range(4)
        model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {{y = Neg(x)}}')
        count = lambda: len(os.listdir("/proc/self/task"))
        {script}
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(n) for n in done.stdout.split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_sessions_share_one_pool_where_the_process_is_ours() -> None:
    before, after = threads_after(
        "share_thread_pool(); keep = [Session(model, 'cpu')]; print(count()); "
        "keep += [Session(model, 'cpu') for _ in range(5)]; print(count())"
    )
    assert after == before, "each session started threads of its own"


def test_in_a_library_the_sessions_of_others_still_work() -> None:
    """With a shared pool onnxruntime refuses sessions with the default options: nobody else's code may break."""
    threads_after("Session(model, 'cpu'); ort.InferenceSession(ir.to_proto(model).SerializeToString()); print(0)")


def test_a_pool_may_be_shared_after_the_first_session() -> None:
    threads_after("keep = Session(model, 'cpu'); share_thread_pool(); Session(model, 'cpu'); print(0)")


def test_wrong_feeds_reach_the_user_in_one_line(small_cnn: ir.Model) -> None:
    with pytest.raises(InputError, match="do not fit the model") as caught:
        Session(small_cnn, "cpu").run({"x": np.zeros((1, 1, 8, 9), np.float32)})
    assert "\n" not in str(caught.value)


def test_external_weights_are_read_where_they_lie(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { y = Add(x, w) }'
    )
    weight = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    proto.graph.initializer.append(weight)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = open_model(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"w\.bin"):
        capture(model, providers="cpu")
    (tmp_path / "w.bin").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    assert capture(model, {"x": np.zeros(4, np.float32)}, providers="cpu")["y"].array.tolist() == [1, 2, 3, 4]


CORPUS = [
    "classifier/SqueezeNet_fp32", "detector/ultraface-version-slim-320_simplified", "quantized/tract-qlstm",
    "sklearn_ml/gen_mlp_wine", "controlflow_functions/loop_sub_one",
    "generated/onnxscript_functions_loop_if", "generated/tv_r2plus1d_like_video_dynamo", "audio/ten-vad",
]  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS)
def test_outputs_are_those_of_plain_onnxruntime(corpus: Path, name: str) -> None:
    path = corpus / "models" / f"{name}.onnx"
    model = open_model(path)
    from onnxviz.runtime.inputs import load_inputs

    inputs = load_inputs(model)
    result = capture(model, inputs, providers="cpu")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    plain = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for output, value in zip(plain.get_outputs(), plain.run(None, inputs.feeds), strict=True):
        if output.name in result:
            np.testing.assert_array_equal(result[output.name].array, value)
        else:
            assert output.name in result.not_captured
