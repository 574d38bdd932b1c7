"""An error of 1 % in one layer of a hundred is named as the first that differs, whatever became of the names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxviz.analysis.compare_models import compare_models
from onnxviz.analysis.model_comparison import ModelComparison
from onnxviz.runtime.capture import batches_of
from tests.analysis.deep_nets import LAYERS, WIDTH, deep_net, opened, planted, stripped

NET = deep_net()
X = np.random.default_rng(1).standard_normal((8, WIDTH)).astype(np.float32)
KINDS = ("scale", "element", "bias")
_FEW = ((0, "scale"), (37, "element"), (64, "bias"), (LAYERS - 1, "element"))
_ALL = [(layer, kind) for layer in (0, 1, 37, 64, LAYERS - 1) for kind in KINDS]
PLACES = [*_FEW, *(pytest.param(*one, marks=pytest.mark.slow) for one in _ALL if one not in _FEW)]


def compared(reference: onnx.ModelProto, model: onnx.ModelProto) -> ModelComparison:
    one = opened(reference)
    return compare_models(one, opened(model), batches_of(one, {reference.graph.input[0].name: X}))


@pytest.mark.parametrize(("layer", "kind"), PLACES[1:2] + PLACES[4:])
def test_the_layer_is_named(layer: int, kind: str) -> None:
    wrong, tensor = planted(NET, layer, kind)
    result = compared(NET, wrong)
    assert result.first is not None
    assert result.first.tensor == tensor
    assert result.first.made_here
    assert 1e-3 < result.first.relative_l2 < 0.1
    assert result.culprit == result.first
    assert [one.tensor for one in result.tensors if one.made_here] == [tensor]


@pytest.mark.parametrize(("layer", "kind"), PLACES)
def test_it_is_named_where_all_names_are_gone_and_the_order_is_another(layer: int, kind: str) -> None:
    wrong, tensor = planted(NET, layer, kind)
    result = compared(NET, stripped(wrong, seed=layer))
    assert result.first is not None
    assert result.first.reference == tensor
    assert result.first.made_here
    assert [one.reference for one in result.tensors if one.made_here] == [tensor]
    assert not result.unmatched
    assert f"({tensor} of the reference)" in str(result)


def test_it_is_named_where_the_reference_has_no_names() -> None:
    wrong, tensor = planted(NET, 37, "element")
    result = compared(stripped(NET, seed=3), wrong)
    assert result.first is not None
    assert result.first.tensor == tensor


def test_two_stripped_copies_are_not_paired_by_their_numbers() -> None:
    one, other = stripped(NET, seed=1), stripped(NET, seed=2)
    result = compared(one, other)
    assert result.passed
    assert len(result.tensors) == 3 * LAYERS
    wrong, _ = planted(NET, 37, "scale")
    found = compared(one, stripped(wrong, seed=2)).first
    truth = compared(NET, stripped(wrong, seed=2)).first
    assert found is not None
    assert truth is not None
    assert found.tensor == truth.tensor


def test_without_an_error_none_is_found() -> None:
    result = compared(NET, stripped(NET))
    assert result.passed
    assert result.first is None
    assert result.counts()["activations"] == 0
