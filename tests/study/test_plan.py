import pytest

from bdlit.attacks import BadNet
from bdlit.defenses import TIES, WAG
from bdlit.errors import BdlitError
from bdlit.study.plan import Model, Plan, Treatment, shard_of


def plan(**options):
    settings = {
        "name": "s",
        "data": None,
        "victim": None,
        "trainer": None,
        "models": {"benign": Model(), "a": Model(attack=BadNet()), "b": Model(poisoned_train="b")},
    }
    return Plan(**{**settings, **options})


def test_suspects_are_the_attacked_models():
    assert plan().suspect_names == ["a", "b"]
    assert plan(suspects=["benign"]).suspect_names == ["benign"]


def test_others_leave_the_suspect_out():
    made = plan(
        defenses={
            "all": Treatment(defense=WAG(), others="all"),
            "one": Treatment(defense=TIES(), others=["benign"]),
        }
    )
    assert made.others_of("all", "a") == ["benign", "b"]
    assert made.others_of("one", "b") == ["benign"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "no models"),
        ({"seeds": []}, "no seeds"),
        ({"models": {"start": Model()}}, "name of the common start"),
        ({"suspects": ["c"]}, "no model 'c'"),
        ({"floor": "bening"}, "did you mean 'benign'"),
        ({"defenses": {"w": Treatment(defense=WAG(), others=["x"])}}, "no model 'x'"),
        ({"defenses": {"w": Treatment(defense=WAG(), others=["a"])}}, "no other model for suspect"),
    ],
)
def test_wrong_plans_are_told(options, message):
    with pytest.raises(BdlitError, match=message):
        plan(**options)


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "0/0"])
def test_wrong_shards_are_told(text):
    with pytest.raises(BdlitError, match="is no shard"):
        shard_of(text)
