"""How the rewards of a search by gradients are computed, and what is done against their noise."""

from dataclasses import dataclass

from jointsearch.settings import bounded, check_fields, choice
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Rewards:
    """How the reward of each image is computed. Cells of second order always have live statistics."""

    by: str = choice("finite_difference", "finite_difference", "jvp", help="jvp is the exact derivative, and slower")
    epsilon: float = bounded(0.01, 1e-6, 1.0, help="length of the finite difference, in the space of all weights")
    statistics: str = choice(
        "live", "live", "frozen", help="of batch normalization: as training has them, or constants, those of the step"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.by == "jvp" and self.epsilon != type(self).epsilon:
            raise InputError("searcher.rewards.epsilon is not read with searcher.rewards.by=jvp; leave it out")


@dataclass(frozen=True)
class Stabilize:
    """Options against noisy rewards. None of them improved the default search where they were measured."""

    start_share: float = bounded(
        0.0, 0.0, 0.99, help="share of the draws that come from the start, whatever is learned"
    )
    entropy_bonus: float = bounded(0.0, 0.0, 1000.0, help="pulls the shares of sub-policies towards the start's")
    reward_scale: str = choice("none", "none", "loss", "rank", help="divide by each image's loss, or take ranks")
    draws_per_validation: int = bounded(1, 1, 1000, help="draws of a batch for each validation gradient")

    def __post_init__(self) -> None:
        check_fields(self)
