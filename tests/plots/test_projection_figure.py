"""What projections draw: marks, keys, limits, pictures that do not overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxviz.analysis.projection import Projection, project_points
from onnxviz.analysis.projection_points import sample_points
from onnxviz.analysis.sample_labels import SampleLabels
from onnxviz.analysis.unit_values import UnitValues
from onnxviz.plots.projection import plot_projection
from onnxviz.plots.projection_marks import groups, placed

RNG = np.random.default_rng(9)


def projection(count: int = 40, classes: int = 4, **options: object) -> Projection:
    matrix = RNG.normal(size=(count, 5)).astype(np.float32)
    labels = tuple(f"kind {i % classes}" for i in range(count))
    values = UnitValues("h", matrix.shape, "NC", "flat", (matrix,))
    known = SampleLabels(labels, tuple(sorted(set(labels))), "folders")
    return project_points(sample_points(values, "Relu", [str(i) for i in range(count)], known), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [1, 3, 20, 33])
def test_every_point_is_in_one_group_and_groups_look_different(classes: int) -> None:
    marks = groups(projection(66, classes), "labels")
    assert sorted(np.concatenate([mark.rows for mark in marks]).tolist()) == list(range(66))
    assert len({(mark.color, mark.shape) for mark in marks}) == len(marks) == min(classes, 20)
    assert (marks[-1].name == "14 other classes") == (classes == 33)


def test_maps_show_all_points_on_one_scale() -> None:
    found = projection(clusters="kmeans")
    axes = plot_projection(found).axes[0]
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
    for point in found.maps[0].points:
        assert np.abs(drawn - point).max(axis=1).min() < 1e-9
    across, up = np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
    assert across == pytest.approx(up)
    bars = plot_projection(found).axes[1].patches
    assert [bar.get_height() for bar in bars] == pytest.approx((100 * found.pca.ratio).tolist())
    texts = [text.get_text() for text in plot_projection(found).texts]
    assert texts[0] == "PCA of 40 samples of h"
    assert any("seed 0" in text for text in texts)
    assert any("trustworthiness" in text for text in texts)


def test_two_maps_stand_side_by_side_and_four_below() -> None:
    two = plot_projection(projection(method="tsne", perplexity=[5]))
    boxes = [axes.get_position() for axes in two.axes[:2]]
    assert boxes[0].y0 == pytest.approx(boxes[1].y0)
    four = plot_projection(projection(method="tsne", perplexity=[3, 5, 7, 9]))
    rows = {round(float(axes.get_position().y0), 3) for axes in four.axes[:5]}
    assert len(rows) == 3
    assert any("mean nothing" in text.get_text() for text in four.texts)


def test_pictures_do_not_overlap_and_as_many_as_can_are_shown() -> None:
    points = RNG.normal(size=(300, 2)) * 3
    chosen = placed(points, 1.0, 0.5)
    apart = np.abs(points[chosen][:, None] - points[chosen][None])
    clear = (apart[..., 0] >= 1.0) | (apart[..., 1] >= 0.5)
    np.fill_diagonal(clear, True)
    assert clear.all()
    for i in set(range(300)) - set(chosen.tolist()):  # none of the others would have had room
        near = np.abs(points[chosen] - points[i])
        assert ((near[:, 0] < 1.0) & (near[:, 1] < 0.5)).any()
    assert placed(points, 1.0, 0.5, np.array([7]))[0] == 7


def test_samples_without_a_class_are_grey() -> None:
    found = projection()
    assert found.classes is not None
    partly = replace(found, classes=replace(found.classes, labels=(None, *found.classes.labels[1:])))
    assert groups(partly, "labels")[-1].name == "no class"


def test_clusters_of_one_cloud_are_told_to_be_none() -> None:
    pytest.importorskip("sklearn")
    cloud = replace(projection(clusters="kmeans"), classes=None)
    assert cloud.clusters is not None
    for silhouette, clear in ((0.1, False), (0.6, True)):
        found = replace(cloud, clusters=replace(cloud.clusters, silhouette=silhouette))
        told = " ".join(" ".join(text.get_text() for text in plot_projection(found).texts).split())
        assert f"silhouette {silhouette:.2f}" in told
        assert ("no clear structure" not in told) == clear
