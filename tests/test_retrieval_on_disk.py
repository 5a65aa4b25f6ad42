"""Files and folders that are seen whole or not at all, and what a writer that was stopped leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.on_disk import UNFINISHED, folder_written_whole, unfinished_name, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("options", [{}, {"durable": True}, {"alone": True}])
def test_a_file_is_replaced_when_it_is_finished(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with written_whole(path, **options) as made:
        made.write_text("new")
        assert path.read_text() == "old"
        assert made.match(UNFINISHED)
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError), written_whole(path, **options) as made:
        made.write_text("half")
        raise RuntimeError
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_a_lone_writer_overwrites_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / ".file.tmp"
    left.write_text("half of something that was longer")
    with written_whole(tmp_path / "file", alone=True) as made:
        assert made == left
        made.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_replaced_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with folder_written_whole(path) as made:
            (made / content).write_text(content)
    assert names(path) == ["new"]
    with pytest.raises(RuntimeError), folder_written_whole(path) as made:
        (made / "half").write_text("half")
        raise RuntimeError
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_may_not_be_replaced_is_not(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with folder_written_whole(path, replace=False) as made:  # an empty one may
        (made / "first").write_text("first")
    with pytest.raises(OSError, match="not empty"), folder_written_whole(path, replace=False) as made:
        (made / "second").write_text("second")
    assert names(path) == ["first"]
    assert names(tmp_path) == ["folder"]


def test_unfinished_names_differ(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert len({unfinished_name(path) for _ in range(10)}) == 10
