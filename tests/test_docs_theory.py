"""What docs/theory.md shows is what the demonstrations print and draw."""

import re
import xml.etree.ElementTree as ElementTree

from jointsearch.benchmarks.theory import compositions, demos, kernel, linear, same_class
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "docs"
PAGE = (FOLDER / "theory.md").read_text(encoding="utf-8")


def test_the_page_has_a_figure_for_every_demonstration_and_none_is_large() -> None:
    shown = re.findall(r"\]\((theory_\w+\.svg)\)", PAGE)
    assert len(shown) == len(demos.DEMOS)
    assert sorted(shown) == sorted(file.name for file in FOLDER.glob("theory_*.svg"))
    for name in shown:
        assert (FOLDER / name).stat().st_size < 30_000
        assert ElementTree.parse(FOLDER / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_has_the_numbers_of_the_exact_demonstrations() -> None:
    for table in (*linear.linear_demo(range(10)).tables, *compositions.toy_tables()):
        assert table in PAGE


def test_the_page_names_what_was_compared() -> None:
    for word in (*kernel.TERMS, *compositions.LEARNERS, *same_class.OUTPUTS):
        assert word in PAGE
