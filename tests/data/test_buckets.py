from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.data import buckets
from bdlit.data.buckets import BucketSampler
from bdlit.errors import BdlitError
from bdlit.types import Example


def rows_of(lengths):
    return [Example("a" * length, 0) for length in lengths]


def on_every_rank(sampler, world):
    """What each of `world` processes iterates over, and the lengths it announces."""
    place, shares, lengths = buckets.place, [], []
    try:
        for rank in range(world):
            buckets.place = lambda rank=rank: (rank, world)
            shares.append(list(sampler))
            lengths.append(len(sampler))
    finally:
        buckets.place = place
    return shares, lengths


def global_batches(sampler, world):
    shares, lengths = on_every_rank(sampler, world)
    assert len(set(lengths)) == 1, "every process takes part in every optimizer step"
    assert [len(share) for share in shares] == lengths
    assert all(share for per_rank in shares for share in per_rank)
    return [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]


many_lengths = st.lists(st.integers(0, 300), min_size=1, max_size=400)


@settings(deadline=None)
@given(lengths=many_lengths, batch_size=st.integers(1, 40), world=st.integers(1, 5))
def test_evaluation_sees_every_row_exactly_once(lengths, batch_size, world):
    sampler = BucketSampler(rows_of(lengths), batch_size, shuffle=False)
    shares, announced = on_every_rank(sampler, world)
    assert [len(share) for share in shares] == announced
    seen = sorted(row for share in shares for batch in share for row in batch)
    assert seen == list(range(len(lengths)))
    assert all(0 < len(batch) <= batch_size for share in shares for batch in share)
    if len(lengths) >= world:
        assert min(announced) > 0, "no process may stand idle"


@settings(deadline=None)
@given(lengths=many_lengths, batch_size=st.integers(1, 40), world=st.integers(1, 5))
def test_evaluation_batches_do_not_depend_on_the_number_of_processes(lengths, batch_size, world):
    sampler = BucketSampler(rows_of(lengths), batch_size, shuffle=False)
    alone = list(sampler)
    if len(alone) >= world:
        shares, _ = on_every_rank(sampler, world)
        assert sorted(batch for share in shares for batch in share) == sorted(alone)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=16, max_size=400),
    batch_size=st.integers(16, 64),
    epoch=st.integers(0, 3),
)
def test_training_steps_are_the_same_for_one_to_four_processes(lengths, batch_size, epoch):
    sampler = BucketSampler(rows_of(lengths), batch_size, shuffle=True, seed=7)
    sampler.set_epoch(epoch)
    alone = global_batches(sampler, 1)
    assert sorted(chain(*alone)) == list(range(len(lengths)))
    # Only what is left over may be smaller or join another batch.
    assert [len(batch) for batch in alone].count(batch_size) >= len(lengths) // batch_size - 1
    assert max(map(len, alone)) < 1.25 * batch_size
    for world in (2, 3, 4):
        assert global_batches(sampler, world) == alone


def test_a_training_batch_is_shared_fairly():
    sampler = BucketSampler(rows_of(range(64)), 32, shuffle=True)
    shares, _ = on_every_rank(sampler, 4)
    assert {len(batch) for share in shares for batch in share} == {8}


def test_seeds_and_epochs_change_the_batches_and_nothing_else_does():
    rows = rows_of(range(200))

    def batches(seed, epoch):
        sampler = BucketSampler(rows, 8, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(3, 1) == batches(3, 1)
    different = [batches(0, 0), batches(0, 1), batches(1, 0), batches(1, 1)]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_batches_hold_rows_of_similar_length_but_stay_random():
    lengths = [(37 * i) % 500 for i in range(4096)]
    sampler = BucketSampler(rows_of(lengths), 32, shuffle=True)
    batches = list(sampler)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)  # a random batch of 32 costs nearly twice the sum
    means = [sum(lengths[row] for row in batch) / len(batch) for batch in batches]
    assert means != sorted(means)


def test_both_texts_of_a_pair_count():
    rows = [Example("aaaa", 0, "b"), Example("a", 0, "b"), Example("a", 0, "bbbbbb")]
    assert list(BucketSampler(rows, 1, shuffle=False)) == [[1], [0], [2]]


def test_bad_batch_sizes_are_refused():
    with pytest.raises(BdlitError, match="batch size 0 is out of range"):
        BucketSampler(rows_of([1]), 0, shuffle=True)
    sampler = BucketSampler(rows_of(range(10)), 2, shuffle=True)
    with pytest.raises(BdlitError, match=r"2 rows cannot be shared by 3 processes.*batch_size"):
        on_every_rank(sampler, 3)


def test_the_epoch_counts_that_is_set_when_the_first_batch_is_asked_for():
    """Lightning, resuming a fit, takes the iterator before it sets the epoch."""
    rows = rows_of(range(1, 200))
    sampler, fresh = (BucketSampler(rows, 8, shuffle=True, seed=3) for _ in range(2))
    taken = iter(sampler)
    sampler.set_epoch(1)
    fresh.set_epoch(1)
    assert list(taken) == list(fresh)


def test_place_is_read_from_the_process_group_when_iterating():
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    sampler = BucketSampler(rows_of(range(6)), 2, shuffle=False)
    assert list(sampler) == [[0, 1], [2, 3], [4, 5]]
    distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        assert list(sampler) == [[2, 3]]
        assert len(sampler) == 1
    finally:
        distributed.destroy_process_group()
    assert len(sampler) == 3
