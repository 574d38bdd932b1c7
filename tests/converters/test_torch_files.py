"""What torch files and pickles would run, told without opening them."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path

import pytest

from onnxviz.converters.loading import load_source
from onnxviz.converters.pickles import foreign_globals, pickled_globals, pickled_parts
from onnxviz.errors import ConversionError, TrustError, listed


class System:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def names(data: bytes) -> list[str]:
    return list(pickled_globals(io.BytesIO(data)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_globals_are_found_in_every_protocol(protocol: int) -> None:
    assert names(pickle.dumps([System(), 1.5, {"a": System()}], protocol)).count("posix.system") >= 1


def test_what_the_scan_finds_is_what_unpickling_looks_up() -> None:
    import collections
    import datetime
    import fractions

    value = [collections.OrderedDict(a=fractions.Fraction(1, 3)), datetime.date(2020, 1, 1), {len, sorted}, System()]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(value, protocol)
        for written in (data, pickletools.optimize(data)):
            looked_up: list[str] = []

            class Watching(pickle.Unpickler):
                def find_class(self, module: str, name: str) -> object:
                    looked_up.append(f"{module}.{name}")  # noqa: B023 - used before the next round
                    return super().find_class(module, name)

            found = names(written)
            assert len(found) == len(set(found)), "each is written once and then remembered"
            if protocol > 2:
                Watching(io.BytesIO(written)).load()
                assert found == looked_up


@pytest.mark.parametrize(
    "hidden",
    [
        b"\x80\x04\x8c\x05posix\x8c\x04junk0\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x8c\x04junk00h\x00h\x01\x93\x8c\x04true\x85R.",
        b"\x80\x04(\x8c\x04junk1\x8c\x05posix\x8c\x06system\x93.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(S'true'\niposix\nsystem\n.",
    ],
)
def test_a_name_that_is_hidden_behind_the_stack_is_found(hidden: bytes) -> None:
    assert names(hidden) == ["posix.system"]


def test_names_that_cannot_be_told_are_said_to_be_so() -> None:
    assert names(b"\x80\x04\x8c\x05posixN\x93.") == ["a name that it computes"]
    assert names(b"\x80\x02\x82\x07.") == ["the registered extension 7"]
    assert names(b"\x80\x04\x8c\x05posix\x8c\x06system\x93 and then damage") == ["posix.system"]
    assert names(b"") == names(b"no pickle at all") == []


def test_the_dangerous_come_first_and_the_rest_is_counted() -> None:
    many = [f"torch.nn.modules.m.M{i}" for i in range(7)]
    assert listed(foreign_globals([*many, "collections.OrderedDict", "posix.system"])) == (
        "posix.system, torch.nn.modules.m.M0, torch.nn.modules.m.M1, torch.nn.modules.m.M2, torch.nn.modules.m.M3 "
        "and 3 more"
    )
    assert foreign_globals(["torch.load", "torch.hub.load", "torch.ops.x", "torch.Tensor", "torch.FloatStorage"]) == [
        "torch.load", "torch.hub.load", "torch.ops.x",
    ]  # fmt: skip


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_archives_within_archives_are_read(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner", {"model/data.pkl": pickle.dumps(System())}).read_bytes()
    outer = archive(
        tmp_path / "net.pt2",
        {"net/data/sample_inputs/model.pt": inner, "net/data/weights/weight_0": pickle.dumps(System(), 2),
         "net/data/weights/weight_1": b"\x80\x02" + bytes(100), "net/archive_format": b"pt2", "net/one.so": b"ELF"},
    )  # fmt: skip
    parts = pickled_parts(outer)
    assert parts == {
        "net/data/sample_inputs/model.pt/model/data.pkl": ["posix.system"],
        "net/data/weights/weight_0": ["posix.system"],
    }
    torch = pytest.importorskip("torch")
    assert torch
    from onnxviz.converters import convert

    with pytest.raises(TrustError) as caught:
        convert(outer)
    message = str(caught.value)
    assert "net.pt2 is a torch.export program that would run code" in message
    assert "unpickles data/sample_inputs/model.pt/model/data.pkl, which loads posix.system" in message
    assert "unpickles data/weights/weight_0" in message
    assert "brings the native library net/one.so" in message


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network in every kind of torch file."""
    torch = pytest.importorskip("torch")
    from onnxviz.runtime.quiet import quiet

    folder: Path = tmp_path_factory.mktemp("files")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).eval()
    with quiet():
        torch.export.save(torch.export.export(net, (torch.ones(2, 3),)), folder / "net.pt2")
        torch.jit.script(net).save(folder / "script.pt")
    torch.save(net, folder / "module.pt")
    torch.save(net, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(net.state_dict(), folder / "weights.pt")
    torch.save(net.state_dict(), folder / "old_weights.pt", _use_new_zipfile_serialization=False)
    tensors = [torch.zeros(2, dtype=t) for t in (torch.float16, torch.bfloat16, torch.int64, torch.bool)]
    torch.save({"a": tensors, "b": torch.nn.Parameter(torch.ones(2)), "c": torch.ones(2, 2).to_sparse()}, folder / "various.pt")  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("net.pt2", r"net\.pt2 is a torch\.export program: the pickles in it hold only tensors, but it is run"),
        ("script.pt", r"TorchScript program of \d code files, which would be run: __torch__/.*container"),
        ("module.pt", r"would run code: it loads torch.*\.Sequential, .*\.Linear, .*\.ReLU;"),
        ("old.pt", r"would run code: it loads torch.*\.Sequential, .*\.Linear, .*\.ReLU;"),
    ],
)
def test_refusals_say_what_would_run(files: Path, name: str, says: str) -> None:
    from onnxviz.converters import convert
    from onnxviz.converters.torch_files import runs_code

    assert runs_code(files / name)
    with pytest.raises(TrustError, match=says):
        convert(files / name)


@pytest.mark.parametrize("name", ["weights.pt", "old_weights.pt", "various.pt"])
def test_weights_run_nothing(files: Path, name: str) -> None:
    from onnxviz.converters import convert
    from onnxviz.converters.torch_files import runs_code

    assert not runs_code(files / name)
    for trust in (False, True):
        with pytest.raises(ConversionError, match="weights but no network"):
            convert(files / name, trust=trust)


def test_a_damaged_archive_is_an_error_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from onnxviz.converters import convert

    path = archive(tmp_path / "net.pt", {"net/data.pkl": pickle.dumps([1] * 99)})
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(10)
    path.write_bytes(data)
    for trust in (False, True):
        with pytest.raises(ConversionError, match=r"net\.pt is") as caught:
            convert(path, trust=trust)
        assert "\n" not in str(caught.value)


def test_weights_with_code_are_refused_with_their_names_even_with_trust(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from onnxviz.converters import convert

    torch.save({"a": torch.ones(2), "b": System()}, tmp_path / "weights.pt")
    with pytest.raises(TrustError, match=r"unpickling it would run code \(it loads posix\.system\)"):
        convert(torch.nn.Linear(2, 2), weights=tmp_path / "weights.pt", input_shape=(1, 2), trust=True)


def test_a_factory_says_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "parts.py").touch()
    (tmp_path / "net.py").write_text(
        "from __future__ import annotations\nimport os.path, torch\nfrom torch import nn\nfrom parts import a\n"
        "def build():\n    import subprocess\n    return None\n"
    )
    with pytest.raises(TrustError, match=r"build\(\); it imports parts \(beside it\), os, torch, subprocess; add"):
        load_source(f"{tmp_path}/net.py:build", trust=False, seed=0)


def test_a_saved_model_is_a_program(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    with pytest.raises(ConversionError, match="is a folder"):
        load_source(folder, trust=True, seed=0)
    (folder / "saved_model.pb").write_bytes(b"\x0a\x01a\x12\x08ReadFile\x0a\x01b\x12\x04Relu")
    with pytest.raises(TrustError, match=r"read and write files \(its graph holds ReadFile\)"):
        load_source(folder, trust=False, seed=0)
    source = load_source(folder, trust=True, seed=0)
    assert (source.label, source.path) == ("net", folder)
