"""Search policy and cells, and train with what is found beside controls."""

from dataclasses import dataclass, replace
from typing import Any

from jointsearch.commands.folders import new_folder
from jointsearch.commands.names import as_started
from jointsearch.commands.typed import keep_words
from jointsearch.compose import Composed, study_of
from jointsearch.distributed import from_first
from jointsearch.loops.grid import SEED
from jointsearch.runs.run_folder import PROPOSAL
from jointsearch.settings import bounded, build, group, setting
from jointsearch.stages import FOUND, FOUND_CELLS
from jointsearch.study import Prepared, Study, StudyResult, prepare, run_study
from search_spaces.schedule import PolicySchedule

SUBJECT = None
MOST_USED = (
    "dataset", "search", "searcher", "estimator", "preset", "network", "budget", "seeds", "run", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """A study, and where it goes."""

    run: str | None = setting(None, help="the run folder; give it again to continue. null makes one below runs/search")
    budget: float = bounded(1.0, 1e-4, 1000.0, help="multiplies the epochs of search and training")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops, searchers or networks of your own")
    study: Study = group(Study)


def read(composed: Composed) -> Settings:
    """The settings of a composed configuration."""
    own: dict[str, Any] = {
        name: composed.values[name] for name in ("run", "budget", "plugins") if name in composed.values
    }
    return replace(build(Settings, own), study=study_of(composed))


def main(given: Settings) -> None:
    """Search for every seed, train with what was found and with the controls, and print them side by side."""
    study = given.study
    folder = from_first(lambda: given.run or new_folder("search"))
    prepared = prepare(study, folder, show_progress=True)
    announce(prepared)
    from_first(lambda: keep_words(folder))
    result = run_study(prepared, say=lambda text: print(text, flush=True))
    if study.retrain:
        print(f"Written to {folder}/summary.md; each search and training has its own folder.")
    print(as_started(f"{where_found(result)}\n{what_next(result, study.retrain)}"))
    print(f"On one page, with pictures: {result.report}")


def where_found(result: StudyResult) -> str:
    """The files of what was found, of every seed."""
    found = [f"{result.folder}/{FOUND.replace(SEED, str(seed))}" for seed in result.policies]
    cells = [f"{result.folder}/{FOUND_CELLS.replace(SEED, str(seed))}" for seed in result.genotypes]
    return f"Found: {', '.join([*found, *cells])}"


def what_next(result: StudyResult, trained: bool) -> str:
    """The commands that use what was found."""
    folder = result.folder
    lines = [f"To train with it: python scripts/retrain.py run={folder}"] if not trained else []
    if result.policies:
        lines.append(f"To see the policy: python scripts/show_policy.py {folder}")
        if not isinstance(result.policy, PolicySchedule):  # other libraries have no word for policies by epoch
            lines.append(f"To use it elsewhere: python scripts/export_policy.py {folder} format=torchvision")
    lines += [f"To use the network: python scripts/predict.py {folder} images=PHOTOS"] if trained else []
    return "\n".join(lines)


def announce(prepared: Prepared) -> None:
    """Print what begins and where, how long it may take, and what the method is known to do wrong."""
    study, folder = prepared.study, prepared.folder
    print(f"Searching with the seeds {', '.join(map(str, study.seeds))} in {folder}")
    print(as_started(f"To continue after an interruption: python scripts/joint_search.py run={folder}"))
    for text in prepared.plan_lines():
        print(text)
    for stage in prepared.stages:
        if stage.about.warning and not stage.folder.startswith(PROPOSAL):  # what is proposed only is judged
            print(f"Note: {stage.about.warning}")
    print(end="", flush=True)
