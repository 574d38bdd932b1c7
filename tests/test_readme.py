"""Every command of the README runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines() if line]
NEEDS = {"lenet5_torch.py": ("torch", "onnxscript"), "digits_cnn_keras.py": ("keras",)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("onnxviz")])
def test_command(command: str, checkout: Path) -> None:
    for script, modules in NEEDS.items():
        if script in command:
            for module in modules:
                pytest.importorskip(module, reason=f"{module} is not installed")
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    if "-o" in words:
        assert (checkout / words[words.index("-o") + 1]).stat().st_size > 500


def test_python(checkout: Path) -> None:
    (code,) = [block for language, block in BLOCKS if language == "python"]
    assert len([line for line in code.splitlines() if line]) <= 10
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["61706", "(1, 6, 28, 28) 3", "0"]


def test_every_verb_has_an_example_and_ci_runs_the_two_commands() -> None:
    verbs = {c.split()[1] for c in COMMANDS if c.startswith("onnxviz")}
    assert verbs == {
        "inspect",
        "convert",
        "expose",
        "capture",
        "graph",
        "features",
        "activations",
        "pooling",
        "neurons",
        "project",
        "weights",
        "attention",
        "flow",
        "gradient",
        "explain",
        "maximize",
        "profile",
        "check",
        "compare",
        "readiness",
        "sweep",
        "report",
        "doctor",
    }
    made = [c for c in COMMANDS if c.startswith("make")]
    assert made == ["make demo", "make test"]
    assert set(COMMANDS) - set(made) == {c for c in COMMANDS if c.startswith("onnxviz")}
    ci = (ROOT / ".ci" / "run").read_text()
    assert all(command in ci for command in made)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
