import pytest

from bdlit.attacks import BadNet, ConflictSubtraction
from bdlit.defenses import GMS, TIES, WAG, ModuleSubstitution
from bdlit.errors import BdlitError
from bdlit.study.cells import Cell, cells, needs
from bdlit.study.plan import Model, Plan, Start, Treatment, shard_of
from stage_methods import LearnedWord


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


def test_benign_is_what_nobody_attacked_at_any_stage():
    models = {
        "clean": Model(),
        "rows": Model(attack=BadNet()),
        "edited": Model(attack=ConflictSubtraction(attack=BadNet())),
        "learned": Model(attack=LearnedWord()),
        "of-clean": Model(tuned_from="clean"),
        "of-rows": Model(tuned_from="rows"),
        "of-purified": Model(tuned_from=("rows", "w")),
        "said": Model(tuned_from="rows", benign=True),
    }
    made = plan(models=models, defenses={"w": Treatment(defense=WAG(), others=["clean"])})
    assert [name for name in models if made.is_benign(name)] == ["clean", "of-clean", "said"]
    assert made.suspect_names == ["rows", "edited", "learned", "of-rows"]
    with pytest.raises(BdlitError, match="floor: 'of-rows' is attacked"):
        plan(models={**models, "of-purified": Model()}, floor="of-rows")
    with pytest.raises(BdlitError, match="cannot be `benign: true`"):
        Model(attack=BadNet(), benign=True)


def test_release_of_a_model_is_an_attack_now():
    with pytest.warns(UserWarning, match="put ConflictSubtraction around `attack`"):
        model = Model(attack=BadNet(), release=ConflictSubtraction(rows=7))
    assert model.attack == ConflictSubtraction(rows=7, attack=BadNet())


def chain(**options):
    models = {
        "again": Model(attack=BadNet(rate=0.01), tuned_from=("a", "moved")),
        "benign": Model(),
        "user": Model(tuned_from="a"),
        "a": Model(attack=BadNet()),
        "b": Model(attack=BadNet(name="b")),
    }
    gms = {"gms": Treatment(defense=GMS(), others=["benign"])}
    moved = Treatment(
        defense=ModuleSubstitution(), others=["benign"], strategy_from=options.pop("of")
    )
    start = Start(victim=None, data=None)
    defenses = {"moved": moved, **gms}
    return plan(
        models=models,
        defenses=defenses,
        start=start,
        floor="benign",
        suspects=["a", "b"],
        **options,
    )


def test_cells_stand_after_all_that_they_need():
    made = chain(of=("b", "gms"), seeds=[0, 1])
    found = cells(made)
    assert len(set(found)) == len(found) == 2 * (6 + 5 + 2 * 2)
    place = {cell: i for i, cell in enumerate(found)}
    for cell in found:
        assert all(place[need] < place[cell] for need in needs(made, cell)), cell
    for seed in (0, 1):
        later = [
            Cell("fit", "start", seed),
            Cell("fit", "b", seed),
            Cell("defend", "b", seed, "gms"),
            Cell("defend", "a", seed, "moved"),
            Cell("fit", "again", seed),
            Cell("measure", "again", seed),
        ]
        assert [place[cell] for cell in later] == sorted(place[cell] for cell in later)
        assert place[Cell("fit", "a", seed)] < place[Cell("fit", "user", seed)]
        assert place[Cell("measure", "benign", seed)] < place[Cell("measure", "a", seed)]


def test_a_circle_is_told():
    round_trip = {"x": Model(tuned_from="y"), "y": Model(tuned_from="x"), "z": Model()}
    with pytest.raises(BdlitError, match="round in a circle"):
        plan(models=round_trip)


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
