"""The classes of samples as people write them down."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxviz.analysis.sample_labels import sample_labels
from onnxviz.errors import InputError


@pytest.mark.parametrize(
    ("names", "text", "labels"),
    [
        # a number names a file where there is one of that name, never a place beside it
        (["1.png", "12.png", "30.png"], "1,dog\n30,cat\n", ("dog", None, "cat")),
        (["a.png", "b.png"], "0,cat\n1,dog\n", ("cat", "dog")),
        # a class that is called as a column often is
        (["a.png", "b.png"], "a.png,y\nb.png,n\n", ("y", "n")),
        (["a.png", "b.png"], "file,y\na.png,no\nb.png,yes\n", ("no", "yes")),
        # spreadsheets of other countries
        (["a.png", "b.png"], "\ufefffile;label\na.png;cat\nb.png;dog\n", ("cat", "dog")),
        (["a.png", "b.png"], "a.png\tcat\nb.png\tdog\n", ("cat", "dog")),
        # an empty cell is no class
        (["a.png", "b.png"], "a.png,cat\nb.png,\n", ("cat", None)),
        (["cat/a.png", "dog/b.png"], ".\\cat\\a.png,1\n./dog/b.png,2\n", ("1", "2")),
        (['=1"+,2.png', "b.png"], '"=1""+,2.png","a,b"\nb.png,c\n', ("a,b", "c")),
    ],
)
def test_tables(tmp_path: Path, names: list[str], text: str, labels: tuple[str | None, ...]) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = sample_labels(names, tmp_path / "t.csv")
    assert found is not None
    assert found.labels == labels
    assert set(found.classes) == {label for label in labels if label is not None}


def test_labels_that_belong_to_no_sample_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a.png,cat\na,cat\nz.png,dog\n")
    found = sample_labels(["a.png", "b.png"], tmp_path / "t.csv")
    assert found is not None
    assert found.notes == ("1 of 2 samples have no label in t.csv", "2 labels of t.csv belong to no sample")


def test_classes_have_one_order_whatever_they_are_called() -> None:
    classes = ["nan", "10", "inf", "9", "b", "-1"]
    for turned in (classes, classes[::-1], sorted(classes)):
        found = sample_labels([f"{name}/x.png" for name in turned])
        assert found is not None
        assert found.classes == ("-1", "9", "10", "b", "inf", "nan")


def test_a_header_is_not_counted_among_the_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("class\na\nb\n")
    with pytest.raises(InputError, match="has 2 labels for 3 samples"):
        sample_labels(["1", "2", "3"], tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("y\nn\ny\n")  # classes, the first of which is called as a column often is
    found = sample_labels(["1", "2", "3"], tmp_path / "t.csv")
    assert found is not None
    assert found.labels == ("y", "n", "y")
