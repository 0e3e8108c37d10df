"""Searches by whole trainings: shared, killed and joined late, they find what one process finds."""

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch import compose_study, run_study
from jointsearch.benchmarks.planted_race import race_outcome
from jointsearch.data.load import Loaded
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.loops.plan import Plan
from jointsearch.loops.population import JOBS
from jointsearch.loops.progress import Course
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.retrain import retrain
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.runs.job_board import JobBoard
from jointsearch.search_kinds import POLICY_RECIPE, PolicyOnly, Proposal
from jointsearch.searchers.controller import ControllerSettings
from jointsearch.searchers.fast_aa import FastAA
from jointsearch.searchers.ohl import Ohl
from jointsearch.searchers.pba import Pba
from jointsearch.searchers.race import Race
from jointsearch.searchers.randaugment_grid import RandAugmentGrid
from jointsearch.searchers.random import RandomSearch
from jointsearch.searchers.spaces import Pairs
from jointsearch.stages import FOUND
from jointsearch.study import Prepared, Study
from jointsearch.whole_trainings import WholeTrainings
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule, load_policy_or_schedule
from tests.forked import forkserver
from tests.kills import same
from tests.runs_bench import DIGITS, SEARCH, differentiable

RACE = Race(trainings=14, folds=3, at_once=3, untuned=("none", "trivialaugment"))
STUDY = Study(
    dataset=DIGITS,
    search=PolicyOnly(searcher=RACE, network="tiny_cnn", proposals=()),  # type: ignore[arg-type]
    recipe=Recipe(epochs=2, batch_size=50, precision="float32"),
    seeds=(3,),
    retrain=False,
    device="cpu",
)


def race(folder: str) -> dict[str, Any]:
    """The race of a study, as every process of it makes it."""
    torch.set_num_threads(1)
    options = {"device": torch.device("cpu"), "save_seconds": 0.05}
    prepared = Prepared(STUDY, Path(folder), Loaded(STUDY.dataset), STUDY.search.stages(), options)
    [stage] = prepared.stages
    assert isinstance(stage, WholeTrainings)
    return stage.run(prepared, 3, Course("search", 1))


def started(folder: Path) -> BaseProcess:
    process = forkserver().Process(target=race, args=(str(folder),))
    process.start()
    return process


def told(folder: Path) -> dict[int, dict[str, Any]]:
    """What every job measured, without how long it took."""
    results = JobBoard(folder / SEARCH / JOBS).results()
    return {job: {key: value for key, value in facts.items() if key != "seconds"} for job, facts in results.items()}


def outcome(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / SEARCH / "result.json").read_text())
    return {key: value for key, value in result.items() if key != "seconds"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The race of one process."""
    folder = tmp_path_factory.mktemp("alone")
    race(str(folder))
    return folder


def test_a_race_of_trainings_writes_what_it_found_and_what_it_cost(alone: Path) -> None:
    result = outcome(alone)
    assert result["jobs"] == result["trainings"] == 14
    assert result["forward_equivalents"] == sum(facts["forward_equivalents"] for facts in told(alone).values())
    policy = Policy.load(alone / FOUND.replace("{seed}", "3"))
    assert policy.name == result["chosen"]
    lines = [json.loads(line) for line in (alone / SEARCH / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert not list((alone / SEARCH / JOBS).glob("*/*/checkpoints")), "nobody continues from a finished job"
    assert race(str(alone))["chosen"] == result["chosen"], "a finished race is read"


@pytest.mark.slow
def test_two_processes_killed_anywhere_and_one_that_joins_late_find_what_one_finds(alone: Path, tmp_path: Path) -> None:
    choose, kills = random.Random(0), 0
    workers = [started(tmp_path), started(tmp_path)]
    finished = tmp_path / SEARCH / "result.json"
    while kills < 10 and not finished.is_file():
        time.sleep(choose.uniform(0.02, 0.25))
        place = choose.randrange(2)
        os.kill(workers[place].pid or 0, signal.SIGKILL)
        workers[place].join()
        workers[place] = started(tmp_path)
        kills += 1
    workers.append(started(tmp_path))
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert kills == 10, "the race ended before it was disturbed enough"
    assert told(tmp_path) == told(alone)
    assert outcome(tmp_path) == outcome(alone)
    assert (tmp_path / SEARCH / "policy.json").read_bytes() == (alone / SEARCH / "policy.json").read_bytes()
    trials = JobBoard(tmp_path / SEARCH / JOBS).study.get_trials(deepcopy=False)
    done = Counter(trial.user_attrs["job"] for trial in trials if trial.state.name == "COMPLETE")
    assert done == dict.fromkeys(range(14), 1)


def test_folds_are_disjoint_cover_all_training_images_and_leave_test_images_alone() -> None:
    loaded = Loaded(DIGITS)
    whole, parts = loaded.splits(3), [loaded.fold_splits(3, fold, 5) for fold in range(5)]
    images = [{image.numpy().tobytes() for image in part.validation.images} for part in parts]
    assert sum(map(len, images)) == len(set().union(*images))
    assert set().union(*images) == {image.numpy().tobytes() for image in whole.train.images}
    for part, judging in zip(parts, images, strict=True):
        assert len(part.train) + len(part.validation) == len(whole.train)
        assert not judging & {image.numpy().tobytes() for image in part.train.images}
        assert len(part.test) == 0
        counts = torch.bincount(part.validation.labels)
        assert int(counts.max() - counts.min()) <= 4, "classes are judged about equally often"


def test_what_other_searches_found_takes_part(tmp_path: Path) -> None:
    proposal = Proposal("dice", PolicyOnly(searcher=RandomSearch(), network="tiny_cnn"))  # type: ignore[arg-type]
    kind = PolicyOnly(searcher=Race(trainings=4, folds=2, untuned=("trivialaugment",)), proposals=(proposal,))
    study = Study(
        dataset=DIGITS,
        search=PolicyOnly(kind.searcher, "tiny_cnn", proposals=kind.proposals),  # type: ignore[arg-type]
        recipe=STUDY.recipe,
        controls=(),
        seeds=(3,),
        device="cpu",
    )
    result = run_study(study, tmp_path)
    assert "dice" in {row["arm"] for row in result.searches[-1]["arms"]}
    found = Policy.load(tmp_path / "proposal-dice" / SEARCH / "policy.json")
    jobs = tmp_path / SEARCH / JOBS / "dice"
    assert Policy.load(next(jobs.glob("*/policy.json"))) == found
    page = result.report.read_text()
    assert "better than trivialaugment by, shrunken" in page
    assert "4 whole trainings" in page


TINY: dict[str, Any] = {
    "randaugment_grid": RandAugmentGrid(counts=(1,), levels=(5, 15), folds=2),
    "controller": ControllerSettings(trainings=4, at_once=2, folds=2, sub_policies=2, kept=2),
    "pba": Pba(members=4, every=1, folds=2),
    "ohl": Ohl(trajectories=2, folds=2),
    "fast_aa": FastAA(folds=2, rounds=1, trials=3, kept=2, sub_policies=2),
}


def tiny_study(name: str, **changes: Any) -> Study:
    """A study of a population method, with a control."""
    kind = PolicyOnly(searcher=TINY[name], network="tiny_cnn")  # type: ignore[arg-type]
    recipe = replace(STUDY.recipe, epochs=3)
    given = {"dataset": DIGITS, "search": kind, "recipe": recipe, "controls": ("none",), "seeds": (3,)}
    return Study(**given | {"device": "cpu", "threads": 1} | changes)


@pytest.mark.parametrize("name", TINY)
def test_every_population_method_searches_trains_and_reports(name: str, tmp_path: Path) -> None:
    result = run_study(tiny_study(name), tmp_path)
    [searched] = result.searches
    jobs, trainings = TINY[name].cost(3)
    assert searched["jobs"] == jobs
    of_training = 3 * 3 * -(-250 // 50)  # epochs, forward-equivalents of a step, steps of half of the images
    assert searched["forward_equivalents"] == pytest.approx(trainings * of_training, abs=jobs * 5)
    assert searched["whole_trainings"] == pytest.approx(trainings, abs=jobs * 5 / of_training)
    own = name in ("pba", "ohl")  # trains the network that is its result while it searches
    assert ("own_test_score" in searched) == ("of its own network" in result.report.read_text()) == own
    assert 10 < searched.get("own_test_score", 50) <= 100
    assert result.comparison is not None
    assert {row.policy for row in result.comparison.rows} == {"found", "none"}
    assert f"method</dt><dd>searcher {type(TINY[name]).__name__.removesuffix('Settings')}" in result.report.read_text()
    folders = [path for path in (tmp_path / SEARCH / JOBS).glob("*/*") if path.is_dir() and path.name.isdigit()]
    kept = {"pba": 4, "ohl": 1}.get(name, jobs if name in ("randaugment_grid", "controller") else 2)
    assert len(folders) == kept, "parts of trainings that nobody continues are left behind"


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_population_method_that_is_killed_finds_the_same(name: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_study(tiny_study(name, retrain=False), whole)
    board, choose = JobBoard(killed / SEARCH / JOBS), random.Random(1)
    for _ in range(4):
        claims = len(board.study.get_trials(deepcopy=False))
        process = forkserver().Process(target=run_study, args=(tiny_study(name, retrain=False), killed))
        process.start()
        while process.is_alive() and len(board.study.get_trials(deepcopy=False)) == claims:
            time.sleep(0.005)
        time.sleep(choose.uniform(0.0, 0.2))
        process.kill()
        process.join()
    assert any(trial.state.name == "FAIL" for trial in board.study.get_trials(deepcopy=False)), "no job was broken off"
    run_study(tiny_study(name, retrain=False), killed)
    assert outcome(killed) == outcome(whole)
    assert (killed / SEARCH / "policy.json").read_bytes() == (whole / SEARCH / "policy.json").read_bytes()


def test_a_job_killed_before_its_first_checkpoint_continues_where_it_should(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_study(tiny_study("pba", retrain=False), whole)
    for folder in (whole / SEARCH / JOBS).glob("*/00*"):
        (killed / SEARCH / JOBS / folder.parent.name / folder.name / "checkpoints").mkdir(parents=True)
    run_study(tiny_study("pba", retrain=False), killed)
    assert outcome(killed) == outcome(whole)


def test_training_under_the_schedule_of_a_population_repeats_its_best_member_bit_for_bit(tmp_path: Path) -> None:
    study = tiny_study("pba", recipe=replace(STUDY.recipe, epochs=6), retrain=False)
    run_study(study, tmp_path)
    result = json.loads((tmp_path / SEARCH / "result.json").read_text())
    schedule = load_policy_or_schedule(tmp_path / SEARCH / "policy.json")
    assert isinstance(schedule, PolicySchedule)
    assert len(schedule.spans) > 1, "the best member kept its first policy"
    splits = Loaded(DIGITS).fold_splits(3, 0, 2)
    recipe = replace(study.recipe, evaluate_every=6)
    plan = Plan(tmp_path / "again", "tiny_cnn", recipe, DIGITS.standard, result["seed_of_best"], schedule)
    retrain(plan, splits)
    again = load_checkpoint(tmp_path / "again" / "checkpoints")
    members = [load_checkpoint(path) for path in (tmp_path / SEARCH / JOBS).glob("*/*/checkpoints")]
    assert again is not None
    weights = again.state["trainer"]["network"]
    alike = [one for one in members if one is not None and same(one.state["trainer"]["network"], weights)]
    assert len(alike) == 1, "no member has the weights that its schedule gives"
    assert same(alike[0].state["trainer"]["optimizer"], again.state["trainer"]["optimizer"])
    assert same(alike[0].state["generators"], again.state["generators"])


def test_names_of_proposals_are_searchers_and_presets() -> None:
    study = compose_study("search=policy", "searcher=race", "proposals=[trials,dada2020_relax]")
    kind: Any = study.search
    assert [proposal.name for proposal in kind.proposals] == ["trials", "dada2020_relax"]
    assert kind.proposals[1].search.searcher.published == "paper"
    assert [stage.folder for stage in kind.stages()] == ["proposal-trials", "proposal-dada2020_relax", ""]


def test_a_race_judges_trials_and_gradients_unless_told_otherwise_and_they_are_trained_by_the_recipe_of_searches() -> (
    None
):
    kind: Any = compose_study("search=policy", "search_recipe.epochs=30").search
    assert kind == PolicyOnly(search_recipe=replace(POLICY_RECIPE, epochs=30))
    assert [stage.folder for stage in kind.stages()] == ["proposal-trials", "proposal-differentiable", ""]
    assert [stage.recipe.epochs for stage in kind.stages()[:2]] == [30, 30]
    both: Any = compose_study(
        "search=policy", "proposals=[trials,dada2020_relax]", "search_recipe.learning_rate=0.2"
    ).search
    assert [one.search.search_recipe.learning_rate for one in both.judged] == [0.2, 0.1], "DADA brings its own"
    few: Any = compose_study("search=policy", "search_recipe.epochs=5").search
    assert few.judged[0].search.searcher.measurements == 3, "each takes an epoch of the second half"
    alone: Any = compose_study("search=policy", "proposals=[]").search
    assert len(alone.stages()) == 1


def test_a_budget_shortens_proposals_too() -> None:
    words = ("search=policy", "searcher=race", "proposals=[trials,dada2020_relax]")
    whole, short = (compose_study(*words, f"budget={budget}").search for budget in (1, 0.5))
    pairs = list(zip(whole.proposals, short.proposals, strict=True))  # type: ignore[attr-defined]
    assert [(one.search.search_recipe.epochs, other.search.search_recipe.epochs) for one, other in pairs] == [
        (20, 10),
        (20, 10),
    ]
    assert pairs[0][1].search.searcher.measurements < pairs[0][0].search.searcher.measurements


def test_a_choice_among_epochs_that_there_are_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use select_epoch=last"):
        run_study(replace(STUDY, select_epoch="best"), tmp_path)


def test_a_job_that_fails_is_free_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise InputError("broken")

    monkeypatch.setattr("jointsearch.loops.population.train_job", broken)
    with pytest.raises(InputError, match="broken"):
        race(str(tmp_path))
    [trial] = JobBoard(tmp_path / SEARCH / JOBS).study.get_trials(deepcopy=False)
    assert trial.state.name == "FAIL"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["searcher=race", "proposals=[]", "search_recipe.epochs=5"], "search_recipe is not read by Race"),
        (["searcher=pba", "proposals=[trials]"], "use searcher=race"),
        (["searcher=race", "proposals=[trails]"], "did you mean trials"),
        (["searcher=race", "proposals=[darts2019_first]"], "no search of a policy"),
        (["searcher=race", "proposals=[race]"], "no search of a policy"),
        (["searcher=race", "proposals=[trials,trials]"], "twice"),
        (["searcher=trials", "proposals=[differentiable]"], "searcher=race"),
    ],
)
def test_wrong_proposals_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose_study("search=policy", *words)


@pytest.mark.slow
def test_the_race_hands_over_what_gradients_found_where_no_untuned_policy_knows_the_answer() -> None:
    race = Race(trainings=8, untuned=("none", "trivialaugment"), family=False)
    one = race_outcome(race, differentiable(policy_space=Pairs(), estimator=ReinforceSettings()), 0)
    assert one.chosen == "gradients"
    assert one.first_op == "TranslateX"
    assert one.difference > one.interval
    assert one.accuracy > one.control_accuracy + 20
