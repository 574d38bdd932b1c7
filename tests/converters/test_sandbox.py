"""Conversions in a process of their own: what gets out of it, and what does not."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.converters import convert, sandbox
from onnxviz.converters.sandbox import IsolatedResult, convert_isolated, executes_code
from onnxviz.errors import ConversionError, InputError, MemoryLimitError, ParityError, TrustError
from onnxviz.graph.io import open_model, save_model
from onnxviz.graph.model import to_proto
from onnxviz.runtime.confine import call_confined

LENET = Path(__file__).resolve().parents[2] / "models" / "lenet5_torch.py"

CONVERTER = '''
import os
import numpy as np, onnx_ir as ir
from onnxviz.converters import Conversion
from onnxviz.errors import TrustError

class OwnError(TrustError):
    pass

class Adder:
    """A converter of another package: it takes dicts, which say what to do."""
    name, takes = "adder", "dicts"

    def accepts(self, source):
        return isinstance(source.network, dict)

    def convert(self, source, options):
        do = source.network
        if "raise" in do:
            raise OwnError("not this one", hint="another") if do["raise"] == "own" else ZeroDivisionError("by nought")
        size = do.get("size", 2)
        model = ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["": 17]> g (float[batch, %d] x) => (float[batch, %d] y)'
            '<float w = {0}> { y = Add(x, w) }' % (size, size))
        weights = np.random.default_rng(options.seed).standard_normal(size).astype(np.float32)
        model.graph.initializers["w"].const_value = ir.Tensor(weights, name="w")
        model.graph.initializers["w"].shape = ir.Shape([size])
        off = do.get("off", 0)
        return Conversion(model, "by hand", "none 1.0", lambda feeds: [feeds["x"] + weights + off],
                          {"x": np.ones((1, size), np.float32)}, (os.environ.get("KERAS_BACKEND", "none"),))
'''

FACTORIES = """
import os, socket, sys, time

def good():
    print("said by the factory")
    return {"size": 3}

def large(): return {"size": 5_000_000}
def wrong(): return {"off": 0.5}
def own_error(): return {"raise": "own"}
def other_error(): return {"raise": "other"}

def dials():
    socket.create_connection(("192.0.2.1", 80))

def hides_why():
    try:
        dials()
    except OSError:
        raise RuntimeError("no weights") from None

def sleeps():
    open(os.path.join(os.path.dirname(__file__), "pid"), "w").write(str(os.getpid()))
    time.sleep(60)

def eats():
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20)) * 20)

def leaves(): os._exit(3)
def aborts(): os.abort()
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder whose path is short, whoever runs the tests: that of a socket has about a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="onnxviz") as folder:
        yield Path(folder)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file of factories, and a converter for them that another package brings; nothing may stay in the temp folder."""
    package, temporary = tmp_path / "package", tmp_path / "temporary"
    (package / "adder-1.0.dist-info").mkdir(parents=True)
    temporary.mkdir()
    (package / "adder.py").write_text(CONVERTER)
    (package / "adder-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: adder\nVersion: 1.0\n")
    (package / "adder-1.0.dist-info" / "entry_points.txt").write_text("[onnxviz.converters]\nadder = adder:Adder\n")
    (tmp_path / "net.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield str(tmp_path / "net.py")
    assert [file.name for file in temporary.iterdir() if file.name != ".ses"] == []  # that one is onnxruntime's


def test_the_result_is_that_of_a_conversion_here(
    net: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "keras", SimpleNamespace(backend=SimpleNamespace(backend=lambda: "jax")))
        apart = convert_isolated(f"{net}:good", trust=True, seed=3)
    printed = capfd.readouterr()
    assert printed.out == "", "stdout is for what onnxviz says"
    assert printed.err == "said by the factory\n"
    assert isinstance(apart, IsolatedResult)
    assert apart.isolation in ("network namespace", "audit hook")
    assert apart.notes[0] == "jax", "the child takes the backend that Keras runs on here"
    here = convert(f"{net}:good", trust=True, seed=3)
    assert to_proto(apart.model).SerializeToString() == to_proto(here.model).SerializeToString()
    assert (apart.parity, apart.source, apart.converter) == (here.parity, here.source, here.converter)
    assert apart.model.meta.get("path") is None


def test_large_weights_stay_in_a_file_without_a_name(net: str, tmp_path: Path) -> None:
    result = convert_isolated(f"{net}:large", trust=True, parity=False)
    tensor = result.model.graph.initializers["w"].const_value
    assert tensor is not None
    if sys.platform != "win32":
        assert isinstance(tensor, ir.LazyTensor), "not read yet"
    expected = np.random.default_rng(0).standard_normal(5_000_000).astype(np.float32)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    save_model(result.model, tmp_path / "out.onnx")
    np.testing.assert_array_equal(open_model(tmp_path / "out.onnx").graph.initializers["w"].const_value, expected)


def test_weights_beside_the_model_outlive_their_file(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32)
    text = (
        '<ir_version: 8, opset_import: ["": 17]> g (float[1000] x) => (float[1000] y) <float w = {0}> { y = Add(x, w) }'
    )
    model = ir.from_onnx_text(text)
    model.graph.initializers["w"].const_value = ir.Tensor(values, name="w")
    save_model(model, tmp_path / "net.onnx", external_data=True)
    opened = sandbox._keep_weights(open_model(tmp_path / "net.onnx"))
    for file in list(tmp_path.iterdir()):
        file.unlink()
    save_model(opened, tmp_path / "out.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]
    np.testing.assert_array_equal(open_model(tmp_path / "out.onnx").graph.initializers["w"].const_value, values)


@pytest.mark.parametrize("namespace", [True, False])
def test_the_network_is_closed(net: str, namespace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "call_confined", functools.partial(call_confined, namespace=namespace))
    with pytest.raises(ConversionError) as caught:
        convert_isolated(f"{net}:dials", trust=True)
    assert str(caught.value) == (
        "net.py:dials() raised PermissionError: code run with --trust may not use the network "
        "(it asked for 192.0.2.1:80); download it once outside of onnxviz (frameworks keep it), or give --weights"
    )
    if namespace:
        return
    with pytest.raises(ConversionError, match=r"RuntimeError: no weights \(it asked for 192\.0\.2\.1:80, and code run"):
        convert_isolated(f"{net}:hides_why", trust=True)
    result = convert_isolated(f"{net}:good", trust=True)
    assert isinstance(result, IsolatedResult)
    assert result.isolation == "audit hook"
    assert "Python only" in result.notes[-1]


def test_time_is_limited(net: str) -> None:
    start = time.monotonic()
    with pytest.raises(ConversionError) as caught:
        convert_isolated(f"{net}:sleeps", trust=True, timeout=2.5)
    assert str(caught.value) == "the conversion of net.py:sleeps took longer than 2.5 s; give a higher --timeout"
    assert time.monotonic() - start < 30
    with pytest.raises(InputError, match="cannot take 0 s"):
        convert_isolated(f"{net}:good", trust=True, timeout=0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a process")
def test_memory_is_limited(net: str) -> None:
    with pytest.raises(MemoryLimitError, match=r"of net\.py:eats reached .* 900 MB are allowed; .* --max-memory"):
        convert_isolated(f"{net}:eats", trust=True, memory=900 * 10**6)


def test_the_default_memory_is_a_share_of_the_machines() -> None:
    default = sandbox._default_memory()
    if sys.platform == "linux":
        assert default is not None
        assert 10**8 < default < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("factory", "name"), [("leaves", "exit code 3"), ("aborts", "SIGABRT")])
def test_a_process_that_ends_early_is_an_error_in_a_line(net: str, factory: str, name: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert_isolated(f"{net}:{factory}", trust=True)
    assert str(caught.value).startswith(
        f"the process that converted net.py:{factory} ended before it was done ({name})"
    )
    assert "onnxruntime" not in str(caught.value)


def test_errors_come_back_whole(net: str) -> None:
    with pytest.raises(ParityError) as differs:
        convert_isolated(f"{net}:wrong", trust=True)
    assert not differs.value.parity.passed
    assert differs.value.parity.outputs[0].name == "y"
    assert any("check_parity" in note for note in differs.value.__notes__), "the traceback, for --debug"
    with pytest.raises(TrustError) as own:
        convert_isolated(f"{net}:own_error", trust=True)
    assert type(own.value) is TrustError, "a class of another package comes back as what it derives from"
    assert str(own.value) == "not this one; another"
    with pytest.raises(ConversionError, match=r"net\.py:other_error raised ZeroDivisionError: by nought"):
        convert_isolated(f"{net}:other_error", trust=True)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupting_ends_the_child(net: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from onnxviz.converters.sandbox import convert_isolated\n"
        f"convert_isolated({net + ':sleeps'!r}, trust=True)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    written = tmp_path / "pid"
    for _ in range(600):
        if written.exists() and written.read_text():
            break
        time.sleep(0.05)
    child = int(written.read_text())
    parent.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in parent.communicate(timeout=30)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_a_child_does_not_outlive_a_parent_that_is_killed(net: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from onnxviz.converters.sandbox import convert_isolated\n"
        f"convert_isolated({net + ':sleeps'!r}, trust=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path / "elsewhere")})
    written = tmp_path / "pid"
    for _ in range(600):
        if written.exists() and written.read_text():
            break
        time.sleep(0.05)
    child = int(written.read_text())
    parent.kill()
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it goes on")


def test_what_is_refused_starts_no_process(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "Worker", None)
    with pytest.raises(TrustError, match=r"would run the Python file .*net\.py and call its function good\(\)"):
        convert_isolated(f"{net}:good")


def test_what_executes_code(tmp_path: Path) -> None:
    for name in ("net.keras", "net.h5", "net.joblib", "net.pt", "net.pt2", "net.safetensors", "net.onnx", "net.py"):
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    runs = {name for name in os.listdir(tmp_path) if executes_code(tmp_path / name)}  # noqa: PTH208
    assert runs == {"net.keras", "net.h5", "net.joblib", "saved"}
    assert executes_code(f"{tmp_path}/net.py:build")
    assert not executes_code(tmp_path)
    assert not executes_code(tmp_path / "absent.keras")
    assert not executes_code(object())


def test_a_torch_network_is_the_same_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    # A module that another test imported under the name of the file would leave the factory's a longer one.
    monkeypatch.delitem(sys.modules, LENET.stem, raising=False)
    results = [function(f"{LENET}:lenet5", input_shape=(1, 1, 32, 32), trust=True) for function in (convert, convert_isolated)]  # fmt: skip
    here, apart = (to_proto(result.model) for result in results)
    # Piece by piece: pytest's comparison of two long strings of bytes takes the square of their length.
    assert [str(node) for node in here.graph.node] == [str(node) for node in apart.graph.node]
    assert [w.name for w in here.graph.initializer if w not in apart.graph.initializer] == []
    for model in (here, apart):
        del model.graph.node[:], model.graph.initializer[:]
    assert str(here) == str(apart)
    assert results[0].parity == results[1].parity
