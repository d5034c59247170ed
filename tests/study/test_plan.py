import pytest

from bdlit.attacks import BadNet
from bdlit.defenses import TIES, WAG, ModuleSubstitution
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


def test_models_tuned_from_a_purified_one_are_no_suspects_and_help_nobody():
    again = Model(attack=BadNet(rate=0.001), tuned_from=("a", "all"))
    models = {"benign": Model(), "a": Model(attack=BadNet()), "again": again}
    made = plan(models=models, defenses={"all": Treatment(defense=WAG(), others="all")})
    assert made.suspect_names == ["a"]
    assert made.others_of("all", "a") == ["benign"]


ONE = {"w": Treatment(defense=WAG(), others=["benign"])}
MOVED = Treatment(defense=ModuleSubstitution(), others=["benign"], strategy_from=("a", "moved"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "no models"),
        ({"seeds": []}, "no seeds"),
        ({"models": {"start": Model()}}, "name of the common start"),
        ({"suspects": ["c"]}, "no model 'c'"),
        ({"floor": "bening"}, "did you mean 'benign'"),
        ({"defenses": {"w": Treatment(defense=WAG(), others=["x"])}}, "no model 'x'"),
        ({"models": {"c": Model(tuned_from=("x", "w"))}, "defenses": ONE}, "no model 'x'"),
        (
            {"models": {"c": Model(), "d": Model(tuned_from=("c", "w"))}, "suspects": ["d"]},
            "models.d.tuned_from: 'c' is not among the suspects",
        ),
        (
            {
                "models": {"c": Model(attack=BadNet()), "d": Model(tuned_from=("c", "W"))},
                "defenses": {"w": Treatment(defense=WAG(), others="all")},
                "suspects": ["c"],
            },
            "no other defense 'W'; did you mean 'w'",
        ),
        ({"defenses": {**ONE, "moved": MOVED}}, "no other defense 'moved'; choose from: w"),
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
