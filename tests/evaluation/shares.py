"""What `test_evaluate` has processes do; alone here, so that they import nothing heavy."""

from wholebody.errors import BadInput


def shared_numbers(count, rank, world, progress):
    """Of two networks, every number of this rank and ten times it."""
    if count < 0 and rank == 1:
        raise BadInput("rank 1 cannot")
    mine = list(range(rank, count, world))
    for _ in mine:
        progress(1)
    return [mine, [10 * n for n in mine]]
