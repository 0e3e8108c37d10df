"""Every searcher keeps the contract of StepSearcher: facts are plain, costs are told, a state continues bit for bit."""

import copy
import inspect
import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from jointsearch.compose import class_of, compose_study, groups
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trainer import StepOf, Trainer
from jointsearch.networks.create import create_network
from jointsearch.protocols import PLAIN_STEP, Found, Moment, StepReport, StepSearcher
from jointsearch.randomness import own_global_randomness
from jointsearch.runs.plain_state import decode_state, encode_state
from jointsearch.search_kinds import has_population
from jointsearch.stages import Stage
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy, policy_from_data
from search_spaces.schedule import PolicySchedule, schedule_from_data
from tests.kills import same

SEARCHERS = [name for name in groups()["searcher"] if not has_population(class_of("searcher", name))]
FREE = ("random",)  # they do not train
STANDARD = Standard(crop_padding=1, mean=(0.3,), std=(0.38,))
WORDS = {"trials": ["searcher.trial_steps=2"], "table": ["searcher.levels=1", "searcher.every=1"]}
CELLS = ["supernet.space=small", "supernet.channels=4", "supernet.layers=3"]
EPOCHS, SIZE, STEPS = 20, 16, 3


def stage_of(*words: str) -> Stage:
    return compose_study("dataset=digits", f"search_recipe.epochs={EPOCHS}", *words).search.stages()[0]


def policy_stage(name: str) -> Stage:
    return stage_of("search=policy", "network=tiny_cnn", f"searcher={name}", *WORDS.get(name, []))


def batches(count: int, seed: int = 0) -> list[Batch]:
    dice = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, SIZE, 1, 8, 8), generator=dice, dtype=torch.uint8)
    return [Batch(one, torch.randint(10, (SIZE,), generator=dice), torch.arange(SIZE)) for one in images]


class Course:
    """A searcher with its network, trainer and noise, on its way through the last epochs of a search."""

    def __init__(self, stage: Stage, seed: int = 3) -> None:
        torch.manual_seed(seed)
        recipe = Recipe(epochs=EPOCHS, batch_size=SIZE, optimizer="momentum", precision="float32")
        network = create_network(stage.network, 10, 1, 8, 0.0, stage.network_options)
        self.trainer = Trainer(network, recipe, torch.device("cpu"), 10, STEPS)
        self.trainer.trained.train()
        self.noise = torch.Generator().manual_seed(seed)
        train_step = StepOf(self.trainer, lambda: self.done)
        self.done = 0
        new = stage.new_searcher(None, 0, STANDARD)
        self.searcher: StepSearcher = new(self.trainer.trained, train_step, self.noise)

    def step(self, train: Batch, validation: Sequence[Batch]) -> StepReport:
        """Measured where the searcher asks for it: the first step of the last epoch, at least, is."""
        at = Moment(EPOCHS - 2, self.done, STEPS, EPOCHS, self.trainer.learning_rate())
        wanted = self.searcher.needs.batches if self.searcher.needs.wanted(at) else 0
        report = self.searcher.step(train, list(validation)[:wanted], at)
        self.done += 1
        return report

    def state(self) -> dict[str, Any]:
        trainer = self.trainer.state()
        parts = {"trainer": trainer, "searcher": self.searcher.state(), "done": self.done}
        return copy.deepcopy(parts | {"noise": self.noise.get_state(), "global": torch.get_rng_state()})

    def restore(self, state: dict[str, Any]) -> None:
        saved = decode_state(*encode_state(state))
        self.done = saved["done"]
        self.trainer.restore(saved["trainer"], self.done)
        self.searcher.restore(saved["searcher"])
        self.noise.set_state(saved["noise"])
        torch.set_rng_state(saved["global"])


def check_found(found: Found, cells: bool) -> None:
    if found.policy is not None:
        assert isinstance(found.policy, Policy | PolicySchedule)
        data = json.loads(found.policy.to_json())
        read = policy_from_data if isinstance(found.policy, Policy) else schedule_from_data
        assert read(data, "what was found") == found.policy
    assert (found.genotype is not None) == cells
    if found.genotype is not None:
        assert Genotype.from_darts(found.genotype.to_darts()) == found.genotype
    # Plain data: what JSON gives back is what went in, without tensors, tuples or numbers that are none.
    assert json.loads(json.dumps(dict(found.facts), allow_nan=False)) == dict(found.facts)


def check_contract(stage: Stage, free: bool = False, cells: bool = False) -> None:
    with own_global_randomness(0):
        train, judges = batches(STEPS), batches(STEPS * 4, 1)
        course = Course(stage)
        reports = [course.step(train[0], judges[:4])]
        check_found(course.searcher.found(), cells)
        in_the_middle = course.state()
        reports.append(course.step(train[1], judges[4:8]))
        reports.append(course.step(train[2], judges[8:]))
        for report in reports:
            assert report.loss.isfinite()
            assert not report.skipped
            assert report.forward_equivalents == 0 if free else report.forward_equivalents >= PLAIN_STEP
        check_found(course.searcher.found(), cells)
        other = Course(stage, seed=8)  # built from other numbers, all of which the state replaces
        other.restore(in_the_middle)
        for place in (1, 2):
            report = other.step(train[place], judges[4 * place : 4 * place + 4])
            assert torch.equal(report.loss, reports[place].loss)
        states = [course.state(), other.state()]
        if not course.trainer.optimizer.state:  # a searcher with an optimizer of its own leaves the loop's unused
            for state in states:
                del state["trainer"]["optimizer"]
        assert same(*states)
        assert other.searcher.found() == course.searcher.found()


def test_a_step_searcher_has_at_most_five_public_members() -> None:
    methods = {name for name, _ in inspect.getmembers(StepSearcher, inspect.isfunction) if not name.startswith("_")}
    members = methods | set(inspect.get_annotations(StepSearcher))
    assert members == {"needs", "step", "found", "state", "restore"}


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_of_a_policy_keeps_the_contract(name: str) -> None:
    check_contract(policy_stage(name), free=name in FREE)


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_of_policy_and_cells_keeps_the_contract(name: str) -> None:
    if not policy_stage(name).about.searches_cells:
        with pytest.raises(ValueError, match="use search=policy"):
            stage_of("search=joint", f"searcher={name}")
        return
    check_contract(stage_of("search=joint", f"searcher={name}", *CELLS), cells=True)


def test_a_search_of_cells_alone_keeps_the_contract() -> None:
    check_contract(stage_of("search=architecture", *CELLS), cells=True)


def test_every_searcher_is_covered() -> None:
    assert {"differentiable", "faster_aa", "first_order", "random", "table", "tanda", "trials"} <= set(SEARCHERS)
