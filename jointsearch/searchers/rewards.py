"""How the rewards of a search by gradients are computed, and what is done against their noise."""

from dataclasses import dataclass

from torch import nn

from jointsearch.settings import bounded, check_fields, choice
from jointsearch.through_step.sides import with_own_backward
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Rewards:
    """How the reward of each image is computed. Cells of second order always have live statistics."""

    epsilon: float = bounded(
        0.01, 0.0, 1.0, help="length of the finite difference over the weights; 0: the exact derivative, slower"
    )
    statistics: str = choice(
        "live", "live", "frozen", help="of batch normalization: as training has them, or constants, those of the step"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def exact(self) -> bool:
        """Whether the derivative is taken, and no difference of losses."""
        return self.epsilon == 0


@dataclass(frozen=True)
class Stabilize:
    """Options against noisy rewards. On photographs none of them improved a search.

    Where the answer is known and cells are searched too, `start_share` and ranks did (docs/results.md).
    """

    start_share: float = bounded(
        0.0, 0.0, 0.99, help="share of the draws that come from the start, whatever is learned"
    )
    entropy_bonus: float = bounded(0.0, 0.0, 1000.0, help="pulls the shares of sub-policies towards the start's")
    reward_scale: str = choice("none", "none", "loss", "rank", help="divide by each image's loss, or take ranks")
    validation_batches: int = bounded(1, 1, 1000, help="batches that are averaged into one validation gradient")
    draws_per_validation: int = bounded(1, 1, 1000, help="draws of a batch for each validation gradient")

    def __post_init__(self) -> None:
        check_fields(self)


def check_differences(network: nn.Module) -> None:
    """Refuse a network whose steps a difference of losses does not show."""
    if found := with_own_backward(network.modules()):
        raise InputError(
            f"the network has a {type(found).__name__}, whose gradient is not the slope of the loss, and rewards here "
            "are differences of losses; use searcher=differentiable searcher.rewards.epsilon=0, with a race "
            "proposals=[trials], or another network"
        )
