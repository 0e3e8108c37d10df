"""The docs' table of what presets do otherwise than the papers is that of the presets' own lines.

python -m tests.test_docs_presets    # writes the table anew
"""

import re
import shlex
from pathlib import Path

import pytest

from jointsearch.compose import compose_words
from tests.conftest import REPOSITORY

PRESETS = REPOSITORY / "jointsearch" / "configs" / "preset"
PAGE = REPOSITORY / "docs" / "presets.md"
TABLE = re.compile(r"(<!-- differences of presets -->\n).*?(<!-- end -->)", re.DOTALL)
ON_DATA = [path for path in sorted((PRESETS.parent / "specialized").glob("*.yaml")) if re.search(r"\d_", path.stem)]
OURS = {"joint", "separate", "architecture", "joint_trivialaugment"}


def differences(preset: Path) -> list[str]:
    """The sentences of a preset after '# - ', each on one line."""
    comments = re.findall(r"^# (- |  )(.*)$", preset.read_text(encoding="utf-8"), re.MULTILINE)
    text = "".join(f"\n{line}" if mark == "- " else f" {line}" for mark, line in comments)
    return text.strip().splitlines()


def words_of(path: Path) -> tuple[str, str | None]:
    """The preset of a file, and the data set, where it has what a preset sets on that one."""
    preset, _, dataset = path.stem.rpartition("_")
    return (preset, dataset) if path in ON_DATA else (path.stem, None)


def table() -> str:
    """The rows of all presets, each before what it does on single data sets."""
    files = sorted([*PRESETS.glob("*.yaml"), *ON_DATA], key=lambda path: [word or "" for word in words_of(path)])
    names = {path: " dataset=".join(filter(None, words_of(path))) for path in files}
    rows = [(names[path], line) for path in files for line in differences(path)]
    return "| preset | what differs |\n|---|---|\n" + "".join(f"| `{name}` | {line} |\n" for name, line in rows)


def test_the_docs_have_the_lines_of_the_presets() -> None:
    (found,) = TABLE.finditer(PAGE.read_text(encoding="utf-8"))
    assert found.group(0).splitlines()[1:-1] == table().splitlines(), "run python -m tests.test_docs_presets"


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_of_a_paper_says_how_it_differs(preset: Path) -> None:
    assert bool(differences(preset)) == (preset.stem not in OURS)


@pytest.mark.parametrize("preset", [*sorted(PRESETS.glob("*.yaml")), *ON_DATA], ids=lambda path: path.stem)
def test_what_a_preset_tells_to_type_is_accepted(preset: Path) -> None:
    name, on = words_of(preset)
    for line in differences(preset):
        for command in re.findall(r"jointsearch retrain ((?:\"?[\w.]+=(?:'[^']*'\"|[^\s,;]+) ?)+)", line):
            words = shlex.split(command.strip().rstrip(".").replace("genotype=RUN", "genotype=DARTS_V2"))
            compose_words("retrain", [word for word in words if word != "policy=RUN"])
            line = line.replace(command, "")
        for word in re.findall(r"\b[a-z_]+(?:\.[a-z_]+)*=(?:\[[^\]]*\]|[^\s,;:]+)", line):
            word, script = word.rstrip(".").replace("dataset.cutout", ""), "joint_search"
            if name == "fast_autoaugment2019" or word.startswith("recipe."):
                script = "retrain"
            if word.partition("=")[0] in ("preset", "policy", "recipe", "genotype", "retrain"):
                continue  # files, or told in passing
            data = on or "cifar10"
            given = [f"preset={name}"] if script == "joint_search" else []
            compose_words(script, [*given, f"dataset={data}", word])


def test_a_difference_may_go_over_several_lines(tmp_path: Path) -> None:
    (path := tmp_path / "some.yaml").write_text("# Head\n# - One\n#   goes on.\n# - Two.\nkey: 1  # - no\n")
    assert differences(path) == ["One goes on.", "Two."]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda found: found.group(1) + table() + found.group(2), page), encoding="utf-8")
