"""The race against responses that are known: what it picks, what it keeps, what its intervals cover.

The responses are as whole trainings of Wide-ResNet-16-1 on 1,000 images of CIFAR-10 had them: two draws for an image
help by 3 points, more geometry by 2, and a training has a noise of 1.5 points. The groups of ops of TrivialAugment help
by 1.5 points each; effects interact.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from jointsearch.jobs import JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.searchers.race import Race, RaceSearcher
from jointsearch.searchers.race_arms import drawn_points
from jointsearch.searchers.race_model import Belief
from search_spaces.augment.apply import apply_policy
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.family import LEVELS_OF, Point, points, policy_of

NOISE, FOLD_SPREAD, MEAN = 1.5, 2.0, 60.0
OTHERS = {"none": -8.0, "autoaugment": -0.5}
Response = Callable[[Point], float]


def helpful(point: Point) -> float:
    """Twice per image with more geometry is best; everything else that is off TrivialAugment harms."""
    effect = {1: 0.0, 2: 3.0, 3: 2.8}[point.draws] + {1: 0.0, 2: 2.0}[point.geometry]
    effect += {"full": 0.0, "high": -2.0, "m15": -0.2}[point.magnitude]
    effect -= 1.5 * ((point.tone == 0) + (point.blend == 0) + point.extra + (point.untouched == 5))
    effect += 1.0 * (point.draws > 1 and point.geometry == 2)
    return effect - 1.0 * (point.tone == 0 and point.blend == 0)


def useless(point: Point) -> float:
    """Nothing is better than TrivialAugment."""
    effect = {1: 0.0, 2: -0.5, 3: -0.8}[point.draws] - 0.3 * (point.geometry == 2)
    effect -= 1.0 * (point.extra + (point.untouched == 5) + (point.magnitude == "high"))
    return effect - 2.0 * ((point.tone == 0) + (point.blend == 0))


@dataclass
class Outcome:
    """What a race ended with, and the truth."""

    searcher: RaceSearcher
    found: Found
    regret: float
    covered: bool


def truth(searcher: RaceSearcher, name: str, response: Response) -> float:
    point = searcher.arms.points.get(name)
    return OTHERS[name] if point is None else response(point)


def raced(response: Response, seed: int, mirrored: bool = True, **settings: object) -> Outcome:
    """A race in which every training answers with the response, the effect of its fold, and noise."""
    context = PopulationContext(seed, epochs=1, mirrored=mirrored)
    searcher = RaceSearcher(Race(**settings), context)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(10_000 + seed)
    of_folds = FOLD_SPREAD * torch.randn(searcher.settings.folds, generator=generator)
    while jobs := searcher.ask():
        for job in jobs:
            noise = NOISE * float(torch.randn((), generator=generator))
            score = MEAN + truth(searcher, job.name, response) + float(of_folds[job.fold]) + noise
            searcher.tell(job, JobResult(score, 1.0, 1))
    found = searcher.found()
    best = max(map(response, points()))
    leads = truth(searcher, found.facts["leader"], response) - response(Point())
    return Outcome(
        searcher,
        found,
        best - truth(searcher, found.facts["chosen"], response),
        abs(leads - found.facts["leader_minus_control"]) <= found.facts["leader_interval"],
    )


def best_single_training(response: Response, seed: int, trainings: int = 40) -> float:
    """The regret of the control: as many policies of the family, each trained once, and the best score."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    every = list(points())
    tried = [every[place] for place in torch.randperm(len(every), generator=generator)[:trainings].tolist()]
    noise = NOISE * torch.randn(trainings, generator=generator)
    scores = torch.tensor([response(point) for point in tried]) + noise
    return max(map(response, every)) - response(tried[int(scores.argmax())])


@pytest.fixture(scope="module")
def helped() -> list[Outcome]:
    return [raced(helpful, seed) for seed in range(20)]


@pytest.fixture(scope="module")
def not_helped() -> list[Outcome]:
    return [raced(useless, seed) for seed in range(20)]


def test_the_race_picks_an_arm_near_the_best_and_the_best_single_training_is_not(helped: list[Outcome]) -> None:
    assert sum(one.regret <= 0.5 for one in helped) >= 18
    assert sum(best_single_training(helpful, seed) <= 0.5 for seed in range(20)) < 18
    assert all(len(one.searcher.told.arms) == 40 for one in helped), "another number of trainings was made"


def test_trivialaugment_is_returned_where_nothing_is_better(not_helped: list[Outcome]) -> None:
    assert sum(one.found.facts["chosen"] == "trivialaugment" for one in not_helped) >= 18
    assert {one.found.policy for one in not_helped if one.found.facts["chosen"] == "trivialaugment"} == {
        named_policy("trivialaugment")
    }


@pytest.mark.slow
def test_intervals_cover_the_true_difference_as_often_as_they_say() -> None:
    covered = sum(raced(helpful, seed).covered for seed in range(50))
    covered += sum(raced(useless, seed).covered for seed in range(50))
    assert 90 <= covered <= 99


@pytest.mark.slow
def test_trivialaugment_is_returned_where_all_arms_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS:
        monkeypatch.setitem(OTHERS, name, 0.0)
    kept = [raced(lambda point: 0.0, seed).found.facts["chosen"] for seed in range(40)]
    assert kept.count("trivialaugment") >= 36


def test_shuffled_scores_say_nothing(helped: list[Outcome]) -> None:
    shuffled = [raced(helpful, seed, shuffled=True) for seed in range(20)]
    assert sum(one.regret <= 0.5 for one in shuffled) < 5
    assert sum(one.regret for one in shuffled) > 2 * sum(one.regret for one in helped)


def test_arms_that_leave_are_worse_and_are_not_trained_again(helped: list[Outcome]) -> None:
    left = best = 0
    for one in helped:
        searcher = one.searcher
        names = [searcher.arms.all[arm].name for arm in searcher.told.arms]
        for arm, after in searcher.left.items():
            left += 1
            assert searcher.arms.all[arm].name not in names[after + searcher.settings.at_once :]
            best += truth(searcher, searcher.arms.all[arm].name, helpful) == max(map(helpful, points()))
    assert left > 20
    assert best <= 1, "an arm leaves by an interval that holds 95 of 100 differences"


def test_every_given_arm_is_trained_and_folds_judge_equally_often(helped: list[Outcome]) -> None:
    for one in helped:
        searcher = one.searcher
        assert set(range(searcher.given)) <= set(searcher.told.arms)
        counts = torch.bincount(torch.tensor(searcher.told.folds), minlength=5)
        assert int(counts.max() - counts.min()) <= 4
        jobs = Counter(zip(searcher.told.arms, searcher.told.folds, strict=True))
        for arm in set(searcher.told.arms):
            times = [jobs[arm, fold] for fold in range(5)]
            assert max(times) - min(times) <= 1, "a fold judged an arm again before the others had"


def test_a_race_is_a_function_of_its_seed_and_of_what_it_is_told() -> None:
    first, second = raced(helpful, 3), raced(helpful, 3)
    assert first.found == second.found
    assert first.searcher.told == second.searcher.told
    assert raced(helpful, 4).searcher.told != first.searcher.told


def test_seconds_end_a_race() -> None:
    searcher = raced(helpful, 0, trainings=100, seconds=33.0, at_once=2).searcher
    assert 33 <= len(searcher.told.arms) < 33 + 2


def test_what_another_search_found_wins_where_it_is_better() -> None:
    proposed = named_policy("autoaugment_svhn")
    context = PopulationContext(0, 1, proposals={"trials": Found(proposed)})
    searcher = RaceSearcher(Race(), context)
    generator = torch.Generator().manual_seed(0)
    while jobs := searcher.ask():
        for job in jobs:
            effect = 12.0 if job.name == "trials" else truth(searcher, job.name, helpful)
            searcher.tell(job, JobResult(effect + NOISE * float(torch.randn((), generator=generator)), 1.0, 1))
    assert searcher.found().policy == proposed


def test_of_a_loss_less_is_better() -> None:
    searcher = RaceSearcher(Race(), PopulationContext(0, 1, higher_is_better=False))
    while jobs := searcher.ask():
        for job in jobs:
            searcher.tell(job, JobResult(1.0 - truth(searcher, job.name, helpful) / 10, 1.0, 1))
    facts = searcher.found().facts
    assert facts["leader_minus_control"] > 0.4, "differences count in the direction of the metric"
    assert facts["arms"][0]["score"] < 1.0, "scores stay as they were measured"
    assert truth(searcher, facts["leader"], helpful) > helpful(Point()) + 4, "the arm with the largest loss leads"


def test_the_model_is_exact_gaussian_conditioning_at_one_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the joint normal distribution of effects and responses, written out by hand."""
    monkeypatch.setattr("jointsearch.searchers.race_model.OF_LEVELS", (0.5,))
    monkeypatch.setattr("jointsearch.searchers.race_model.OF_ARMS", (0.2,))
    monkeypatch.setattr("jointsearch.searchers.race_model.OF_OTHERS", (4.0,))
    features = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]])
    arms, folds = [0, 1, 2, 3, 0], [0, 0, 1, 1, 1]
    told = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    prior = 0.5 * (features @ features.T).double() + torch.tensor([0.2, 0.2, 0.2, 4.0]).double().diag()
    joint = torch.zeros(9, 9, dtype=torch.float64)  # four effects, then five responses
    choose = torch.zeros(9, 4, dtype=torch.float64)
    choose[torch.arange(9), torch.tensor([0, 1, 2, 3, *arms])] = 1
    joint = choose @ prior @ choose.T
    for one in range(5):
        for other in range(5):
            joint[4 + one, 4 + other] += 4.0 * (folds[one] == folds[other]) + 1e4 + (one == other)
    inverse = joint[4:, 4:].inverse()
    mean = joint[:4, 4:] @ inverse @ (told - told.mean())
    left = joint[:4, :4] - joint[:4, 4:] @ inverse @ joint[4:, :4]
    belief = Belief(features, arms, folds, told.tolist())
    assert torch.allclose(belief.mean, mean, atol=1e-8)
    factor = belief.models.factor[0]
    assert torch.allclose(factor @ factor.T, left, atol=1e-6)
    difference, deviation = belief.minus(1)
    assert torch.allclose(difference, mean - mean[1], atol=1e-8)
    spread = (left.diagonal() + left[1, 1] - 2 * left[1]).clamp(min=0) * belief.noise**2
    assert torch.allclose(deviation.square(), spread, atol=1e-5)
    weights = torch.tensor([[0.5, 0.5, -1.0, 0.0]]).double()
    average, its_deviation = belief.contrasts(weights)
    assert torch.allclose(average, weights @ mean, atol=1e-8)
    assert float(its_deviation**2) == pytest.approx(float(weights @ left @ weights.T) * belief.noise**2, rel=1e-5)
    drawn = torch.stack([belief.draw(torch.Generator().manual_seed(seed)) for seed in range(4000)])
    assert torch.allclose(drawn.mean(0), mean, atol=5 * float(drawn.std(0).max()) / 4000**0.5)


def test_the_family_holds_trivialaugment_and_points_are_spread_evenly() -> None:
    assert policy_of(Point()).sub_policies == named_policy("trivialaugment").sub_policies
    assert policy_of(Point(draws=2)).draws == 2
    assert len(set(points())) == 3 * 3 * 2**6
    assert len({point.name for point in points()}) == len(list(points()))
    drawn = drawn_points(12, torch.Generator().manual_seed(0), LEVELS_OF)
    for name, levels in LEVELS_OF.items():
        counts = [sum(getattr(point, name) == level for point in drawn) for level in levels]
        assert max(counts) - min(counts) <= 1, name


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_half_of_the_images_are_mirrored_however_often_is_drawn(draws: int) -> None:
    policy = policy_of(Point(draws, geometry=0, tone=0, blend=0, flip=1))
    images = torch.rand(2000, 1, 4, 4)
    seen = apply_policy(policy, images, torch.Generator().manual_seed(0))
    mirrored = (seen == images.flip(3)).all((1, 2, 3))
    assert bool(((seen == images).all((1, 2, 3)) | mirrored).all())
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.05)


def test_mirroring_is_tried_only_where_images_are_not_mirrored_anyway() -> None:
    def kept(effect: float, seed: int) -> bool:
        searcher = raced(lambda point: helpful(point) + effect * point.flip, seed, mirrored=False)
        return "flip" in searcher.found.facts["chosen"]

    assert sum(kept(3.0, seed) for seed in range(10)) >= 9
    assert sum(kept(-3.0, seed) for seed in range(10)) == 0
    assert not any("flip" in arm.name for arm in raced(helpful, 0).searcher.arms.all)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"untuned": ("none",)}, "trivialaugment"),
        ({"untuned": ("trivialaugment", "trivialaugment")}, "twice"),
        ({"untuned": ("trivialaugment", "nonsense")}, "nonsense"),
        ({"trainings": 1}, "trainings"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Race(**settings)  # type: ignore[arg-type]
