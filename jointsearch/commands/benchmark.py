"""Measure on this machine: speed, cost, exactness, and what searches find where the answer is known."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import torch

from jointsearch.benchmarks.agreement import SETUP, magnitudes_agreement, rewards_agreement, trained_steps
from jointsearch.benchmarks.augmentation import compare_libraries, compare_policies, share_of_step
from jointsearch.benchmarks.ops import ops_table
from jointsearch.benchmarks.planted import CELL_STEPS, STEPS, planted_outcome
from jointsearch.benchmarks.planted_race import race_table
from jointsearch.benchmarks.search_step import step_costs
from jointsearch.benchmarks.shapes import OPS, shapes_outcome
from jointsearch.benchmarks.theory.demos import theory_lines
from jointsearch.benchmarks.trainings import trainings_table
from jointsearch.benchmarks.words import (
    CELL_SEARCHES,
    GRADIENTS,
    LEVERS,
    ON_SHAPES,
    PLANTED,
    PLANTED_CELLS,
    SEARCHES,
    SHAPES,
)
from jointsearch.compose import compose_study
from jointsearch.data.datasets import Shapes
from jointsearch.data.planted import PLANTED_ANSWER, SHADES_ANSWER, Answer
from jointsearch.data.shapes import SHAPES_ANSWER
from jointsearch.device import choose_device
from jointsearch.networks.supernet import SUPERNET
from jointsearch.protocols import SearcherSettings
from jointsearch.runs.provenance import birth_certificate
from jointsearch.searchers.race import Race
from jointsearch.settings import bounded, choice, setting
from jointsearch.stages import Stage
from search_spaces.errors import InputError

SUBJECT = "task"
MOST_USED = ()
KNOWN_ANSWERS = ("planted", "planted_cells", "planted_race", "levers", "shapes", "theory")
TASKS = ("augment", "ops", "search_step", "trainings", "agreement", *KNOWN_ANSWERS)

ON_PLANTED = {
    "planted": (PLANTED, STEPS, PLANTED_ANSWER),
    "planted_cells": (PLANTED_CELLS, CELL_STEPS, SHADES_ANSWER),
    "levers": (LEVERS, STEPS, PLANTED_ANSWER),
}


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    task: str = choice(
        "augment",
        *TASKS,
        help="augment, ops, trainings: speed; search_step: cost; agreement: exactness; others: a known answer",
    )
    device: str = setting("auto", help="where training steps run: auto, cpu, cuda, ...")
    network: str = setting("wide_resnet40_2", help="of search_step, and of augment beside a training step")
    batch_size: int = bounded(128, 2, 65_536, help="images of a batch, of the same two tasks")
    rounds: int = bounded(7, 1, 1000, help="repetitions of what is timed; the median counts, of trainings the least")
    seeds: int = bounded(10, 1, 1000, help="number of seeds where the answer is known")
    first_seed: int = bounded(0, 0, 1_000_000, help="the first of these seeds")
    figures: str | None = setting(None, help="a folder; theory draws its figures into it")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops or networks of your own")

    def range_of_seeds(self) -> range:
        """The seeds where the answer is known."""
        return range(self.first_seed, self.first_seed + self.seeds)


def main(settings: Settings) -> None:
    """Print the tables of a task as Markdown, under their birth certificate."""
    device = choose_device(settings.device)
    if settings.task in KNOWN_ANSWERS and device.type != "cpu" and settings.device != "auto":
        raise InputError(f"device={settings.device}, and task={settings.task} runs on the CPU; leave device out")
    birth = birth_certificate()
    print(f"{birth['command']} at {birth['commit']}: {birth['hardware']}, torch {birth['torch']}, {birth['date']}\n")
    match settings.task:
        case "search_step":
            print_search_steps(settings, device)
        case "trainings":
            print(trainings_table(device, settings.rounds))
        case "agreement":
            print_agreement()
        case "planted" | "planted_cells" | "levers":
            print_planted(settings, *ON_PLANTED[settings.task])
        case "ops":
            print(ops_table(settings.rounds))
        case "planted_race":
            print_lines(race_table(Race(), searcher_of(GRADIENTS), settings.range_of_seeds()))
        case "theory":
            print_lines(theory_lines(settings.range_of_seeds(), settings.figures))
        case "shapes":
            print_shapes(settings)
        case _:
            for size, batch in ((32, 128), (224, 64)):
                print_libraries(size, batch, settings.rounds)
                print_policies(size, batch, settings.rounds)
            print_share(settings, device)


def print_lines(lines: Iterable[str]) -> None:
    """Each as soon as it is there."""
    for line in lines:
        print(line, flush=True)


def print_libraries(size: int, batch: int, rounds: int) -> None:
    """The front-end beside other libraries."""
    timings = compare_libraries(size, batch, rounds)
    ours = next(iter(timings.values()))
    print(f"25 sub-policies at {size}x{size}, batch {batch}, one thread:\n")
    print("| | images/s | jointsearch is |\n|---|---|---|")
    for name, seconds in timings.items():
        print(f"| {name} | {batch / seconds:,.0f} | {seconds / ours:.2f} times as fast |")
    print(flush=True)


def print_policies(size: int, batch: int, rounds: int) -> None:
    """What draws and ops cost."""
    timings = compare_policies(size, batch, rounds)
    first, base = next(iter(timings.items()))
    print(f"Our front-end at {size}x{size}, batch {batch}, uint8, one thread:\n")
    print(f"| policy | images/s | time / {first} |\n|---|---|---|")
    for name, seconds in timings.items():
        print(f"| {name} | {batch / seconds:,.0f} | {seconds / base:.2f} |")
    print(flush=True)


def print_share(settings: Settings, device: torch.device) -> None:
    """The front-end's share of a training step."""
    print(f"{describe(settings, device)}:\n")
    print("| precision | front-end / training step |\n|---|---|")
    for precision in ("float32", "bf16"):
        timings = share_of_step(settings.network, settings.batch_size, precision, device, settings.rounds)
        print(f"| {precision} | {timings['front-end'] / timings['training step']:.1%} |", flush=True)


def print_search_steps(settings: Settings, device: torch.device) -> None:
    """Search steps beside the plain step of the same network and batch."""
    print(f"{describe(settings, device)}, float32:\n", flush=True)
    kinds = CELL_SEARCHES if settings.network == SUPERNET else SEARCHES
    searches = {name: stage_of(overrides) for name, overrides in kinds.items()}
    costs = step_costs(searches, settings.network, settings.batch_size, device, settings.rounds)
    plain = costs["plain"].seconds
    seconds = " s |" if device.type == "cuda" else ""
    print(
        f"| step |{' seconds |' if seconds else ''} / plain step | forward-equivalents | augmentation | peak memory |"
    )
    print(f"|---|{'---|' if seconds else ''}---|---|---|---|")
    for name, cost in costs.items():
        absolute = f" {cost.seconds:.4f}{seconds}" if seconds else ""
        augmenting = cost.augmentation_seconds
        share = "-" if augmenting is None else f"{augmenting / cost.seconds:.1%}"
        print(
            f"| {name} |{absolute} {cost.seconds / plain:.2f} | {cost.forward_equivalents:g} | {share} | "
            f"{cost.peak_gigabytes:.2f} GiB |"
        )


def print_agreement() -> None:
    """Rewards and gradients of magnitudes beside those of the real step."""
    steps = trained_steps()
    print(f"{SETUP}:")
    for subject, found in (("reward", rewards_agreement), ("gradient of magnitudes", magnitudes_agreement)):
        print(f"\n| {subject} | cosine to the truth | size over the truth's | right signs |\n|---|---|---|---|")
        for name, one in found(steps).items():
            print(f"| {name} | {one.cosine:.2f} | {one.size:.2f} | {one.signs:.0%} |", flush=True)


def print_planted(settings: Settings, searches: dict[str, list[str]], steps: int, answer: Answer) -> None:
    """Searches where the answer is known."""
    helps, harms = (", ".join(answer[key]) for key in ("recover", "avoid"))
    print(f"{steps} steps; {settings.seeds} seeds from {settings.first_seed} on; {helps} helps, {harms} harms:\n")
    print(
        "| search | ranked | AUC, mean (least) | harmful op / uniform, mean (most) | retrained accuracy, % | "
        "forward-equivalents | seconds |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, overrides in searches.items():
        stage = stage_of(overrides)
        searcher = stage.searcher(None, 0)
        outcomes = [planted_outcome(searcher, seed, stage.architecture) for seed in settings.range_of_seeds()]
        aucs = [outcome.auc for outcome in outcomes if outcome.auc is not None]
        poisons = [outcome.poison for outcome in outcomes if outcome.poison is not None]
        print(
            f"| {name} | {outcomes[0].ranked} | {f'{fmean(aucs):.3f} ({min(aucs):.3f})' if aucs else '-'} | "
            f"{f'{fmean(poisons):.2f} ({max(poisons):.2f})' if poisons else '-'} | "
            f"{fmean(outcome.accuracy for outcome in outcomes):.1f} | {outcomes[0].forward_equivalents:,} | "
            f"{fmean(outcome.seconds for outcome in outcomes):.1f} |",
            flush=True,
        )


def print_shapes(settings: Settings) -> None:
    """Searches on drawn shapes, of which is known what they need and what falsifies their labels."""
    answer = [op for ops in SHAPES_ANSWER.values() for op in ops]
    print(
        f"{settings.seeds} seeds from {settings.first_seed} on; {', '.join(SHAPES_ANSWER['recover'])} should have more "
        f"than an equal share of the {len(OPS)} ops (1), {', '.join(SHAPES_ANSWER['avoid'])} less; mean over seeds "
        "(the worst):\n"
    )
    print(f"| search | seeds that match | {' | '.join(answer)} | accuracy, % | of the start | forward-equivalents |")
    print("|---|---|" + "---|" * (len(answer) + 3), flush=True)
    for name, overrides in SHAPES.items():
        outcomes = [
            shapes_outcome(searcher_of([*ON_SHAPES, *overrides]), seed, Shapes()) for seed in settings.range_of_seeds()
        ]
        shares = []
        for op in answer:
            over = [outcome.over_uniform[op] for outcome in outcomes]
            worst = min(over) if op in SHAPES_ANSWER["recover"] else max(over)
            shares.append(f"{fmean(over):.2f} ({worst:.2f})")
        reached, before = (
            f"{fmean(values):.1f}"
            for values in zip(*((outcome.accuracy, outcome.start_accuracy) for outcome in outcomes), strict=True)
        )
        print(
            f"| {name} | {sum(outcome.matches for outcome in outcomes)} of {settings.seeds} | {' | '.join(shares)} | "
            f"{reached} | {before} | {fmean(outcome.forward_equivalents for outcome in outcomes):,.0f} |",
            flush=True,
        )


def stage_of(words: list[str]) -> Stage:
    """The search inside one training that joint_search.py would make of these words."""
    stage = compose_study(*words).search.stages()[0]
    if not isinstance(stage, Stage):
        raise InputError(f"{' '.join(words)} searches by whole trainings, which have no search step; name another")
    return stage


def searcher_of(words: list[str]) -> SearcherSettings:
    """The settings of its searcher."""
    return stage_of(words).searcher(None, 0)


def describe(settings: Settings, device: torch.device) -> str:
    """What runs where."""
    return f"{settings.network}, batch {settings.batch_size}, {device}, {torch.get_num_threads()} CPU threads"
