"""The population methods of the papers against tables and closed forms: what they learn, copy, count and keep."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from jointsearch.jobs import Job, JobResult, PopulationContext
from jointsearch.searchers import ohl
from jointsearch.searchers.controller import (
    AUTOAUGMENT_OPS,
    MAGNITUDES,
    PROBABILITIES,
    Controller,
    ControllerSearcher,
    ControllerSettings,
    surrogate,
)
from jointsearch.searchers.fast_aa import FastAA, FastAASearcher
from jointsearch.searchers.ohl import Ohl, OhlSearcher
from jointsearch.searchers.pba import TOP_LEVEL, TOP_PROBABILITY, Pba, PbaSearcher, changed, outcomes, policy_of
from jointsearch.searchers.randaugment_grid import WITH_LEVELS, GridSearcher, RandAugmentGrid, policy_at
from search_spaces.augment.apply import draw_policy
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule


def context(seed: int = 0, epochs: int = 12) -> PopulationContext:
    return PopulationContext(seed, epochs)


def result(score: float, draws: tuple[int, ...] = ()) -> JobResult:
    return JobResult(score, 1.0, 1, draws=draws)


# ----------------------------------------------------------------------------------------------- RandAugment's grid


def test_the_grid_is_every_cell_once_for_every_judge_and_keeps_the_best_mean() -> None:
    settings = RandAugmentGrid(counts=(1, 3), levels=(5, 10, 15), judges=2)
    searcher = GridSearcher(settings, context())
    jobs = searcher.ask()
    assert Counter((job.name, job.fold) for job in jobs) == {
        (f"randaugment-n{n}-m{m}", fold): 1 for n in (1, 3) for m in (5, 10, 15) for fold in (0, 1)
    }
    for job in jobs:
        lucky = job.name == "randaugment-n1-m5" and job.fold == 0
        searcher.tell(job, result(80.0 if lucky else 70.0 if job.name == "randaugment-n3-m10" else 50.0))
    assert list(searcher.ask()) == []
    assert searcher.found().facts["chosen"] == "randaugment-n3-m10", "one training was better, but not the mean"


def test_each_op_gets_the_level_that_did_best_for_it() -> None:
    best = {op: (3, 9, 15)[place % 3] for place, op in enumerate(WITH_LEVELS)}
    searcher = GridSearcher(RandAugmentGrid(counts=(2,), levels=(3, 9, 15), per_op=True), context())
    while jobs := searcher.ask():
        for job in jobs:
            assert isinstance(job.policy, Policy)
            levels = {row.ops[0].op: row.ops[0].magnitude for row in job.policy.sub_policies if row.ops}
            right = sum(abs((levels[op] or 0) * 30 - level) < 0.5 for op, level in best.items())
            searcher.tell(job, result(50.0 + right))
    assert searcher.found().facts["levels"] == best
    assert len(searcher.scores) == 3 + 2 * len(WITH_LEVELS)


def test_a_cell_draws_as_randaugment_does() -> None:
    ours, named = policy_at(2, dict.fromkeys(WITH_LEVELS, 9), "grid"), named_policy("randaugment-n2-m9")
    everything = GridSearcher(RandAugmentGrid(), context()).cells["randaugment-n2-m9"]
    ours = policy_at(*everything, "grid")
    counts = []
    for policy in (ours, named):
        draw = draw_policy(policy, 40_000, torch.Generator().manual_seed(1))
        ops = draw.op.sort(1, descending=True).values.tolist()
        counts.append(Counter(tuple(op for op in row if op >= 0) for row in ops))
    assert counts[0].keys() == counts[1].keys()
    chi = sum((counts[0][key] - counts[1][key]) ** 2 / (counts[0][key] + counts[1][key]) for key in counts[1])
    assert chi < len(counts[1]) + 5 * (2 * len(counts[1])) ** 0.5


# ----------------------------------------------------------------------------------------------- the controller


def all_children(ops: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(ops), range(PROBABILITIES), range(MAGNITUDES))))


def test_the_gradient_of_the_controller_is_that_of_the_expected_score() -> None:
    generator = torch.Generator().manual_seed(0)
    controller, children = Controller((3, 11, 10), 3, generator).double(), all_children(3)
    rewards = torch.rand(len(children), generator=generator, dtype=torch.float64)
    _, logs, _ = controller(children, len(children))
    chances = logs.sum(1).exp()
    assert float(chances.detach().sum()) == pytest.approx(1.0)
    # Nothing follows the last decision, whose embedding is not used.
    used = [one for name, one in controller.named_parameters() if not name.startswith("embeddings.2")]
    exact = torch.autograd.grad((chances * rewards).sum(), used, retain_graph=True)
    weighted = rewards * chances.detach() * len(children)  # every child as often as it is drawn
    for learn in ("reinforce", "ppo"):
        loss = surrogate(logs.sum(1), logs.sum(1).detach(), weighted, learn)
        found = torch.autograd.grad(loss, used, retain_graph=True)
        for one, other in zip(found, exact, strict=True):
            assert torch.allclose(-one, other, atol=1e-10)


def test_children_are_drawn_as_often_as_the_controller_says() -> None:
    generator = torch.Generator().manual_seed(0)
    controller = Controller((2, 11, 10), 3, generator)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(20)
        _, logs, _ = controller(all_children(2), 220)
        drawn, said, _ = controller(None, 20_000, generator)
        assert torch.allclose(said, controller(drawn, 20_000)[1])
    place = drawn[:, 0] * 110 + drawn[:, 1] * 10 + drawn[:, 2]
    shares, chances = torch.bincount(place, minlength=220) / 20_000, logs.sum(1).exp()
    assert float((shares - chances).abs().max()) < 5 * (float(chances.max()) / 20_000) ** 0.5


def matches(job: Job) -> float:
    """A score that counts the ops of a child that geometry holds, out of ten."""
    assert isinstance(job.policy, Policy)
    return 10.0 * sum(
        choice.op in ("Rotate", "ShearX", "ShearY") for row in job.policy.sub_policies for choice in row.ops
    )


def last_mean(settings: ControllerSettings, seed: int) -> float:
    """The mean score of the children of the last ten rounds."""
    searcher = ControllerSearcher(settings, context(seed))
    while jobs := searcher.ask():
        for job in jobs:
            searcher.tell(job, result(matches(job)))
    return float(torch.tensor(searcher.scores[-100:]).mean())


@pytest.mark.parametrize("learn", ["ppo", "reinforce"])
def test_the_controller_learns_what_a_table_rewards_and_not_from_shuffled_scores(learn: str) -> None:
    quick = {"trainings": 200, "learning_rate": 0.02, "learn": learn, "sub_policies": 2}
    chance = 40.0 * 3 / len(AUTOAUGMENT_OPS)
    for seed in range(3):
        assert last_mean(ControllerSettings(**quick), seed) > 4 * chance  # type: ignore[arg-type]
    shuffled = [last_mean(ControllerSettings(**quick, shuffled=True), seed) for seed in range(10)]  # type: ignore[arg-type]
    random_search = [last_mean(ControllerSettings(**quick | {"learning_rate": 0.0}), seed) for seed in range(3)]  # type: ignore[arg-type]
    # Without a signal it drifts, in one of ten seeds to 26; the mean of ten stays within three deviations of chance.
    assert sum(shuffled) / 10 < 2 * chance
    assert sum(random_search) / 3 == pytest.approx(chance, rel=0.35)


def test_the_best_children_are_joined_and_the_space_is_that_of_the_paper() -> None:
    searcher = ControllerSearcher(ControllerSettings(trainings=30), context())
    while jobs := searcher.ask():
        for job in jobs:
            searcher.tell(job, result(matches(job)))
    found = searcher.found()
    best = sorted(searcher.scores, reverse=True)[:5]
    assert [searcher.scores[number] for number in found.facts["kept_children"]] == best
    assert isinstance(found.policy, Policy)
    assert len(found.policy.sub_policies) == 25
    assert len(AUTOAUGMENT_OPS) == len(set(AUTOAUGMENT_OPS)) == 16
    assert float(16 * PROBABILITIES * MAGNITUDES) ** 10 == pytest.approx(2.85e32, rel=0.01)


# ----------------------------------------------------------------------------------------------- PBA


def test_outcomes_are_those_of_going_through_the_ops_in_a_random_order() -> None:
    chances = np.array([0.0, 0.3, 1.0, 0.6, 0.1])
    exact = outcomes(chances)
    assert sum(exact.values()) == pytest.approx(1.0)
    dice, times = np.random.default_rng(0), 200_000
    counted: Counter[tuple[int, ...]] = Counter()
    for _ in range(times):
        left, acting = dice.choice(3, p=[0.2, 0.3, 0.5]), []
        for op in dice.permutation(len(chances)):
            if len(acting) == left:
                break
            if dice.random() < chances[op]:
                acting.append(int(op))
        counted[tuple(acting)] += 1
    for acting, chance in exact.items():
        assert counted[acting] / times == pytest.approx(chance, abs=5 * (max(chance, 1e-4) / times) ** 0.5 + 1e-9)
    assert set(counted) <= set(exact)


def test_a_member_that_does_nothing_leaves_images_alone() -> None:
    policy = policy_of((0,) * 60, Pba().ops, "nothing")
    assert policy.sub_policies == named_policy("none").sub_policies


def test_changed_numbers_stay_in_bounds_move_by_three_and_are_drawn_anew_in_a_fifth() -> None:
    generator = torch.Generator().manual_seed(0)
    start = tuple([5, 4] * 1000)
    found = changed(start, generator)
    assert all(0 <= one <= TOP_PROBABILITY for one in found[::2])
    assert all(0 <= one <= TOP_LEVEL for one in found[1::2])
    moved = [abs(one - 5) for one in found[::2]]
    far = sum(one > 3 for one in moved) / 1000  # only where drawn anew: 4 of 11 values are farther away
    assert far == pytest.approx(0.2 * 4 / 11, abs=0.04)
    still = sum(one == 0 for one in moved) / 1000
    assert still == pytest.approx(0.8 / 4 + 0.2 / 11, abs=0.06)


def test_the_worst_quarter_copies_the_best_and_the_schedule_follows_the_weights() -> None:
    searcher = PbaSearcher(Pba(members=8, every=2), context(epochs=8))
    policies: dict[int, tuple[Policy, ...]] = {}  # of every job, what its weights were trained under, epoch by epoch
    number = 0
    while jobs := searcher.ask():
        assert len(jobs) == 8
        for place, job in enumerate(jobs):
            assert isinstance(job.policy, Policy)
            before = () if job.start is None else policies[job.start]
            policies[number + place] = (*before, job.policy, job.policy)
            assert (job.seed is None) == (job.start is not None), "generators go on with the weights"
        scores = [float((3 * place + number) % 8) for place in range(8)]
        numbers_before = [member.numbers for member in searcher.members]
        for job, score in zip(jobs, scores, strict=True):
            searcher.tell(job, result(score))
        order = sorted(range(8), key=lambda place: -scores[place])
        if searcher.epoch < 8:
            for better, worse in zip(order[:2], reversed(order[-2:]), strict=True):
                assert searcher.members[worse].job == number + better
                assert searcher.members[worse].numbers != numbers_before[better]
            for kept in order[:-2]:
                assert searcher.members[kept].job == number + kept
                assert searcher.members[kept].numbers == numbers_before[kept]
        number += 8
    best = max(searcher.members, key=lambda member: member.score)
    schedule = searcher.found().policy
    assert isinstance(schedule, PolicySchedule)
    assert best.job is not None
    for epoch, policy in enumerate(policies[best.job]):
        assert schedule.at(epoch).sub_policies == policy.sub_policies
    assert 1 <= searcher.found().facts["roots_left"] <= 8


def test_a_population_learns_what_a_table_rewards() -> None:
    """A score that grows with the probability of two ops: the last population gives them more than the others."""

    def reached(seed: int, shuffled: bool) -> float:
        searcher = PbaSearcher(
            Pba(members=16, every=1, ops=("Rotate", "Invert", "Color"), shuffled=shuffled), context(seed, 40)
        )
        while jobs := searcher.ask():
            for job, member in zip(jobs, searcher.members, strict=True):
                searcher.tell(job, result(sum(member.numbers[0:4:2]) - sum(member.numbers[4:8:2])))
        return sum(sum(m.numbers[0:4:2]) - sum(m.numbers[4:8:2]) for m in searcher.members) / 16

    assert min(reached(seed, shuffled=False) for seed in range(3)) > 8
    assert sum(reached(seed, shuffled=True) for seed in range(5)) / 5 < 6


# ----------------------------------------------------------------------------------------------- OHL-Auto-Aug


def test_the_space_of_ohl_is_that_of_the_paper() -> None:
    assert len(ohl.ELEMENTS) == len(set(ohl.ELEMENTS)) == 36
    assert len(ohl.PAIRS) == 1296
    assert sum(choice.magnitude is None for choice in ohl.ELEMENTS) == 3


def test_the_gradient_of_ohl_is_that_of_the_log_probability_of_all_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=generator, dtype=torch.float64, requires_grad=True)
    draws = torch.randint(0, 50, (4, 7), generator=generator).double()
    rewards = ohl.normalized(torch.rand(4, generator=generator, dtype=torch.float64))
    logged = (draws @ ohl.distribution(logits).log() * rewards).mean()
    (exact,) = torch.autograd.grad(logged, logits)
    assert torch.allclose(ohl.score_gradient(logits.detach(), draws, rewards), exact, atol=1e-10)


def test_scores_are_normalized_and_one_alone_or_equal_ones_are_zero() -> None:
    found = ohl.normalized(torch.tensor([60.0, 62.0, 65.0, 61.0], dtype=torch.float64))
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(found.square().mean()) == pytest.approx(1.0)
    assert ohl.normalized(torch.tensor([3.0], dtype=torch.float64)).tolist() == [0.0]
    assert ohl.normalized(torch.full((8,), 61.7, dtype=torch.float64)).abs().max() == 0


def ohl_search(settings: Ohl, epochs: int = 12) -> tuple[OhlSearcher, list[list[Job]]]:
    """A search whose score is how often a pair of two rotations was drawn."""
    searcher = OhlSearcher(settings, context(epochs=epochs))
    wanted = torch.tensor([all(choice.op == "Rotate" for choice in pair.ops) for pair in ohl.PAIRS])
    dice, rounds = torch.Generator().manual_seed(1), []
    while jobs := searcher.ask():
        rounds.append(list(jobs))
        for job in jobs:
            assert isinstance(job.policy, Policy)
            shares = torch.tensor([row.weight for row in job.policy.sub_policies], dtype=torch.float64)
            drawn = torch.bincount(torch.multinomial(shares, 3000, True, generator=dice), minlength=1296)
            searcher.tell(job, result(float(drawn[wanted].sum()), tuple(drawn.tolist()) if job.counted else ()))
    return searcher, rounds


def test_all_trajectories_go_on_from_the_best_and_draw_for_themselves() -> None:
    searcher, rounds = ohl_search(Ohl(trajectories=4, every=3))
    assert [len(jobs) for jobs in rounds] == [1, 4, 4, 4, 4]
    assert rounds[0][0].until_epoch == 0, "they share the fresh weights"
    for jobs in rounds[1:]:
        assert len({job.start for job in jobs}) == 1
        assert len({job.seed for job in jobs}) == 4
    assert searcher.continued == {searcher.best}
    assert len({job.seed for jobs in rounds for job in jobs}) == 17, "no epoch repeats the draws of another one"


def test_the_distribution_learns_what_is_rewarded_and_stays_uniform_without_a_rate_or_with_one_trajectory() -> None:
    rotations = [place for place, choice in enumerate(ohl.ELEMENTS) if choice.op == "Rotate"]

    def share(settings: Ohl) -> float:
        logits = ohl_search(settings, 60)[0].logits.detach()
        pairs = ohl.distribution(logits).view(36, 36)
        return float(pairs[rotations][:, rotations].sum())

    uniform = len(rotations) ** 2 / 1296
    assert share(Ohl(learning_rate=0.2)) > 1.5 * uniform
    assert share(Ohl(learning_rate=0.2, shuffled=True)) < 1.3 * uniform
    assert share(Ohl(learning_rate=0.0)) == pytest.approx(uniform)
    assert share(Ohl(trajectories=1)) == pytest.approx(uniform)
    shares = ohl_search(Ohl(), 3)[0].found().facts["first_element_shares"]
    assert len(shares) == 36
    assert sum(shares) == pytest.approx(1.0)


# ----------------------------------------------------------------------------------------------- Fast AutoAugment


def fast_search(settings: FastAA, seed: int = 0) -> tuple[FastAASearcher, list[Job]]:
    """A search whose score is higher the more a policy rotates, and the less it inverts."""
    searcher, asked = FastAASearcher(settings, context(seed)), []
    while jobs := searcher.ask():
        for job in jobs:
            asked.append(job)
            rows = [] if job.judged_under is None else job.judged_under.sub_policies
            choices = [choice for row in rows for choice in row.ops]
            good = sum(choice.probability * (choice.op == "Rotate") for choice in choices)
            bad = sum(choice.probability * (choice.op == "Invert") for choice in choices)
            searcher.tell(job, result(50 + 10 * good - 10 * bad))
    return searcher, asked


def test_networks_never_train_under_what_they_score_and_every_fold_tries_its_own() -> None:
    settings = FastAA(folds=3, trials=4, kept=2)
    searcher, jobs = fast_search(settings)
    networks, trials = jobs[:3], jobs[3:]
    assert [job.fold for job in networks] == [0, 1, 2]
    assert {job.policy for job in jobs} == {named_policy("none")}
    assert all(job.start == job.fold and job.judged_under is not None for job in trials)
    assert len(trials) == 3 * 2 * 4
    assert searcher.continued == {0, 1, 2}
    found = searcher.found()
    assert found.facts["joined_policies"] == 3 * 2 * 2
    assert isinstance(found.policy, Policy)
    assert len(found.policy.sub_policies) == 12 * 5


def test_the_parzen_estimator_beats_random_search_on_a_table() -> None:
    def best(sampler: str, seed: int) -> float:
        settings = FastAA(folds=2, rounds=1, trials=60, kept=5, sub_policies=2, sampler=sampler)
        searcher, _ = fast_search(settings, seed)
        kept = [score for explored in searcher.tried for score, _ in searcher._best(explored)]
        return sum(kept) / len(kept)

    better = sum(best("tpe", seed) > best("random", seed) for seed in range(5))
    assert better == 5


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RandAugmentGrid(counts=(1, 1)), "counts"),
        (lambda: RandAugmentGrid(levels=(31,)), "levels"),
        (lambda: RandAugmentGrid(judges=6), "judges"),
        (lambda: ControllerSettings(ops=("Rotat",)), "Rotat"),
        (lambda: Pba(ops=("Rotate", "Rotate")), "Rotate"),
        (lambda: FastAA(sampler="grid"), "sampler"),
    ],
)
def test_wrong_settings_are_one_line(make: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()  # type: ignore[operator]
