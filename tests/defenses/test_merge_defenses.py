"""WAG, TIES and DARE: the head, the base, the notes, the settings."""

import pytest
import torch

from bdlit import merging
from bdlit.defenses import DARE, SLERP, TIES, WAG, AlongDepth, Linear
from bdlit.errors import BdlitError
from bdlit.weights import align_names, fingerprint, open_weights, save_weights, select

BODY = ["bert.layer.weight", "bert.layer.bias"]
HEAD = ["classifier.weight", "pre_classifier.bias"]


def state(seed, classes=2):
    generator = torch.Generator().manual_seed(seed)
    return {
        "bert.layer.weight": torch.randn(4, 3, generator=generator),
        "bert.layer.bias": torch.randn(3, generator=generator),
        "bert.position_ids": torch.arange(5),
        "classifier.weight": torch.randn(classes, 3, generator=generator),
        "pre_classifier.bias": torch.randn(3, generator=generator),
    }


SUSPECT, OTHERS = state(0), [state(1), state(2)]
BASE = {name.removeprefix("bert."): state(3)[name] for name in BODY}  # a bare encoder, no head
MODELS = [SUSPECT, *OTHERS]


def mean(name):
    return torch.stack([model[name] for model in MODELS]).mean(0)


def test_wag_is_the_mean_of_all_head_included():
    defended = WAG().apply(SUSPECT, others=OTHERS)
    for name in BODY + HEAD:
        torch.testing.assert_close(defended.weights[name], mean(name))
    assert defended.copied == ["bert.position_ids"]
    assert defended.notes == {"models": 3}
    merged = WAG(head="merge").apply(SUSPECT, others=OTHERS)  # by the same name as elsewhere
    assert fingerprint(merged.weights) == fingerprint(defended.weights)


@pytest.mark.parametrize("defense", [TIES(), DARE(), TIES(density=0.7, trim="tensor")], ids=repr)
def test_the_body_is_merged_and_the_head_averaged(defense):
    defended = defense.apply(SUSPECT, others=OTHERS, base=BASE)
    aligned, models = align_names(BASE, SUSPECT), [select(model, BODY) for model in MODELS]
    if isinstance(defense, TIES):
        expected = merging.ties(aligned, models, density=defense.density, trim=defense.trim)
    else:
        expected = merging.dare(aligned, models)
    for name in BODY:
        assert torch.equal(defended.weights[name], expected[name])
        assert not torch.allclose(defended.weights[name], mean(name))
    for name in HEAD:
        torch.testing.assert_close(defended.weights[name], mean(name))
    assert defended.merged == [*BODY, *HEAD]
    assert dict(defended.notes) == {"models": 3, **expected.notes}


@pytest.mark.parametrize("defense", [WAG, TIES, DARE])
def test_a_kept_head_is_the_suspects_and_others_may_have_another(defense):
    others = [state(1, classes=5)]
    given = {} if defense is WAG else {"base": BASE}
    defended = defense(head="keep_suspect").apply(SUSPECT, others=others, **given)
    for name in HEAD:
        assert torch.equal(defended.weights[name], SUSPECT[name])
    assert defended.merged == BODY
    with pytest.raises(BdlitError, match=r"other 1 .*classifier.weight \[5, 3\], not \[2, 3\]"):
        defense().apply(SUSPECT, others=others, **given)


def test_weights_and_the_published_count_reach_the_merge():
    settings = {"weights": (0.2, 0.5, 0.3), "normalise": False, "count": "published"}
    defended = TIES(density=0.6, **settings).apply(SUSPECT, others=OTHERS, base=BASE)
    aligned, models = align_names(BASE, SUSPECT), [select(model, BODY) for model in MODELS]
    expected = merging.ties(aligned, models, density=0.6, **settings)
    for name in BODY:
        assert torch.equal(defended.weights[name], expected[name])
    for name in HEAD:  # an averaged head is averaged by the same weights
        heads = sum(w * m[name] for w, m in zip(settings["weights"], MODELS, strict=True))
        torch.testing.assert_close(defended.weights[name], heads)


def test_a_head_that_is_merged_needs_a_base_with_a_head():
    with pytest.raises(BdlitError, match=r"the base .* 2 missing \(classifier.weight, pre_cl"):
        TIES(head="merge").apply(SUSPECT, others=OTHERS, base=BASE)
    whole = TIES(head="merge", density=1.0).apply(SUSPECT, others=OTHERS, base=state(3))
    expected = merging.ties(state(3), MODELS, density=1.0)
    assert all(torch.equal(whole.weights[name], expected[name]) for name in BODY + HEAD)


def test_names_of_the_head_are_a_setting():
    others = [state(1)]
    defended = WAG(head="keep_suspect", head_names=("bert.layer.b",)).apply(SUSPECT, others=others)
    assert defended.copied == ["bert.layer.bias", "bert.position_ids"]


@pytest.mark.parametrize("defense", [TIES(), DARE()], ids=repr)
def test_a_base_that_lacks_more_than_the_head_is_refused(defense):
    base = {"layer.weight": BASE["layer.weight"]}
    with pytest.raises(BdlitError, match=r"the base .* 1 missing \(bert.layer.bias\)"):
        defense.apply(SUSPECT, others=OTHERS, base=base)


@pytest.mark.parametrize("defense", [WAG(), TIES(), DARE()], ids=repr)
def test_no_others_at_all(defense):
    given = {} if isinstance(defense, WAG) else {"base": BASE}
    with pytest.raises(BdlitError, match="no other models"):
        defense.apply(SUSPECT, others=[], **given)


def test_names_tell_the_methods_apart():
    names = [d.name for d in (WAG(), TIES(), DARE(), DARE(merge="ties"))]
    assert names == ["WAG", "TIES", "DARE", "DARE-TIES"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TIES(density=0), "density 0"),
        (lambda: TIES(density=1.1), "density 1.1"),
        (lambda: TIES(trim="layer"), "unknown trim 'layer'"),
        (lambda: TIES(scale=float("nan")), "scale nan"),
        (lambda: DARE(drop=1.0), "drop 1.0"),
        (lambda: DARE(merge="lineer"), "did you mean 'linear'"),
        (lambda: DARE(head="keep_suspct"), "did you mean 'keep_suspect'"),
        (lambda: WAG(head="merg"), "did you mean 'merge'"),
        (lambda: TIES(count="publish"), "did you mean 'published'"),
        (lambda: TIES(weights=[1, 2]).apply(SUSPECT, others=OTHERS, base=BASE), "and 2 others"),
        (lambda: SLERP(t=AlongDepth(attention=[], mlp=[1])), "attention of t is empty"),
        (lambda: SLERP(t=AlongDepth(attention=[1], mlp=[1.5])), r"mlp of t 1\.5 is out of range"),
        (lambda: SLERP(t=AlongDepth(attention=[1], mlp=[1], rest=2)), "rest of t 2 is out"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(BdlitError, match=message):
        make()


def test_three_lines_from_files_to_file(tmp_path):
    for i, model in enumerate(MODELS):
        save_weights(model, tmp_path / str(i))
    others = [open_weights(tmp_path / name) for name in "12"]
    purified = WAG().apply(open_weights(tmp_path / "0"), others=others).weights
    save_weights(purified, tmp_path / "out")
    saved = open_weights(tmp_path / "out")
    for name in BODY + HEAD:
        torch.testing.assert_close(saved[name], mean(name))


def test_linear_and_slerp_lie_between_two_models():
    [other] = OTHERS[:1]
    for defense in (Linear(t=0.25), SLERP(t=0.25)):
        defended = defense.apply(SUSPECT, others=[other])
        between = merging.average if isinstance(defense, Linear) else merging.slerp
        for name in BODY + HEAD:
            pair = [select(model, [name]) for model in (SUSPECT, other)]
            expected = between(pair, [3, 1]) if between is merging.average else between(*pair, 0.25)
            torch.testing.assert_close(defended.weights[name], expected[name])
        assert defended.copied == ["bert.position_ids"]
    assert SLERP().apply(SUSPECT, others=[other]).notes["fell_back_to_linear"] == 0
    assert SLERP().apply(SUSPECT, others=[SUSPECT]).notes["fell_back_to_linear"] == 4
    halves = [d.apply(SUSPECT, others=[other]).weights for d in (Linear(), WAG())]
    assert fingerprint(halves[0]) == fingerprint(halves[1])


@pytest.mark.parametrize("defense", [Linear(), SLERP()], ids=repr)
def test_several_others_leave_no_line_between(defense):
    with pytest.raises(BdlitError, match="2 others were given: give one, or take WAG"):
        defense.apply(SUSPECT, others=OTHERS)


@pytest.mark.parametrize("defense", [Linear, SLERP])
def test_a_share_outside_the_line_is_refused(defense):
    with pytest.raises(BdlitError, match=r"t 1\.5 is out of range"):
        defense(t=1.5)
