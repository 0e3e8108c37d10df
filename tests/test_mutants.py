"""The list of mutants stays true as the code moves: a defect that cannot be planted proves nothing."""

import pytest

from tests.conftest import REPOSITORY
from tests.mutants import MUTANTS, Mutant, left_out


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_line_that_a_mutant_changes_stands_once_where_it_says_and_its_tests_exist(mutant: Mutant) -> None:
    assert (REPOSITORY / mutant.file).read_text(encoding="utf-8").count(mutant.good) == 1
    assert mutant.bad != mutant.good
    assert all((REPOSITORY / test.partition("::")[0]).is_file() for test in mutant.tests.split())


def test_a_copy_of_the_project_has_every_package_and_no_results() -> None:
    assert left_out(str(REPOSITORY), [".git", "runs", "results", "tests"]) == {".git", "runs", "results"}
    assert left_out(str(REPOSITORY / "jointsearch"), ["runs", "__pycache__"]) == {"__pycache__"}
