"""Faster AutoAugment (Hataya et al., ECCV 2020): a policy whose images a critic cannot tell from real ones.

The critic is the searched network with a second head (WGAN-GP); the policy wants high scores and the right class. No
validation loss enters: half of the images are real and train the critic, the other half are augmented.

Each kind goes through BatchNorm in batches of its own, as published, which hides what a whole batch shares: dark noise
of 8x8 pixels and its negative scored 0.4 apart after 150 steps, and 30 with fixed statistics (tiny_cnn, 1 seed).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment_with
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.settings import EstimatorSettings, check_betas
from jointsearch.settings import bounded, check_fields, choice
from jointsearch.soft.stages import FASTER_AA_OPS, SoftStages
from search_spaces.augment.op import per_image
from search_spaces.augment.table import OPS, check_op_names
from search_spaces.errors import InputError
from search_spaces.policy import MAX_STAGES, OpChoice, Policy, SubPolicy


@dataclass(frozen=True)
class StageSpace:
    """L sub-policies of K stages; any op may come at any stage."""

    ops: tuple[str, ...] | None = None  # null takes the sixteen of the paper
    sub_policies: int = bounded(10, 1, 1000)
    stages: int = bounded(2, 1, MAX_STAGES)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stages > (count := len(self.names())):
            raise InputError(
                f"policy_space.stages={self.stages} is more than the {count} ops to choose from, so that some would "
                "have to act twice; lower it, or name more policy_space.ops"
            )

    def names(self) -> tuple[str, ...]:
        """The ops to choose from."""
        return FASTER_AA_OPS if self.ops is None else check_op_names(self.ops, "policy_space.ops")

    def policy(self) -> Policy:
        """What a stage does on average over all its random beginnings: any op, at probability and magnitude .5."""
        choices = (OpChoice(name, 0.5, 0.5 if OPS[name].has_magnitude else None) for name in self.names())
        return Policy(tuple(SubPolicy((one,)) for one in choices), name="a stage's average beginning")


@dataclass(frozen=True)
class CriticSettings:
    """How policy and critic learn. The defaults are the paper's."""

    name: str = choice("faster_aa", "faster_aa")
    learning_rate: float = bounded(1e-3, 1e-8, 10.0)  # of the policy
    critic_learning_rate: float = bounded(1e-3, 1e-8, 10.0)  # of the network and its second head
    betas: tuple[float, ...] = bounded((0.0, 0.999), 0.0, 0.999999)  # of Adam, for both
    temperature: float = bounded(0.05, 1e-3, 100.0)  # of the weights of a stage
    act_temperature: float = bounded(0.1, 1e-3, 100.0)  # of the relaxed probabilities
    # weighted: a stage gives the mean of all ops. sampled: the image of one, with the gradient of that mean.
    mixing: str = choice("weighted", "weighted", "sampled")
    acts: str = choice("relaxed", "relaxed", "straight_through")
    chunk: int = bounded(8, 1, 65_536)  # neighbouring images that share a sub-policy
    classification_weight: float = bounded(0.1, 0.0, 1000.0)
    penalty_weight: float = bounded(10.0, 0.0, 10_000.0)

    def __post_init__(self) -> None:
        check_fields(self)
        check_betas("searcher", self.betas, "[0.0,0.999]")
        if not self.penalty_weight:
            raise InputError(
                "searcher.penalty_weight=0 lets the critic's scores grow without bound, and they no longer measure a "
                "distance; use searcher.penalty_weight=10"
            )


@dataclass(frozen=True)
class FasterSearch:
    """Faster AutoAugment: what to search in, and how."""

    searcher: CriticSettings = field(default_factory=CriticSettings)
    policy_space: StageSpace = field(default_factory=StageSpace)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)  # not read: nothing is estimated

    def __post_init__(self) -> None:
        if self.searcher.mixing == "sampled" and self.searcher.acts == "relaxed":
            raise InputError(
                "searcher.mixing=sampled shows the critic single ops and searcher.acts=relaxed half-applied ones; use "
                "searcher.acts=straight_through, or searcher.mixing=weighted"
            )


class Critic(nn.Module):
    """A network that classifies, with a second head on the same features that scores how real an image looks."""

    network: Any  # one of timm's interface

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        features = self.network.head_hidden_size
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> class logits (B, classes) and scores (B,)."""
        maps = self.network.forward_features(images)
        scores = self.head(self.network.forward_head(maps, pre_logits=True))
        return self.network.forward_head(maps), scores.squeeze(1)


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, changed: Tensor, share: Tensor) -> Tensor:
    """Mean (|d score / d image| - 1)^2 at images between `real` and `changed`, both (B, C, H, W); `share` (B,) is real.

    The length is that of the whole gradient of an image (Gulrajani et al. 2017). The published search takes one length
    per pixel, over the channels, which bounds nothing that its objective needs.
    """
    between = torch.lerp(changed, real, per_image(share)).detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # torch differentiates no other form of attention twice
        (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)  # (B, C, H, W)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class FasterSearcher:
    """Soft stages and a critic that learn against each other, one step of each at a time.

    The critic descends E[D(augmented)] - E[D(real)] + 10 penalty + 0.1 cross-entropy(real), and then the policy
    descends 0.1 cross-entropy(augmented) - E[D(augmented)]. The weights follow this objective and its own optimizer,
    not the training step of the loop.
    """

    validation_batches = 1
    first_batch_only = False
    learns_from = 0

    def __init__(self, settings: FasterSearch, network: nn.Module, standard: Standard, noise: torch.Generator) -> None:
        self.settings, self.standard, self.noise = settings, standard, noise
        space, learned = settings.policy_space, settings.searcher
        self.stages = SoftStages(
            space.names(), space.sub_policies, space.stages, noise, learned.temperature, learned.act_temperature
        )
        device = next(network.parameters()).device
        self.critic = Critic(network).to(device)
        first, second = learned.betas
        self.optimizer = torch.optim.Adam(self.stages.parameters(), learned.learning_rate, betas=(first, second))
        self.critic_optimizer = torch.optim.Adam(
            self.critic.parameters(), learned.critic_learning_rate, betas=(first, second)
        )
        self.distance = torch.zeros((), device=device)  # E[D(real)] - E[D(augmented)] of the last step

    def wants_validation(self, epoch: int, steps: int) -> list[bool]:
        """Every step."""
        return [True] * steps

    def step(self, train: Batch, validation: Sequence[Batch], step_size: float, epoch: int) -> dict[str, Tensor]:
        """Train the critic on real images and on other ones augmented, and move the policy by what it then says."""
        others = validation[0]
        train_loss = self.train_critic(train, others)
        learned = self.train_policy(others)
        return {"train_loss": train_loss, "skipped": torch.tensor(not learned)}

    def train_critic(self, real: Batch, others: Batch) -> Tensor:
        """One step of the network and its second head; gives the cross-entropy of the real images."""
        images = augment_with(lambda pixels: pixels, real.images, self.standard, self.noise)
        with torch.no_grad():
            changed = self.augmented(others)
        logits, scores = self.critic(images)
        count = min(len(images), len(changed))  # the last batch of an epoch may be short
        share = torch.rand(count, generator=self.noise).to(images.device)
        penalty = gradient_penalty(lambda between: self.judged(between)[1], images[:count], changed[:count], share)
        distance = scores.mean() - self.judged(changed)[1].mean()
        loss = cross_entropy(logits, real.labels)
        weighted = self.settings.searcher.classification_weight * loss
        objective = weighted - distance + self.settings.searcher.penalty_weight * penalty
        if not bool(objective.isfinite()):
            raise InputError(
                f"the critic's objective is {objective.item()}: it diverged; lower searcher.critic_learning_rate (now "
                f"{self.settings.searcher.critic_learning_rate:g})"
            )
        self.critic_optimizer.zero_grad()
        try:
            objective.backward()
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise InputError(
                f"searcher=faster_aa differentiates the network's gradient, which torch cannot here ({error}); choose "
                "another network, such as wide_resnet40_2 or resnet18"
            ) from None
        self.critic_optimizer.step()
        self.distance = distance.detach()
        return loss.detach()

    def train_policy(self, others: Batch) -> bool:
        """One step of the policy. A gradient that is no number leaves it where it is and gives False."""
        logits, scores = self.judged(self.augmented(others))
        loss = cross_entropy(logits, others.labels)
        objective = self.settings.searcher.classification_weight * loss - scores.mean()
        learned = list(self.stages.parameters())
        self.optimizer.zero_grad()
        objective.backward(inputs=learned)
        if not all_finite(learned):
            return False
        self.optimizer.step()
        return True

    def augmented(self, batch: Batch) -> Tensor:
        """Images (B, C, H, W) as the critic sees them, with a graph to everything that the policy learns."""
        searcher = self.settings.searcher

        def transform(pixels: Tensor) -> Tensor:
            draw = self.stages.draw(len(pixels), searcher.chunk, self.noise)
            return self.stages.mixed(pixels, draw, searcher.mixing == "sampled", searcher.acts == "straight_through")

        return augment_with(transform, batch.images, self.standard, self.noise)

    def judged(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, classes) and scores (B,) that leave the running statistics to the real images."""
        buffers = {name: buffer.clone() for name, buffer in self.critic.named_buffers()}
        logits, scores = functional_call(self.critic, buffers, (images,))
        return logits, scores

    def forward_equivalents(self, epoch: int) -> int:
        """What a step costs: 3 real, 3 augmented, 2 for the policy; the penalty 2, and 4 to differentiate it again."""
        return 14

    def metrics(self) -> dict[str, float]:
        """Where the policy stands, and how far the critic tells its images from real ones."""
        return {"critic_distance": float(self.distance), **self.stages.metrics()}

    def found(self) -> dict[str, Any]:
        """Nothing: sub-policies of different seeds are no counterparts whose shares could be compared."""
        return {}

    def genotype(self) -> None:
        """No cells are searched."""

    def policy(self) -> Policy:
        """The finished policy as things stand."""
        return self.stages.harden()

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold; the loop keeps the network itself."""
        return {
            "stages": self.stages.state_dict(),
            "head": self.critic.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "distance": self.distance,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.stages.load_state_dict(state["stages"])
        self.critic.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.distance = state["distance"].to(self.distance.device)
