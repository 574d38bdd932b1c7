"""Finding converters, trusting sources, and the errors before any framework is asked."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.converters import Conversion, Converter, ConvertOptions, Source, convert, converters, registry
from onnxviz.errors import ConversionError, TrustError

NETS = Path(__file__).with_name("torch_nets.py")


class Doubler:
    """A converter of another package: it takes dicts."""

    name = "doubler"
    takes = "dicts"

    def accepts(self, source: Source) -> bool:
        return isinstance(source.network, dict)

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        model = ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["": 17]> g (float[batch, 2] x) => (float[batch, 2] y) { y = Add(x, x) }'
        )
        return Conversion(model, "by hand", "none 1.0", lambda f: [f["x"] * 2], {"x": np.ones((1, 2), np.float32)})


class NoConverter:
    name = "half"


def entry_points(*names: str):
    return lambda group: [EntryPoint(n, f"{__name__}:{n}", group) for n in names]


def test_the_two_converters_are_found():
    found = converters()
    assert all(isinstance(converter, Converter) for converter in found)
    assert [c.name for c in found if c.name in ("keras", "torch")] == ["keras", "torch"]


def test_a_third_party_adds_a_converter(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", entry_points("Doubler"))
    result = convert({})
    assert result.converter == "doubler"
    assert result.parity is not None
    assert result.parity.passed
    assert result.model.metadata_props["onnxviz.framework"] == "none 1.0"


def test_a_broken_converter_is_named_only_where_it_might_have_helped(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", entry_points("Absent", "Doubler", "NoConverter"))
    assert convert({}).converter == "doubler"
    with pytest.raises(ConversionError, match=r"'Absent'.*cannot be loaded.*'NoConverter'.*lacks name"):
        convert(object())


def test_no_framework_is_imported_to_find_a_converter():
    code = (
        "import sys; from onnxviz.converters import converters, Source; from pathlib import Path\n"
        "[c.accepts(Source('a.pt', path=Path('a.pt'))) for c in converters()]\n"
        "print([m for m in ('torch', 'keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_python_file_is_not_run_without_trust(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "net.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\ndef build(): return None\n"
    )
    with pytest.raises(
        TrustError, match=r"net\.py:build would run the Python file .*net\.py and call its function build\(\)"
    ):
        convert(f"{tmp_path}/net.py:build")
    with pytest.raises(ConversionError, match=r"name the function .*net\.py:build"):
        convert(tmp_path / "net.py", trust=True)
    assert not marker.exists()
    with pytest.raises(ConversionError, match="returned None"):
        convert(f"{tmp_path}/net.py:build", trust=True)
    assert marker.exists()
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("def f(): return 1", "g", r"has no function 'g'; it defines f"),
        ("x = 1", "g", r"has no function 'g'; it defines no function"),
        ("def f(:", "f", "not readable Python"),
        ("raise OSError('no disk\\nat all')\ndef f(): ...", "f", "raised OSError: no disk"),
        ("import sys\nsys.exit(3)\ndef f(): ...", "f", "raised SystemExit"),
        ("def f(x): ...", "f", r"f\(\) raised TypeError.*no arguments"),
        ("def f(): return 3", "f", r"no converter takes net\.py:f \(a int\)"),
    ],
)
def test_factories_that_fail(tmp_path, content, name, message):
    (tmp_path / "net.py").write_text(content)
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises(ConversionError, match=message) as caught:
        convert(f"{tmp_path}/net.py:{name}", trust=True)
    assert "\n" not in str(caught.value)
    assert sys.path == path
    assert set(sys.modules) - modules <= {"net"}


def test_a_factory_imports_its_neighbours_and_a_name_that_is_taken_does_no_harm(tmp_path):
    import json

    (tmp_path / "neighbour_of_json.py").write_text("VALUE = {}\n")
    (tmp_path / "json.py").write_text("from neighbour_of_json import VALUE\ndef f(): return VALUE\n")
    with pytest.raises(ConversionError, match=r"no converter takes json\.py:f \(a dict\)"):
        convert(f"{tmp_path}/json.py:f", trust=True)
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.keras", "there is no file"),
        ("absent.py:f", "there is no file"),
        ("net.onnx", "is ONNX already"),
        ("net.txt", "no converter takes net.txt; .*keras takes .keras"),
        (".", "is a folder"),
    ],
)
def test_sources_that_are_none(tmp_path, name, message):
    for file in ("net.onnx", "net.txt"):
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(ConversionError, match=message):
        convert(f"{tmp_path}/{name}", trust=True)


def test_parity_can_be_left_out(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", entry_points("Doubler"))
    assert convert({}, parity=False).parity is None
