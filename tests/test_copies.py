"""Several copies of every image: all of them, the hardest, or some drawn by loss; and what a teacher leaves out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch.augmenters.copies import ALL, HARDEST, SAMPLED, Copies, keep, split_copies
from jointsearch.augmenters.teachers import Teachers, halves_of
from jointsearch.augmenters.with_policy import WithPolicy
from jointsearch.data.datasets import Digits
from jointsearch.data.group_datasets import ColoredDigits
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.loops.by_group import Clamp
from jointsearch.loops.copies_steps import CopiesSteps
from jointsearch.loops.grid import Grid, folder_name, run_grid
from jointsearch.loops.recipe import Recipe, Timm, Warmup
from jointsearch.loops.task import Task
from jointsearch.loops.trainer import StepOf, Trainer
from jointsearch.protocols import PLAIN_STEP, Moment
from jointsearch.report.comparison import compare
from search_spaces.controls import named_policy
from search_spaces.errors import InputError

CPU = torch.device("cpu")
SGD = Recipe(
    epochs=4, batch_size=8, optimizer="momentum", precision="float32", schedule="none", timm=Timm(momentum=0.0)
)
STANDARD = Standard(mean=(0.0,), std=(1.0,))
AT = Moment(0, 0, 10, 4, 0.1)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(count: int = 8) -> Batch:
    images = torch.randint(256, (count, 1, 6, 6), generator=dice(1), dtype=torch.uint8)
    return Batch(images, torch.randint(3, (count,), generator=dice(2)), torch.arange(count))


def trainer_of(network: nn.Module | None = None, recipe: Recipe = SGD) -> Trainer:
    torch.manual_seed(0)
    return Trainer(network or nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), recipe, CPU, 3, 10)


def steps_of(copies: Copies, trainer: Trainer, policy: str = "randaugment") -> CopiesSteps:
    augmenters = (WithPolicy(named_policy(policy), STANDARD), WithPolicy(named_policy("none"), STANDARD))
    return CopiesSteps(copies, augmenters, trainer.trained, StepOf(trainer, lambda: 0), dice(3))


# ------------------------------------------------------------------------------------------------- rows by name


@pytest.mark.parametrize(
    ("row", "policy", "copies"),
    [
        ("none", "none", None),
        ("trivialaugment+copies4", "trivialaugment", Copies(4, 4, ALL)),
        ("random+hardest1of4", "random", Copies(4, 1, HARDEST)),
        ("none+copies2-short", "none", Copies(2, 2, ALL, short=True)),
        ("none+copies2-safe-short", "none", Copies(2, 2, ALL, safe=True, short=True)),
        ("runs/a+b/policy.json+sampled4of8-safe", "runs/a+b/policy.json", Copies(8, 4, SAMPLED, safe=True)),
    ],
)
def test_a_row_names_its_copies_behind_its_policy(row: str, policy: str, copies: Copies | None) -> None:
    assert split_copies(row) == (policy, copies)
    assert row == policy + (str(copies) if copies else "")


@pytest.mark.parametrize("row", ["none+copies", "none+hardest4of4", "none+sampled0of4", "none+copies4-sure"])
def test_copies_in_no_known_form_are_refused_with_an_example(row: str) -> None:
    with pytest.raises(InputError, match=r"\+hardest1of4"):
        split_copies(row)


def test_a_row_of_one_copy_is_not_short_and_a_file_may_be_called_anything() -> None:
    with pytest.raises(InputError, match="-short would change nothing; leave it out"):
        split_copies("none+hardest1of4-short")
    assert split_copies("runs/mine+copies-old.json") == ("runs/mine+copies-old.json", None)


def test_rows_of_copies_have_folders_of_their_own() -> None:
    names = [folder_name(f"random{end}") for end in ("", "+copies4", "+hardest1of4", "+hardest1of4-safe")]
    assert names == ["random", "random+copies4", "random+hardest1of4", "random+hardest1of4-safe"]
    assert folder_name("runs/x/search-seed{seed}/policy.json+copies2") == "found+copies2"


# --------------------------------------------------------------------------------------------- which copies train


def test_the_hardest_copies_have_no_lower_loss_than_those_left_out() -> None:
    losses = torch.rand(8, 50, generator=dice())
    chosen, allowed = keep(losses, torch.ones(8, 50, dtype=torch.bool), 3, HARDEST, dice())
    kept = losses.gather(0, chosen)
    left = losses.scatter(0, chosen, -1.0).amax(0)
    assert allowed.all()
    assert (kept.amin(0) >= left).all()
    tied, _ = keep(torch.ones(4, 5), torch.ones(4, 5, dtype=torch.bool), 2, HARDEST, dice())
    assert tied.tolist() == [[0] * 5, [1] * 5]  # of equal losses the first


def test_copies_are_sampled_in_proportion_to_their_loss() -> None:
    shares, count = torch.tensor([0.1, 0.2, 0.3, 0.4]), 40_000
    losses = (3 * shares)[:, None].expand(4, count)
    chosen, _ = keep(losses, torch.ones(4, count, dtype=torch.bool), 1, SAMPLED, dice())
    found = torch.bincount(chosen[0], minlength=4) / count
    assert float((found - shares).abs().max()) < 5 * (0.25 / count) ** 0.5
    two, _ = keep(losses, torch.ones(4, count, dtype=torch.bool), 2, SAMPLED, dice())
    assert (two[0] != two[1]).all()  # without replacement
    pairs = torch.bincount(two.amin(0) * 4 + two.amax(0), minlength=16)[2 * 4 + 3] / count
    by_hand = 0.3 * 0.4 / 0.7 + 0.4 * 0.3 / 0.6  # the third and then the fourth, or the other way round
    assert abs(float(pairs) - by_hand) < 5 * (0.25 / count) ** 0.5


@pytest.mark.parametrize("by", [HARDEST, SAMPLED])
def test_what_is_not_allowed_comes_last_and_is_told(by: str) -> None:
    losses, allowed = torch.tensor([[9.0, 9.0], [1.0, 9.0], [2.0, 9.0]]), torch.tensor([[False, False]] * 3)
    allowed[1:, 0] = True
    chosen, told = keep(losses, allowed, 2, by, dice())
    assert set(chosen[:, 0].tolist()) == {1, 2}
    assert told.tolist() == [[True, False], [True, False]]
    below, _ = keep(losses - 20, allowed, 1, by, dice())
    assert by == SAMPLED or below[0, 0] == 2


def test_losses_that_select_are_measured_in_evaluation_mode_and_change_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3))
    trainer = trainer_of(network)
    network.train()
    network[1].eval()  # as a part that is frozen
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = torch.rand(8, 1, 6, 6, generator=dice()), batch_of().labels
    found = StepOf(trainer, lambda: 0).losses(images, labels)
    assert [module.training for module in network] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    assert torch.allclose(nn.functional.cross_entropy(network(images), labels, reduction="none"), found)


# ------------------------------------------------------------------------------------------------------ the step


def test_a_step_on_copies_is_a_step_on_the_large_batch_where_no_statistics_are_shared() -> None:
    copies, labels = [torch.rand(8, 1, 6, 6, generator=dice(seed)) for seed in range(4)], batch_of().labels
    ours, large = trainer_of(), trainer_of()
    losses = ours.step_on(copies, labels, 0)
    whole = large.step(torch.cat(copies), labels.repeat(4), 0)
    assert losses.shape == (4,)
    assert torch.allclose(losses.mean(), whole)
    for mine, other in zip(ours.trained.parameters(), large.trained.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_each_copy_has_batch_statistics_of_its_own() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, affine=False), nn.Flatten(), nn.Linear(36, 3))
    trainer, labels = trainer_of(network), batch_of().labels
    one = torch.rand(8, 1, 6, 6, generator=dice())
    losses = trainer.step_on([one, 5 * one + 3], labels, 0)  # the same, once each is normalized by itself
    assert float(losses[0]) == pytest.approx(float(losses[1]), abs=1e-3)  # but for the eps of the division


@pytest.mark.parametrize(
    ("copies", "cost"),
    [
        (Copies(4, 4, ALL), 4 * PLAIN_STEP),
        (Copies(4, 1, HARDEST), 4 + PLAIN_STEP),
        (Copies(8, 4, SAMPLED), 8 + 4 * PLAIN_STEP),
        (Copies(4, 1, HARDEST, safe=True), 4 + PLAIN_STEP + (1 + 4) + PLAIN_STEP),
    ],
)
def test_a_step_costs_what_it_computes(copies: Copies, cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, images = trainer_of(), []
    steps = steps_of(copies, trainer)
    linear = nn.Linear.forward

    def counted(self: nn.Linear, given: Tensor) -> Tensor:
        images.append(len(given) * (1 + 2 * torch.is_grad_enabled()))
        return linear(self, given)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    report = steps.step(batch_of(), [], AT)
    assert report.forward_equivalents == cost
    assert sum(images) == cost * 8


def test_the_hardest_copies_are_those_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = trainer_of(), []
    steps = steps_of(Copies(6, 2, HARDEST), trainer)
    drawn: list[Tensor] = []
    augmenter = steps.augmenter

    def watched(*given: Any) -> Batch:
        batch = augmenter(*given)
        drawn.append(batch.images)
        return batch

    steps.augmenter = watched
    monkeypatch.setattr(
        trainer, "step_on", lambda copies, labels, done: seen.append(copies) or torch.zeros(len(copies))
    )
    batch = batch_of()
    steps.step(batch, [], AT)
    network = trainer.trained.eval()
    all_losses = torch.stack(
        [nn.functional.cross_entropy(network(one), batch.labels, reduction="none") for one in drawn]
    )
    for place in range(8):
        wanted = all_losses[:, place].topk(2).indices
        for copy, number in zip(seen[0], wanted.tolist(), strict=True):
            assert torch.equal(copy[place], drawn[number][place])


# -------------------------------------------------------------------------------------------------- the teachers


class Known:
    """A teacher that says 1 for a bright image and 0 for a dark one, or the opposite, and notes what it learns."""

    def __init__(self, sign: int) -> None:
        self.sign, self.asked, self.learned, self.done = sign, nn.Identity(), [], []

    def network(self) -> nn.Module:
        return self.asked

    def outputs(self, images: Tensor) -> Tensor:
        assert not self.asked.training
        bright = (images.flatten(1).mean(1) > 0.5).long()
        return self.sign * nn.functional.one_hot(bright, 2).float()

    def step(self, images: Tensor, labels: Tensor, done: int) -> Tensor:
        assert self.asked.training
        self.learned.append(images)
        self.done.append(done)
        return torch.zeros(())

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


def teachers_of(*signs: int) -> tuple[Teachers, list[Known]]:
    known = [Known(sign) for sign in signs]
    left = list(known)

    class Step:
        def beside(self) -> Known:
            return left.pop(0)

    return Teachers(Step()), known  # type: ignore[arg-type]


def test_a_copy_is_lost_if_the_plain_image_was_recognized_and_the_copy_is_not() -> None:
    teachers, _ = teachers_of(1, 1)
    bright, dark = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    plain = Batch(
        torch.cat([bright, dark, bright]), torch.tensor([1, 0, 0]), torch.arange(3)
    )  # the last is wrong anyway
    copies = torch.stack([torch.cat([bright, bright, dark]), torch.cat([dark, dark, bright])])
    found = teachers.recognized(copies, plain)
    assert found.tolist() == [[True, False, True], [False, True, True]]
    assert teachers.facts() == {"unrecognized_share": pytest.approx(2 / 6)}


def test_each_teacher_judges_the_half_that_it_does_not_learn() -> None:
    teachers, known = teachers_of(1, -1)  # the second has every bright image wrong, and so loses none of its copies
    plain = Batch(torch.ones(60, 1, 2, 2), torch.ones(60, dtype=torch.int64), torch.arange(60))
    lost = ~teachers.guard(torch.zeros(1, 60, 1, 2, 2), plain, Moment(2, 3, 10, 4, 0.1))[0]
    first, second = halves_of(plain)
    assert lost[second].all()
    assert not lost[first].any()
    assert [len(one.learned[0]) for one in known] == [len(first), len(second)]
    assert [one.done for one in known] == [[23], [23]]


def test_a_teacher_learns_the_plain_images_of_its_half_and_no_others() -> None:
    teachers, known = teachers_of(1, 1)
    index = torch.arange(60)
    plain = Batch(index[:, None, None, None].float().expand(60, 1, 2, 2), torch.zeros(60, dtype=torch.int64), index)
    teachers.learn(plain, AT)
    halves = [set(one.learned[0][:, 0, 0, 0].int().tolist()) for one in known]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(range(60))
    assert 18 <= len(halves[0]) <= 42


def test_the_hardest_copy_is_one_that_a_teacher_knows_and_teachers_see_no_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, seen, shown = trainer_of(), [], []
    steps = steps_of(Copies(4, 1, HARDEST, safe=True), trainer, "trivialaugment")
    assert steps.teachers is not None
    known = torch.zeros(4, 8, dtype=torch.bool)
    known[2] = True
    monkeypatch.setattr(steps.teachers, "recognized", lambda copies, plain: shown.append((copies, plain)) or known)
    monkeypatch.setattr(steps.teachers, "learn", lambda plain, at: shown.append((None, plain)))
    monkeypatch.setattr(trainer, "step_on", lambda copies, *_: seen.append(copies) or torch.zeros(len(copies)))
    batch = batch_of()
    steps.step(batch, [], AT)
    assert torch.equal(seen[0][0], shown[0][0][2])
    for _, plain in shown:
        assert torch.equal(plain.images, batch.images / 255)


def test_what_a_teacher_does_not_recognize_is_replaced_by_the_plain_image(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = trainer_of(), []
    steps = steps_of(Copies(3, 3, ALL, safe=True), trainer, "trivialaugment")
    lost = torch.rand(3, 8, generator=dice()) < 0.5
    monkeypatch.setattr(Teachers, "recognized", lambda self, copies, plain: ~lost)
    monkeypatch.setattr(
        trainer, "step_on", lambda copies, labels, done: seen.append(copies) or torch.zeros(len(copies))
    )
    batch = batch_of()
    steps.step(batch, [], AT)
    for copy, gone in zip(seen[0], lost, strict=True):
        assert torch.equal(copy[gone], batch.images[gone] / 255)


# ----------------------------------------------------------------------------------------------------- trainings


def test_short_rows_compute_as_many_gradients_as_a_row_of_one_copy(tmp_path: Path) -> None:
    recipe = Recipe(epochs=8, batch_size=100, evaluate_every=8, warmup=Warmup(epochs=4))
    rows = ("none", "random+copies4-short", "random+hardest1of2")
    grid = Grid(rows, Digits(reduced=200), (0,), "tiny_cnn", recipe)
    results = {one["policy"]: one for one in run_grid(grid, tmp_path)}
    assert [results[row]["epochs"] for row in rows] == [8, 2, 8]
    assert {results[row]["images_trained"] for row in rows} == {8 * 200}
    assert "forward_equivalents" not in results["none"]
    assert results["random+copies4-short"]["forward_equivalents"] == 2 * 2 * 4 * PLAIN_STEP
    assert results["random+hardest1of2"]["forward_equivalents"] == 8 * 2 * (2 + PLAIN_STEP)
    assert {row.policy for row in compare([tmp_path]).rows} == set(rows)  # one table
    settings = json.loads((tmp_path / rows[1] / "seed0/settings.json").read_text())
    assert settings["recipe"]["epochs"] == 8  # as it was given
    assert grid.plan(rows[1], 0, tmp_path, {}).recipe.warmup == Warmup(epochs=1)
    assert grid.plan("random+copies4", 0, tmp_path, {}).recipe == recipe


def test_copies_go_with_losses_of_groups_and_cost_what_those_cost(tmp_path: Path) -> None:
    recipe, task = Recipe(epochs=1, batch_size=100), Task(new_objective=Clamp())
    grid = Grid(("none+copies2-safe",), ColoredDigits(reduced=200), (0,), "tiny_cnn", recipe)
    [result] = run_grid(grid, tmp_path, task=task)
    # Each copy goes through the network with its two translations; teachers judge three and learn from one.
    assert result["forward_equivalents"] == 2 * (2 * 3 * PLAIN_STEP + 3 + PLAIN_STEP)
    assert "worst_group_accuracy" in result["test_scores_last"]
