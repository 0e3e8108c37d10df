"""Several augmented copies of every image: all of them train, or only those that the network finds hardest.

trivialaugment+copies4        four copies of every image in each step (Batch Augmentation, Hoffer et al., CVPR 2020)
trivialaugment+hardest1of4    the one of four with the highest loss
trivialaugment+sampled1of4    one of four, drawn in proportion to its loss (uncertainty-based sampling, Wu et al. 2020)
trivialaugment+copies4-short  four copies in a quarter of the epochs: as many gradients as a row of one copy has
trivialaugment+copies4-safe   copies that a teacher no longer recognizes are replaced by the image without the policy
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from jointsearch.augmenters.teachers import cost_of_teachers
from jointsearch.protocols import PLAIN_STEP
from search_spaces.errors import InputError

ALL, HARDEST, SAMPLED = "copies", "hardest", "sampled"
FORM = re.compile(
    r"\+(?:copies(?P<all>\d+)|(?P<by>hardest|sampled)(?P<kept>\d+)of(?P<drawn>\d+))(?P<safe>-safe)?(?P<short>-short)?$"
)
EXAMPLES = "+copies4, +hardest1of4 or +sampled1of4, with -safe, -short or -safe-short behind it or without"


@dataclass(frozen=True)
class Copies:
    """How many copies of an image are drawn in each step, and which of them train."""

    drawn: int
    kept: int
    by: str = ALL  # or those with the highest losses, or drawn by their losses
    safe: bool = False  # whether those are left out that a teacher no longer recognizes
    short: bool = False  # whether epochs are divided by the copies that train

    def cost(self, passes: int = 1) -> int:
        """Forward-equivalents of a step, in which a batch goes so many times through the network."""
        chosen = 0 if self.by == ALL else self.drawn
        return PLAIN_STEP * passes * self.kept + chosen + (cost_of_teachers(self.drawn) if self.safe else 0)

    def __str__(self) -> str:
        number = f"{self.drawn}" if self.by == ALL else f"{self.kept}of{self.drawn}"
        return f"+{self.by}{number}" + ("-safe" if self.safe else "") + ("-short" if self.short else "")


def split_copies(row: str) -> tuple[str, Copies | None]:
    """The policy that a row names, and its copies."""
    match = FORM.search(row)
    if match is None:
        if re.search(r"\+(copies|hardest|sampled)[^/]*$", row) and not row.endswith(".json"):
            raise InputError(f"policy {row} names copies in no known form; write {EXAMPLES}")
        return row, None
    drawn = int(match["all"] or match["drawn"])
    kept = int(match["all"] or match["kept"])
    if not 1 <= kept <= drawn <= 1024 or (match["by"] and kept == drawn):
        raise InputError(f"policy {row} keeps {kept} of {drawn} copies; keep fewer than are drawn, as in +hardest1of4")
    if match["short"] and kept == 1:
        raise InputError(
            f"policy {row} trains on one copy of every image, so -short would change nothing; leave it out"
        )
    return row[: match.start()], Copies(drawn, kept, match["by"] or ALL, bool(match["safe"]), bool(match["short"]))


def keep(losses: Tensor, allowed: Tensor, kept: int, by: str, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which of C copies of each image train, (kept, B), by their losses (C, B); and whether each of those is allowed.

    Of equal losses the first comes first. Copies that are not allowed come last.
    """
    if by == HARDEST:
        keys = losses.masked_fill(~allowed, -torch.inf)
    else:
        # The largest of log(u) / w are a draw without replacement in proportion to w (Efraimidis, Spirakis 2006).
        uniform = torch.rand(losses.shape, generator=noise, dtype=torch.float64).to(losses.device)
        shares = losses.double().clamp(min=torch.finfo(torch.float32).tiny)
        keys = (uniform.log() / shares).masked_fill(~allowed, -torch.inf)
    chosen = keys.argsort(dim=0, descending=True, stable=True)[:kept]
    return chosen, allowed.gather(0, chosen)
