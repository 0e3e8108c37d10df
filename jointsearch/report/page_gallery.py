"""What was found, in pictures: policies on images of the run's own data set, and cells."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from jointsearch.report.contact_sheet import CELL, amount_text, heaviest, photo_images
from jointsearch.report.genotype_drawing import SHARPNESS, genotype_drawing
from jointsearch.report.page_html import Html, drawing, percent, photographs, tag
from jointsearch.report.page_run import Part, Run
from jointsearch.report.pictures import Pictures
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE
from search_spaces.augment.apply import apply_policy
from search_spaces.genotype import Genotype
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import load_policy_or_schedule

ROWS = 8  # of a policy, its heaviest
MOST_ALIKE = 2  # rows that begin with the same op
LEGEND = (
    "The first row shows them unchanged. Each other row shows them under one sub-policy: its ops act one after the "
    "other, each with the chance p. Whether an op acts, and in which of two directions (± or either factor), is drawn "
    "anew for every image. The last line beside a row is the share of all images that draw its sub-policy."
)


@dataclass(frozen=True)
class Finding:
    """The policy, the cells, or both, of one search or of one row of trainings."""

    name: str
    policy: Policy | None
    genotype: Genotype | None


def gallery(run: Run, pictures: Pictures) -> list[Html]:
    """Pictures of all that was found, of the first seed at once and of the others when they are opened."""
    findings = [finding for finding in _findings(run) if finding.policy or finding.genotype]
    said: list[str] = []
    images = torch.empty(0)
    if any(finding.policy for finding in findings):
        images, where = _images(run, pictures)
        said = [where, LEGEND]
    shown = [tag("p", " ".join(said), class_="faint")] if said else []
    for place, finding in enumerate(findings):
        opened = {} if place else {"open": ""}
        shown.append(tag("details", tag("summary", finding.name), *_pictures(finding, images), **opened))
    return shown


def diverse(policy: Policy, rows: int) -> list[int]:
    """The places of the heaviest sub-policies, at most two with the same first op as long as there are others."""
    first = heaviest(policy, rows)
    rest = sorted(set(range(len(policy.sub_policies))) - set(first), key=lambda n: -policy.sub_policies[n].weight)
    counts: Counter[str] = Counter()
    chosen: list[int] = []
    alike: list[int] = []
    for number in (*sorted(first, key=lambda n: -policy.sub_policies[n].weight), *rest):
        ops = policy.sub_policies[number].ops
        leading = ops[0].op if ops else ""
        counts[leading] += 1
        (chosen if counts[leading] <= MOST_ALIKE else alike).append(number)
    return sorted([*chosen, *alike][:rows])


def _findings(run: Run) -> Iterator[Finding]:
    for part in (one for one in run.searches if one.proposal is None):
        # Cells alone are searched under a policy that was there before.
        policy = _policy(part) if part.finds_policy else None
        yield Finding(f"{part.outcome} found on {run.data_name} by seed {part.seed}", policy, _genotype(part))
    if not run.searches:
        for part in {part.group: part for part in reversed(run.trainings)}.values():
            yield Finding(f"Policy of the row {part.group}, seed {part.seed}", _policy(part), _genotype(part))


def _policy(part: Part) -> Policy | None:
    """The policy of a file, of a schedule the last; None where there is none, or it does nothing."""
    path = part.folder / POLICY_FILE
    if not path.is_file():
        return None
    found = load_policy_or_schedule(path)
    policy = found if isinstance(found, Policy) else found.spans[-1][1]
    return policy if policy.stages else None


def _genotype(part: Part) -> Genotype | None:
    path = part.folder / GENOTYPE_FILE
    return Genotype.load(path) if path.is_file() else None


def _images(run: Run, pictures: Pictures) -> tuple[Tensor, str]:
    if (images := pictures.training()) is not None:
        return images, f"The pictures are of training images of {run.data_name}."
    # Why is not said: the reason may name folders, and a page that is shown around should not.
    return photo_images(), (
        f"The pictures are of two photos of scikit-learn, because the images of {run.data_name} were not found again: "
        "scripts/report.py takes them with dataset= and its settings, as in dataset=folder dataset.path=FOLDER."
    )


def _pictures(finding: Finding, images: Tensor) -> Iterator[Html]:
    if finding.policy is not None:
        yield from _sheet(finding.policy, images)
    if finding.genotype is not None:
        named = replace(finding.genotype, name="The cells")
        yield drawing(genotype_drawing(named), f"The normal and the reduction cell of {finding.name}", SHARPNESS)
        yield tag("pre", finding.genotype.to_darts(), tabindex=0)


def _sheet(policy: Policy, images: Tensor) -> Iterator[Html]:
    """The images as they are, then under some of the heaviest sub-policies."""
    noise = torch.Generator().manual_seed(0)
    rows = diverse(policy, ROWS)
    total = sum(sub_policy.weight for sub_policy in policy.sub_policies)
    count = len(policy.sub_policies)
    drawn = f", {policy.draws} drawn for each image, one after the other" if policy.draws > 1 else ""
    said = f"{count} sub-policies{drawn}" + (
        f"; here {len(rows)} of the likeliest, at most {MOST_ALIKE} that begin with one op" if count > len(rows) else ""
    )
    yield tag("p", said, class_="faint")
    yield _row([tag("b", "unchanged images")], images, "images as they are")
    for number in rows:
        sub_policy = policy.sub_policies[number]
        changed = apply_policy(Policy((SubPolicy(sub_policy.ops),)), images, noise)  # (M, C, H, W)
        ops = [tag("span", tag("b", choice.op), f" {_said_of(choice)}") for choice in sub_policy.ops]
        share = tag("span", f"{percent(sub_policy.weight / total)} of images", class_="faint")
        yield _row([*(ops or [tag("span", "nothing")]), share], changed, f"images after sub-policy {number}")


def _said_of(choice: OpChoice) -> str:
    return ", ".join(said for said in (f"p {choice.probability:.2f}", amount_text(choice)) if said)


def _row(lines: Sequence[object], images: Tensor, description: str) -> Html:
    caption = tag("figcaption", *(tag("div", line) for line in lines))
    return tag("figure", caption, photographs(_small(images), description), class_="row")


def _small(images: Tensor) -> Tensor:
    """Images (M, C, H, W) no larger than they are shown, gray or in three colors."""
    color = images if images.shape[1] in (1, 3) else images.float().mean(1, keepdim=True).to(torch.uint8)
    longest = max(images.shape[-2:])
    if longest <= CELL:
        return color
    size = [max(1, round(side * CELL / longest)) for side in images.shape[-2:]]
    return interpolate(color, size, mode="bilinear", antialias=True)
