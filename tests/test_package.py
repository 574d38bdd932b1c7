"""What the package promises as a whole: lazy imports, the API's names, docstrings that run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import onnxviz

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "matplotlib",
    "PIL",
    "networkx",
    "torch",
    "keras",
    "tensorflow",
    "rich",
    "jinja2",
)
VERBS = (
    "inspect", "convert", "expose", "capture", "graph", "features", "activations", "pooling", "weights", "attention",
    "maximize", "gradient", "report", "doctor", "check", "mend", "compare",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_onnxviz_imports_nothing_heavy() -> None:
    assert modules_after("import onnxviz").isdisjoint(HEAVY)
    assert "onnx_ir" in modules_after("import onnxviz; onnxviz.open_model"), "the check itself must be able to fail"


def test_the_command_line_starts_light() -> None:
    assert modules_after("import onnxviz.cli").isdisjoint(HEAVY)


def test_looking_at_a_model_imports_no_framework() -> None:
    loaded = modules_after("import onnxviz.api, onnxviz.report.page, onnxviz.plots.weights, onnxviz.runtime.capture")
    assert loaded.isdisjoint({"torch", "keras", "tensorflow", "sklearn"})


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_function_of_the_package(verb: str) -> None:
    assert callable(getattr(onnxviz, verb))


@pytest.mark.parametrize(
    "first", ["import onnxviz", "import onnxviz.graph.io, onnxviz.report.page", "from onnxviz.report import page"]
)
def test_rooms_that_are_verbs_are_modules_and_functions(first: str, tmp_path: Path) -> None:
    code = (
        f"{first}\nimport onnxviz, onnxviz.graph.io\n"
        f"drawing = onnxviz.graph({str(ROOT / 'models/lenet5.onnx')!r}, {str(tmp_path / 'a.svg')!r})\n"
        "assert onnxviz.graph.io.open_model is onnxviz.open_model\nassert callable(onnxviz.report)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.svg").exists()


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = onnxviz.nonsense
    assert set(VERBS) <= set(dir(onnxviz))


def test_the_project_file_names_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = [p.parent.relative_to(ROOT) for p in (ROOT / "onnxviz").rglob("__init__.py")]
    packages = {".".join(folder.parts) for folder in folders} - {"onnxviz.converters"}
    assert set(project["tool"]["setuptools"]["packages"]) == packages | {"onnxviz.converters"}
    assert (ROOT / "onnxviz" / "py.typed").exists()
    extras = set(project["project"]["optional-dependencies"])
    assert extras == {
        "torch",
        "keras",
        "tensorflow",
        "sklearn",
        "jax",
        "projection",
        "umap",
        "training",
        "cluster",
        "all",
    }


def test_onnxruntime_is_asked_for_once_on_every_platform() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [Requirement(r) for r in project["project"]["dependencies"]]
    for system, machine, name in (
        ("linux", "x86_64", "onnxruntime-gpu"), ("win32", "AMD64", "onnxruntime-gpu"), ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"), ("win32", "ARM64", "onnxruntime"),
    ):  # fmt: skip
        here = {"sys_platform": system, "platform_machine": machine}
        chosen = [
            r.name
            for r in wanted
            if r.name.startswith("onnxruntime") and r.marker is not None and r.marker.evaluate(here)
        ]
        assert chosen == [name]


def modules() -> list[str]:
    found = ["onnxviz"] + [m.name for m in pkgutil.walk_packages(onnxviz.__path__, "onnxviz.")]
    converters = importlib.import_module("onnxviz.converters")
    found += [m.name for m in pkgutil.walk_packages(converters.__path__, "onnxviz.converters.")]
    return sorted({name for name in found if not name.endswith("__main__")})


@pytest.mark.parametrize("name", modules())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith("onnxviz.converters"):
        pytest.importorskip("torch")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
