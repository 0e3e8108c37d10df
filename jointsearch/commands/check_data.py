"""Say what a data set holds, and list everything unreadable, odd or missing."""

from dataclasses import dataclass

from jointsearch.data.check import check_data_report
from jointsearch.data.datasets import Digits
from jointsearch.data.object_datasets import AnyData
from jointsearch.settings import group, setting
from search_spaces.errors import InputError

SUBJECT = None
MOST_USED = ()


@dataclass(frozen=True)
class Settings:
    """What is looked at."""

    dataset: AnyData = group(Digits, help="the images")
    all: bool = setting(False, help="list every file of equal findings, not three of them")
    plugins: tuple[str, ...] = setting((), help="Python files that add datasets of your own")


def main(given: Settings) -> None:
    """Print every finding; errors among them end with exit code 2."""
    report, has_errors = check_data_report(given.dataset, given.all)
    print(report)
    if has_errors:
        raise InputError("training would refuse this data set; mend what is listed above as error")
