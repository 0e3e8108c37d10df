"""Published figures beside ours: docs/results.md has what results/published.json has, and each command is one.

python -m tests.test_published    # writes the tables anew
"""

import json
import re
import shlex
from typing import Any

import pytest

from jointsearch.commands.command import COMMANDS
from jointsearch.compose import compose_study, compose_words
from jointsearch.networks.network_settings import NetworkSettings
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "results.md"
MARKED = re.compile(r"(<!-- results/published\.json -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES: list[dict[str, Any]] = json.loads((REPOSITORY / "results" / "published.json").read_text("utf-8"))["tables"]
NAMED = {f"{table['paper'].split(' (')[0]}, {table['where']}, {table['figure']}": table for table in TABLES}
# What a person puts in, and something that composes in its place.
STAND_INS = {"policy=RUN": "policy=none", "run=RUN": "run=runs/x", "run=IMAGENET_RUN": "run=runs/x"}


def markdown(table: dict[str, Any]) -> str:
    """A table for the page: what was published, ours, and the words of the command of each row."""
    command = f" Command: `{table['command']}`, with the words of the row." if table["command"] else ""
    head = ["data", "network", *table["columns"], "ours", *(["words"] if table["command"] else [])]
    lines = [f"**{table['paper']}, {table['where']}:** {table['figure']}.{command}", ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in table["rows"]:
        cells = [row["data"], row["network"], *(figure or "-" for figure in row["published"])]
        cells.append(row["ours"] or "not measured")
        if table["command"]:
            cells.append(f"`{row['words']}`" if row["words"] else "its recipe is not at hand")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(["", table["note"]] if table["note"] else [])])


def text() -> str:
    return "\n\n".join(map(markdown, TABLES)) + "\n"


def figures(name: str, data: str, network: str = "") -> dict[str, str]:
    """The figures of a row, by their columns."""
    table = next(table for key, table in NAMED.items() if key.startswith(name))
    row = next(
        row for row in table["rows"] if re.match(rf"{data}(?!\d)", row["data"]) and row["network"].startswith(network)
    )
    return dict(zip(table["columns"], row["published"], strict=True))


def number(name: str, data: str, column: str, network: str = "") -> float:
    return float(figures(name, data, network)[column].split()[0])


def test_the_docs_have_the_tables_of_the_file() -> None:
    [found] = MARKED.finditer(PAGE.read_text(encoding="utf-8"))
    assert found.group(0).splitlines()[1:-1] == text().splitlines(), "run python -m tests.test_published"


def test_every_row_is_there_once_and_full() -> None:
    keys = [(key, row["data"], row["network"]) for key, table in NAMED.items() for row in table["rows"]]
    assert len(set(keys)) == len(keys)
    assert len(NAMED) == len(TABLES)
    for table in TABLES:
        assert all(len(row["published"]) == len(table["columns"]) and any(row["published"]) for row in table["rows"])


COMMANDED = [
    (table["command"], row["words"]) for table in TABLES if table["command"] for row in table["rows"] if row["words"]
]


@pytest.mark.parametrize(("command", "words"), COMMANDED)
def test_what_would_measure_a_figure_is_a_command(command: str, words: str) -> None:
    name, *given = shlex.split(f"{command} {words}")
    given = [STAND_INS.get(word, word) for word in given]
    composed = compose_words(COMMANDS[name], given).values
    if name == "search":
        network = compose_study(*given).search.retrained
        network.check()
    elif name == "retrain":
        NetworkSettings.of(composed["network"]).check()


def test_figures_that_two_tables_have_agree() -> None:
    for data in ("CIFAR-10", "CIFAR-100", "SVHN", "ImageNet"):
        short = figures("DADA, Table 1, test", data)
        whole = figures("DADA, Table 4" if data == "ImageNet" else "DADA, Tables 2", data, short_network(data))
        shared = [column for column in short if short[column] and column in whole]
        assert len(shared) >= 4 - (data == "ImageNet")
        assert all(whole[column].split()[0] == short[column] for column in shared), data
    names = ("OHL-Auto-Aug, Table 2", "Adversarial AutoAugment, Table 1")
    first, second = (figures(name, "CIFAR-10", "Wide-ResNet-28-10") for name in names)
    assert all(first[column] == second[column] for column in ("baseline", "Cutout", "AutoAugment"))
    for network, wanted in (("Wide-ResNet-40-2", 3.6), ("Wide-ResNet-28-10", 2.7)):
        assert number("DADA, Table 6", "CIFAR-10", "searched on 4,000 images", network) == pytest.approx(
            wanted, abs=0.05
        )
        assert number("DADA, Tables 2", "CIFAR-10", "DADA", network) == wanted


def short_network(data: str) -> str:
    return "ResNet-50" if data == "ImageNet" else "Wide-ResNet-28-10"


def test_what_the_notes_count_is_counted_right() -> None:
    ahead = {
        data: number("Kashima", data, "joint") - number("Kashima", data, "separate")
        for data in ("CIFAR-10", "CIFAR-100", "SVHN")
    }
    assert [round(one, 2) for one in ahead.values()] == [0.17, -0.36, -0.21]
    ohl = figures("OHL-Auto-Aug, Table 3", "ImageNet", "ResNet-50")
    of = {column: float(figure.split()[0]) for column, figure in ohl.items()}
    assert round(of["baseline"] - of["OHL-Auto-Aug"], 2) == 3.63
    assert round(of["AutoAugment"] - of["OHL-Auto-Aug"], 2) == 1.30
    costs = figures("Adversarial AutoAugment, Table 5", "ImageNet")
    assert round(float(costs["AutoAugment"].split()[0]) / float(costs["Adversarial AutoAugment"].split()[0]), 1) == 11.8
    clamp = "Automating the Art of Data Augmentation, Part IV"
    assert number(clamp, "MNIST-correlation, aggregate", "CLAMP") < number(clamp, "MNIST-correlation, robust", "CLAMP")
    for column in ("ERM", "CLAMP"):
        smallest = number(clamp, "CelebA-undersampled, smallest", column)
        assert smallest < number(clamp, "CelebA-undersampled, robust", column)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda found: found.group(1) + text() + found.group(2), page), encoding="utf-8")
