"""Faster AutoAugment (Hataya et al., ECCV 2020): a policy whose images a critic cannot tell from real ones.

The critic is the searched network with a second head (WGAN-GP); the policy wants high scores and the right class. No
validation loss enters: half of the images are real and train the critic, the other half are augmented.

Each kind goes through BatchNorm in batches of its own, as published, which hides what a whole batch shares: dark noise
of 8x8 pixels and its negative scored 0.4 apart after 150 steps, and 30 with fixed statistics (tiny_cnn, 1 seed).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment_with
from jointsearch.protocols import About, Context, Found, Moment, Needs, State, StepReport
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.spaces import Stages
from jointsearch.settings import bounded, check_fields, choice, group
from jointsearch.soft.stages import SoftStages
from search_spaces.augment.op import per_image
from search_spaces.errors import InputError


@dataclass(frozen=True)
class FasterAA:
    """Faster AutoAugment: a critic learns to tell augmented images from real ones, the policy to deceive it.

    The searched network is the critic. It has its own Adam: of search_recipe only epochs and batch_size count.
    """

    BETAS: ClassVar[tuple[float, float]] = (0.0, 0.999)  # of Adam, for policy and critic
    about: ClassVar[About] = About(own_optimizer=True)

    learning_rate: float = bounded(1e-3, 1e-8, 10.0, help="of the policy")
    critic_learning_rate: float = bounded(1e-3, 1e-8, 10.0, help="of the network and its second head")
    policy_space: Stages = group(Stages, help="the only space that it searches: stages")
    temperature: float = bounded(0.05, 1e-3, 100.0, help="of the softmax that weighs the ops of a stage")
    act_temperature: float = bounded(0.1, 1e-3, 100.0, help="of the relaxed probabilities")
    mixing: str = choice(
        "weighted",
        "weighted",
        "sampled",
        help="weighted: the mean of all ops; sampled: one op, with the gradient of the mean",
    )
    chunk: int = bounded(8, 1, 65_536, help="neighbouring images that share a sub-policy")
    classification_weight: float = bounded(0.1, 0.0, 1000.0, help="of the cross entropy, for the critic and the policy")
    penalty_weight: float = bounded(10.0, 1e-3, 10_000.0, help="of the gradient penalty")

    def __post_init__(self) -> None:
        check_fields(self)

    def start(self, context: Context) -> "FasterSearcher":
        """Begin a search of a policy."""
        return FasterSearcher(self, context.network, context.standard, context.noise)


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

    needs = Needs()

    def __init__(self, settings: FasterAA, network: nn.Module, standard: Standard, noise: torch.Generator) -> None:
        self.settings, self.standard, self.noise = settings, standard, noise
        space = settings.policy_space
        self.stages = SoftStages(
            space.names(), space.sub_policies, space.stages, noise, settings.temperature, settings.act_temperature
        )
        device = next(network.parameters()).device
        self.critic = Critic(network).to(device)
        self.optimizer = torch.optim.Adam(self.stages.parameters(), settings.learning_rate, betas=settings.BETAS)
        self.critic_optimizer = torch.optim.Adam(
            self.critic.parameters(), settings.critic_learning_rate, betas=settings.BETAS
        )
        self.distance = torch.zeros((), device=device)  # E[D(real)] - E[D(augmented)] of the last step

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train the critic on real images and on other ones augmented, and move the policy by its scores.

        Real images cost 3 passes, augmented ones 3, the policy 2, the penalty 2, and its own gradient 4.
        """
        others = validation[0]
        train_loss = self.train_critic(train, others)
        learned = self.train_policy(others)
        return StepReport(train_loss, skipped=not learned, forward_equivalents=14)

    def train_critic(self, real: Batch, others: Batch) -> Tensor:
        """One step of the network and its second head; gives the cross-entropy of the real images."""
        images = augment_with(lambda pixels: pixels, real.images, self.standard, self.noise)
        with torch.no_grad():
            changed = self.augmented(others)
        logits, scores = self.critic(images)
        count = min(len(images), len(changed))  # the last batch of an epoch may be short
        share = torch.rand(count, generator=self.noise).to(images.device)
        penalty = gradient_penalty(lambda between: self.scored(between)[1], images[:count], changed[:count], share)
        distance = scores.mean() - self.scored(changed)[1].mean()
        loss = cross_entropy(logits, real.labels)
        weighted = self.settings.classification_weight * loss
        objective = weighted - distance + self.settings.penalty_weight * penalty
        if not bool(objective.isfinite()):
            raise InputError(
                f"the critic's objective is {objective.item()}: it diverged; lower searcher.critic_learning_rate (now "
                f"{self.settings.critic_learning_rate:g})"
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
        logits, scores = self.scored(self.augmented(others))
        loss = cross_entropy(logits, others.labels)
        objective = self.settings.classification_weight * loss - scores.mean()
        learned = list(self.stages.parameters())
        self.optimizer.zero_grad()
        objective.backward(inputs=learned)
        if not all_finite(learned):
            return False
        self.optimizer.step()
        return True

    def augmented(self, batch: Batch) -> Tensor:
        """Images (B, C, H, W) as the critic sees them, with a graph to everything that the policy learns."""
        sampled = self.settings.mixing == "sampled"

        def transform(pixels: Tensor) -> Tensor:
            draw = self.stages.draw(len(pixels), self.settings.chunk, self.noise)
            return self.stages.mixed(pixels, draw, sampled, sampled)

        return augment_with(transform, batch.images, self.standard, self.noise)

    def scored(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, classes) and scores (B,) that leave the running statistics to the real images."""
        buffers = {name: buffer.clone() for name, buffer in self.critic.named_buffers()}
        logits, scores = functional_call(self.critic, buffers, (images,))
        return logits, scores

    def found(self) -> Found:
        """The policy, and how far the critic tells its images from real ones."""
        return Found(self.stages.harden(), facts={"critic_distance": float(self.distance), **self.stages.metrics()})

    def state(self) -> State:
        """Everything that a checkpoint has to hold; the loop keeps the network itself."""
        return {
            "stages": self.stages.state_dict(),
            "head": self.critic.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "distance": self.distance,
        }

    def restore(self, state: State) -> None:
        """Continue from a state."""
        self.stages.load_state_dict(state["stages"])
        self.critic.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.distance = state["distance"].to(self.distance.device)
