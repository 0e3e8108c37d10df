"""What a search step costs beside the plain training step of the same network and batch."""

import multiprocessing
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jointsearch.benchmarks.plain_supernet import PlainSuperNet
from jointsearch.benchmarks.timing import time_in_turn
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard, normalize
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trainer import StepOf, Trainer
from jointsearch.networks.create import create_network
from jointsearch.networks.supernet import SUPERNET
from jointsearch.protocols import PLAIN_STEP, Moment, SearcherSettings
from jointsearch.searchers.differentiable import DifferentiableSearcher
from jointsearch.stages import Stage
from search_spaces.cells.skeleton import Skeleton

CLASSES = 10
PLAIN_DEFINITION = "plain step of the plain definition"  # of the supernet
# CIFAR's: pad-4 crop, flip and cutout.
STANDARD = Standard(4, True, 16, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
RECIPE = Recipe(precision="float32")
BLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class StepCost:
    """Costs of one kind of step."""

    seconds: float
    peak_gigabytes: float  # of the device; on a CPU of the whole process, imports and all
    augmentation_seconds: float | None  # None where it is no step of its own
    forward_equivalents: float


class Step:
    """A network with its trainer, and a search on top unless `search` is None."""

    def __init__(self, search: Stage | None, network: str, batch: int, device: torch.device) -> None:
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(256, (2, batch, 3, 32, 32), generator=noise, dtype=torch.uint8).to(device)
        labels = torch.randint(CLASSES, (2, batch), generator=noise).to(device)
        self.train, self.validation = (Batch(images[i], labels[i], torch.arange(batch)) for i in range(2))
        self.trainer = Trainer(built(network), RECIPE, device, CLASSES, 1)
        if network == PLAIN_DEFINITION:
            # The trainer makes every network channels_last, which alone halves the time of this one.
            self.trainer.trained.to(memory_format=torch.contiguous_format)
        self.trainer.trained.train()
        self.train_step = StepOf(self.trainer, lambda: 0)
        self.searcher = None
        if search is not None:
            start = search.new_searcher(None, 0, STANDARD)
            self.searcher = start(self.trainer.trained, self.train_step, noise)
        self.cost = PLAIN_STEP

    def __call__(self) -> None:
        """One step of the search, or of plain training on images that are ready."""
        if self.searcher is None:
            self.train_step(normalize(self.train.images, STANDARD), self.train.labels)
            return
        at = Moment(0, 0, 1, RECIPE.epochs, RECIPE.learning_rate)
        report = self.searcher.step(self.train, [self.validation] * self.searcher.needs.batches, at)
        self.cost = report.forward_equivalents


def built(network: str) -> nn.Module:
    """A network by name, or the plain definition of the supernet."""
    return PlainSuperNet(Skeleton()) if network == PLAIN_DEFINITION else create_network(network, CLASSES)


def step_costs(
    searches: Mapping[str, Stage], network: str, batch: int, device: torch.device, rounds: int
) -> dict[str, StepCost]:
    """Costs of a plain step, under the name "plain", and of one step of each search, timed in turn.

    Beside a supernet's stands a plain step of its plain definition.
    """
    kinds: dict[str, Stage | None] = {"plain": None, **searches}
    networks = dict.fromkeys(kinds, network)
    if network == SUPERNET:
        kinds[PLAIN_DEFINITION], networks[PLAIN_DEFINITION] = None, PLAIN_DEFINITION
    steps = {name: Step(search, networks[name], batch, device) for name, search in kinds.items()}
    seconds = time_in_turn(steps, rounds, BLOCK_SECONDS)
    augmenting = {
        name: partial(step.searcher.drawn.augmented, step.train)
        for name, step in steps.items()
        if isinstance(step.searcher, DifferentiableSearcher)
    }
    augmentation = time_in_turn(augmenting, rounds, BLOCK_SECONDS / 4)
    peaks = {name: peak_gigabytes(search, networks[name], batch, device) for name, search in kinds.items()}
    return {name: StepCost(seconds[name], peaks[name], augmentation.get(name), steps[name].cost) for name in kinds}


def peak_gigabytes(search: Stage | None, network: str, batch: int, device: torch.device) -> float:
    """The most memory that two such steps need, in a process of their own."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    if search is not None:  # another process can only be given functions that have a name
        search = replace(search, searcher=partial(_settings, search.searcher(None, 0)))
    threads = torch.get_num_threads()
    child = context.Process(target=_two_steps, args=(sending, search, network, batch, str(device), threads))
    child.start()
    sending.close()
    try:
        return receiving.recv()
    finally:
        child.join()


def _settings(settings: SearcherSettings, folder: Path | None, seed: int) -> SearcherSettings:
    return settings


def _two_steps(sending: Any, *given: Any) -> None:
    search, network, batch, device, threads = given
    torch.set_num_threads(threads)
    step = Step(search, network, batch, torch.device(device))
    step()
    step()
    if device.startswith("cuda"):
        sending.send(torch.cuda.max_memory_allocated() / 2**30)
    else:
        sending.send(_peak_resident_gigabytes())
    sending.close()


def _peak_resident_gigabytes() -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        # What getrusage says begins with the memory of the process that started this one.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
