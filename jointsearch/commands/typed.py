"""The words that a run was begun with, kept in its folder: run=FOLDER alone continues it.

No report or table names them, since they may hold paths of this machine. Plugins are not kept among them: they run as
code, and what lies in a run folder never does.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

from jointsearch.runs.run_folder import write_json
from search_spaces.errors import InputError
from search_spaces.plain_json import read_json, shown_path

WORDS_FILE = "words.json"
RETRAINED = "retrained"  # within the run of a search, the trainings with what it found
DETECTION = "detection"  # within the run whose networks become backbones, the trainings of detectors
# Folders within run= in which a command goes on: one of retrain.py, or those of detect.py by their names.
INSIDE = {"joint_search": None, "retrain": RETRAINED, "detect": DETECTION}

TYPED = ContextVar[tuple[str, tuple[str, ...]]]("TYPED", default=("", ()))  # the command that runs, and its words


def keep_words(folder: Path | str) -> None:
    """Write down the words of this command in the folder that it works in; nothing where none was typed."""
    name, words = TYPED.get()
    if name:
        plugins = any(key_of(word) == "plugins" for word in words)
        kept = [word for word in words if key_of(word) not in ("run", "plugins")]
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / WORDS_FILE, {"command": name, "words": kept, "plugins": plugins})


def with_kept(name: str, words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words after those that are kept in the run folder, and where these lie; a typed one replaces its like."""
    folder = next((word.partition("=")[2] for word in words if key_of(word) == "run"), None)
    file = None if folder is None or name not in INSIDE else _file(name, Path(folder), words)
    if file is None:
        return list(words), None
    kept = read_json(file, "words of a run")
    keys = {key_of(word) for word in words}
    if kept.get("plugins") and "plugins" not in keys:
        raise InputError(
            f"{shown_path(file.parent)} was begun with plugins=; name them again, because no file of a run folder says "
            "which code is run"
        )
    more = [word for word in map(str, kept["words"]) if key_of(word) not in {*keys, "plugins"}]
    return [*more, *words], str(file) if more else None


def kept_value(folder: str, name: str) -> str | None:
    """What the words of a run folder set a name to; None where they do not, or none are kept."""
    file = Path(folder, WORDS_FILE)
    words = map(str, read_json(file, "words of a run")["words"]) if file.is_file() else ()
    return {key_of(word): word.partition("=")[2].strip("'\"") for word in words}.get(name)


def key_of(word: str) -> str:
    """What a word sets."""
    return word.lstrip("+~").partition("=")[0]


def _file(name: str, folder: Path, words: Sequence[str]) -> Path | None:
    """The words of the run that a command would go on with; None where it begins one, or several could be meant."""
    if _is_of(name, folder / WORDS_FILE):
        return folder / WORDS_FILE
    given = dict(word.lstrip("+~").partition("=")[::2] for word in words)
    if name == "retrain" and not given.keys() & {"policy", "genotype"}:
        found = [folder / RETRAINED / WORDS_FILE]
    elif name == "detect" and "name" in given:
        found = [folder / DETECTION / given["name"] / WORDS_FILE]
    elif name == "detect" and len(given) == 1:
        found = sorted((folder / DETECTION).glob(f"*/{WORDS_FILE}"))
    else:
        found = []
    return found[0] if len(found) == 1 and _is_of(name, found[0]) else None


def _is_of(name: str, file: Path) -> bool:
    return file.is_file() and read_json(file, "words of a run").get("command") == name
