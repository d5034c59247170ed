"""A file that is written takes the place of a plain file, and of nothing else."""

import os

import pytest

from bdlit.atomic import whole_file
from bdlit.errors import BdlitError


def write(path):
    with whole_file(path) as part:
        part.write_text("new")


def test_a_new_file_and_an_old_one(tmp_path):
    for _ in range(2):
        write(tmp_path / "page.html")
        assert (tmp_path / "page.html").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_plain_file_stays(tmp_path, kind):
    path, other = tmp_path / "page.html", tmp_path / "other.html"
    if "link" in kind:
        if kind == "link":
            other.write_text("mine")
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(BdlitError, match=r"page\.html is (a link|no plain file)"):
        write(path)
    assert path.is_symlink() == ("link" in kind)
    assert not other.exists() or other.read_text() == "mine"
