"""The Markov chain of docs/theory.md: its equilibrium in three ways, and its neighbors beside those of scikit-learn."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from jointsearch.benchmarks.theory import chain
from jointsearch.benchmarks.theory.chain import HALF_PIXELS, WHOLE_PIXELS, Lattice, Neighbors, equilibrium, visited
from jointsearch.benchmarks.theory.digits import drawn_digits

LATTICES = [Lattice((("Rotate", 0.2, 2),)), WHOLE_PIXELS, HALF_PIXELS]


def whole_chain(lattice: Lattice, images: int, jump: float) -> np.ndarray:
    """The chances of every step between all changed images, written down from the words that define the chain."""
    states = list(itertools.product(range(images), lattice.places))
    index = {state: row for row, state in enumerate(states)}
    chances = np.zeros((len(states), len(states)))
    for image, place in states:
        here = index[image, place]
        for other in range(images):
            chances[here, index[other, tuple(0 for _ in place)]] += jump / images
        for axis, (_, _, reach) in enumerate(lattice.steps):
            for way in (-1, 1):
                moved = list(place)
                moved[axis] = min(max(moved[axis] + way, -reach), reach)
                chances[here, index[image, tuple(moved)]] += (1 - jump) / (2 * len(lattice.steps))
    return chances


@pytest.mark.parametrize("jump", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("lattice", LATTICES, ids=lambda lattice: len(lattice.places))
def test_the_equilibrium_is_where_power_iteration_of_the_whole_chain_ends(lattice: Lattice, jump: float) -> None:
    images = 3
    chances = whole_chain(lattice, images, jump)
    assert chances.sum(1) == pytest.approx(1)
    shares = np.full(len(chances), 1 / len(chances))
    for _ in range(600):
        shares = shares @ chances
    expected = equilibrium(lattice, jump).numpy()
    assert shares.reshape(images, -1) == pytest.approx(np.tile(expected / images, (images, 1)), abs=1e-10)


def test_the_equilibrium_is_the_sum_over_all_numbers_of_ops() -> None:
    moves, now = WHOLE_PIXELS.moves().numpy(), np.zeros(9)
    now[4] = 1.0
    total = np.zeros(9)
    for ops in range(200):
        total += 0.3 * 0.7**ops * now
        now = now @ moves
    assert equilibrium(WHOLE_PIXELS, 0.3).numpy() == pytest.approx(total)


def test_a_walk_is_as_often_everywhere_as_the_equilibrium_says() -> None:
    visits, images = 400_000, 5
    found = visited(WHOLE_PIXELS, 0.3, images, visits, torch.Generator().manual_seed(0))
    assert found.sum() == visits
    expected = equilibrium(WHOLE_PIXELS, 0.3).expand(images, -1) / images
    assert (found / visits - expected).abs().max() < 0.003


def test_steps_of_the_lattice_are_pixels() -> None:
    train, _ = drawn_digits(0, 4, 0)
    moved = WHOLE_PIXELS.changed(train.images).view(4, 9, 8, 8)
    right = WHOLE_PIXELS.places.index((1, 0))
    expected = torch.zeros(4, 8, 8, dtype=torch.float64)
    expected[:, :, 1:] = train.images[:, 0, :, :-1]
    assert torch.allclose(moved[:, right], expected, atol=1e-5)
    assert torch.equal(moved[:, WHOLE_PIXELS.start], train.images[:, 0])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_chain_that_always_jumps_gives_plain_nearest_neighbors(count: int) -> None:
    train, test = drawn_digits(1, 60, 200)
    weights = equilibrium(WHOLE_PIXELS, 1.0).expand(60, -1) / 60
    nearer = KNeighborsClassifier(count, weights=lambda distances: 1 - 1e-3 * np.arange(distances.shape[1])[None] ** 2)
    plain = nearer.fit(train.pixels.numpy(), train.labels.numpy())
    found = Neighbors.of(WHOLE_PIXELS, train, test).classes(weights, count)
    assert np.array_equal(found.numpy(), plain.predict(test.pixels.numpy()))


def test_votes_are_counted_by_weight_until_the_neighborhood_is_full() -> None:
    train, test = drawn_digits(2, 20, 15)
    weights = equilibrium(WHOLE_PIXELS, 0.3).expand(20, -1) / 20
    points = WHOLE_PIXELS.changed(train.images).numpy()
    found = Neighbors.of(WHOLE_PIXELS, train, test).classes(weights, 2)
    clear = 0
    for pixels, voted in zip(test.pixels.numpy(), found.tolist(), strict=True):
        votes, left = np.zeros(10), 2 / 20
        squared = ((points - pixels) ** 2).sum(-1)
        for image, place in sorted(np.ndindex(20, 9), key=lambda at: squared[at]):
            votes[int(train.labels[image])] += min(left, float(weights[image, place]))
            left = max(left - float(weights[image, place]), 0.0)
        winners = np.flatnonzero(votes > votes.max() - 1e-4)
        assert voted in winners
        clear += len(winners) == 1
    assert clear > 10


def test_a_longer_walk_votes_more_like_the_equilibrium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "VISITS", (300, 30_000))
    (few, far), (many, near) = chain.walks(0)
    assert few < many - 0.05
    assert near < far / 5


@pytest.mark.slow
def test_neighbors_in_the_equilibrium_of_small_steps_err_less_than_plain_ones() -> None:
    plain, settled = 0, chain.JUMPS.index(0.2)
    for seed in range(3):
        errors = chain.errors_of(HALF_PIXELS, seed)
        assert errors[settled][0] < errors[plain][0]
