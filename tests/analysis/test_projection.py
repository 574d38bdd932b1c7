"""Projections: the numbers against scikit-learn and numpy, and what cannot be placed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxviz.analysis import projection_maps
from onnxviz.analysis.clusters import adjusted_rand, find_clusters, silhouette
from onnxviz.analysis.projection import project_points, projection_data
from onnxviz.analysis.projection_pca import gram, pca, squared_distances
from onnxviz.analysis.projection_points import (
    Points,
    clean_points,
    filter_points,
    neuron_points,
    preferred_classes,
    sample_points,
)
from onnxviz.analysis.projection_quality import (
    knn_preservation,
    neighbor_order,
    neighbor_ranks,
    outliers,
    same_class,
    trustworthiness,
)
from onnxviz.analysis.sample_labels import SampleLabels, sample_labels
from onnxviz.analysis.unit_values import UnitValues
from onnxviz.analysis.weights import layer_weights
from onnxviz.errors import InputError, SelectionError

RNG = np.random.default_rng(3)
BLOBS = np.concatenate([RNG.normal(size=(20, 6)) + 8 * RNG.normal(size=6) for _ in range(3)])
KINDS = ("a",) * 20 + ("b",) * 20 + ("c",) * 20


def values(matrix: np.ndarray, axes: str = "NC") -> UnitValues:
    return UnitValues("h", matrix.shape, axes, "flat", (np.asarray(matrix, np.float32),))


def points(matrix: np.ndarray, labels: tuple[str | None, ...] | None = None) -> Points:
    names = [f"{i}.png" for i in range(len(matrix))]
    known = None if labels is None else SampleLabels(labels, tuple(sorted({x for x in labels if x})), "folders")
    return sample_points(values(matrix), "Relu", names, known)


@pytest.mark.parametrize("shape", [(40, 7), (12, 300), (9, 9), (5, 1)])
def test_components_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    from sklearn.decomposition import PCA

    matrix = RNG.normal(size=shape) * RNG.uniform(0.1, 4, shape[1]) + 100
    ours, theirs = pca(matrix), PCA(svd_solver="full").fit(matrix)
    rank = len(ours.variances)
    assert rank == min(shape[0] - 1, shape[1])
    np.testing.assert_allclose(ours.ratio, theirs.explained_variance_ratio_[:rank], rtol=1e-8)
    np.testing.assert_allclose(np.abs(ours.scores), np.abs(theirs.transform(matrix)[:, :rank]), atol=1e-8)
    assert ours.total == pytest.approx(matrix.var(axis=0, ddof=1).sum())
    uncentred = pca(np.concatenate([matrix, np.zeros((1, shape[1]))]))  # planted: another data set is seen
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(uncentred.ratio[:1], theirs.explained_variance_ratio_[:1] * 0.97, rtol=1e-3)


def test_shares_of_truncated_components_are_of_the_whole_variance() -> None:
    matrix = RNG.normal(size=(90, 70))
    made = pca(matrix, 10)
    assert made.scores.shape == (90, 10)
    assert made.ratio.sum() == pytest.approx(1)
    kept = made.scores.var(axis=0, ddof=1).sum() / matrix.var(axis=0, ddof=1).sum()
    assert made.ratio[:10].sum() == pytest.approx(kept)
    assert made.ratio[:10].sum() < 0.5  # ten components alone would make it 1
    assert made.needed(kept) == 10


def test_a_million_columns_cost_no_matrix_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = RNG.normal(size=(6, 200_000)).astype(np.float32)
    monkeypatch.setattr("onnxviz.analysis.projection_pca._BLOCK", 1 << 16)  # many blocks
    centred = wide.astype(np.float64) - wide.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(gram(wide), centred @ centred.T, rtol=1e-9, atol=1e-6)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(pca(wide).scores), np.abs((u * s)[:, :5]), rtol=1e-6, atol=1e-6)


def test_distances_are_those_of_scipy() -> None:
    from scipy.spatial.distance import pdist, squareform

    np.testing.assert_allclose(squared_distances(gram(BLOBS)), squareform(pdist(BLOBS, "sqeuclidean")), atol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_trust_is_that_of_scikit_learn(k: int) -> None:
    from sklearn.manifold import trustworthiness as theirs
    from sklearn.neighbors import NearestNeighbors

    drawn = BLOBS[:, :2] + RNG.normal(size=(60, 2))
    true, near = (neighbor_order(squared_distances(gram(x))) for x in (BLOBS, drawn))
    ranks = neighbor_ranks(true)
    assert trustworthiness(ranks, near, k) == pytest.approx(theirs(BLOBS, drawn, n_neighbors=k))
    found = [set(row) for row in NearestNeighbors(n_neighbors=k).fit(BLOBS).kneighbors(return_distance=False)]
    shown = [set(row) for row in NearestNeighbors(n_neighbors=k).fit(drawn).kneighbors(return_distance=False)]
    share = np.mean([len(a & b) / k for a, b in zip(found, shown, strict=True)])
    assert knn_preservation(ranks, near, k) == pytest.approx(share)
    swapped = trustworthiness(neighbor_ranks(near), true, k)  # planted: continuity in place of trustworthiness
    assert swapped != pytest.approx(theirs(BLOBS, drawn, n_neighbors=k), abs=1e-6)


def test_neighbours_of_duplicates_leave_the_point_itself_out() -> None:
    order = neighbor_order(squared_distances(gram(np.zeros((4, 2)))))
    assert order.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_neighbours_of_another_class() -> None:
    line = np.array([[0.0], [1], [2], [10], [11], [12], [1.5]])
    order = neighbor_order(squared_distances(gram(line)))
    labels = ["a", "a", "a", "b", "b", "b", "b"]
    assert outliers(order, labels, 2).tolist() == [6]
    assert same_class(order, labels, 1) == pytest.approx(4 / 7)  # 1 and 2 have 6 beside them, 6 has 1
    assert outliers(order, [*labels[:-1], None], 2).tolist() == []
    assert same_class(order, [None] * 7, 2) is None


def test_silhouette_and_agreement_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    labels = RNG.integers(0, 4, 60)
    labels[0] = 9  # a cluster of one point
    distances = np.sqrt(squared_distances(gram(BLOBS)))
    assert silhouette(distances, labels) == pytest.approx(silhouette_score(BLOBS, labels))
    for_kinds = silhouette(distances, np.repeat([0, 1, 2], 20))
    assert for_kinds == pytest.approx(silhouette_score(BLOBS, np.repeat([0, 1, 2], 20)))
    assert silhouette(distances**2, labels) != pytest.approx(silhouette_score(BLOBS, labels))  # planted
    assert silhouette(distances, np.zeros(60, int)) is None
    other = RNG.integers(0, 3, 60)
    assert adjusted_rand(list(labels), list(other)) == pytest.approx(adjusted_rand_score(labels, other))
    assert adjusted_rand(KINDS, np.repeat([2, 0, 1], 20).tolist()) == 1


def test_clusters_are_found_and_their_number_too() -> None:
    found = find_clusters(pca(BLOBS).scores)
    assert (found.method, found.count, found.noise) == ("k-means", 3, 0)
    assert adjusted_rand(KINDS, found.labels.tolist()) == 1
    assert find_clusters(pca(BLOBS).scores, "kmeans:5").count == 5
    dense = find_clusters(pca(np.concatenate([BLOBS, [[500.0] * 6]])).scores, "hdbscan")
    assert (dense.count, dense.labels[-1]) == (3, -1)
    for wrong in ("spectral", "kmeans:x", "hdbscan:3"):
        with pytest.raises(SelectionError, match="no clustering"):
            find_clusters(BLOBS, wrong)
    with pytest.raises(InputError, match="at least 4 different points"):
        find_clusters(np.zeros((30, 2)))
    with pytest.raises(InputError, match="60 clusters do not fit 60"):
        find_clusters(BLOBS, "kmeans:60")


def test_the_same_seed_gives_the_same_bits() -> None:
    first, again = (
        project_points(clean_points(points(BLOBS, KINDS)), "tsne", clusters="kmeans", perplexity=[5, 9], seed=4)
        for _ in range(2)
    )
    assert [m.settings for m in first.maps] == ["", "perplexity 5", "perplexity 9"]
    for one, other in zip(first.maps, again.maps, strict=True):
        assert one.points.tobytes() == other.points.tobytes()
    assert first.classes is not None
    assert (first.classes.rand, first.classes.same_class) == (1.0, 1.0)
    assert all(m.trustworthiness is not None and m.trustworthiness > 0.9 for m in first.maps)
    arrays, manifest = projection_data(first)
    assert arrays["map/1"].shape == (60, 2)
    assert manifest["maps"][2]["settings"] == "perplexity 9"
    assert manifest["classes"]["labels"] == list(KINDS)


def test_few_points_are_told_and_the_rest_is_drawn() -> None:
    three = project_points(points(np.array([[0.0, 1], [1, 3], [5, 2]])), "tsne", clusters="kmeans")
    assert [m.method for m in three.maps] == ["PCA"]
    assert [(one.name, one.reason.split(",")[0]) for one in three.not_drawn] == [
        ("t-SNE, perplexity 2", "t-SNE needs at least 7 points"),
        ("clusters", "clusters need at least 4 different points"),
    ]
    two = project_points(points(np.array([[0.0, 1], [1, 3]])))
    assert (two.neighbors, two.maps[0].trustworthiness, two.nearest.shape) == (0, None, (2, 0))
    found = project_points(points(BLOBS), "tsne", perplexity=[30, 5])
    assert [m.settings for m in found.maps] == ["", "perplexity 5"]
    assert "it may be from 1 to 19" in found.not_drawn[0].reason
    line = project_points(points(np.arange(20.0)[:, None]), "umap")
    assert "lie on a line" in line.not_drawn[0].reason
    assert line.maps[0].points[:, 1].tolist() == [0.0] * 20
    with pytest.raises(SelectionError, match="no projection 'lda'"):
        project_points(points(BLOBS), "lda")  # type: ignore[arg-type]


def test_without_scikit_learn_pca_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.manifold", "sklearn.cluster", "umap"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    found = project_points(points(BLOBS), "tsne", clusters="kmeans", perplexity=[5])
    assert [m.method for m in found.maps] == ["PCA"]
    assert ["onnxviz[projection]" in one.reason for one in found.not_drawn] == [True, True]
    missing = project_points(points(BLOBS), "umap")
    assert "pip install 'onnxviz[umap]'" in missing.not_drawn[0].reason


def test_umap() -> None:
    if importlib.util.find_spec("umap") is None:  # importing it would load TensorFlow
        pytest.skip("umap-learn is not installed")
    found = project_points(points(BLOBS), "umap", neighbors=[6, 100])
    assert found.maps[1].trustworthiness is not None
    assert found.maps[1].trustworthiness > 0.9
    assert found.maps[1].points.tobytes() == projection_maps.umap(found.pca.scores, 6).tobytes()
    assert "100 neighbours do not fit 60 points" in found.not_drawn[0].reason


def test_what_cannot_be_placed_is_left_out_and_counted() -> None:
    matrix = BLOBS.astype(np.float32).copy()
    matrix[:, 1] = 4.0
    matrix[:40, 2] = np.nan
    matrix[7, 3] = np.inf
    made = clean_points(points(matrix, KINDS))
    assert made.matrix.shape == (59, 4)
    assert 7 not in made.numbers
    assert made.labels is not None
    assert len(made.labels) == len(made.names) == 59
    assert made.notes == (
        "1 of 6 columns left out: mostly NaN or Inf",
        "1 of 60 samples left out: NaN or Inf",
        "1 of 5 values are the same for all samples",
    )
    dead = neuron_points(values(np.array([[0.0, 1, 2], [0, 3, 4], [0, 5, 1]])), "Relu")
    assert clean_points(dead).notes == ("1 of 3 neurons left out: constant",)
    drawn = clean_points(points(RNG.normal(size=(50, 3))), most=20, seed=1)
    assert len(drawn.names) == 20
    assert drawn.names == tuple(f"{i}.png" for i in drawn.numbers)
    same = project_points(points(np.repeat(BLOBS[:3], 2, axis=0)))
    assert "3 of 6 points repeat another exactly" in same.notes


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((5, 3)), "all 5 samples of h hold the same values"),
        (np.ones((1, 3)), "needs at least 2 samples, and h gives 1"),
        (np.full((4, 2), np.nan), "4 of 4 samples left out: NaN or Inf"),
    ],
)
def test_what_has_nothing_to_place_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clean_points(points(matrix))


def test_normalised_points() -> None:
    standard = clean_points(points(BLOBS), normalize="standard").matrix
    np.testing.assert_allclose([standard.mean(axis=0), standard.std(axis=0)], [[0] * 6, [1] * 6], atol=1e-12)
    unit = clean_points(points(BLOBS), normalize="unit").matrix
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    with pytest.raises(SelectionError, match="no normalisation"):
        clean_points(points(BLOBS), normalize="max")  # type: ignore[arg-type]


def test_units_are_told_by_the_class_that_excites_them() -> None:
    labels = sample_labels([f"{kind}/{i}.png" for i, kind in enumerate(KINDS)], "folders")
    assert labels is not None
    matrix = np.stack([np.array(KINDS) == "b", np.array(KINDS) == "c", np.ones(60)]).astype(np.float64)
    assert preferred_classes(matrix, labels) == ("b", "c", None)
    assert preferred_classes(matrix, replace(labels, labels=(None,) * 60)) == (None,) * 3
    made = neuron_points(values(matrix.T), "Relu", labels)
    assert made.what == "a neuron, as its values for 60 samples"
    maps = neuron_points(replace(values(BLOBS), axes="NCH", shape=(60, 2, 3)), "Conv")
    assert maps.names[4] == "channel 1, position 1"


@pytest.mark.parametrize("count", [7, 10, 40, 152, 400])
def test_default_perplexities_fit(count: int) -> None:
    chosen = projection_maps.default_perplexities(count)
    assert 1 <= len(chosen) <= 3
    assert all(2 <= p <= (count - 1) / 3 for p in chosen)
    call: Callable[..., object] = projection_maps.tsne
    if count <= 40:
        assert np.isfinite(call(pca(RNG.normal(size=(count, 4))).scores, chosen[-1])).all()


def test_points_that_differ_by_rounding_are_one_for_k_means() -> None:
    pytest.importorskip("sklearn")
    base = np.random.default_rng(1).normal(size=(4, 6))
    copies = np.repeat(base, 3, axis=0) * (1 + 4e-16 * np.tile(np.arange(3), 4)[:, None])
    assert len(np.unique(copies, axis=0)) > 4
    found = find_clusters(copies)  # warnings are errors here
    assert (found.count, sorted(found.tried)) == (4, [2, 3, 4])
    with pytest.raises(InputError, match="rounding alone"):
        find_clusters(copies, "kmeans:6")


def test_many_points_are_clustered_without_all_their_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    measured: list[int] = []

    def counted(matrix: np.ndarray) -> np.ndarray:
        measured.append(len(matrix))
        return gram(matrix)

    monkeypatch.setattr("onnxviz.analysis.clusters.gram", counted)
    many = np.repeat(8 * np.eye(3), 900, axis=0) + RNG.normal(size=(2700, 3))
    found = find_clusters(many)
    assert (found.count, measured) == (3, [2000])
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    assert found.silhouette == pytest.approx(sklearn_metrics.silhouette_score(many, found.labels), abs=0.02)


def test_filters_of_batched_products_are_their_outputs() -> None:
    weight = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, [2, 5, 3])],
        [helper.make_tensor_value_info("y", 1, [2, 5, 4])], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    made = filter_points(layer_weights(model)[0])
    np.testing.assert_array_equal(made.matrix, weight.swapaxes(1, 2).reshape(8, 3))
