"""Put trainings side by side: mean, spread, differences paired by seed, and what each row cost."""

from dataclasses import dataclass
from pathlib import Path

from jointsearch.report.comparison import CORRECTIONS
from jointsearch.report.comparison_formats import FORMATS
from jointsearch.report.comparisons import compare_all
from jointsearch.report.metric_facts import EPOCHS
from jointsearch.runs.run_folder import replace_file
from jointsearch.settings import check_fields, choice, setting
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path

SUBJECT = "run"
MOST_USED = ()


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    run: str | tuple[str, ...] | None = setting(
        None, help="run folders, folders of them, results files, or wandb:entity/project; also without run="
    )
    baseline: str | None = setting(None, help="the policy that the others are compared with; null: none, none@random")
    metric: str = setting(
        EPOCHS[0], help="last, selected: of which epoch the main score is; or another score, as macro_f1, accuracy/cat"
    )
    correct: str = choice("none", *CORRECTIONS, help="holm: verdicts hold for all rows together")
    format: str = choice("text", *FORMATS, help="csv has every score, figure and seed")
    out: str | None = setting(None, help="file that it is written to; null: it is printed")

    def __post_init__(self) -> None:
        check_fields(self)


def main(given: Settings) -> None:
    """Print the comparison, or write it."""
    if not given.run:
        raise InputError("compare needs run=, a run folder of retrain.py or joint_search.py; give one")
    folders = [given.run] if isinstance(given.run, str) else given.run
    text = FORMATS[given.format](compare_all(folders, given.metric, given.baseline, given.correct))
    if given.out is None:
        print(text, end="")
        return
    try:
        replace_file(Path(given.out), text.encode())
    except OSError as error:
        raise InputError(f"{shown_path(given.out)} cannot be written ({error.strerror}); choose another out=") from None
    print(f"Written to {shown_path(given.out)}")
