"""Adversarial AutoAugment: a controller that learns which policies are hard, and a network that is itself a result."""

import json
import os
import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jointsearch.compose import compose_study
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.networks.trained import load_network
from jointsearch.protocols import PLAIN_STEP, Context, Moment
from jointsearch.report.alike import tables_of
from jointsearch.report.comparison import compare
from jointsearch.report.ledger import ledger
from jointsearch.report.page import write_report
from jointsearch.report.trainings_found import sources_of
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.searchers import adversarial
from jointsearch.searchers.adversarial import DECAY, Adversarial, AdversarialSearcher
from jointsearch.searchers.controller import MAGNITUDES
from jointsearch.study import run_study
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule, load_policy_or_schedule
from tests.forked import forkserver
from tests.kills import same, sleep_until, wait_for

BATCH = Batch(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), torch.arange(2))
WORDS = (
    "search=policy",
    "searcher=adversarial",
    "searcher.copies=2",
    "searcher.safe=true",
    "network=tiny_cnn",
    "dataset.reduced=200",
    "recipe.epochs=4",
    "recipe.batch_size=50",
    "recipe.evaluate_every=1",
    "recipe.precision=float32",
    "controls=[none+copies2,none+sampled1of2-safe]",
    "seeds=[0]",
)
SEARCH = Path("search-seed0")
ROWS = [Path(name, "seed0") for name in ("own_network", "found", "none+copies2", "none+sampled1of2-safe")]


class Hard:
    """Stands for a training step: the loss of a copy is how often its policy holds an op, or what a test says."""

    objective: Any = None

    def __init__(self, op: str = "Invert") -> None:
        self.op, self.losses, self.batches = op, [], []
        self.searcher: AdversarialSearcher | None = None

    def of_copies(self, copies: Sequence[Tensor], labels: Tensor) -> Tensor:
        self.batches.append((copies, labels))
        if self.losses:
            return torch.tensor(self.losses.pop(0))
        assert self.searcher is not None
        return torch.tensor([float(count(policy, self.op)) for policy in self.searcher.policies])


def count(policy: Policy, op: str) -> int:
    return sum(choice.op == op for row in policy.sub_policies for choice in row.ops)


def searcher_of(step: Hard, seed: int = 0, **settings: Any) -> AdversarialSearcher:
    context = Context(nn.Linear(1, 1), step, Standard(), torch.Generator().manual_seed(seed), 10, seed)  # type: ignore[arg-type]
    step.searcher = AdversarialSearcher(Adversarial(**settings), context)
    return step.searcher


def moment(epoch: int, step: int = 0, steps: int = 1) -> Moment:
    return Moment(epoch, step, steps, 10, 0.1)


def learned(epochs: int, seed: int = 0, **settings: Any) -> tuple[float, float]:
    """The share of Invert among the ops of the last twenty epochs, and the entropy of a decision at the end."""
    searcher = searcher_of(Hard(), seed, **settings)
    for epoch in range(epochs):
        searcher.step(BATCH, [], moment(epoch))
    ops = searcher.history[-20:].reshape(-1, 2)[:, 0]
    place = searcher.settings.ops.index("Invert")
    return float((ops == place).double().mean()), searcher.entropy


@pytest.fixture
def plain_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversarial, "augment", lambda images, policy, standard, noise: images / 255)


# ---------------------------------------------------------------------------------------------------- the bandit


@pytest.mark.slow
def test_the_controller_raises_the_share_of_the_hardest_op_and_keeps_its_entropy(plain_copies: None) -> None:
    found = [learned(80, seed, learning_rate=0.001) for seed in range(2)]
    assert min(share for share, _ in found) > 0.5
    assert min(entropy for _, entropy in found) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("control", [{"learning_rate": 0.0}, {"learning_rate": 0.001, "shuffled": True}])
def test_its_controls_do_not(plain_copies: None, control: dict[str, Any]) -> None:
    found = [learned(80, seed, **control)[0] for seed in range(2)]
    assert max(found) < 2 / 16


def test_a_policy_is_twenty_decisions_among_sixteen_ops_and_ten_magnitudes() -> None:
    searcher = searcher_of(Hard())
    assert searcher.history.shape == (1, 8, 20)
    assert len(set(searcher.settings.ops)) == 16
    assert pytest.approx(1.1e22, rel=0.01) == (16 * MAGNITUDES) ** 10
    _, logs, entropies = searcher.controller(searcher.history[0], 8)
    assert logs.shape == (8, 20)
    by_hand = (torch.tensor([16.0, 10.0]).log()).mean()
    assert float(entropies.detach().mean()) == pytest.approx(float(by_hand), rel=0.01)  # almost uniform at first
    for policy in searcher.policies:
        assert [len(row.ops) for row in policy.sub_policies] == [2] * 5
        assert {choice.probability for row in policy.sub_policies for choice in row.ops} == {1.0}


def test_policies_stay_for_an_epoch_and_each_copy_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Policy] = []
    monkeypatch.setattr(adversarial, "augment", lambda images, policy, *_: used.append(policy) or images / 255)
    step = Hard()
    searcher = searcher_of(step, copies=3)
    for epoch in range(2):
        for place in range(2):
            report = searcher.step(BATCH, [], moment(epoch, place, 2))
            assert report.forward_equivalents == 3 * PLAIN_STEP
    assert used[:3] == used[3:6] != used[6:9] == used[9:12]
    assert len({policy.to_json() for policy in used[:3]}) == 3
    assert [len(copies) for copies, _ in step.batches] == [3] * 4
    schedule = searcher.found().policy
    assert isinstance(schedule, PolicySchedule)
    assert [start for start, _ in schedule.spans] == [0, 1]
    for epoch in range(2):
        joined = [row for policy in used[6 * epoch : 6 * epoch + 3] for row in policy.sub_policies]
        assert list(schedule.at(epoch).sub_policies) == joined


def test_a_loss_of_several_passes_costs_as_many(plain_copies: None) -> None:
    step = Hard()
    step.objective = SimpleNamespace(passes=3)
    report = searcher_of(step, copies=2).step(BATCH, [], moment(0))
    assert report.forward_equivalents == 2 * 3 * PLAIN_STEP


def test_rewards_are_moving_means_without_the_bias_of_their_beginning(plain_copies: None) -> None:
    step = Hard()
    searcher = searcher_of(step, copies=2)
    step.losses = [[1.0, 5.0], [2.0, 4.0], [6.0, 3.0]]
    told = [list(one) for one in step.losses]
    for place in range(3):
        searcher.step(BATCH, [], moment(0, place, 4))
    weights = [DECAY**2, DECAY, 1.0]
    for copy in range(2):
        by_hand = sum(w * one[copy] for w, one in zip(weights, told, strict=True)) / sum(weights)
        assert float(searcher.losses[copy]) / searcher.weight == pytest.approx(by_hand, rel=1e-6)


def test_the_moving_means_of_an_epoch_begin_anew(plain_copies: None) -> None:
    step = Hard()
    searcher = searcher_of(step, copies=2)
    step.losses = [[100.0, 1.0], [1.0, 2.0]]
    searcher.step(BATCH, [], moment(0))
    searcher.step(BATCH, [], moment(1, 0, 2))
    assert (searcher.losses / searcher.weight).tolist() == pytest.approx([1.0, 2.0])


def gradient_of(losses: list[float]) -> tuple[dict[str, Tensor], AdversarialSearcher, Tensor]:
    """The gradient with which a controller learns from the losses of its copies, and the policies of these."""
    step = Hard()
    searcher = searcher_of(step, copies=len(losses), learning_rate=0.0)
    drawn, step.losses = searcher.history[-1].clone(), [losses]
    searcher.step(BATCH, [], moment(0))
    found = {name: one.grad.clone() for name, one in searcher.controller.named_parameters() if one.grad is not None}
    return found, searcher, drawn


def test_the_controller_ascends_normalized_losses_times_log_probabilities_and_entropy(plain_copies: None) -> None:
    for losses in ([5.0, 1.0, 3.0], [2.0, 2.0, 2.0]):
        found, searcher, drawn = gradient_of(list(losses))
        _, logs, entropies = searcher.controller(drawn, 3)
        told = torch.tensor(losses)
        spread = (told - told.mean()).square().mean().sqrt()
        rewards = (told - told.mean()) / spread if spread > 0 else torch.zeros(3)
        aim = (rewards * logs.sum(1)).sum() / 3 + 1e-5 * entropies.sum() / 3
        for name, parameter in searcher.controller.named_parameters():
            (wanted,) = torch.autograd.grad(aim, parameter, retain_graph=True, allow_unused=True)
            if wanted is not None:
                assert float((found[name] + wanted).norm()) <= 1e-3 * float(wanted.norm()), name


def test_copies_that_no_teacher_knows_are_replaced_and_teachers_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded: list[Batch] = []
    known = torch.tensor([[True, False], [False, True]])

    class Guard:
        def __init__(self, train_step: Any) -> None:
            pass

        def guard(self, copies: Tensor, plain: Batch, at: Moment) -> Tensor:
            guarded.append(plain)
            return known

    marks = iter([1.0, 2.0, 9.0])  # of two copies, and of the plain images
    monkeypatch.setattr(adversarial, "Teachers", Guard)
    monkeypatch.setattr(adversarial, "augment", lambda images, *_: torch.full((2, 1, 4, 4), next(marks)))
    step = Hard()
    searcher = searcher_of(step, copies=2, safe=True)
    report = searcher.step(BATCH, [], moment(0, 0, 2))
    [(copies, _)] = step.batches
    assert [copy[:, 0, 0, 0].tolist() for copy in copies] == [[1.0, 9.0], [9.0, 2.0]]
    assert guarded[0].images[0, 0, 0, 0] == 9.0
    assert report.forward_equivalents == 2 * PLAIN_STEP + 1 + 2 + PLAIN_STEP


def test_a_short_schedule_is_as_long_as_a_training_on_one_copy(plain_copies: None) -> None:
    searcher = searcher_of(Hard(), copies=4, short=True)
    for epoch in range(3):
        searcher.step(BATCH, [], moment(epoch))
    schedule = searcher.found().policy
    assert isinstance(schedule, PolicySchedule)
    assert [start for start, _ in schedule.spans] == [0, 4, 8]


def test_magnitudes_are_told_of_ops_that_have_any(plain_copies: None) -> None:
    for ops, mean in ((("Invert", "AutoContrast"), None), (("Invert", "Rotate"), 1.0)):
        searcher = searcher_of(Hard(), copies=2, ops=ops)
        searcher.history[-1, :, 1::2] = torch.where(searcher.history[-1, :, ::2] == 0, 3, MAGNITUDES - 1)
        assert searcher.found().facts.get("mean_magnitude") == mean


def test_the_longest_schedules_of_the_paper_can_be_read(tmp_path: Path) -> None:
    searcher = searcher_of(Hard(), copies=32)
    for copies, epochs in ((32, 200), (8, 1200)):
        policy = Policy(tuple(row for one in searcher.policies[:copies] for row in one.sub_policies))
        PolicySchedule(tuple((epoch, policy) for epoch in range(epochs))).save(tmp_path / "policy.json")
        assert len(load_policy_or_schedule(tmp_path / "policy.json").spans) == epochs  # type: ignore[union-attr]


def test_one_copy_alone_teaches_nothing_and_makes_no_nan(plain_copies: None) -> None:
    alone = searcher_of(Hard(), copies=1)
    alone.step(BATCH, [], moment(0))
    assert all(bool(one.isfinite().all()) for one in alone.controller.parameters())


# ------------------------------------------------------------------------------------------- a study, and its kills


def go(folder: str, save_seconds: float = 0.0) -> None:
    torch.set_num_threads(1)
    run_study(compose_study(*WORDS, f"save_seconds={save_seconds}", "threads=1", dataset="digits"), folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    go(str(folder), 60.0)
    return folder


def test_the_network_of_the_search_is_a_row_beside_its_controls(finished: Path) -> None:
    search = json.loads((finished / SEARCH / "result.json").read_text())
    result = json.loads((finished / ROWS[0] / "result.json").read_text())
    assert search["own_test_score"] == result["test_accuracy_last"]
    assert result["images_trained"] == 4 * 200 * 2
    # Two copies train; both and the plain image are judged by a teacher; and the teachers train on the plain image.
    assert result["forward_equivalents"] == search["forward_equivalents"] == 4 * 4 * (2 * PLAIN_STEP + 3 + PLAIN_STEP)
    [alike] = tables_of(sources_of([finished]))
    costs = {one.row: one for one in ledger(alike)}
    assert costs["own_network"].search is None  # it is that training
    assert costs["found"].search is not None
    assert costs["found"].search.images == 4 * 200 * 2
    comparison = compare([finished])
    assert {row.policy for row in comparison.rows} == {row.parent.name for row in ROWS}
    assert load_policy_or_schedule(finished / ROWS[0] / "policy.json") == load_policy_or_schedule(
        finished / SEARCH / "policy.json"
    )
    network = load_network(finished / ROWS[0])
    weights = load_checkpoint(finished / SEARCH / "checkpoints")
    assert weights is not None
    assert same(network.state_dict(), weights.state["trainer"]["network"])
    page = write_report(finished).read_text()
    assert "own_network" in page
    assert "test images are read once, for the score of its own network" in page


def test_its_history_tells_of_ops_and_magnitudes(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / SEARCH / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        shares = {name: value for name, value in line.items() if name.startswith("share/")}
        assert len(shares) == 16
        assert sum(shares.values()) == pytest.approx(2)  # each image has two ops
        assert 0 <= line["mean_magnitude"] <= 1
        assert 0 <= line["unrecognized_share"] <= 1
        levels = [value for name, value in line.items() if name.startswith("magnitude/")]
        assert len(levels) == MAGNITUDES
        assert sum(levels) == pytest.approx(1)


def everything(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in (SEARCH, *ROWS):
        for name in ("policy.json", "metrics.jsonl", "settings.json", "model.safetensors"):
            if (folder / place / name).is_file():
                found[f"{place}/{name}"] = (folder / place / name).read_bytes()
        result = json.loads((folder / place / "result.json").read_text())
        found[f"{place}/result"] = {key: value for key, value in result.items() if key != "seconds"}
    return found


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    processes, moments = forkserver(), random.Random(5)
    for place in (SEARCH, ROWS[3]):
        child = processes.Process(target=go, args=(str(tmp_path),))
        child.start()
        wait_for(tmp_path / place / "settings.json")
        sleep_until(tmp_path / place, moments.uniform(1, 3.5), 0.05)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert not (tmp_path / place / "result.json").is_file()
    go(str(tmp_path))
    assert same(everything(tmp_path), everything(finished))


def test_a_budget_shortens_what_it_trains_by() -> None:
    study = compose_study(*WORDS, "budget=0.5", dataset="digits")
    assert study.recipe.epochs == 2


def test_a_control_in_its_folder_and_another_search_in_its_run_are_refused(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "own_network.json"
    file.write_bytes((finished / SEARCH / "policy.json").read_bytes())
    with pytest.raises(InputError, match="would share a folder with what is found; rename the file"):
        compose_study(*WORDS[:-2], f"controls=[{file}]", "seeds=[0]", dataset="digits")
    folder = tmp_path / "run"
    shutil.copytree(finished / "own_network", folder / "own_network")
    with pytest.raises(InputError, match=r"copies was '\+copies2-safe', is '\+copies3-safe'"):
        run_study(compose_study(*WORDS, "searcher.copies=3", dataset="digits"), folder)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["search_recipe.epochs=3"], "search_recipe is not read by Adversarial, which trains by recipe; leave it out"),
        (["select_epoch=best"], "use select_epoch=last"),
        (["searcher.ops=[Rotato]"], "did you mean Rotate"),
    ],
)
def test_what_it_cannot_do_is_refused(words: list[str], remedy: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=remedy):
        run_study(compose_study(*WORDS, *words, dataset="digits"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
