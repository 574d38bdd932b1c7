"""What the tests share: where the corpus and the project's own models are."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job that a shell runs in the background ignores Ctrl-C, and so would every program that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The corpus of real models, which lies beside the checkout; tests that need it are skipped where it is absent."""
    for parent in ROOT.parents:
        if (parent / "shared" / "corpus" / "INDEX.tsv").exists():
            return parent / "shared" / "corpus"
    pytest.skip("the corpus of real models is not beside the checkout")


@pytest.fixture(scope="session")
def models() -> Path:
    """The project's own trained models."""
    return ROOT / "models"


def make_small_cnn(seed: int = 0) -> ir.Model:
    """Conv, Relu, pooling, Gemm on (n, 1, 8, 8), with seeded weights, small enough to work out by hand."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17], producer_name: "handmade", producer_version: "1">
        net (float[n, 1, 8, 8] x) => (float[n, 3] y)
        <float[2, 1, 3, 3] w = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, float[2] b = {0, 0},
         float[18, 3] fw = {0}, float[3] fb = {0, 0, 0}>
        {
          [conv1] c = Conv<kernel_shape = [3, 3]>(x, w, b)
          [relu1] r = Relu(c)
          [pool1] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
          f = Flatten(p)
          [fc1] y = Gemm(f, fw, fb)
        }"""
    )
    rng = np.random.default_rng(seed)
    for name, shape in {"w": (2, 1, 3, 3), "b": (2,), "fw": (18, 3), "fb": (3,)}.items():
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        value.shape = ir.Shape(shape)
    return model


@pytest.fixture
def small_cnn() -> ir.Model:
    """A network that a test may change."""
    return make_small_cnn()


BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def _absent(reason: str) -> None:
    if os.environ.get("ONNXVIZ_REQUIRE_BROWSER"):
        pytest.fail(f"{reason}, and ONNXVIZ_REQUIRE_BROWSER asks for it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        _absent("no Chromium is installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield chromium
        chromium.close()
