"""Sets of rules by name, from Python and the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from onnxviz.api import gradient
from onnxviz.cli import app
from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.overrides.names import RULE_SETS, rules_table
from onnxviz.graph.io import save_model
from tests.conftest import make_small_cnn
from tests.gradient.overrides_nets import carried

DOCS = Path(__file__).resolve().parents[2] / "docs" / "gradient_rules.md"


@pytest.mark.parametrize("name", list(RULE_SETS))
def test_every_set_makes_a_model_that_runs(name: str) -> None:
    x = np.random.default_rng(4).random((2, 1, 8, 8), np.float32)
    arrays, delta, made = carried(make_small_cnn(), name, {"x": x}, "y[argmax]")
    assert arrays[0].shape == x.shape
    assert np.isfinite(arrays[0]).all()
    assert arrays[0].any()
    assert (delta is None) == (made.gives == "gradient")


@pytest.mark.parametrize("name", [name for name in RULE_SETS if name != "gradient"])
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_every_set_works_in_other_precisions(name: str, kind: type) -> None:
    def net(dtype: type) -> ir.Model:
        model = ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 2] y)
            <float[3, 4] a = {1, -1, 2, 1, 0.5, 1, -1, 2, 1, 1, -0.5, -1}, float[4] b = {0.5, 1, -0.25, 0.5},
             float[4, 2] c = {1, 2, -1, 1, 0.5, 1, 1, -1}> { h = Gemm(x, a, b) r = Relu(h) y = MatMul(r, c) }"""
        )
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.dtype = ir.DataType.from_numpy(np.dtype(dtype))
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            value.const_value = ir.tensor(value.const_value.numpy().astype(dtype), name=value.name)
            value.dtype = value.const_value.dtype
        return model

    x, target = np.array([[0.5, 1, 0.25], [1, -0.5, 2]], kind), "y[:, 0] + y[:, 1]"
    exact, _, _ = carried(net(np.float32), name, {"x": x.astype(np.float32)}, target)
    arrays, _, _ = carried(net(kind), name, {"x": x}, target)
    assert arrays[0].dtype == kind
    limit = 0.02 if kind is np.float16 else 1e-4
    assert np.abs(arrays[0] - exact[0]).max() < limit * np.abs(exact[0]).max()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("guide", "there are no rules 'guide'"),
        ("", "there are no rules ''"),
        ("guided:epsilon=1", "guided has no parameter 'epsilon=1'"),
        ("lrp-epsilon:eps=1", "lrp-epsilon has no parameter 'eps=1'"),
        ("lrp-epsilon:epsilon", "lrp-epsilon has no parameter 'epsilon'"),
        ("lrp-epsilon:epsilon=small", "epsilon is a number, not 'small'"),
        ("lrp-epsilon:epsilon=-1", "epsilon is a number not below 0"),
        ("lrp-epsilon:epsilon=nan", "epsilon is a number not below 0"),
        ("lrp-epsilon:bias=none", "bias is one of rule, kept, zero"),
        ("lrp-alpha-beta:alpha=1/2", "alpha is one number"),
    ],
)
def test_a_wrong_name_is_one_clear_line(rules: str, said: str) -> None:
    with pytest.raises(GradientError, match=re.escape(said)) as caught:
        rules_table(rules)
    assert "\n" not in str(caught.value)


def test_the_hint_lists_what_there_is() -> None:
    with pytest.raises(GradientError) as caught:
        rules_table("lrp")
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in RULE_SETS)


def test_the_command_line_takes_a_name(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    save_model(make_small_cnn(), path)
    call = ["gradient", str(path), "-o", str(out), "--target", "y[argmax]", "--rules"]
    done = CliRunner().invoke(app, [*call, "lrp-epsilon-gamma-box:low=0,high=1"])
    assert done.exit_code == 0, done.output
    assert {"x.grad", "relevance.delta"} <= {value.name for value in onnx.load(out).graph.output}
    wanted = gradient(make_small_cnn(), target="y[argmax]", rules="lrp-epsilon-gamma-box:low=0,high=1")
    assert wanted.delta == "relevance.delta"


def test_every_set_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in RULE_SETS if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("lrp-alpha-beta:alpha=2,beta=2", "alpha less beta is 1"),
        ("lrp-alpha-beta:alpha=0.5,beta=-0.5", "beta is not below 0"),
        ("lrp-alpha-beta:alpha=nan", "alpha is finite"),
        ("lrp-epsilon-z-box:low=nan,high=1", "low is finite"),
        ("lrp-epsilon-z-box:low=1,high=0", "low lies below high"),
        ("lrp-epsilon-z-box:low=-1/2,high=1", "low lies below high"),
        ("lrp-epsilon-z-box:low=0/0,high=1/1/1", "low has 2 channels and high has 3"),
    ],
)
def test_parameters_that_are_none_of_the_rule_are_refused(rules: str, said: str) -> None:
    with pytest.raises(GradientError, match=said):
        rules_table(rules)


def test_a_bound_a_channel_needs_as_many_channels() -> None:
    with pytest.raises(GradientError, match="bounds of 2 channels, and its input has 1"):
        gradient_model(make_small_cnn(), target="y[argmax]", table=rules_table("lrp-epsilon-z-box:low=-1/-2,high=1"))
