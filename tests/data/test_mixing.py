"""A mixture is a function of its seed and a number, and gives each set its share."""

from collections import Counter

import numpy as np
import pytest

from wholebody.data.mixing import balance, by_weight, equal_length, one_after_another, shuffled
from wholebody.errors import BadInput


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1000, 4097])
def test_an_order_holds_everybody_once(length):
    order = [shuffled(place, length, 3, 4) for place in range(length)]
    assert sorted(order) == list(range(length))
    if length > 50:
        assert order != [shuffled(place, length, 3, 5) for place in range(length)]
        assert order != [shuffled(place, length, 4, 4) for place in range(length)]
    for outside in (-1, length):
        with pytest.raises(IndexError):
            shuffled(outside, length, 0)


def test_an_order_is_random():
    """Places, neighbours and seeds tell nothing: uniform but for chance (chi square, five standard deviations)."""
    length = 5000
    orders = np.array([[shuffled(place, length, seed) for place in range(length)] for seed in range(4)])
    where = np.arange(length) * 20 // length
    for order in orders:
        table = np.histogram2d(where, order * 20 // length, bins=20)[0]
        assert abs(((table - 12.5) ** 2 / 12.5).sum() - 361) < 5 * np.sqrt(2 * 361)
        steps = np.diff(order)
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / np.sqrt(length)
        assert len(np.unique(steps)) > 3000
    firsts = [shuffled(0, 10, seed) for seed in range(2000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 9 + 5 * np.sqrt(18)


def test_millions_cost_no_more_than_a_few():
    import tracemalloc

    mixture = one_after_another([4_500_000], seed=1)
    tracemalloc.start()
    seen = {mixture[n] for n in range(0, 4_500_000, 45_000)}
    assert len(seen) == 100 and tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_all_are_seen_once_an_epoch():
    mixture = one_after_another([5, 0, 9], seed=2)
    for epoch in range(3):
        seen = sorted(mixture[n] for n in range(epoch * 14, epoch * 14 + 14))
        assert seen == [(0, i) for i in range(5)] + [(2, i) for i in range(9)]
    assert [mixture[n] for n in range(14)] != [mixture[n] for n in range(14, 28)]


def test_a_number_decides_alone():
    one, two = (by_weight([50, 70, 3], [1, 2, 0.5], seed=9) for _ in range(2))
    backwards = [one[n] for n in reversed(range(300))]
    assert [two[n] for n in range(300)] == backwards[::-1]
    assert [by_weight([50, 70, 3], [1, 2, 0.5], seed=8)[n] for n in range(300)] != backwards[::-1]


def published_make_same_len(lengths, index):
    """The published `MultipleDatasets(make_same_len=True)`: which set; and which person, or None where it is chance."""
    longest = max(lengths)
    which, place = divmod(index, longest)
    if place >= lengths[which] * (longest // lengths[which]):
        return which, None
    return which, place % lengths[which]


def test_equal_length_is_as_published():
    """Epochs are as long and hold each set as often; whom the published code surely shows k times, ours shows too."""
    lengths = [23, 7, 10]
    mixture = equal_length([[n] for n in lengths], seed=5)
    assert mixture.epoch_length == 69
    published = Counter(published_make_same_len(lengths, n) for n in range(69))
    for epoch in range(4):
        ours = Counter(mixture[n] for n in range(epoch * 69, (epoch + 1) * 69))
        assert Counter(which for which, _ in ours.elements()) == {0: 23, 1: 23, 2: 23}
        # Passes through a shorter set go on over the end of an epoch, so one may fall into the next.
        assert all(ours[key] >= count - 1 for key, count in published.items() if key[1] is not None)
    over = Counter(mixture[n] for n in range(7 * 69))
    assert {over[1, i] for i in range(7)} == {23}  # 7 × 23 visits of 7 people


def test_groups_are_concatenated_as_the_published_3d_and_2d_sets():
    mixture = equal_length([[30], [12, 4]], seed=0)
    seen = Counter(mixture[n][0] for n in range(mixture.epoch_length))
    assert seen[0] == 30 and seen[1] + seen[2] == 30 and 3 <= seen[2] <= 12


def test_weights_give_shares_whatever_the_lengths():
    mixture = by_weight([1000, 10, 40], [0.5, 0.25, 0.25], epoch_length=400, seed=1)
    seen = [mixture[n] for n in range(400)]
    assert Counter(which for which, _ in seen) == {0: 200, 1: 100, 2: 100}
    assert set(Counter(key for key in seen if key[0] == 1).values()) == {10}
    assert by_weight([1000, 10, 40], [1, 1, 0]).epoch_length == 1010
    order = np.array([which for which, _ in seen])
    assert 60 < (order[:200] == 0).sum() < 140  # in random order, not one set after the other


def published_balance(lengths, total, index):
    """The published `MultipleDatasets(make_same_len=True, total_len=total)`: which set, and the place in its shuffled
    list, or None where it is chance."""
    share = total // len(lengths)
    which, place = divmod(index, share)
    if which >= len(lengths):
        return None, None
    if lengths[which] < share and place >= lengths[which] * (share // lengths[which]):
        return which, None
    return which, place % lengths[which]


def test_balance_is_as_published():
    """The same share for every set, whatever its length: repeated where it is short, the same people of a long one."""
    lengths, total = [23, 7, 100, 25], 100
    mixture = balance([[n] for n in lengths], total, seed=5)
    assert mixture.epoch_length == total
    published = Counter(published_balance(lengths, total, n) for n in range(total))
    epochs = [Counter(mixture[n] for n in range(k * total, (k + 1) * total)) for k in range(3)]
    for seen in epochs:
        assert Counter(which for which, _ in seen.elements()) == {0: 25, 1: 25, 2: 25, 3: 25}
        for which, length in enumerate(lengths):
            ours = sorted(count for key, count in seen.items() if key[0] == which)
            least = sorted(count for key, count in published.items() if key[0] == which and key[1] is not None)
            assert len(ours) == len(least) == min(length, 25)
            # What the published code fills up by chance goes to somebody one time more.
            assert all(ours_count - count in (0, 1) for ours_count, count in zip(ours, least, strict=True))
        assert set(seen) == set(epochs[0]), "shuffled once"
    order = [[mixture[n] for n in range(k * total, (k + 1) * total)] for k in range(2)]
    assert order[0] != order[1], "in another order"


def test_balance_without_a_length_shows_as_many_as_there_are():
    mixture = balance([[10], [3, 4]], seed=1)
    assert mixture.epoch_length == 17 and mixture.quotas == (9, 8)
    seen = Counter(mixture[n] for n in range(17))
    assert {key for key in seen if key[0] > 0} == {(1, i) for i in range(3)} | {(2, i) for i in range(4)}
    with pytest.raises(BadInput, match="group 1 of the mixture has 0 people"):
        balance([[10], [0]], 20)
    with pytest.raises(BadInput, match="no sets"):
        balance([], 20)


def test_published_balance_of_millions_starts_anywhere():
    mixture = balance([[n] for n in (951_000, 60, 7_000_000, 12_345)], 4_500_000, seed=2)
    assert [mixture[n] for n in range(4_499_990, 4_500_010)][10:] == [mixture[n] for n in range(4_500_000, 4_500_010)]
    seen = Counter(mixture[n][0] for n in range(0, 4_500_000, 1500))
    assert all(650 < seen[which] < 850 for which in range(4))


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, np.nan]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(BadInput, match="weights"):
        by_weight([3, 4], weights)


def test_empty_sets_are_refused_where_they_are_needed():
    with pytest.raises(BadInput, match="people"):
        equal_length([[3], [0]])
    with pytest.raises(BadInput, match="no people"):
        one_after_another([0])
