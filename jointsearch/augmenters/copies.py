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
from torch import Tensor, nn

from jointsearch.protocols import TrainStep
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.errors import InputError

ALL, HARDEST, SAMPLED = "copies", "hardest", "sampled"
FORM = re.compile(
    r"\+(?:copies(?P<all>\d+)|(?P<by>hardest|sampled)(?P<kept>\d+)of(?P<drawn>\d+))(?P<safe>-safe)?(?P<short>-short)?$"
)
EXAMPLES = "+copies4, +hardest1of4 or +sampled1of4, with -safe, -short or -safe-short behind it or without"


@dataclass(frozen=True)
class Copies:
    """How many copies of an image are drawn in each step, and which of them train."""

    drawn: int = bounded(4, 1, 1024, help="copies of every image in each step")
    kept: int = bounded(4, 1, 1024, help="of them, those that train")
    by: str = choice(ALL, ALL, HARDEST, SAMPLED, help="hardest: the highest losses; sampled: drawn by loss")
    safe: bool = setting(False, help="leave out what a teacher no longer recognizes")
    short: bool = setting(False, help="epochs are divided by the copies that train")

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        number = f"{self.drawn}" if self.by == ALL else f"{self.kept}of{self.drawn}"
        return f"+{self.by}{number}" + ("-safe" if self.safe else "") + ("-short" if self.short else "")


def split_copies(row: str) -> tuple[str, Copies | None]:
    """The policy that a row names, and its copies."""
    match = FORM.search(row)
    if match is None:
        if re.search(r"\+(copies|hardest|sampled)[^/]*$", row):
            raise InputError(f"policy {row} names copies in no known form; write {EXAMPLES}")
        return row, None
    drawn = int(match["all"] or match["drawn"])
    kept = int(match["all"] or match["kept"])
    if not 1 <= kept <= drawn <= 1024 or (match["by"] and kept == drawn):
        raise InputError(f"policy {row} keeps {kept} of {drawn} copies; keep fewer than are drawn, as in +hardest1of4")
    return row[: match.start()], Copies(drawn, kept, match["by"] or ALL, bool(match["safe"]), bool(match["short"]))


def keep(losses: Tensor, allowed: Tensor, kept: int, by: str, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which of C copies of each image train, (kept, B), by their losses (C, B); and whether each of those is allowed.

    Of equal losses the first comes first. Copies that are not allowed come last.
    """
    if by == HARDEST:
        keys = losses.masked_fill(~allowed, -1.0)
    else:
        # The largest of log(u) / w are a draw without replacement in proportion to w (Efraimidis, Spirakis 2006).
        uniform = torch.rand(losses.shape, generator=noise, dtype=torch.float64).to(losses.device)
        shares = losses.double().clamp(min=torch.finfo(torch.float32).tiny)
        keys = (uniform.log() / shares).masked_fill(~allowed, -torch.inf)
    chosen = keys.argsort(dim=0, descending=True, stable=True)[:kept]
    return chosen, allowed.gather(0, chosen)


@torch.no_grad()
def losses_of(train_step: TrainStep, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The losses (C, B) of copies (C, B, ...) of a batch, in evaluation mode."""
    training = network.training
    network.eval()
    found = [train_step.objective.losses(network, one, labels) for one in images]
    network.train(training)
    return torch.stack(found)
