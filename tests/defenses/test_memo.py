"""What a search has found out: kept, taken up again, and refused where it is damaged."""

import pytest

from bdlit.defenses.gms.memo import Memo
from bdlit.errors import BdlitError


def kept(file, *outcomes, identity="a"):
    memo = Memo(file, {"of": identity})
    for key, outcome in outcomes:
        memo.put(key, outcome)
    return Memo(file, {"of": identity})


def test_what_was_put_is_there_again(tmp_path):
    file = tmp_path / "below" / "memo.jsonl"
    Memo(file, {"of": "a"})
    assert not file.exists()  # nothing was found out
    again = kept(file, ("x", "01."), ("y", "111"))
    assert (again.get("x"), again.get("y"), again.get("z")) == ("01.", "111", None)
    assert Memo(file, {"of": "b"}).get("x") is None


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path):
    file = tmp_path / "memo.jsonl"
    kept(file, ("x", "01"), ("y", "11"))
    file.write_text(file.read_text()[:-4])
    memo = Memo(file, {"of": "a"})
    assert (memo.get("x"), memo.get("y")) == ("01", None)
    memo.put("y", "10")
    assert Memo(file, {"of": "a"}).get("y") == "10"


@pytest.mark.parametrize(
    "damage", [b'["x", "012"]\n', b'["x", 5]\n', b"[]\n", b'{"x": \n["z", "1"]\n', b"\xff\xfe\n"]
)
def test_a_damaged_file_is_told(tmp_path, damage):
    file = tmp_path / "memo.jsonl"
    kept(file, ("a", "01"))
    file.write_bytes(file.read_bytes() + damage)
    with pytest.raises(BdlitError, match=r"memo\.jsonl.*remove"):
        Memo(file, {"of": "a"})
