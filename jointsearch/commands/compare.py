"""Put trainings side by side: mean, spread, and differences paired by seed."""

from dataclasses import dataclass
from pathlib import Path

from jointsearch.report.comparison import CORRECTIONS, compare
from jointsearch.report.metric_facts import EPOCHS
from jointsearch.settings import check_fields, choice, setting
from search_spaces.errors import InputError

SUBJECT = "run"
MOST_USED = ()


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    run: str | tuple[str, ...] | None = setting(None, help="a run folder of retrain.py or joint_search.py, or a list")
    baseline: str | None = setting(None, help="the policy that the others are compared with; null: none, none@random")
    metric: str = setting(EPOCHS[0], help="last: of the last epoch; selected: of the one that validation selects")
    correct: str = choice("none", *CORRECTIONS, help="holm: verdicts hold for all rows together")

    def __post_init__(self) -> None:
        check_fields(self)


def main(given: Settings) -> None:
    """Print the comparison as a table."""
    if given.run is None:
        raise InputError("compare needs run=, a run folder of retrain.py or joint_search.py; give one")
    folders = [given.run] if isinstance(given.run, str) else given.run
    comparison = compare([Path(folder) for folder in folders], given.metric, given.baseline, given.correct)
    print(comparison.to_markdown(), end="")
