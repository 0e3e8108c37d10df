"""A whole study from Python: search with every seed, train with the findings beside controls, compare, report.

from jointsearch import compose_study, run_study

study = compose_study("search=policy", "network=wide_resnet16_1", dataset="digits", seeds=(0,))
result = run_study(study, "runs/mine")  # continues where it was interrupted
result.policy, result.comparison, result.report
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jointsearch.data.always_on import always_on
from jointsearch.data.datasets import DataSettings, Digits
from jointsearch.data.load import Loaded
from jointsearch.device import choose_device, cpu_threads
from jointsearch.distributed import first_before_others, from_first, processes
from jointsearch.loops.grid import CELLS, SEED, Grid, check_grid, check_seeds, folder_name, plain_dataset, run_grid
from jointsearch.loops.progress import Course
from jointsearch.loops.recipe import OF_CELLS, SMALL, Recipe
from jointsearch.loops.search import SELECT
from jointsearch.loops.shared import in_turn
from jointsearch.loops.start import normalized_as_weights, start_notes
from jointsearch.loops.task import CLASSIFICATION, Task
from jointsearch.report.comparison import Comparison, compare, write_summary
from jointsearch.report.on_board import put_on_board
from jointsearch.report.page import write_report
from jointsearch.report.page_html import duration
from jointsearch.report.searches import describe_searches
from jointsearch.runs.boards import Board, Disabled, WandbSettings
from jointsearch.runs.run_folder import OWN_NETWORK, check_writable, write_json
from jointsearch.search_kinds import Joint, SearchKind
from jointsearch.settings import as_plain, bounded, check_fields, choice, group, setting
from jointsearch.stages import FOUND, FOUND_CELLS, FOUND_FACTS, Stage, folder_of
from jointsearch.whole_trainings import WholeTrainings
from jointsearch.workers import device_of, helpers, threads_of
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule, load_policy_or_schedule

Results = list[dict[str, Any]]
CONTROLS = ("none", "trivialaugment")
LONG_SECONDS = 3600.0
BY_SEARCH = Recipe()  # stands for that which suits the search, where none is given
STUDY_FILE = "study.json"  # how trainings with the finding are made, for retrain.py


@dataclass(frozen=True)
class Study:
    """What is searched on which data, and what is trained with the findings."""

    dataset: DataSettings = group(Digits, help="digits, cifar10, cifar100, svhn, shapes, folder, hf")
    search: SearchKind = group(Joint, help="joint, policy, architecture, separate")
    controls: tuple[str, ...] = setting(CONTROLS, help="rows trained beside the finding: a policy, or policy@genotype")
    seeds: tuple[int, ...] = setting((0, 1, 2), help="each seed searches and trains for itself")
    recipe: Recipe = group(lambda: BY_SEARCH, help="of the trainings with what was found, and of the controls")
    select_epoch: str = choice(SELECT[0], *SELECT, help="whose finding is kept; best has the best validation score")
    retrain: bool = setting(True, help="train with what was found; false ends after the search")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    jobs: int = bounded(1, 1, 1024, help="processes that share the searches and trainings; any more may join by run=")
    threads: int | None = bounded(None, 1, 1024, help="CPU threads of each; null leaves torch's choice")
    wandb: WandbSettings = group(Disabled, help="disabled, offline, online: also send figures to Weights & Biases")
    tensorboard: bool = setting(False, help="also write event files for TensorBoard into the run folder")
    save_seconds: float = bounded(60.0, 0.0, 86_400.0, help="seconds between two checkpoints, at most")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.recipe is BY_SEARCH:
            object.__setattr__(self, "recipe", OF_CELLS if self.finds_cells else SMALL)
        check_seeds(self.seeds)
        if (network := getattr(self.search, "network", None)) is not None:
            object.__setattr__(self, "dataset", normalized_as_weights(self.dataset, network))
        for control in self.controls:
            if folder_name(control) in (folder_name(FOUND), OWN_NETWORK):
                raise InputError(f"the control {control} would share a folder with what is found; rename the file")

    @property
    def finds_cells(self) -> bool:
        """Whether a genotype is among what is found."""
        return self.search.retrained.name == CELLS

    def grid(self, policies: tuple[str, ...], genotype: str = "random") -> Grid:
        """Trainings after the search; before any cells are found, with random ones."""
        if not self.finds_cells:
            return Grid(policies, self.dataset, self.seeds, self.search.retrained, self.recipe)
        kind: Any = self.search
        return Grid(
            policies,
            self.dataset,
            self.seeds,
            self.search.retrained,
            self.recipe,
            genotype=genotype,
            cells=kind.cells,
            random_space=kind.supernet.space,
        )

    def of_trainings(self) -> dict[str, Any]:
        """Everything but the finding that decides its trainings, as plain data; folders of the data are left out."""
        cells = as_plain(getattr(self.search, "cells", None))
        supernet = getattr(self.search, "supernet", None)
        return {
            "dataset": plain_dataset(self.dataset),
            "network": as_plain(self.search.retrained),
            "cells": cells,
            "space": getattr(supernet, "space", None),
            "recipe": as_plain(self.recipe),
        }


@dataclass(frozen=True)
class Prepared:
    """A study whose data are read and whose networks have taken a step."""

    study: Study
    folder: Path
    loaded: Loaded
    stages: tuple[Stage | WholeTrainings, ...]
    options: dict[str, Any]  # of every plan: device, save_seconds, show_progress, task, board
    seconds: dict[str, float] = field(default_factory=dict)  # expected, of all searches of a stage and of all trainings

    def plan_lines(self) -> list[str]:
        """What will be done, and how long it may take on this device."""
        study, count = self.study, len(self.study.seeds)
        lines = [f"Plan: {count} {stage.what(self)}" for stage in self.stages]
        if study.retrain:
            rows, epochs = count * (1 + len(study.controls)), study.recipe.epochs
            lines.append(f"Plan: {rows} trainings of {epochs} epochs, network {study.search.retrained}")
        lines.append(f"Always on: {always_on(study.dataset)}")
        total = sum(self.seconds.values())
        parts = ", ".join(f"{name.lower()} {duration(seconds)}" for name, seconds in self.seconds.items())
        lines.append(
            f"Expected on {self.options['device'].type}: {duration(total)} ({parts}), by the "
            "second step of each network"
        )
        if total > LONG_SECONDS:
            lines.append("That is long: budget=0.5 takes half of the epochs")
        splits = self.loaded.listed(study.seeds[0])
        networks = dict.fromkeys([*(stage.network for stage in self.stages), study.search.retrained])
        return lines + [note for one in networks for note in start_notes(study.dataset, one, splits)]


@dataclass(frozen=True)
class StudyResult:
    """The result of a study. Policies and genotypes are those of each seed."""

    folder: Path
    policies: dict[int, Policy | PolicySchedule]
    genotypes: dict[int, Genotype]
    searches: list[dict[str, Any]]
    comparison: Comparison | None
    report: Path

    @property
    def policy(self) -> Policy | PolicySchedule | None:
        """The policy that the first seed found."""
        return next(iter(self.policies.values()), None)

    @property
    def genotype(self) -> Genotype | None:
        """The cells that the first seed found."""
        return next(iter(self.genotypes.values()), None)


def prepare(study: Study, folder: Path | str, show_progress: bool = False, task: Task = CLASSIFICATION) -> Prepared:
    """Read the data once, let every network take a step, and refuse here what would go wrong later.

    No run folder is written. `task` is the loss and the score; without one it is classification.
    """
    folder = Path(folder)
    if SEED in str(folder):
        raise InputError(f"run={folder} holds {SEED}, which stands for a seed in paths; rename the folder")
    with cpu_threads(study.threads):
        return _prepared(study, folder, {"show_progress": show_progress, "task": task})


def _prepared(study: Study, folder: Path, options: dict[str, Any]) -> Prepared:
    options |= {"device": choose_device(study.device), "save_seconds": study.save_seconds}
    if study.jobs > 1 and processes() > 1:
        raise InputError(f"jobs={study.jobs} starts processes, and so did torchrun; use one of the two")
    seed, stages = study.seeds[0], study.search.stages()
    if processes() > 1 and any(isinstance(stage, WholeTrainings) for stage in stages):
        raise InputError(
            "torchrun does one training in several processes, and this search makes many; use jobs=2 without torchrun, "
            "or a search inside one training, as searcher=differentiable and judge=null"
        )
    for stage in stages:
        stage.check(study.select_epoch, seed)
        if stage.about.own_optimizer and processes() > 1:
            raise InputError("its searcher has optimizers that processes do not share; start this without torchrun")
    rows = study.controls or CONTROLS[:1]
    grid = study.grid((CONTROLS[0], *study.controls)) if study.retrain else None  # one for what will be found
    check_writable(folder)
    loaded = first_before_others(lambda: Loaded(study.dataset))  # last: it may have to be downloaded
    prepared = Prepared(study, folder, loaded, stages, options)
    if grid is not None:
        prepared.seconds["trainings"] = check_grid(grid, folder, loaded, rows[0], **options)
    for stage in stages:
        prepared.seconds[stage.outcome] = prepared.seconds.get(stage.outcome, 0.0) + stage.seconds(prepared)
    for other in study.seeds:
        stages[0].check_begun(prepared, other)  # a second one may start from what the first one finds
        if isinstance(stages[-1], WholeTrainings):
            stages[-1].check_begun(prepared, other)
    return prepared


def run_study(
    study: Study | Prepared,
    folder: Path | str | None = None,
    say: Callable[[str], None] = lambda text: None,
    show_progress: bool = False,
    task: Task = CLASSIFICATION,
) -> StudyResult:
    """Carry out a study in a folder; what is finished there is read, what was interrupted continues.

    `say` is given what a person wants to read on the way, `task` is as in `prepare`.
    """
    if isinstance(study, Study):
        if folder is None:
            raise InputError('run_study needs a folder for its results; call run_study(study, "runs/mine")')
        study = prepare(study, folder, show_progress, task)
    elif folder is not None and Path(folder) != study.folder:
        raise InputError(f"the study was prepared for {study.folder}, and folder is {folder}; leave folder out")
    of, to, device = study.study, study.folder, study.options["device"]
    threads, others = threads_of(of.jobs, of.threads), of.jobs - 1
    with cpu_threads(threads), Board.of(of.wandb, of.tensorboard, to, config_of(of)) as board:
        with helpers(others, partial(_take_part, of, to, study.loaded, study.options)):
            done = replace(study, options=study.options | {"board": board, "device": device_of(device, 0)})
            result = _carried_out(done, say)
        put_on_board(board, to, study.loaded)
        return result


def _take_part(study: Study, folder: Path, loaded: Loaded, options: dict[str, Any], place: int) -> None:
    """As one of several processes on this machine, do what no other one has begun, and nothing else."""
    options = options | {"show_progress": False, "device": device_of(options["device"], place)}
    with cpu_threads(threads_of(study.jobs, study.threads)):
        _made(Prepared(study, folder, loaded, study.search.stages(), options))


def config_of(study: Study) -> dict[str, Any]:
    """All settings of a study for its board, without the folders that data lie in."""
    return as_plain(study) | {"dataset": plain_dataset(study.dataset), **study.search.retrained.plain()}


def _carried_out(prepared: Prepared, say: Callable[[str], None]) -> StudyResult:
    study, folder, comparison = prepared.study, prepared.folder, None
    from_first(lambda: _write_study(prepared))
    results = _made(prepared, lambda found: say(f"\n{describe_searches(found)}"))
    if study.retrain:
        say(f"\n{from_first(lambda: write_summary(folder))}")
        comparison = compare([folder])
    return StudyResult(
        folder,
        {seed: load_policy_or_schedule(path) for seed, path in _found(study, folder / FOUND).items()},
        {seed: Genotype.load(path) for seed, path in _found(study, folder / FOUND_CELLS).items()},
        results,
        comparison,
        from_first(lambda: write_report(folder, prepared.loaded)),
    )


def _made(prepared: Prepared, tell: Callable[[Results], None] = lambda found: None) -> Results:
    """The results of all searches, each stage of which is told; the trainings with what they found are made, too."""
    study, folder, results = prepared.study, prepared.folder, []
    for stage in prepared.stages:
        found = _searches(prepared, stage)
        tell(found)
        results += found
    if study.retrain:
        grid = study.grid((str(folder / FOUND), *study.controls), str(folder / FOUND_CELLS))
        run_grid(replace(grid, tuned=str(folder / FOUND_FACTS)), folder, loaded=prepared.loaded, **prepared.options)
    return results


def _write_study(prepared: Prepared) -> None:
    prepared.folder.mkdir(parents=True, exist_ok=True)
    write_json(prepared.folder / STUDY_FILE, prepared.study.of_trainings())


def _searches(prepared: Prepared, stage: Stage | WholeTrainings) -> list[dict[str, Any]]:
    """Search with every seed, and write what was found beside the searches."""
    seeds = dict.fromkeys(prepared.study.seeds)
    course = Course(f"search of {stage.outcome.lower()}", len(seeds))
    whole = prepared.folder / stage.folder
    works = [(folder_of(whole, seed), partial(stage.run, prepared, seed, course)) for seed in seeds]
    results = [{"seed": seed, **result} for seed, result in zip(seeds, in_turn(works), strict=True)]
    from_first(lambda: write_json(whole / "searches.json", results))
    return results


def _found(study: Study, pattern: Path) -> dict[int, Path]:
    paths = {seed: Path(str(pattern).replace(SEED, str(seed))) for seed in study.seeds}
    return {seed: path for seed, path in paths.items() if path.is_file()}
