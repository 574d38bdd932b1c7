from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxviz.errors import OutputError
from onnxviz.graph.files import atomic_folder, atomic_path, atomic_write, check_output


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_several_files_appear_together(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "m.onnx") as folder:
        (folder / "m.onnx").write_text("graph")
        (folder / "m.onnx.data").write_text("weights")
        assert list(tmp_path.glob("m.*")) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


@pytest.mark.parametrize(("name", "what"), [("no/such/a.txt", "does not exist"), (".", "is a folder")])
def test_targets_that_cannot_be_written(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(OutputError, match=what):
        atomic_write(tmp_path / name, "x")
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed_and_special_files_refused(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    atomic_write(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no regular file"):
        atomic_write(tmp_path / "pipe", "x")


def test_endings_are_checked_before_the_work(tmp_path: Path) -> None:
    check_output(tmp_path / "a.PNG", (".png",))
    with pytest.raises(OutputError, match=r"use \.png, \.svg"):
        check_output(tmp_path / "a.gif", (".png", ".svg"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            check_output(tmp_path / "a.png")
    finally:
        tmp_path.chmod(0o700)
