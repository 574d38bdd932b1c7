"""``onnxviz gradient`` as a user types it: what it writes runs anywhere; what it cannot do is one line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from tests.cli.conftest import Onnxviz, Run

LENET, CNN, DIGIT = "models/lenet5.onnx", "models/digits_cnn.onnx", "models/samples/digit_3.png"
DOC = Path(__file__).parents[2] / "docs" / "gradient.md"
HEAD = '<ir_version: 8, opset_import: ["": 18, "my.ops": 1]> g '
RNG = np.random.default_rng(2)
TEXT = """(float[N, 3] x, float[N, 3] z, int64[N] k) => (float[N, 3] y, int64[N] n, float[N, 3] t)
  {a = Round(x) b = Exp(a) y = Add(b, z) n = Neg(k) c = my.ops.Twist(x) t = Add(c, z)}"""
LOOP = """(double[2] s, double[2] k, int64 n, bool c) => (double[2] q) {
  q = Loop(n, c, s) <body = b (int64 i, bool ci, double[2] v) => (bool co, double[2] w) {
    co = Identity(ci) p = Mul(v, k) w = Sin(p)}>}"""
WORDS = "(int64[3] i) => (float[3, 4] y) <float[5, 4] w = {1}> {e = Gather(w, i) y = Exp(e)}"
QUANTISED = """(float[2, 3] x) => (float[2, 3] y) <float s = {0.1}, int8 o = {0}>
  {q = QuantizeLinear(x, s, o) d = DequantizeLinear(q, s, o) y = Mul(d, d)}"""


def write(folder: Path, text: str, name: str = "made.onnx") -> str:
    onnx.save(onnx.parser.parse_model(HEAD + text), folder / "models" / name)
    return f"models/{name}"


def refused(run: Run, what: str) -> None:
    assert run.code == 2, (run.out, run.err)
    assert what in run.err, run.err
    assert run.err.count("\n") == 1, run.err
    assert run.files == []


def test_a_seed_goes_in_and_a_gradient_comes_out(onnxviz: Onnxviz, here: Path) -> None:
    done = onnxviz("gradient", LENET, "-o", "g.onnx", "--of", "output")
    assert (done.code, done.err, done.files) == (0, "", ["g.onnx"])
    assert done.out.splitlines() == [
        "g.onnx",
        "inputs: image float [batch, 1, 32, 32], output.grad float [batch, 10]",
        "outputs: output float [batch, 10], image.grad float [batch, 1, 32, 32]",
        "image.grad is the gradient of output with respect to image",
        "output.grad is the gradient that enters at output: ones differentiate its sum",
        'run: onnxruntime.InferenceSession("g.onnx").run(["image.grad"], {"image": ..., "output.grad": ...})',
    ]
    onnx.checker.check_model(here / "g.onnx", full_check=True)
    feeds = {
        "image": RNG.normal(size=(2, 1, 32, 32)).astype(np.float32),
        "output.grad": RNG.normal(size=(2, 10)).astype(np.float32),
    }
    session = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"])
    output, grad = session.run(None, feeds)
    second = ReferenceEvaluator(str(here / "g.onnx")).run(None, feeds)
    before = ort.InferenceSession(here / LENET, providers=["CPUExecutionProvider"]).run(None, {"image": feeds["image"]})
    np.testing.assert_allclose(output, before[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad, second[1], rtol=1e-3, atol=1e-4)
    step = RNG.normal(size=grad.shape).astype(np.float32)
    ahead, behind = (
        session.run(["output"], {**feeds, "image": feeds["image"] + sign * np.float32(1e-3) * step})[0]
        for sign in (1, -1)
    )
    measured = float(((ahead - behind).astype(np.float64) * feeds["output.grad"]).sum() / 2e-3)
    assert measured == pytest.approx(float((grad * step).sum()), rel=0.02)


def test_weights_and_tensors_between_of_a_loss(onnxviz: Onnxviz, here: Path) -> None:
    asked = ("conv1.weight", "conv1", "image")
    run = onnxviz(
        "gradient", LENET, "-o", "g.onnx", "--target", "cross_entropy(output, labels)",
        *(word for name in asked for word in ("--wrt", name)),
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "labels int64 [batch]" in run.out
    session = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["output", *(f"{name}.grad" for name in asked)]
    feeds = {"image": np.ones((3, 1, 32, 32), np.float32), "labels": np.int64([1, 2, 3])}
    shapes = [found.shape for found in session.run(None, feeds)]
    assert shapes == [(3, 10), (6, 1, 5, 5), (3, 6, 28, 28), (3, 1, 32, 32)]


def test_every_reason_is_told(onnxviz: Onnxviz, here: Path) -> None:
    made = write(here, TEXT)
    run = onnxviz("gradient", made, "-o", "g.onnx", "--of", "t", "--allow-cut")
    assert run.code == 0, run.err
    assert "cut: my.ops::Twist-1 at 'c': there is no gradient rule for it" in run.out
    run = onnxviz("gradient", made, "-o", "g.onnx", "--of", "y", "--wrt", "z")
    assert (run.code, "cut" in run.out) == (0, False)
    two = write(here, "(float[2] x, float[2] z) => (float[2] y, float[2] q) {y = Neg(x) q = Exp(z)}")
    run = onnxviz("gradient", two, "-o", "g.onnx", "--of", "y")
    assert "left out: z, to which no gradient of y leads" in run.out


def test_quantisation_on_request(onnxviz: Onnxviz, here: Path) -> None:
    made = write(here, QUANTISED)
    refused(onnxviz("gradient", made, "-o", "g.onnx", "--of", "y"), "straight-through gradients (--straight-through)")
    assert onnxviz("gradient", made, "-o", "g.onnx", "--of", "y", "--straight-through").code == 0
    x = np.float32([[0.5, -1, 2], [99, 0.3, -99]])
    feeds = {"x": x, "y.grad": np.ones_like(x)}
    found = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"]).run(["x.grad"], feeds)[0]
    np.testing.assert_allclose(found, 2 * x * (np.abs(x) < 12), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words", "what"),
    [
        (TEXT, ["--of", "y", "--wrt", "x"], "no gradient leads from y to x: all paths are cut (Round-11 at 'a': it is"),
        (TEXT, ["--of", "a", "--wrt", "z"], "no gradient leads from a to z: a does not depend on it; name a tensor"),
        (TEXT, ["--of", "n"], "n is of type INT64, which has no gradient; choose"),
        (TEXT, ["--of", "y", "--wrt", "k"], "k is of type INT64, which has no gradient"),
        (
            TEXT,
            ["--of", "t", "--wrt", "x"],
            "no gradient rule for my.ops::Twist (version 1), which lies on the path at 'c'",
        ),
        (TEXT, ["--of", "t", "--wrt", "x", "--allow-cut"], "all paths are cut (my.ops::Twist-1 at 'c'"),
        (TEXT, ["--of", "yy"], "the model has no tensor 'yy'; did you mean 'y'?"),
        (TEXT, ["--of", "y", "--wrt", "Z"], "the model has no tensor 'Z'; did you mean 'z'?"),
        (TEXT, ["--of", "x", "--wrt", "y"], "no gradient leads from x to y: x does not depend on it"),
        (TEXT, [], "nothing is differentiated; name a tensor with --of, or give a --target"),
        (TEXT, ["--target", "y[:, 9]"], "index 9 is out of range for an axis of size 3"),
        (TEXT, ["--target", "sum(n)"], "n is of type INT64"),
        (TEXT, ["--target", "top(y)"], "there is no top of 1 arguments; the functions are"),
        (LOOP, ["--of", "p"], "p lies in the body of a node, which runs any number of times; differentiate an output"),
        (WORDS, ["--of", "y"], "the model has no input of floating point; name tensors with --wrt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:20],
)
def test_what_cannot_be_is_one_line(onnxviz: Onnxviz, here: Path, text: str, words: list[str], what: str) -> None:
    refused(onnxviz("gradient", write(here, text), "-o", "g.onnx", *words), what)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "there is no MODEL; onnxviz gradient MODEL -o OUT --of T"),
        ([LENET, "--of", "output"], "there is no file to write"),
        ([LENET, "--of", "output", "-o", LENET], "models/lenet5.onnx is the model itself; name another file"),
        ([LENET, "--of", "output", "-o", "none/g.onnx"], "does not exist; create it first"),
        ([LENET, "--of", "output", "-o", "g.png"], "its ending names no format; use .onnx"),
        ([DIGIT, "--of", "output", "-o", "g.onnx"], "is not an ONNX model"),
        (["--coverage", "--format", "xml"], "'--format'"),
    ],
)
def test_files_and_words(onnxviz: Onnxviz, here: Path, words: list[str], what: str) -> None:
    before = (here / LENET).read_bytes()
    refused(onnxviz("gradient", *words), what)
    assert (here / LENET).read_bytes() == before


def test_names_that_a_shell_or_a_page_would_read_otherwise(onnxviz: Onnxviz, here: Path) -> None:
    name = "a\"b'\n</script>\u202e"
    model = onnx.parser.parse_model(HEAD + "(float[2, 3] x) => (float[2, 3] y) {y = Neg(x)}")
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    onnx.save(model, here / "models" / "odd.onnx")
    run = onnxviz("gradient", "models/odd.onnx", "-o", "g.onnx", "--of", "y", "--wrt", name)
    assert run.code == 0, run.err
    assert all(line.isprintable() for line in run.out.splitlines())
    assert [o.name for o in onnx.load(here / "g.onnx").graph.output] == ["y", f"{name}.grad"]


@pytest.mark.parametrize("shape", [(1, 9), (2, 10), (10,), (10, 1)])
def test_a_seed_of_another_shape_is_refused_by_every_runtime(
    onnxviz: Onnxviz, here: Path, shape: tuple[int, ...]
) -> None:
    assert onnxviz("gradient", LENET, "-o", "g.onnx", "--of", "output").code == 0
    seed = np.ones(shape, np.float32)
    session = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="output.grad|Got invalid dimensions|Invalid rank"):
        session.run(None, {"image": np.ones((1, 1, 32, 32), np.float32), "output.grad": seed})
    if shape == (10,):  # onnxviz takes it as one sample
        return
    np.save(here / "models" / "seed.npy", seed)
    run = onnxviz("capture", "g.onnx", "--input", DIGIT, "--input", "output.grad=models/seed.npy", "-o", "c.npz")
    assert (run.code, run.err.count("\n"), run.files) == (2, 1, ["g.onnx"])
    assert "output.grad" in run.err


def test_the_same_model_gives_the_same_bytes(onnxviz: Onnxviz, here: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        assert onnxviz("gradient", CNN, "-o", name, "--target", "output[argmax]").code == 0
    assert (here / "a.onnx").read_bytes() == (here / "b.onnx").read_bytes()


def test_coverage(onnxviz: Onnxviz) -> None:
    run = onnxviz("gradient", "--coverage")
    assert (run.code, run.err) == (0, "")
    (celu,) = [line.split() for line in run.out.splitlines() if line.startswith("Celu ")]
    assert celu == ["Celu", "+", *["."] * 15, "+"]
    assert "+ pass, " in run.out
    rows = json.loads(onnxviz("gradient", "--coverage", "--format", "json").out)
    table = onnxviz("gradient", "--coverage", "--format", "tsv").out.splitlines()
    assert table[0].split("\t") == list(rows[0])
    assert len(table) == len(rows) + 1
    assert {row["domain"] for row in rows} >= {"ai.onnx", "ai.onnx.ml", "com.microsoft"}


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL))
def test_what_the_page_shows_runs(block: str, here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] in (
        "output.grad {'image': 'image.grad'}",
        "image.grad.grad {'image': 'image.grad_2'}",
    )


@pytest.mark.parametrize(
    "line", [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("onnxviz gradient ")]
)
def test_the_commands_of_the_page_run(line: str, onnxviz: Onnxviz) -> None:
    run = onnxviz(*shlex.split(line)[1:])
    assert (run.code, run.err) == (0, "")


@pytest.mark.parametrize("opset", [11, 18])
def test_weights_outside_of_the_file_stay_outside(onnxviz: Onnxviz, here: Path, opset: int) -> None:
    text = f'<ir_version: 8, opset_import: ["": {opset}], metadata_props: ["who": "me"]> g ' + (
        "(float[N, 64] x) => (float[N, 64] y) <float[64, 64] w = {0}> {h = MatMul(x, w) y = Tanh(h)}"
    )
    model = onnx.parser.parse_model(text)
    weight = RNG.normal(size=(64, 64)).astype(np.float32) / 8
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, here / "models" / "w.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    run = onnxviz("gradient", "models/w.onnx", "-o", "g.onnx", "--of", "y", "--wrt", "x", "--wrt", "w")
    assert (run.code, run.err, run.files) == (0, "", ["g.onnx", "g.onnx.data"])
    onnx.checker.check_model(str(here / "g.onnx"), full_check=True)
    assert (here / "g.onnx").stat().st_size < 5000
    assert [(p.key, p.value) for p in onnx.load(here / "g.onnx").metadata_props] == [("who", "me")]
    x, seed = RNG.normal(size=(2, 3, 64)).astype(np.float32)
    session = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"])
    _, dx, dw = session.run(None, {"x": x, "y.grad": seed})
    slope = seed * (1 - np.tanh(x @ weight) ** 2)
    np.testing.assert_allclose(dx, slope @ weight.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dw, x.T @ slope, rtol=1e-4, atol=1e-5)


def test_functions_and_sequences_beside_the_path(onnxviz: Onnxviz, here: Path) -> None:
    text = """(float[N, 3] x, seq(float[3]) q) => (float[N, 3] y, seq(float[3]) r) {y = my.ops.f(x) r = Identity(q)}
      <opset_import: ["": 18], domain: "my.ops"> f (a) => (b) {c = Sigmoid(a) b = Mul(c, c)}"""
    run = onnxviz("gradient", write(here, text), "-o", "g.onnx", "--target", "sum(y)")
    assert run.code == 0, run.err
    onnx.checker.check_model(here / "g.onnx", full_check=True)
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    session = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["x.grad"], {"x": x, "q": [np.ones(3, np.float32)]})[0]
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(found, 2 * s * s * (1 - s), rtol=1e-4)


def test_a_target_that_is_a_softmax_and_a_batch_of_fixed_size(onnxviz: Onnxviz, here: Path) -> None:
    made = write(here, "(float[4, 3] x) => (float[4, 3] y) {y = Softmax(x)}")
    assert onnxviz("gradient", made, "-o", "g.onnx", "--target", "y[:, 1]").code == 0
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    session = ort.InferenceSession(here / "g.onnx", providers=["CPUExecutionProvider"])
    y, grad = session.run(None, {"x": x})
    np.testing.assert_allclose(grad, y[:, 1:2] * (np.eye(3)[1] - y), rtol=1e-4, atol=1e-6)
