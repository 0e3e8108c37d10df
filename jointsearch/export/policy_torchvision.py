"""Exports a policy as a standalone Python file, which needs torch and torchvision only."""

import importlib.resources

from jointsearch.export.common import Differences, Exported, amounts, drawable, posterize_bits
from jointsearch.export.torchvision_template import OPS as THEIR_OPS
from search_spaces.augment.quantized import TIE
from search_spaces.policy import OpChoice, Policy, SubPolicy

LUMINANCE = "torchvision's luminance weighs red by .2989, jointsearch's by .299; less than a tenth of a level"
TABLE_START, TABLE_END = "# fmt: off\n", "# fmt: on\n"


def torchvision_policy(policy: Policy, leave_out: bool = False) -> Exported[str]:
    """The text of a file with the policy's table and `PolicyTransform`; `leave_out` drops ops that need a batch."""
    differences = Differences()
    rows = drawable(policy, differences, leave_out, THEIR_OPS)
    for choice in (choice for row in rows for choice in row.ops):
        if choice.op in ("Contrast", "Color"):
            differences.note(choice.op, LUMINANCE)
    lines = differences.lines()
    template = importlib.resources.files("jointsearch.export").joinpath("torchvision_template.py").read_text("utf-8")
    before, _, rest = template.partition(TABLE_START)
    start, _, after = rest.partition(TABLE_END)
    declaration = start.splitlines()[2]
    head = [f"# Differences from the original policy:\n{_comments(lines)}" if lines else ""]
    table = [
        *head,
        TABLE_START,
        f"NAME = {_quoted(policy.name)}\n",
        f"DRAWS = {policy.draws}\n",
        f"{declaration}\n",
        *map(_row, rows),
        "]\n",
        TABLE_END,
    ]
    return Exported(before + "".join(table) + after, lines)


def _comments(lines: tuple[str, ...]) -> str:
    return "".join(f"#   {line}\n" for line in lines)


def _quoted(name: str) -> str:
    # A name may hold quotes, backslashes or another alphabet; it must stay a string in the file, never code.
    literal = ascii(name)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in literal else literal


def _row(row: SubPolicy) -> str:
    ops = ", ".join(f'("{choice.op}", {choice.probability!r}, {_values(choice)})' for choice in row.ops)
    return f"    ({row.weight!r}, [{ops}]),\n"


def _values(choice: OpChoice) -> list[float]:
    values = amounts(choice)
    if choice.op == "Posterize":
        return [posterize_bits(value) for value in values]
    if choice.op == "Solarize":
        return [round(value - TIE, 9) for value in values]
    return [*values]
