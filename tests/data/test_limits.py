import pytest

from bdlit.attacks import BadNet
from bdlit.data import DemoReviews, PromptedClassification
from bdlit.errors import BdlitError

SIZES = {"train_size": 40, "validation_size": 10, "test_size": 30}


def test_a_part_of_a_split_is_the_same_for_every_seed():
    whole = DemoReviews(**SIZES)
    whole.setup()
    parts = [DemoReviews(**SIZES, limits={"train": 12, "test": 7}, seed=seed) for seed in (0, 1)]
    for part in parts:
        part.setup()
        assert len(part.train_rows) == 12
        assert part.val_rows == whole.val_rows
        assert [row for row in whole.test_rows["clean"] if row in part.test_rows["clean"]]
    assert parts[0].test_rows == parts[1].test_rows
    assert len(parts[0].test_rows["clean"]) == 7


def test_the_clean_pool_is_taken_out_of_the_part_and_an_attack_sees_it_alone():
    inner = DemoReviews(**SIZES)
    attack = BadNet(column="text_pair", target="negative")
    data = PromptedClassification(
        data=inner, limits={"train": 20, "test": 10}, clean_pool_size=5, attack=attack
    )
    data.setup()
    assert (len(data.clean_pool), len(data.test_rows["clean"])) == (5, 10)
    assert len(data.train_rows) <= 15
    assert len(data.test_rows["badnet"]) <= 10


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"trian": 3}, "no split 'trian': did you mean 'train'"), ({"test": 0}, "limits.test 0 is")],
)
def test_what_cannot_be_is_refused(limits, says):
    with pytest.raises(BdlitError, match=says):
        DemoReviews(limits=limits)
