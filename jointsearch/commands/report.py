"""Put a run on one page: report.html in its folder, one file that opens without internet."""

from dataclasses import dataclass

from jointsearch.data.object_datasets import AnyData
from jointsearch.report.page import write_report
from jointsearch.settings import group, setting
from search_spaces.errors import InputError

SUBJECT = "run"
MOST_USED = ()


@dataclass(frozen=True)
class Settings:
    """What the page is about."""

    run: str | None = setting(None, help="a run folder of joint_search.py, retrain.py or detect.py")
    dataset: AnyData | None = group(lambda: None, help="the images of the run; those in files are needed once")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops of your own")


def main(given: Settings) -> None:
    """Write the page."""
    if given.run is None:
        raise InputError("report needs run=, a run folder of joint_search.py or retrain.py; give one")
    print(write_report(given.run, given.dataset))
