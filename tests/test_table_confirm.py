"""What trials find to harm is tried again for longer, and dropped only if it still does."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from search_spaces.errors import InputError
from tests.test_table_searcher import PLANTED, glyphs, linear, searcher_of, settings

CONFIRMED = {"every": None, "measurements": 5, "trial_steps": 2, "confirm_steps": 5}  # two of the five screen


def confirming(*ops: str, **changed: Any) -> Any:
    return searcher_of(settings(*ops, **{**CONFIRMED, **changed}), linear(), epochs=10)


def restored(searcher: Any, gains: Sequence[Sequence[float]]) -> Any:
    rows = torch.tensor(gains, dtype=torch.float64).view(-1, 4)
    searcher.restore(searcher.state() | {"gains": rows, "images": torch.full((len(rows),), 8.0).double()})
    return searcher


SCREENED = [[0.0, -0.06, -0.04, -0.3], [0.0, -0.06, -0.04, -0.1]]  # of identity, Rotate, Color, Invert
AGAIN = [[0.0, 0.02, 0.0, -0.2], [0.0, -0.03, 0.0, -0.21], [0.0, 0.02, 0.0, -0.19]]  # Color is not tried


def dropped(searcher: Any) -> set[str]:
    return {row["op"] for row in searcher.found()["table"] if not row["share"]}


def test_only_what_still_harms_after_more_steps_is_dropped() -> None:
    searcher = restored(confirming("Rotate", "Color", "Invert", margin=0.1), SCREENED + AGAIN)
    assert searcher.suspects().tolist() == [False, True, False, True]  # half of the margin is enough
    assert dropped(searcher) == {"Invert"}
    table = {row["op"]: row for row in searcher.found()["table"]}
    assert {op: row["steps"] for op, row in table.items()} == {"identity": 2, "Rotate": 5, "Color": 2, "Invert": 5}
    assert table["Invert"]["beyond_identity"] == pytest.approx(-0.2)
    assert table["Invert"]["standard_error"] == pytest.approx(0.01 / 3**0.5)
    assert table["Rotate"]["beyond_identity"] == pytest.approx(0.01 / 3)
    assert table["Color"]["beyond_identity"] == pytest.approx(-0.04)


@pytest.mark.parametrize("done", range(4))
def test_before_two_longer_trials_nothing_is_dropped(done: int) -> None:
    searcher = confirming("Rotate", "Color", "Invert", margin=0.1)
    assert dropped(restored(searcher, (SCREENED + AGAIN)[:done])) == set()
    assert searcher.next_trial()[1] == (2 if done < 2 else 5)


def test_while_ops_are_screened_nothing_is_dropped_however_sure() -> None:
    searcher = confirming("Rotate", "Color", "Invert", measurements=7)  # three of them screen
    assert dropped(restored(searcher, [[0.0, 0.0, 0.0, -0.3], [0.0, 0.0, 0.0, -0.301]])) == set()
    assert searcher.metrics()["entries_below_identity"] == 0


@pytest.mark.parametrize("again", [-0.09, 0.09])
def test_a_longer_loss_below_the_margin_is_no_reason(again: float) -> None:
    rows = [[0.0, 0.0, 0.0, again], [0.0, 0.0, 0.0, again], [0.0, 0.0, 0.0, again]]
    assert dropped(restored(confirming("Rotate", "Color", "Invert", margin=0.1), SCREENED + rows)) == set()


def run(searcher: Any, judges: list[Any]) -> list[int]:
    """Ten epochs of one step each; how many training steps each of them took."""
    taken = []
    for epoch in range(10):
        before = len(searcher.train_step.seen)
        searcher.step(glyphs((3,), 32, epoch), judges, 0.1, epoch)
        taken.append(len(searcher.train_step.seen) - before)
    return taken


def planted(**changed: Any) -> Any:
    """HorizontalFlip makes one class of the other, and Color leaves gray gray."""
    search = settings(*PLANTED, **{"levels": 2, "margin": 0.02, "validation_batches": 2, **CONFIRMED, **changed})
    return searcher_of(search, linear(), rate=0.02, epochs=10)


JUDGES = [glyphs((0, 3, 6), 64, seed) for seed in (100, 101)]


def test_first_all_rows_are_tried_and_then_what_lost_beside_the_plain_image_for_longer() -> None:
    searcher = planted(trial_steps=8, confirm_steps=12)
    taken = run(searcher, JUDGES)
    flip = [row["op"] for row in rows(searcher)].index("HorizontalFlip")
    assert searcher.suspects().nonzero().flatten().tolist() == [flip]
    assert taken == [1 + 4 * 8, 1, 1 + 4 * 8, 1, *(1 + 2 * 12, 1) * 3]
    assert searcher.cost == 10 * 3 + 2 * 4 * (3 * 8 + 2) + 3 * 2 * (3 * 12 + 2)
    assert dropped(searcher) == {"HorizontalFlip"}
    assert len(searcher.gains) == searcher.metrics()["measurements"] == 5


def rows(searcher: Any) -> list[dict[str, Any]]:
    entries = searcher.entries.sub_policies
    return [{"op": entries[int(row[0])].ops[0].op if entries[int(row[0])].ops else "identity"} for row in searcher.rows]


def test_where_nothing_lost_nothing_is_tried_again() -> None:
    searcher = planted(margin=10.0)
    assert run(searcher, JUDGES) == [1 + 4 * 2, 1, 1 + 4 * 2, *(1,) * 7]
    assert len(searcher.gains) == 2
    assert dropped(searcher) == set()


def test_a_longer_trial_is_the_gain_of_so_many_steps() -> None:
    long, short = planted(), planted(trial_steps=5, confirm_steps=0)
    short.gauge.recent = deque(maxlen=2)  # a longer trial goes through the same batches again
    for searcher in (long, short):
        run(searcher, JUDGES)
    tried = long.suspects().expand(3, 4)
    assert bool(tried.any())
    assert not bool(long.gains[2:][~tried].any())
    assert torch.equal(long.gains[2:][tried], short.gains[2:][tried])
    assert not torch.equal(long.gains[:2], short.gains[:2])


def test_the_control_deals_longer_trials_too() -> None:
    real, control = planted(), planted(rewards="shuffled")
    for searcher in (real, control):
        run(searcher, JUDGES)
    owner = control.owner
    assert owner.tolist() != real.owner.tolist()
    assert torch.equal(control.suspects(), real.suspects()[owner])
    assert torch.equal(control.gains, real.gains[:, owner])
    assert control.cost == real.cost


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"trial_steps": 5}, r"confirm_steps=5 tries again.*trial_steps=5 find.*at least 1"),
        ({"trial_steps": 0}, r"confirm_steps=5 tries again.*trial_steps=0"),
        ({"measurements": 2}, r"measurements=2.*a third of them screens.*use searcher\.measurements=9"),
        ({"measurements": None, "every": 4}, r"measurements=null.*every=null, or searcher\.confirm_steps=0"),
        ({"form": "proportional"}, r"form=proportional weighs.*confirm_steps=5.*form=significant"),
    ],
)
def test_what_cannot_be_confirmed_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        settings("Invert", **{**CONFIRMED, **changed})


@pytest.mark.parametrize(("left", "fewer"), [(2, ""), (3, ", or searcher.measurements=3")])
def test_a_remedy_for_too_few_epochs_is_one_that_works(left: int, fewer: str) -> None:
    with pytest.raises(InputError, match=rf"need search_recipe\.epochs=9 \(times budget\){fewer}$"):
        searcher_of(settings("Invert", **CONFIRMED, from_epoch=None), linear(), epochs=2 * left)
    if fewer:
        searcher_of(settings("Invert", **{**CONFIRMED, "measurements": 3}, from_epoch=None), linear(), epochs=2 * left)


@pytest.mark.parametrize(("measurements", "screen"), [(3, 1), (4, 2), (6, 2), (7, 3), (9, 3), (12, 4)])
def test_a_third_of_the_measurements_screens(measurements: int, screen: int) -> None:
    assert settings("Invert", **{**CONFIRMED, "measurements": measurements}).searcher.screenings == screen
