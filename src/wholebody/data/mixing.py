"""Which person is sample number n of a mixture of sets: a function of (seed, n), computed without a list.

So a run resumes in the middle of an epoch by starting at a number, the number of processes changes nothing, and no
process holds the order of millions of people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wholebody.errors import BadInput

_MASK = (1 << 64) - 1
_ROUNDS = 6


def shuffled(place: int, length: int, *seed: int) -> int:
    """The number at `place` of a random order of range(length). Another seed, another order.

    A Feistel network over the next power of four permutes; numbers beyond `length` are sent through again.
    """
    if not 0 <= place < length:
        raise IndexError(f"place {place} of {length}")
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    low_bits = (1 << half) - 1
    key = 0
    for value in seed:
        key = _scramble(key ^ (value & _MASK))
    while True:
        left, right = place >> half, place & low_bits
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_scramble(key + turn * 0x9E3779B97F4A7C15 ^ right) & low_bits)
        place = left << half | right
        if place < length:
            return place


def _scramble(x: int) -> int:
    """splitmix64: every bit of the result depends on every bit of x."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


@dataclass(frozen=True)
class Mixture:
    """Groups of sets and how many samples of each an epoch has. The sets of a group are as one set.

    Within an epoch the groups come in random order, each exactly as often as its quota says. Within a group everybody
    is seen once before anybody is seen again, across epochs too.
    """

    groups: tuple[tuple[int, ...], ...]
    """Lengths of the sets, by group."""
    quotas: tuple[int, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        for number, (lengths, quota) in enumerate(zip(self.groups, self.quotas, strict=True)):
            if quota < 0 or (quota and not sum(lengths)):
                raise BadInput(f"group {number} of the mixture has {sum(lengths)} people for {quota} samples an epoch")
        if not self.epoch_length:
            raise BadInput("a mixture of no people: every set is empty, or every weight is 0")

    @property
    def epoch_length(self) -> int:
        return sum(self.quotas)

    def __getitem__(self, number: int) -> tuple[int, int]:
        """(set, person in the set) of sample `number`, which may lie in any epoch; sets count through all groups."""
        epoch, place = divmod(number, self.epoch_length)
        place = shuffled(place, self.epoch_length, self.seed, 0, epoch)
        group = 0
        while place >= self.quotas[group]:
            place -= self.quotas[group]
            group += 1
        return self.person(group, self._visit(group, epoch, place))

    def _visit(self, group: int, epoch: int, place: int) -> int:
        """The number of a group's visit among all: it goes on where the epoch before ended."""
        return epoch * self.quotas[group] + place

    def person(self, group: int, visit: int) -> tuple[int, int]:
        """Who is seen on the group's visit number `visit`."""
        lengths = self.groups[group]
        again, place = divmod(visit, sum(lengths))
        place = shuffled(place, sum(lengths), self.seed, 1 + group, again)
        first = sum(len(earlier) for earlier in self.groups[:group])
        for number, length in enumerate(lengths):
            if place < length:
                return first + number, place
            place -= length
        raise AssertionError("unreachable: place is within the group")


@dataclass(frozen=True)
class Balanced(Mixture):
    """As the published "balance": a group is shuffled once, and every epoch begins it anew.

    A group with fewer people than its quota is repeated until the quota is full; of one with more, the same people are
    seen in every epoch and the others never (`by_weight` with equal weights shows everybody in turn).
    """

    def _visit(self, group: int, epoch: int, place: int) -> int:
        return place

    def person(self, group: int, visit: int) -> tuple[int, int]:
        return super().person(group, visit % sum(self.groups[group]))


def one_after_another(lengths: Sequence[int], seed: int = 0) -> Mixture:
    """Everybody once an epoch."""
    return Mixture((tuple(lengths),), (sum(lengths),), seed)


def equal_length(groups: Sequence[Sequence[int]], seed: int = 0) -> Mixture:
    """Every group as often as the longest has people.

    As the published `MultipleDatasets(make_same_len=True)`, which repeats a shorter set as often as it fits and
    fills the rest with random picks; here everybody of it is seen equally often, give or take one.
    """
    longest = max((sum(lengths) for lengths in groups), default=0)
    return Mixture(tuple(map(tuple, groups)), tuple(longest for _ in groups), seed)


def by_weight(lengths: Sequence[int], weights: Sequence[float], epoch_length: int = 0, seed: int = 0) -> Mixture:
    """Each set as often as its weight says, whatever its length. epoch_length 0: as many samples as there are people in
    the sets that have a weight."""
    share = np.asarray(weights, np.float64)
    if len(share) != len(lengths) or not np.isfinite(share).all() or (share < 0).any() or not share.any():
        raise BadInput(
            f"weights must be one for each of {len(lengths)} sets, finite and not negative; got {list(weights)}"
        )
    total = epoch_length or int(np.asarray(lengths)[share > 0].sum())
    exact = share / share.sum() * total
    quotas = np.floor(exact).astype(int)
    for number in np.argsort(quotas - exact, kind="stable")[: total - quotas.sum()]:  # largest remainders
        quotas[number] += 1
    return Mixture(tuple((length,) for length in lengths), tuple(map(int, quotas)), seed)


def balance(groups: Sequence[Sequence[int]], epoch_length: int = 0, seed: int = 0) -> Balanced:
    """Each group the same share of an epoch, whatever its length; see `Balanced`. epoch_length 0: as many samples as
    there are people.

    As the published `MultipleDatasets(make_same_len=True, total_len=...)`. Where that fills up with random picks (the
    rest of a group's last repetition, and of the epoch), the order of the group goes on, and the first groups have one
    sample more.
    """
    if not groups:
        raise BadInput("a mixture of no sets")
    total = epoch_length or sum(map(sum, groups))
    share, more = divmod(total, len(groups))
    quotas = tuple(share + (number < more) for number in range(len(groups)))
    return Balanced(tuple(map(tuple, groups)), quotas, seed)
