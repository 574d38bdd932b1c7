"""Many samples: folders, lists, long arrays; what Ctrl-C keeps; what a memory limit does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from PIL import Image

from onnxviz.errors import InputError, MemoryLimitError, OutputError
from onnxviz.runtime.batches import Batches, load_batches
from onnxviz.runtime.capture import capture, plan
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.plan import bytes_text, parse_bytes
from onnxviz.runtime.samples import sample_count
from onnxviz.runtime.spill import Spill


def model(batch: str = "n") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["": 19]> g (float[{batch}, 3] x) => (float[{batch}, 3] y) <float[3] w = {{1, 2, 3}}> '
        "{ s = Shape(x) k = Constant<value_float = 2.0>() a = Mul(x, w) y = Add(a, k) }"
    )


class Total:
    """Something mergeable: the sum and the count."""

    def __init__(self, total: float, count: int) -> None:
        self.total, self.count = total, count

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Total:
        return cls(float(array.astype(float).sum()), array.size)

    def merge(self, other: Total) -> Total:
        return Total(self.total + other.total, self.count + other.count)


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    array = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", array)
    return array


@pytest.mark.parametrize(("batch", "runs"), [(1, 7), (2, 4), (3, 3), (7, 1), (100, 1)])
def test_a_long_array_is_cut_into_batches(tmp_path: Path, rows: np.ndarray, batch: int, runs: int) -> None:
    done: list[tuple[int, int]] = []
    result = capture(
        model(),
        [tmp_path / "rows.npy"],
        batch=batch,
        reduce=Total.of,
        progress=lambda *p: done.append(p),
        providers="cpu",
    )
    assert done == [(i + 1, runs) for i in range(runs)]
    np.testing.assert_array_equal(result["y"].array, rows * np.float32([1, 2, 3]) + 2)
    assert (result["y"].shape, result.samples) == ((7, 3), 7)
    assert result["y"].statistics.count == 21
    assert result["y"].statistics.total == pytest.approx(result["y"].array.astype(float).sum())
    assert result["k"].array.tolist() == 2.0, "what is the same in every batch is kept once"
    if runs > 1 and 7 % batch:
        assert "differ from batch to batch" in result.not_captured["s"]


def test_a_fixed_batch_leaves_samples_over(tmp_path: Path, rows: np.ndarray) -> None:
    result = capture(model("2"), {"x": rows}, providers="cpu")
    assert (result["y"].shape, result.samples) == ((6, 3), 6)
    assert result.notes == ("1 samples fill no batch of the model and were not run",)
    with pytest.raises(InputError, match="batch is fixed at 2"):
        load_batches(model("2"), {"x": rows}, batch=3)
    with pytest.raises(InputError, match="batches of 9"):
        load_batches(model("9"), [str(tmp_path)], batch=9)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (float[2, 3, 4, 4] x) => (float[2, 3, 4, 4] y) { y = Neg(x) }'
    )
    for i in range(4):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    result = capture(net, tmp_path, providers="cpu")
    assert result["y"].shape == (4, 3, 4, 4)
    np.testing.assert_allclose(-result["y"].array[:, 0, 0, 0] * 255, range(4), atol=1e-4)
    named = capture(net, [f"x={tmp_path}"], providers="cpu")
    np.testing.assert_array_equal(named["y"].array, result["y"].array)
    listed = capture(net, [tmp_path / f"{i}.png" for i in range(4)], providers="cpu")
    np.testing.assert_array_equal(listed["y"].array, result["y"].array)
    assert result.inputs[0].source == "0.png … 1.png (2 files)"


def test_a_list_of_feeds(rows: np.ndarray) -> None:
    result = capture(model(), [{"x": rows[:1]}, {"x": rows[1:4]}, {"x": rows[4:6]}], providers="cpu")
    np.testing.assert_array_equal(result["a"].array, rows[:6] * np.float32([1, 2, 3]))
    assert result.samples == 6
    assert capture(model(), load_inputs(model(), {"x": rows}), providers="cpu").samples == 7


@pytest.mark.parametrize(
    ("inputs", "output", "shapes", "samples"),
    [
        ("float[n, 3] x", "float[n, 3]", [(7, 3)], 7),
        ("float[n, 3] x", "float[m, 3]", [(7, 3)], 7),
        ("float[n, 3] x", "float[10, 3]", [(7, 3)], 1),
        ("float[h, w, 3] x", "float[10]", [(7, 5, 3)], 1),
        ("float[n, 3] x", "float", [(7, 3)], 7),
        ("float[4, 3] x", "float[4, 2]", [(4, 3)], 4),
        ("float[3, 8, 8] x", "float[10]", [(3, 8, 8)], 1),
        ("float[n] x", "float[n]", [(7,)], 1),
        ("float[n, 3] x, float[1, n, 8] state", "float[n, 3]", [(7, 3), (1, 7, 8)], 7),
        ("float[n, 3] x, float[m, 3] other", "float[n, 3]", [(7, 3), (5, 3)], 1),
        ("float[n, 3] x, float[n] weight", "float[n, 3]", [(7, 3), (7,)], 7),
        ("float scale", "float", [()], 1),
        ("float[n, 3] x", "float[n, 3]", [(0, 3)], 0),
    ],
)
def test_samples_lie_along_the_batch_axis(
    inputs: str, output: str, shapes: list[tuple[int, ...]], samples: int
) -> None:
    net = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": 19]> g ({inputs}) => ({output} y) {{ y = Foo() }}')
    feeds = {value.name: np.zeros(shape) for value, shape in zip(net.graph.inputs, shapes, strict=True)}
    assert sample_count(net, feeds) == samples


def test_bad_samples_are_told_in_a_line(tmp_path: Path, rows: np.ndarray) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        load_batches(model(), [str(tmp_path / "empty")])
    with pytest.raises(InputError, match="a batch cannot hold 0"):
        load_batches(model(), {"x": rows}, batch=0)
    two = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (float[n, 3] a, float[n, 3] b) => (float[n, 3] y) { y = Add(a, b) }'
    )
    with pytest.raises(InputError, match="different numbers of samples: a: 7, b: 5"):
        load_batches(two, {"a": rows, "b": rows[:5]}, batch=2)
    with pytest.raises(InputError, match="name the input"):
        load_batches(two, [str(tmp_path)])


def test_ctrl_c_keeps_what_is_complete(rows: np.ndarray) -> None:
    def stop(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    result = capture(model(), {"x": rows}, batch=1, reduce=Total.of, progress=stop, providers="cpu")
    assert (result.interrupted, result.samples, result["y"].shape) == (True, 3, (3, 3))
    np.testing.assert_array_equal(result["a"].array, rows[:3] * np.float32([1, 2, 3]))
    assert result["a"].statistics.count == 9

    def at_once(name: str, array: np.ndarray) -> Total:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(model(), {"x": rows}, reduce=at_once, providers="cpu")


def test_spilled_arrays_are_the_same_and_outlive_the_spill(rows: np.ndarray) -> None:
    spill = Spill()
    kept = spill.put(rows)
    folder = spill._folder
    joined = spill.join([rows, rows])
    del spill
    np.testing.assert_array_equal(kept, rows)
    np.testing.assert_array_equal(joined, np.concatenate([rows, rows]))
    assert folder.exists()
    del kept, joined
    assert not folder.exists()


def big(count: int = 40, size: int = 1 << 20) -> ir.Model:
    nodes = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(count))
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["": 19]> g (float[{size}] t0) => (float[{size}] t{count}) {{ {nodes} }}'
    )


def test_a_limit_sends_arrays_to_disk_or_is_refused() -> None:
    free, lean = plan(big(), providers="cpu"), plan(big(), keep=False, providers="cpu")
    assert free.keeps == "memory"
    assert free.kept == 40 * 4 << 20
    assert (free.peak - free.present) - (lean.peak - lean.present) == free.kept
    limit = lean.peak + (60 << 20)
    assert plan(big(), max_memory=limit, providers="cpu").keeps == "disk"
    result = capture(big(), max_memory=limit, providers="cpu")
    x = load_inputs(big()).feeds["t0"]
    for i in (1, 39, 40):
        np.testing.assert_array_equal(result[f"t{i}"].array, x * (-1) ** i)
    with pytest.raises(MemoryLimitError, match=r"needs .* at least.*--max-memory \d+MB") as refused:
        capture(big(), max_memory="10MB", providers="cpu")
    enough = re.search(r"--max-memory (\d+MB)", str(refused.value))
    assert enough is not None
    plan(big(), max_memory=enough[1], providers="cpu")


def test_sizes_that_only_the_run_tells_are_watched() -> None:
    text = (
        '<ir_version: 9, opset_import: ["": 19]> g (int64[1] n) => (float[k] y) { a = ConstantOfShape(n) y = Neg(a) }'
    )
    grows = ir.from_onnx_text(text)
    small = plan(grows, {"n": np.array([10])}, providers="cpu")
    assert "a" in small.unknown
    with pytest.raises(MemoryLimitError, match="larger than planned"):
        capture(grows, {"n": np.array([200_000_000])}, max_memory=small.least + (100 << 20), providers="cpu")


def test_sizes_in_words() -> None:
    assert [parse_bytes(t) for t in ("2GB", "1.5gib", "10 MB", "7", 8)] == [2 * 10**9, 3 << 29, 10**7, 7, 8]
    for wrong in ("", "GB", "-1GB", "1.2.3MB", "0", "2 bananas"):
        with pytest.raises(InputError, match="no size"):
            parse_bytes(wrong)
    assert bytes_text(999) == "999 B"


def test_the_first_nan_is_named_and_its_node_alone_shows_it(tmp_path: Path) -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (float[n, 4] x) => (float[n, 4] z) <float[4] w = {1, 2, 3, 0}> '
        "{ a = Neg(x) b = Log(a) c = Sub(b, w) z = Relu(c) }"
    )
    x = np.float32([[-1, -2, 5, -3]])
    result = capture(net, {"x": x}, "z", stop_on="nan", providers="cpu")
    found = result.nonfinite
    assert found is not None
    assert (found.tensor, found.op_type, found.nan, found.index) == ("b", "Log", 1, (0, 2))
    assert [(r.name, r.min, r.max) for r in found.inputs] == [("a", -5, 3)]
    assert list(result) == []
    beside = found.save_repro(tmp_path / "repro.onnx")
    session = ort.InferenceSession(tmp_path / "repro.onnx", providers=["CPUExecutionProvider"])
    with np.load(beside) as feeds:
        assert np.isnan(session.run(None, dict(feeds))[0]).sum() == 1
    onnx.checker.check_model(onnx.load(tmp_path / "repro.onnx"), full_check=True)
    assert capture(net, {"x": -np.abs(x)}, stop_on="nan", providers="cpu").nonfinite is None


def test_inf_is_told_from_nan_and_fed_values_from_computed_ones() -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (float[2] x) => (float[2] y) { a = Reciprocal(x) b = Sub(a, a) y = Neg(b) }'
    )
    x = np.float32([0, 1])
    found = {k: capture(net, {"x": x}, stop_on=k, providers="cpu").nonfinite for k in ("nan", "inf", "nonfinite")}
    assert {k: f and f.tensor for k, f in found.items()} == {"nan": "b", "inf": "a", "nonfinite": "a"}
    fed = capture(net, {"x": np.float32([np.nan, 1])}, stop_on="nan", providers="cpu").nonfinite
    assert fed is not None
    assert (fed.tensor, fed.node) == ("x", None)
    with pytest.raises(InputError, match="no node makes"):
        fed.save_repro("unused.onnx")
    with pytest.raises(InputError, match="stop_on cannot be 'never'"):
        capture(net, {"x": x}, stop_on="never", providers="cpu")  # type: ignore[arg-type]


def test_nan_in_a_later_batch_and_inside_a_loop() -> None:
    loop = ir.from_onnx_text("""<ir_version: 9, opset_import: ["": 19]>
    g (float[n] x) => (float[n] last) <int64 m = {3}, bool go = {1}, float one = {1.0}> {
      last = Loop(m, go, x) <body = b (int64 i, bool going, float[n] v) => (bool still, float[n] next) {
        d = Sub(v, one) next = Sqrt(d) still = Identity(going) }> }""")
    batches = [{"x": np.float32([300])}, {"x": np.float32([1.5])}]
    found = capture(loop, batches, stop_on="nan", providers="cpu").nonfinite
    assert found is not None
    assert (found.tensor, found.op_type, found.batch, found.iteration) == ("next", "Sqrt", 1, (1,))


def test_batches_are_read_when_their_turn_comes(tmp_path: Path, rows: np.ndarray) -> None:
    batches = load_batches(model(), [str(tmp_path / "rows.npy")], batch=2)
    assert isinstance(batches, Batches)
    assert [count for _, count in batches] == [2, 2, 2, 1]


def test_a_repro_takes_any_name_of_an_input(tmp_path: Path) -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (float[2] x) => (float[2] y) { file = Neg(x) y = Log(file) }'
    )
    found = capture(net, {"x": np.float32([1, 2])}, stop_on="nan", providers="cpu").nonfinite
    assert found is not None
    with np.load(found.save_repro(tmp_path / "repro.onnx")) as feeds:
        assert feeds["file"].tolist() == [-1, -2]


def test_the_rows_of_an_array_go_with_the_files_of_a_folder(tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x, float[n, 2] z) => (float[n, 2] y) {y = Add(x, z)}'
    )
    (tmp_path / "x").mkdir()
    for row in range(3):
        np.save(tmp_path / "x" / f"{row}.npy", np.full((1, 2), row, np.float32))
    np.save(tmp_path / "z.npy", 10 * np.arange(6, dtype=np.float32).reshape(3, 2))
    for batch in (None, 2):
        batches = load_batches(model, [f"x={tmp_path / 'x'}", f"z={tmp_path / 'z.npy'}"], batch=batch)
        fed = [(inputs.feeds["x"][:, 0], inputs.feeds["z"][:, 0]) for inputs, _ in batches]
        assert np.concatenate([x for x, _ in fed]).tolist() == [0, 1, 2]
        assert np.concatenate([z for _, z in fed]).tolist() == [0, 20, 40]
    np.save(tmp_path / "z.npy", np.ones((2, 2), np.float32))
    with pytest.raises(InputError, match="different numbers of samples: x: 3, z: 2"):
        load_batches(model, [f"x={tmp_path / 'x'}", f"z={tmp_path / 'z.npy'}"])


def test_a_file_of_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (float[n, 2] x) => (float[n, 2] y) { y = Neg(x) }'
    )
    np.save(tmp_path / "a.npy", np.ones((1, 2), np.float32))
    np.save(tmp_path / "b.npy", np.ones((1, 3), np.float32))
    with pytest.raises(InputError, match=r"b\.npy: input 'x' takes float32"):
        capture(net, tmp_path, providers="cpu")


def test_a_tensor_named_as_an_iteration_is_keeps_its_record() -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (int64 n, bool c, float[2] x) => (float[2] z, float[2] y) '
        "{ z = Loop<body = b (int64 i, bool go, float[2] v) => (bool on, float[2] a) "
        "{ on = Identity(go) a = Neg(v) }>(n, c, x) y = Abs(x) }"
    )
    net.graph.outputs[1].name = "a[0]"
    feeds = {"n": np.int64(2), "c": np.array(True), "x": np.float32([1, -2])}
    records = capture(net, feeds, providers="cpu")
    values = {name: record.array.tolist() for name, record in records.items() if name[0] == "a"}
    assert values == {"a[0]": [1, 2], "a[0]'": [-1, 2], "a[1]": [1, -2]}


def test_a_node_that_reads_a_sequence_has_no_repro(tmp_path: Path) -> None:
    net = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["": 19]> g (seq(float[2]) s, int64 i) => (float[2] y) { y = SequenceAt(s, i) }'
    )
    feeds = {"s": [np.float32([np.nan, 1])], "i": np.int64(0)}
    found = capture(net, feeds, stop_on="nan", providers="cpu").nonfinite
    assert found is not None
    with pytest.raises(OutputError, match="reads what is no array"):
        found.save_repro(tmp_path / "repro.onnx")
    assert not list(tmp_path.iterdir())


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    for place in ("cat/1.npy", "dog/1.npy", ".ipynb_checkpoints/1.npy"):
        (tmp_path / place).parent.mkdir()
        np.save(tmp_path / place, np.zeros(3, np.float32))
    assert load_batches(model(), [tmp_path]).names == ("cat/1.npy", "dog/1.npy")
