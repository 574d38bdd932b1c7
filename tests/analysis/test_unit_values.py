"""The answers of units to samples, and the classes of samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxviz.analysis.sample_labels import sample_labels
from onnxviz.analysis.unit_values import Over, unit_values
from onnxviz.errors import InputError, MemoryLimitError, SelectionError
from onnxviz.graph.io import open_model
from onnxviz.runtime.batches import load_batches

RNG = np.random.default_rng(0)
LENET = Path(__file__).parents[2] / "models/lenet5.onnx"


@pytest.mark.parametrize(
    ("over", "expected"),
    [("mean", lambda a: a.mean((2, 3))), ("max", lambda a: a.max((2, 3))), ("energy", lambda a: (a**2).mean((2, 3)))],
)
def test_units_of_maps(over: Over, expected: object) -> None:
    array = RNG.normal(size=(5, 7, 3, 4))
    first, second = unit_values(array[:2], over=over), unit_values(array[2:], over=over)
    np.testing.assert_allclose(first.merge(second).matrix, expected(array), rtol=1e-6, atol=1e-6)  # type: ignore[operator]
    nhwc = unit_values(np.moveaxis(array, 1, -1), over=over, layout="NHWC")
    np.testing.assert_allclose(nhwc.matrix, expected(array), rtol=1e-6, atol=1e-6)  # type: ignore[operator]
    with pytest.raises(AssertionError):  # the wrong axes are seen
        np.testing.assert_allclose(first.matrix, expected(np.swapaxes(array, 2, 0)[:2, :7]), rtol=1e-6)  # type: ignore[operator]


def test_units_of_recurrent_layers_and_of_volumes() -> None:
    states = RNG.normal(size=(9, 2, 3, 4))  # time, directions, batch, units
    made = unit_values(states, op_type="LSTM")
    np.testing.assert_allclose(made.matrix, states.mean(0).transpose(1, 0, 2).reshape(3, 8), rtol=1e-5, atol=1e-6)
    last = unit_values(states[0], op_type="GRU")
    np.testing.assert_allclose(last.matrix, states[0].transpose(1, 0, 2).reshape(3, 8), rtol=1e-5, atol=1e-6)
    volume = RNG.normal(size=(2, 3, 4, 5, 6))  # (N, D, H, W, C)
    np.testing.assert_allclose(unit_values(volume, layout="NHWC").matrix, volume.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)


def test_flat_units_keep_every_position_and_nan_stays() -> None:
    array = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    array[1, 2, 0] = np.nan
    flat = unit_values(array, over="flat", layout="NCHW").matrix
    np.testing.assert_array_equal(flat, array.reshape(2, 12))
    assert np.isnan(unit_values(array, layout="NCHW").matrix).tolist() == [[False] * 3, [False, False, True]]


def test_what_has_no_units_is_told() -> None:
    with pytest.raises(SelectionError, match="no batch axis"):
        unit_values(np.ones((3, 4)), "w", layout="HW")
    with pytest.raises(SelectionError, match="holds object"):
        unit_values(np.array([["a"]], dtype=object), "text")
    with pytest.raises(SelectionError, match="is empty"):
        unit_values(np.ones((0, 4)), "none")
    with pytest.raises(SelectionError, match="2 units for one sample and 3 for another"):
        unit_values(np.ones((1, 2)), "x").merge(unit_values(np.ones((1, 3)), "x"))
    wide = unit_values(np.broadcast_to(np.float32(1), (1, 1 << 20)), "wide")
    many = replace(wide, parts=wide.parts * 200)
    with pytest.raises(MemoryLimitError, match="too many to keep"):
        many.merge(many)


def test_a_folder_of_class_folders_gives_names_pictures_and_labels(tmp_path: Path) -> None:
    for name, level in (("one/b.png", 10), ("one/a.png", 20), ("two/a.png", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (32, 32), level).save(tmp_path / name)
    (tmp_path / "two/.hidden.png").write_bytes(b"no picture")
    batches = load_batches(open_model(LENET), [tmp_path], batch=2)
    assert batches.names == ("one/a.png", "one/b.png", "two/a.png")
    assert [batches.picture(i)[0, 0, 0] for i in range(3)] == [20, 10, 30]  # type: ignore[index]
    found = sample_labels(batches.names)
    assert found is not None
    assert (found.labels, found.classes, found.indices) == (("one", "one", "two"), ("one", "two"), (0, 0, 1))


@pytest.mark.parametrize(
    "text",
    ["one/a.png,cat\ntwo/a.png,dog\n", "label,file\ncat,one/a.png\ndog,two/a.png\n", "cat\ndog\n", "0,cat\n1,dog\n",
     "class\ncat\ndog\n", "\ufefffile,x,class\none/a.png,7,cat\n\ntwo/a.png,8,dog\n"],
)  # fmt: skip
def test_labels_of_a_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    found = sample_labels(["one/a.png", "two/a.png"], tmp_path / "labels.csv")
    assert found is not None
    assert found.labels == ("cat", "dog")


def test_labels_that_do_not_match_are_told(tmp_path: Path) -> None:
    table, names = tmp_path / "labels.csv", ["a.png", "b.png", "c.png"]
    table.write_text("a,10\nb.png,9\nz,1\n")
    found = sample_labels(names, table)
    assert found is not None
    assert (found.labels, found.classes, found.indices) == (("10", "9", None), ("9", "10"), (1, 0, -1))
    assert found.notes == (
        "1 of 3 samples have no label in labels.csv", "1 labels of labels.csv belong to no sample",
    )  # fmt: skip
    for text, message in (
        ("x,1\ny,2\n", "names none of the 3 samples"), ("1\n2\n", "2 labels for 3 samples"), ("", "holds no labels"),
        ("a,1\na,2\n", "two labels: 1 and 2"), ("a,1\nb\n", "a line without a label"),
    ):  # fmt: skip
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            sample_labels(names, table)
    with pytest.raises(InputError, match="cannot be read"):
        sample_labels(names, tmp_path / "none.csv")
    assert sample_labels(names) is None
    with pytest.raises(InputError, match="folder a class"):
        sample_labels(names, "folders")


def test_many_batches_merge_without_copying_what_came_before() -> None:
    parts = [unit_values(np.full((2, 3), i, np.float32)) for i in range(400)]
    every = parts[0]
    halfway = None
    for i, part in enumerate(parts[1:], 1):
        every = every.merge(part)
        halfway = every if i == 199 else halfway
    assert halfway is not None
    assert (every.samples, halfway.samples, len(halfway.parts)) == (800, 400, 200)
    other = halfway.merge(parts[0])  # what grew since is not in the way, nor changed
    assert other.matrix[-1].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(every.matrix[:, 0], np.repeat(np.arange(400), 2))
    assert every.parts._items is not other.parts._items  # type: ignore[attr-defined]
    assert every.parts._items is halfway.parts._items  # type: ignore[attr-defined]


def test_both_directions_of_a_recurrence_count_as_units() -> None:
    made = unit_values(np.zeros((7, 2, 3, 4), np.float32), op_type="LSTM")
    assert (made.axes, made.units, made.channels, made.samples) == ("TdNC", 8, 8, 3)
