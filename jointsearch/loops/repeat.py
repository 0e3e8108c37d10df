"""Trainings that would be the same are made once: a search may find the very policy that a control has."""

import shutil
from collections.abc import Sequence
from typing import Any

import torch

from jointsearch.data.sets import DataSplits
from jointsearch.loops.plan import Plan, write_identity
from jointsearch.networks.trained import WEIGHTS_FILE
from jointsearch.networks.weights import MODEL_FILE
from jointsearch.runs.run_folder import PREDICTIONS_FILE, RESULT_FILE, SETTINGS_FILE, lock_folder, write_json
from jointsearch.runs.track import METRICS_FILE, tell_again
from search_spaces.plain_json import read_json
from search_spaces.policy import Policy
from search_spaces.schedule import PolicySchedule

SAME_AS = "same_as"  # in a result, the row that was trained in its place
COPIED = (METRICS_FILE, MODEL_FILE, WEIGHTS_FILE, PREDICTIONS_FILE)
# Weights of a found policy are shares, those of a control whole numbers: their running sums differ by rounding. A draw
# that falls between two of them is as likely as this.
ROUNDING = 1e-12


def same_policy(one: Policy | PolicySchedule | None, other: Policy | PolicySchedule | None) -> bool:
    """Whether two policies draw the same, whatever their names."""
    if isinstance(one, PolicySchedule) and isinstance(other, PolicySchedule):
        starts = [[start for start, _ in schedule.spans] for schedule in (one, other)]
        return starts[0] == starts[1] and all(
            same_policy(mine, yours) for (_, mine), (_, yours) in zip(one.spans, other.spans, strict=True)
        )
    if not (isinstance(one, Policy) and isinstance(other, Policy)):
        return one is other is None
    if one.draws != other.draws or [row.ops for row in one.sub_policies] != [row.ops for row in other.sub_policies]:
        return False
    return bool(torch.allclose(one.tables.cumulative, other.tables.cumulative, rtol=0, atol=ROUNDING))


def twin(plan: Plan, splits: DataSplits, made: Sequence[Plan]) -> Plan | None:
    """The training among those of this seed that this one would repeat; None where it was begun before."""
    if (plan.folder / SETTINGS_FILE).is_file():
        return None
    identity = plan.identity(splits) | {"policy": None}
    return next(
        (
            other
            for other in made
            if same_policy(plan.policy, other.policy) and other.identity(splits) | {"policy": None} == identity
        ),
        None,
    )


def repeat(plan: Plan, splits: DataSplits, other: Plan) -> dict[str, Any]:
    """Take over the result of a training that is the same."""
    with lock_folder(plan.folder):
        write_identity(plan, splits)
        for name in COPIED:
            if (other.folder / name).is_file():
                shutil.copyfile(other.folder / name, plan.folder / name)
        result = read_json(other.folder / RESULT_FILE, "result")
        result[SAME_AS] = other.folder.parent.name
        write_json(plan.folder / RESULT_FILE, result)
        tell_again(plan.folder, plan.board)
    return result
