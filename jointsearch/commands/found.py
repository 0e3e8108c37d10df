"""What a search found, by its run folder."""

from pathlib import Path

from jointsearch.loops.grid import SEED
from jointsearch.runs.run_folder import POLICY_FILE
from jointsearch.stages import FOUND
from search_spaces.errors import InputError


def found_seeds(folder: str, name: str = FOUND) -> tuple[int, ...]:
    """The seeds of the searches that are finished in a run folder."""
    before, _, after = name.partition(SEED)
    paths = (path.relative_to(folder).as_posix() for path in Path(folder).glob(f"{before}*{after}"))
    numbers = (path.removeprefix(before).removesuffix(after) for path in paths)
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))


def found_in(given: str, name: str) -> str:
    """What is given, or where it lies for each seed if that is the run folder of a search."""
    if not Path(given).is_dir():
        return given
    if not found_seeds(given, name):
        what = "policy" if name == FOUND else "genotype"
        raise InputError(
            f"{given} holds no {what} that a search found; give the run folder of a search that ended, a file or a name"
        )
    return f"{given}/{name}"


def first_policy(given: str) -> str:
    """What is given, or the policy of the first seed if that is the run folder of a search; a training has its own."""
    if not Path(given).is_dir():
        return given
    if Path(given, POLICY_FILE).is_file():
        return f"{given}/{POLICY_FILE}"
    return found_in(given, FOUND).replace(SEED, str(found_seeds(given)[0]))
