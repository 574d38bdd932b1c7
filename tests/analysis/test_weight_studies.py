"""Norms, spectra, filters and the table of weights against numpy and scikit-learn."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxviz.analysis.clusters import find_clusters
from onnxviz.analysis.layers import select_weights
from onnxviz.analysis.weight_data import study_data
from onnxviz.analysis.weight_filters import dead_rows, filter_study, principal_components, similar_pairs
from onnxviz.analysis.weight_forms import study_weights, weight_blocks
from onnxviz.analysis.weight_norms import kernel_norms
from onnxviz.analysis.weight_spectra import _entropy, singular_values, spectral_norm, spectrum
from onnxviz.analysis.weight_table import WeightRow, WeightTable, weight_table
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.io import open_model
from onnxviz.graph.provenance import Provenance, set_provenance

RNG = np.random.default_rng(0)


def model_of(nodes: list[Any], weights: dict[str, np.ndarray]) -> ir.Model:
    shape = [None] * 4 if nodes[0].op_type.startswith("Conv") else [None, None]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def matrix(weight: np.ndarray) -> LayerWeights:
    """A linear layer whose matrix is ``weight``, outputs down."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="fc", transB=1)
    return layer_weights(model_of([node], {"w": weight.astype(np.float32)}))[0]


def conv(weight: np.ndarray, groups: int = 1, op: str = "Conv") -> LayerWeights:
    node = helper.make_node(op, ["x", "w"], ["y"], name="conv", group=groups)
    return layer_weights(model_of([node], {"w": weight.astype(np.float32)}))[0]


# --- norms


def test_norms_of_kernels() -> None:
    weight = RNG.normal(size=(5, 3, 3, 2)).astype(np.float32)
    found = kernel_norms(conv(weight))
    want = [[np.sqrt((weight[o, i].astype(np.float64) ** 2).sum()) for i in range(3)] for o in range(5)]
    np.testing.assert_allclose(found.values, want, rtol=1e-12)
    np.testing.assert_allclose(found.filters, np.linalg.norm(weight.reshape(5, -1).astype(np.float64), axis=1))
    assert (found.norms, found.signed, found.rows, found.columns) == (True, False, "filter", "input channel")
    wrong = np.sqrt((weight.astype(np.float64) ** 2).sum(axis=(0, 2)))  # the planted error: over other axes
    assert wrong.shape != found.values.shape or not np.allclose(wrong, found.values)


def test_groups_lie_on_the_diagonal() -> None:
    found = kernel_norms(conv(RNG.normal(size=(4, 2, 3, 3)), groups=2))
    picture = found.laid_out
    assert picture.shape == (4, 4)
    np.testing.assert_array_equal(np.ma.getmaskarray(picture), [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(picture.compressed(), found.values.reshape(-1))
    assert kernel_norms(conv(RNG.normal(size=(4, 1, 3, 3)), groups=4)).laid_out.shape == (4, 1)


def test_a_matrix_is_its_own_picture() -> None:
    weight = RNG.normal(size=(4, 6)).astype(np.float32)
    found = kernel_norms(matrix(weight))
    np.testing.assert_array_equal(found.values, weight)
    assert (found.norms, found.signed) == (False, True)


# --- spectra


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (20, 20), (600, 500)])
def test_singular_values_are_those_of_numpy(shape: tuple[int, int]) -> None:
    weight = RNG.normal(size=shape).astype(np.float32)
    want = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(singular_values(weight), want, rtol=1e-6, atol=1e-6 * want[0])
    assert spectral_norm(weight, most=1) == pytest.approx(want[0], rel=1e-4)
    assert spectral_norm(weight) == pytest.approx(want[0], rel=1e-9)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_groups_have_the_spectrum_of_the_block_diagonal_matrix(op: str) -> None:
    lw = conv(RNG.normal(size=(4, 3, 2, 2) if op == "ConvTranspose" else (6, 2, 2, 2)), groups=2, op=op)
    blocks = weight_blocks(lw).values
    assert blocks.shape == (2, 3, 8)
    whole = np.zeros((6, 16))
    whole[:3, :8], whole[3:, 8:] = blocks
    want = np.linalg.svd(whole, compute_uv=False)
    found = spectrum(lw)
    np.testing.assert_allclose(found.singular_values, want, rtol=1e-6)
    # the planted error: the groups stacked as if they read the same inputs
    assert not np.allclose(np.linalg.svd(blocks.reshape(6, 8), compute_uv=False), want)
    assert found.spectral_norm == pytest.approx(want[0])


def test_numbers_of_a_spectrum() -> None:
    weight = RNG.normal(size=(60, 90)) * np.linspace(0.1, 3, 90)
    found = spectrum(matrix(weight), resamples=20)
    w = weight.astype(np.float32).astype(np.float64)
    s = np.linalg.svd(w, compute_uv=False)
    assert found.frobenius == pytest.approx(np.linalg.norm(w))
    assert found.stable_rank == pytest.approx(np.linalg.norm(w) ** 2 / np.linalg.norm(w, 2) ** 2)
    assert found.condition == pytest.approx(np.linalg.cond(w), rel=1e-6)
    assert found.rank == np.linalg.matrix_rank(weight.astype(np.float32))
    p, q = s / s.sum(), s**2 / (s**2).sum()
    assert found.effective_rank == pytest.approx(np.prod(p**-p))  # Roy and Vetterli 2007
    assert found.entropy == pytest.approx(-(q * np.log(q)).sum() / np.log(60))
    assert found.effective_rank != pytest.approx(np.prod(q**-q))  # with the squares it is another number
    assert found.power_law is not None
    assert found.power_law.count == 60


def test_a_random_matrix_ends_at_the_edge_of_marchenko_and_pastur() -> None:
    noise = RNG.normal(scale=0.1, size=(200, 800))
    found = spectrum(matrix(noise), resamples=2)
    assert found.edge is not None
    assert found.edge == pytest.approx(0.1 * (np.sqrt(200) + np.sqrt(800)), rel=0.01)
    assert found.spectral_norm == pytest.approx(found.edge, rel=0.03)
    assert found.singular_values[-1] == pytest.approx(found.low_edge, rel=0.05)
    planted = noise + 2.0 * np.outer(RNG.normal(size=200), RNG.normal(size=800)) / np.sqrt(160)
    assert spectrum(matrix(planted), resamples=2).beyond == 1


def test_singular_values_near_the_end_of_float_keep_the_entropy() -> None:
    found = spectrum(matrix(np.diag([1.0, 1.0, 1e-45])))
    np.testing.assert_allclose([found.effective_rank, found.entropy], [2.0, np.log(2) / np.log(3)], rtol=1e-6)
    tail = np.array([1.0, 1.0, 2.0**-1074])  # its share of the sum is 0
    assert singular_values(np.diag(tail))[2] > 0
    np.testing.assert_allclose(_entropy(tail), np.log(2))


def test_low_rank_and_orthogonal_matrices() -> None:
    left, right = RNG.normal(size=(80, 3)), RNG.normal(size=(3, 70))
    low = spectrum(matrix(left @ right))
    assert (low.rank, low.power_law) == (3, None)
    assert "here are 3" in low.refused
    turned = spectrum(matrix(np.linalg.qr(RNG.normal(size=(64, 64)))[0]))
    assert turned.stable_rank == pytest.approx(64, rel=1e-4)
    assert turned.effective_rank == pytest.approx(64, rel=1e-4)
    assert spectrum(matrix(RNG.normal(size=(9, 50)))).edge is None
    assert turned.condition == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("weight", "what"),
    [
        (np.zeros((4, 4)), "all its values are 0"),
        (np.full((4, 4), np.nan), "16 of its values are NaN"),
        (np.broadcast_to(np.float32(1), (5000, 4200)), "smaller side of 4096"),
    ],
)
def test_spectra_that_do_not_exist(weight: np.ndarray, what: str) -> None:
    with pytest.raises(SelectionError, match=what):
        spectrum(matrix(weight))


# --- filters


def test_principal_components_are_those_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    for shape in ((40, 12), (12, 40)):
        rows = RNG.normal(size=shape) * np.linspace(1, 4, shape[1])
        pca = decomposition.PCA(5, svd_solver="full").fit(rows)
        found = principal_components(rows, 5)
        np.testing.assert_allclose(found.variance, pca.explained_variance_ratio_, rtol=1e-9)
        np.testing.assert_allclose(np.abs(found.coordinates), np.abs(pca.transform(rows)), atol=1e-8)
        # the planted error: not centred
        values = np.linalg.svd(rows + 3, compute_uv=False) ** 2
        assert not np.allclose(values[:5] / values.sum(), pca.explained_variance_ratio_)


def test_near_duplicates_are_found_up_to_sign_and_scale_across_blocks_of_the_search() -> None:
    rows = RNG.normal(size=(2500, 30))
    rows[2400] = -3 * rows[5]
    rows[1100] = 1e-3 * rows[7] * (1 + 1e-4 * RNG.normal(size=30))
    found = similar_pairs(rows[None].astype(np.float32))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    want = np.argwhere(np.triu(np.abs(unit @ unit.T) >= 0.99, 1))
    assert sorted(map(tuple, found.pairs)) == sorted(map(tuple, want)) == [(5, 2400), (7, 1100)]
    assert found.count == 2
    assert found.members == 4
    np.testing.assert_allclose(sorted(found.cosines), [-1, 1], atol=1e-5)
    signed = np.argwhere(np.triu(unit @ unit.T >= 0.99, 1))  # the planted error: without the magnitude one is missed
    assert len(signed) == 1


def test_filters_of_other_groups_are_no_duplicates() -> None:
    weight = np.repeat(RNG.normal(size=(1, 2, 3, 3)), 4, axis=0)
    assert filter_pairs(conv(weight, groups=2)) == [(0, 1), (2, 3)]
    assert len(filter_pairs(conv(weight))) == 6


def filter_pairs(lw: LayerWeights) -> list[tuple[int, ...]]:
    return sorted(tuple(map(int, pair)) for pair in similar_pairs(weight_blocks(lw).values).pairs)


def test_pairs_are_counted_beyond_those_that_are_listed() -> None:
    found = similar_pairs(np.ones((1, 300, 4), np.float32))
    assert (found.count, len(found.pairs), found.members) == (300 * 299 // 2, 10_000, 300)
    assert "one weight" in similar_pairs(np.ones((1, 3, 1))).refused
    assert "of its own" in similar_pairs(np.ones((3, 1, 9))).refused
    assert "too many" in similar_pairs(np.broadcast_to(np.float32(1), (1, 10**6, 100))).refused


def test_dead_and_silenced_filters() -> None:
    weight = RNG.normal(size=(6, 2, 3, 3)).astype(np.float32)
    weight[2] = 0
    weight[4] *= 1e-6
    gamma = np.array([1, 1e-9, 0.5, -1, 1, 0], np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "b", "v"], ["y"]),
    ]
    arrays = {"w": weight, "g": gamma, "b": np.zeros(6, np.float32), "v": np.ones(6, np.float32)}
    lw = layer_weights(model_of(nodes, arrays))[0]
    found = filter_study(lw)
    assert (found.dead.tolist(), [] if found.silenced is None else found.silenced.tolist()) == ([2, 4], [1, 5])
    assert filter_study(conv(weight)).silenced is None
    assert dead_rows(np.zeros(3)).tolist() == [0, 1, 2]
    read_twice = [*nodes, helper.make_node("Relu", ["c"], ["r"])]
    assert filter_study(layer_weights(model_of(read_twice, arrays))[0]).silenced is None
    row = weight_table([lw], "m").rows[0]
    assert (row.dead, row.silenced, row.filters, row.batchnorm) == (2, 2, 6, "follows")


def test_clusters_that_were_planted_are_found() -> None:
    pytest.importorskip("sklearn")
    centres = 5 * np.eye(4, 10)
    points = np.repeat(centres, [30, 20, 15, 10], axis=0) + 0.2 * RNG.normal(size=(75, 10))
    found = find_clusters(points)
    assert found is not None
    assert (found.count, found.clear) == (4, True)
    assert found.labels.tolist() == [0] * 30 + [1] * 20 + [2] * 15 + [3] * 10
    cloud = find_clusters(RNG.normal(size=(75, 30)))  # the planted error: no clusters at all
    assert cloud is not None
    assert not cloud.clear
    with pytest.raises(InputError, match="at least 4 different points"):
        find_clusters(np.ones((9, 2)))


def test_without_scikit_learn_there_are_points_but_no_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    found = filter_study(matrix(RNG.normal(size=(9, 5))))
    assert found.clusters is None
    assert "pip install" in found.not_clustered
    assert found.components.coordinates.shape == (9, 5)


def test_a_wide_layer_is_projected_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxviz.analysis.weight_filters._EXACT_SIDE", 50)
    monkeypatch.setattr("onnxviz.analysis.weight_filters._SOME", 50)
    found = filter_study(matrix(RNG.normal(size=(80, 70))))
    assert (len(found.shown), len(found.norms)) == (50, 80)
    assert "an even spread of 50" in found.note


def test_filters_with_nan_are_left_out() -> None:
    weight = RNG.normal(size=(6, 5))
    weight[1, 0] = np.nan
    found = filter_study(matrix(weight))
    assert found.shown.tolist() == [0, 2, 3, 4, 5]
    assert "1 filters with NaN" in found.note


def test_what_cannot_be_studied_is_told_and_the_rest_goes_on() -> None:
    layers = [matrix(np.ones((5, 4))), matrix(RNG.normal(size=(5, 4))), matrix(RNG.normal(size=(2, 4)))]
    study = study_weights(layers, filter_study, "m")
    assert [one.reason.split(":")[0] for one in study.not_drawn] == ["all its filters are equal", "2 finite filters"]
    assert len(study.views) == 1
    arrays, manifest = study_data(study)
    assert manifest["format"] == "onnxviz.weights.filters/1"
    assert json.loads(json.dumps(manifest))["not_drawn"][0]["name"] == "fc"
    assert arrays["0/coordinates"].shape[0] == 5
    with pytest.raises(SelectionError, match="nothing can be drawn: fc: all its filters"):
        study_weights(layers[:1], filter_study, "m")


def test_a_spread_of_many_layers_is_studied() -> None:
    layers = [matrix(RNG.normal(size=(3, 3))) for _ in range(50)]
    seen: list[int] = []
    study = study_weights(layers, spectrum, "m", most=10, progress=lambda done, of: seen.append(done))
    assert (len(study.views), study.chosen, seen) == (10, 50, list(range(1, 11)))


# --- table


def test_the_table_agrees_with_numpy() -> None:
    weight = RNG.normal(size=(8, 5)).astype(np.float32)
    weight[0] = 0
    weight[3] = -2 * weight[4]
    row = weight_table([matrix(weight)], "m").rows[0]
    w = weight.astype(np.float64)
    want = {
        "mean": w.mean(), "std": w.std(), "min": w.min(), "max": w.max(), "l2": np.linalg.norm(w), "zeros": 5 / 40,
        "spectral_norm": np.linalg.norm(w, 2), "stable_rank": (np.linalg.norm(w) / np.linalg.norm(w, 2)) ** 2,
        "sparsity": (np.sqrt(40) - np.abs(w).sum() / np.linalg.norm(w)) / (np.sqrt(40) - 1),
    }  # fmt: skip
    assert {name: getattr(row, name) for name in want} == pytest.approx(want, rel=1e-6)
    assert (row.parameters, row.bits, row.dead, row.near_duplicates, row.filters) == (40, 32, 1, 2, 8)


def rows() -> WeightTable:
    plain = {"operator": "Conv", "role": "weight", "tensor": "w", "shape": (1,), "dtype": "float32", "bits": 32,
             "quantization": None, "groups": 1}  # fmt: skip
    return WeightTable("m", tuple(
        WeightRow(layer=layer, parameters=count, l2=l2, **plain)  # type: ignore[arg-type]
        for layer, count, l2 in (("b", 1, None), ("a", 3, 0.1), ("=SUM(A1)", 2, -0.5), ('x"\n,y', 2, 7.0))
    ))  # fmt: skip


def test_sorting() -> None:
    order = {column: [row.layer for row in rows().sorted_by(column).rows] for column in ("l2", "-l2", "layer")}
    assert order["l2"] == ['x"\n,y', "a", "=SUM(A1)", "b"]
    assert order["-l2"] == ["=SUM(A1)", "a", 'x"\n,y', "b"]
    assert order["layer"] == ["=SUM(A1)", "a", "b", 'x"\n,y']
    with pytest.raises(InputError, match="no column 'size'; sort by layer, "):
        rows().sorted_by("size")


def test_csv_runs_nothing_in_a_spreadsheet_and_loses_no_digit() -> None:
    table = list(csv.DictReader(io.StringIO(rows().to_csv())))
    assert [row["layer"] for row in table] == ["b", "a", "'=SUM(A1)", 'x"\n,y']
    assert [row["l2"] for row in table] == ["", "0.1", "-0.5", "7.0"]
    naive = io.StringIO()
    csv.writer(naive).writerow(["=SUM(A1)"])  # the planted error: what the csv module writes on its own
    assert naive.getvalue().startswith("=")
    assert [row["layer"] for row in json.loads(rows().to_json())["rows"]] == ["b", "a", "=SUM(A1)", 'x"\n,y']


def test_batchnorm_is_claimed_only_where_the_file_says_so() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = model_of([node], {"w": RNG.normal(size=(2, 1, 3, 3)).astype(np.float32)})
    assert weight_table(layer_weights(model), "m").rows[0].batchnorm == "unknown"
    set_provenance(model.graph.node(0), Provenance("conv1", "Conv2d", "", ("bn1",)))
    assert weight_table(layer_weights(model), "m").rows[0].batchnorm == "folded"


def test_a_scale_that_cannot_be_read_leaves_the_row(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "b", "v"], ["y"], name="bn"),
    ]
    arrays = {"w": np.ones((2, 1, 3, 3), np.float32), **{n: np.ones(2, np.float32) for n in "gbv"}}
    model = model_of(nodes, arrays)
    lost = ir.ExternalTensor("lost.bin", 0, 8, ir.DataType.FLOAT, shape=ir.Shape([2]), name="g", base_dir=tmp_path)
    model.graph.initializers["g"].const_value = lost
    row = weight_table(layer_weights(model)[:1], "m").rows[0]
    assert (row.mean, row.silenced, row.note[:27]) == (1.0, None, "the scale g of bn cannot be")


def test_broken_layers_keep_their_row() -> None:
    row = weight_table([matrix(np.full((3, 3), np.nan))], "m").rows[0]
    assert (row.mean, row.nan, row.spectral_norm, row.note[:10]) == (None, 9, None, "NaN or Inf")
    zero = weight_table([matrix(np.zeros((3, 3)))], "m").rows[0]
    assert (zero.spectral_norm, zero.stable_rank, zero.dead, zero.sparsity) == (0.0, None, 3, None)


# --- codes


def test_quantised_weights_raw_and_dequantised() -> None:
    codes = RNG.integers(0, 255, (3, 4)).astype(np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
    ]
    lw = layer_weights(model_of(nodes, {"q": codes, "s": np.float32(0.5), "z": np.uint8(9)}))[0]
    np.testing.assert_allclose(lw.kernel, (codes.T.astype(np.float32) - 9) * 0.5)
    raw = lw.codes()
    np.testing.assert_array_equal(raw.kernel, codes.T)
    assert (lw.signed, raw.signed, raw.bits, kernel_norms(raw).signed) == (True, False, 8, False)
    plain = matrix(RNG.normal(size=(2, 2)))
    assert plain.codes() is plain
    rows = weight_table([lw, raw, plain], "m").rows
    assert [row.values for row in rows] == ["dequantised", "codes", "stored"]
    assert rows[1].max == codes.max() == 2 * (rows[0].max or 0) + 9


@pytest.mark.corpus
@pytest.mark.parametrize(
    "file", ["quantized/qdq_minimal_model.onnx", "detector/ultraface-version-slim-320_simplified.onnx"]
)
def test_real_models(corpus: Path, file: str) -> None:
    path = corpus / "models" / file
    if not path.exists():
        pytest.skip(f"{file} is not in the corpus")
    layers = select_weights(layer_weights(open_model(path)))
    for lw in layers[:6]:
        assert lw.codes().kernel.shape == lw.kernel.shape
    table = weight_table(layers[:6], "m")
    assert all(row.l2 is not None for row in table.rows)
    assert study_weights(layers, spectrum, "m", most=6).views
