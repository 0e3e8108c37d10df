"""Findings as text: equal ones are told once, with a few of their files."""

import re
from collections.abc import Sequence

from jointsearch.data.files import Finding

EXAMPLES = 3


def counted(count: int, noun: str) -> str:
    """A number of things, as in "1 error" and "2,062 images"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def grouped(findings: Sequence[Finding], every: bool = False) -> list[str]:
    """The findings in lines; of equal ones the first three files, or `every` file."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, kind(finding)), []).append(finding)
    lines = []
    for (severity, text), some in groups.items():
        if len(some) == 1:
            lines.append(f"{severity}: {some[0]}")
            continue
        lines.append(f"{severity}, {len(some):,} times: {text}")
        told = some if every else some[:EXAMPLES]
        lines += [f"    {str(finding).rpartition('; ')[0] or finding}" for finding in told]
        if len(told) < len(some):
            lines.append(f"    and {len(some) - len(told):,} more; all=true lists them")
    return lines


def kind(finding: Finding) -> str:
    """The text of a finding without what is of its file alone: what it names, and what stands in brackets."""
    text = finding.text.replace(finding.other, "...") if finding.other else finding.text
    before, text = "", re.sub(r"(?<=box )\[[^\[\]]*\]", "...", text)
    while before != text:
        before, text = text, re.sub(r" ?\([^()]*\)", "", text)  # the inner ones of several first
    return text
