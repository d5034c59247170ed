"""Conflict-model merging: what is trained, what is merged, and what is found again."""

import pytest
import torch

from bdlit.attacks import BadNet
from bdlit.data.demo import DemoReviews
from bdlit.defenses import (
    GMS,
    SLERP,
    TIES,
    AlongDepth,
    ConflictModel,
    Fisher,
    Linear,
    Resources,
    run_defense,
)
from bdlit.defenses.conflict.merge_share import hold_back
from bdlit.errors import BdlitError
from bdlit.merging import average, slerp
from bdlit.recipe import Recipe
from bdlit.training import Train, train
from bdlit.types import Example
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights, swapped

RECIPE = Recipe(epochs=2, learning_rate=1e-2, batch_size=8, schedule="constant")
SETTINGS = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 8}
HEAD = "classifier.weight"


@pytest.fixture(scope="module")
def victim(tiny_start):
    """A victim on the tiny start; nothing here depends on what it has learned."""
    victim = ClassifierVictim(str(tiny_start), max_length=64, labels=["negative", "positive"])
    victim.configure_model()
    return victim


@pytest.fixture(scope="module")
def rows():
    data = DemoReviews(
        train_size=60, validation_size=0, test_size=4, clean_pool_size=24, attack=BadNet()
    )
    data.setup()
    return data.clean_pool


@pytest.fixture(scope="module")
def base(victim):
    """The start without a head, as a pre-trained checkpoint comes."""
    weights = {name: tensor.clone() for name, tensor in model_weights(victim.network()).items()}
    return {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}


def finetune(victim, start, rows, recipe, workspace=None):
    return train(victim, rows, start=start, recipe=recipe, workspace=workspace)


def test_finetuning_repeats_and_leaves_the_victim_and_the_random_state_alone(victim, base, rows):
    before, state = fingerprint(model_weights(victim.network())), torch.get_rng_state()
    first = finetune(victim, base, rows, RECIPE)
    assert fingerprint(first) == fingerprint(finetune(victim, base, rows, RECIPE))
    other = Recipe(epochs=2, learning_rate=1e-2, batch_size=8, seed=1)
    assert fingerprint(first) != fingerprint(finetune(victim, base, rows, other))
    assert fingerprint(model_weights(victim.network())) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert set(first) == set(model_weights(victim.network()))


def test_the_victims_weights_have_no_part_in_it(victim, base, rows):
    expected = fingerprint(finetune(victim, base, rows, RECIPE))
    zeros = {n: torch.zeros_like(t) for n, t in model_weights(victim.network()).items()}
    with swapped(victim.network(), zeros):
        assert fingerprint(finetune(victim, base, rows, RECIPE)) == expected


def test_it_learns_its_rows(victim, base, rows):
    recipe = Recipe(epochs=16, learning_rate=1e-2, batch_size=8, schedule="constant")
    losses = []
    for weights in (finetune(victim, base, rows, Recipe(epochs=1, learning_rate=1e-9)), None):
        trained = weights or finetune(victim, base, rows, recipe)
        with swapped(victim.network(), trained), torch.inference_mode():
            losses.append(victim.loss(victim.tokenize(rows)).mean().item())
    assert losses[1] < 0.7 * losses[0]


def test_an_interrupted_training_goes_on_to_the_same_result(
    victim, base, rows, tmp_path, monkeypatch
):
    whole = finetune(victim, base, rows, RECIPE)
    begin = ClassifierVictim.on_train_epoch_start

    def stopped(self):
        begin(self)
        if self.current_epoch == 1:
            raise RuntimeError("stopped by hand")

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierVictim, "on_train_epoch_start", stopped)
        with pytest.raises(RuntimeError, match="stopped by hand"):
            finetune(victim, base, rows, RECIPE, tmp_path)
    assert (tmp_path / "last.ckpt").is_file()
    assert fingerprint(finetune(victim, base, rows, RECIPE, tmp_path)) == fingerprint(whole)


@pytest.mark.parametrize(
    ("merge", "restated"),
    [
        (Linear(t=0.3), lambda a, b: average([a, b], [0.7, 0.3])),
        (SLERP(t=0.6), lambda a, b: slerp(a, b, 0.6)),
    ],
    ids=["Linear", "SLERP"],
)
def test_the_suspect_is_merged_with_the_tuned_base(merge, restated, victim, base, rows):
    suspect = model_weights(victim.network())
    defense = ConflictModel(merge=merge, head_from="drawn", **SETTINGS)
    given = Resources(base=base, clean=rows, victim=victim, train=Train(victim))
    defended = run_defense(defense, suspect, given)
    expected = restated(suspect, finetune(victim, base, rows, RECIPE))
    assert fingerprint(defended.weights) == fingerprint(expected)
    assert defense.name == f"Conflict-{merge.name}"
    assert defended.notes["conflict"]["clean"] == 24
    assert defended.notes["conflict"]["head"] == "drawn"


def headed(base, head):
    """The base with a head, and what else it lacks, of another model."""
    return {name: base.get(name, tensor) for name, tensor in head.items()}


def pairs_of(conflict):
    """Keep what a conflict model begins with, in place of training it."""

    def train(rows, *, start, recipe):
        conflict.append({name: start[name].clone() for name in start})
        return conflict[-1]

    return train


def test_the_head_begins_with_the_suspects_where_the_family_is_not_known(victim, base, rows):
    suspect = {n: t + 0.5 for n, t in model_weights(victim.network()).items()}
    for head_from in ("suspect", "family"):
        began = []
        given = Resources(base=base, clean=rows, train=pairs_of(began))
        defended = run_defense(ConflictModel(head_from=head_from, **SETTINGS), suspect, given)
        assert defended.notes["conflict"]["head"] == "suspect's"
        assert fingerprint(began[0]) == fingerprint(headed(base, suspect))
        expected = average([suspect, headed(base, suspect)])
        assert fingerprint(defended.weights) == fingerprint(expected)


def test_the_head_begins_as_the_suspects_own_training_did(victim, base, rows):
    """What the training began with has the head that all models of the family began with."""
    suspect = {n: t + 0.5 for n, t in model_weights(victim.network()).items()}
    family = {n: t - 0.5 for n, t in model_weights(victim.network()).items()}
    defense = ConflictModel(**SETTINGS)
    train = Train(victim, start=lambda: family)
    given = Resources(base=base, clean=rows, victim=victim, train=train)
    defended = run_defense(defense, suspect, given)
    assert defended.notes["conflict"]["head"] == "family's"
    expected = average([suspect, finetune(victim, headed(base, family), rows, RECIPE)])
    assert fingerprint(defended.weights) == fingerprint(expected)


def bare(tiny_start, folder):
    """The tiny start saved as a pre-trained checkpoint is: without a head."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(tiny_start).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_start).save_pretrained(folder)
    return folder


def on(folder, seed):
    made = ClassifierVictim(
        str(folder), max_length=64, labels=["negative", "positive"], init_seed=seed
    )
    made.configure_model()
    return made


@pytest.mark.parametrize("seed", [0, 5])
def test_the_familys_draw_follows_from_its_seed(tiny_start, base, rows, tmp_path, seed):
    """A victim on a bare checkpoint draws its head; base and `init_seed` give the same again."""
    folder = bare(tiny_start, tmp_path / "bare")
    family = {n: t.clone() for n, t in model_weights(on(folder, seed).network()).items()}
    assert not torch.equal(family[HEAD], model_weights(on(folder, seed + 1).network())[HEAD])
    suspect = {n: t + 0.5 for n, t in family.items()}
    runs = on(folder, seed + 1)  # whatever runs the suspect: its own draw has no part in it
    state = torch.get_rng_state()
    train = Train(runs, start=lambda: base, recipe=Recipe(rank=None, init_seed=seed))
    given = Resources(base=base, clean=rows, victim=runs, train=train)
    defended = run_defense(ConflictModel(**SETTINGS), suspect, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert defended.notes["conflict"]["head"] == "family's"
    assert set(family) - set(base) == {HEAD, "classifier.bias"}
    expected = average([suspect, finetune(runs, headed(base, family), rows, RECIPE)])
    assert fingerprint(defended.weights) == fingerprint(expected)
    # A recipe that does not name the family's seed draws a head of its own.
    drawn = runs.twin(base, Recipe(rank=None, seed=seed)).network()
    assert not torch.equal(model_weights(drawn)[HEAD], family[HEAD])
    again = runs.twin(base, Recipe(rank=None, seed=9, init_seed=seed)).network()
    assert fingerprint(model_weights(again)) == fingerprint(headed(base, family))


def test_a_head_that_the_base_has_stays_the_bases(victim, rows):
    suspect = {n: t + 0.5 for n, t in model_weights(victim.network()).items()}
    began = []
    whole = {n: t - 0.5 for n, t in suspect.items()}
    given = Resources(base=whole, clean=rows, train=pairs_of(began))
    for head_from in ("family", "suspect", "drawn"):
        defended = run_defense(ConflictModel(head_from=head_from, **SETTINGS), suspect, given)
        assert defended.notes["conflict"]["head"] == "base's"
        assert fingerprint(began[-1]) == fingerprint(whole)


def test_a_conflict_model_serves_the_next_suspect(victim, base, rows, tmp_path):
    calls = []

    suspect = model_weights(victim.network())
    other = {name: tensor + 1 for name, tensor in suspect.items()}

    class Counted(Train):
        def __call__(self, rows, **given):
            calls.append(given["recipe"])
            return super().__call__(rows, **given)

    def defended(suspect, rows, **settings):
        train = Counted(victim, start=lambda: other)
        given = Resources(base=base, clean=rows, train=train, archive=tmp_path)
        return run_defense(ConflictModel(**SETTINGS | settings), suspect, given)

    first, second = defended(suspect, rows), defended(other, rows)
    assert len(calls) == 1
    assert not first.notes["conflict"]["found"]
    assert second.notes["conflict"]["found"]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    expected = average([other, open_weights(str(folder))])
    assert fingerprint(second.weights) == fingerprint(expected)
    defended(suspect, [*rows[1:], Example("dull", 0)])
    defended(suspect, rows, seed=1)
    assert len(calls) == 3
    # A head of the suspect's own makes a conflict model of its own.
    defended(suspect, rows, head_from="suspect")
    assert not defended(suspect, rows, head_from="drawn").notes["conflict"]["found"]
    assert len(calls) == 5


def test_the_share_is_the_largest_that_clean_rows_allow(victim, base, rows):
    """By hand: each merge is measured on the rows that were held back."""
    most, held = hold_back(rows, seed=0)
    assert len(most) + len(held) == len(rows) == 24
    assert not {row.text for row in most} & {row.text for row in held}
    suspect = model_weights(victim.network())
    conflict = finetune(victim, headed(base, suspect), most, RECIPE)
    shares, hits = [0.9, 0.1, 0.5], {}
    for t in shares:
        with swapped(victim.network(), average([suspect, conflict], [1 - t, t])):
            hits[t] = int(victim.hits(victim.tokenize(held)).sum())
    wanted = max(t for t in shares if 100 * hits[t] / 4 >= 100 * max(hits.values()) / 4 - 30)
    defense = ConflictModel(shares=shares, slack=30.0, **SETTINGS)
    given = Resources(base=base, clean=rows, victim=victim, train=Train(victim))
    defended = run_defense(defense, suspect, given)
    notes = defended.notes["conflict"]
    assert notes["share"] == wanted
    assert {t: found["hits"] for t, found in notes["held_back"].items()} == {
        f"{t:g}": count for t, count in hits.items()
    }
    expected = average([suspect, conflict], [1 - wanted, wanted])
    assert fingerprint(defended.weights) == fingerprint(expected)


def test_what_cannot_be_done_is_told(victim, base, rows):
    with pytest.raises(BdlitError, match="Fisher cannot merge a suspect with one conflict model"):
        ConflictModel(merge=Fisher())
    with pytest.raises(BdlitError, match="GMS cannot merge"):
        ConflictModel(merge=GMS())
    with pytest.raises(BdlitError, match=r"epochs 0 of Conflict-Linear is out of range"):
        ConflictModel(epochs=0)
    with pytest.raises(BdlitError, match="TIES has no one share to choose"):
        ConflictModel(merge=TIES(), shares=[0.5])
    along = SLERP(t=AlongDepth(attention=[0, 1], mlp=[1, 0]))
    with pytest.raises(BdlitError, match="SLERP has no one share to choose"):
        ConflictModel(merge=along, shares=[0.5])
    with pytest.raises(BdlitError, match="unknown head_from 'famly': did you mean 'family'"):
        ConflictModel(head_from="famly")
    with pytest.raises(BdlitError, match=r"shares 1\.5 is out of range"):
        ConflictModel(shares=[1.5])
    with pytest.raises(BdlitError, match="4 clean rows are too few to hold some back"):
        hold_back(rows[:4], seed=0)
    suspect = model_weights(victim.network())
    torn = {name: tensor for name, tensor in base.items() if "embeddings" not in name}
    given = Resources(base=torn, clean=rows, train=lambda *_: pytest.fail("trained"))
    with pytest.raises(BdlitError, match="embeddings"):
        run_defense(ConflictModel(), suspect, given)
    wrong = {**base, "bert.embeddings.word_embeddings.weight": torch.zeros(2, 2)}
    with pytest.raises(BdlitError, match=r"cannot put 'bert\.embeddings\.word"):
        finetune(victim, wrong, rows, RECIPE)


def test_so_many_of_the_clean_rows_are_used_and_fewer_are_among_more(victim, base, rows):
    seen = []

    def watched(clean, *, start, recipe):
        seen.append(clean)
        return dict(model_weights(victim.network()))

    suspect = model_weights(victim.network())
    for clean_rows in (6, 12, None):
        defense = ConflictModel(clean_rows=clean_rows, seed=1)
        found = defense.apply(suspect, base=base, clean=rows, train=watched)
        assert found.notes["conflict"]["clean"] == (clean_rows or len(rows))
    few, more, all_rows = seen
    assert [row for row in more if row in few] == few
    assert [row for row in rows if row in more] == more
    assert all_rows == rows
    with pytest.raises(BdlitError, match=r"clean_rows 25 .* keeps 24 trusted rows"):
        ConflictModel(clean_rows=25).apply(suspect, base=base, clean=rows, train=watched)
    with pytest.raises(BdlitError, match=r"clean_rows 0 .* out of range"):
        ConflictModel(clean_rows=0)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_its_rate_stays_unless_told_otherwise(schedule):
    assert ConflictModel().recipe.schedule == "constant"
    assert ConflictModel(schedule=schedule).recipe.schedule == schedule
    with pytest.raises(BdlitError, match="schedule"):
        ConflictModel(schedule="steps")
