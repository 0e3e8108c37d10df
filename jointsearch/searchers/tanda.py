"""TANDA (Ratner et al., NeurIPS 2017): sequences of transformation functions that a discriminator takes for real.

A generator draws L functions for every image, each an op at a fixed magnitude. The discriminator, which is the searched
network with one output, learns to give 1 to real images and 0 to transformed ones. The generator learns by REINFORCE:
the reward of a step is what it takes off the discriminator's loss for "real". Without a second term, which rises near
the original image, changing nothing would be best. No label is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment_with
from jointsearch.protocols import PLAIN_STEP, About, Context, Found, Moment, Needs, State, StepReport
from jointsearch.searchers.gradients import all_finite
from jointsearch.searchers.sequences import MeanField, SequenceModel, functions_of, policy_loss, sample
from jointsearch.settings import bounded, check_fields, choice, setting
from search_spaces.augment.apply import OF_STAGES, PolicyDraw, apply_draw, draw_of
from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.errors import InputError, check_distinct
from search_spaces.policy import MAX_STAGES

GENERATORS: dict[str, tuple[type[MeanField] | type[SequenceModel], float]] = {  # with their learning rates
    "mean_field": (MeanField, 0.02),
    "lstm": (SequenceModel, 0.001),
}
DISCOUNT = 0.5  # what a reward counts for the function one step earlier
FLOOR = 1e-2  # added to a distance, so that an unchanged image costs a hundred times the weight, and not a million


@dataclass(frozen=True)
class Tanda:
    """TANDA: a discriminator learns to tell transformed images from real ones, a generator to deceive it.

    The searched network is the discriminator. It has its own Adam: of search_recipe only epochs and batch_size count.
    """

    about: ClassVar[About] = About(own_optimizer=True, complete_at_end=True)

    learning_rate: float | None = bounded(
        None, 0.0, 10.0, help="of the generator; null: 0.02, of an lstm 0.001; 0: uniformly random sequences"
    )
    discriminator_learning_rate: float = bounded(1e-3, 1e-8, 10.0, help="of the network and its one output")
    ops: tuple[str, ...] | None = setting(None, help="ops to choose from; null for DADA's fifteen")
    magnitudes: tuple[float, ...] = bounded((0.25, 0.5), 1e-3, 1.0, help="a function for each of an op that has any")
    generator: str = choice(
        "mean_field",
        *GENERATORS,
        help="mean_field: one distribution for all places; lstm: a place depends on those before",
    )
    length: int = bounded(10, 1, MAX_STAGES, help="functions of a sequence, one after the other")
    samples: int = bounded(1, 1, 1000, help="sequences for each image in a step")
    diversity_weight: float = bounded(2.5e-3, 0.0, 1000.0, help="over the distance from the original image; 0: none")
    distance: str = choice("features", "features", "pixels", help="squared, of the discriminator's features or pixels")
    shuffled: bool = setting(False, help="the control: rewards are permuted among the sequences of a step")

    def __post_init__(self) -> None:
        check_fields(self)
        check_op_names(self.names(), "searcher.ops")
        check_distinct("searcher.magnitudes", self.magnitudes)
        if not self.magnitudes:
            raise InputError("searcher.magnitudes is empty; name at least one, as in searcher.magnitudes=[0.5]")

    def names(self) -> tuple[str, ...]:
        """The ops to choose from."""
        return DADA_OPS if self.ops is None else self.ops

    def start(self, context: Context) -> "TandaSearcher":
        """Begin a search of a policy."""
        return TandaSearcher(self, context.network, context.standard, context.noise, context.seed)


class Discriminator(nn.Module):
    """A network without its classifier, and one output on its features: how real an image looks."""

    network: Any  # one of timm's interface

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(self.network.head_hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> scores (B,), above 0 for real, and features (B, F)."""
        features = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        return self.head(features).squeeze(1), features


class TandaSearcher:
    """A generator and a discriminator that learn against each other, one step of each at a time.

    The discriminator learns from training images. Rewards are measured on validation images, of which it has learned
    none by heart, and with its running statistics, so that no sequence changes the reward of another.
    """

    needs = Needs()

    def __init__(
        self, settings: Tanda, network: nn.Module, standard: Standard, noise: torch.Generator, seed: int
    ) -> None:
        self.settings, self.standard, self.noise, self.seed = settings, standard, noise, seed
        self.functions = functions_of(settings.names(), settings.magnitudes)
        place = {name: index for index, name in enumerate(OPS)}
        self.op = torch.tensor([place[one.op] for one in self.functions])  # (K,)
        self.magnitude = torch.tensor([one.magnitudes[0] for one in self.functions])  # (K,)
        device = next(network.parameters()).device
        kind, rate = GENERATORS[settings.generator]
        self.generator: MeanField | SequenceModel = kind(len(self.functions), settings.length, noise)
        self.discriminator = Discriminator(network).to(device)
        rate = rate if settings.learning_rate is None else settings.learning_rate
        self.optimizer = torch.optim.Adam(self.generator.parameters(), rate)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), settings.discriminator_learning_rate
        )
        self.seen = torch.zeros(3, device=device)  # of the last step, as `found` names them

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train the discriminator on training images, and the generator by its scores of validation images.

        Real and transformed images cost 3 passes each, and a sequence one for the image and one for every function.
        """
        loss = self.train_discriminator(train)
        learned = self.train_generator(validation[0])
        passes = self.settings.samples * (1 + self.settings.length)
        return StepReport(loss, skipped=not learned, forward_equivalents=2 * PLAIN_STEP + passes)

    def train_discriminator(self, batch: Batch) -> Tensor:
        """One step on real images and on the same ones transformed; gives the loss.

        All go through the network in one batch: in two, batch normalization would hide what a whole batch shares.
        """
        count = len(batch.images)
        real = augment_with(lambda pixels: pixels, batch.images, self.standard, self.noise)
        draw = self.drawn(self.sequences(count))
        changed = augment_with(lambda pixels: apply_draw(pixels, draw), batch.images, self.standard, self.noise)
        scores, _ = self.discriminator(torch.cat([real, changed]))
        loss = (softplus(-scores[:count]).mean() + softplus(scores[count:]).mean()) / 2
        if not bool(loss.isfinite()):
            raise InputError(
                f"the discriminator's loss is {loss.item()}: it diverged; lower searcher.discriminator_learning_rate "
                f"(now {self.settings.discriminator_learning_rate:g})"
            )
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.discriminator_optimizer.step()
        self.seen[0] = loss.detach()
        return loss.detach()

    def train_generator(self, batch: Batch) -> bool:
        """One step of the generator. Rewards or a gradient that are no numbers leave it where it is and give False."""
        settings = self.settings
        sequences = self.sequences(settings.samples * len(batch.images))
        rewards = self.rewards(batch.images.repeat(settings.samples, 1, 1, 1), sequences).cpu()
        if not bool(rewards.isfinite().all()):
            return False
        if settings.shuffled:
            rewards = rewards[torch.randperm(len(rewards), generator=self.noise)]
        _, spreads = self.generator(sequences, len(sequences))
        loss = policy_loss(spreads.gather(2, sequences.unsqueeze(2)).squeeze(2), rewards, DISCOUNT)
        self.optimizer.zero_grad()
        loss.backward()
        if not all_finite(list(self.generator.parameters())):
            return False
        self.optimizer.step()
        return True

    @torch.no_grad()
    def sequences(self, count: int) -> Tensor:
        """Functions (B, L) drawn by the generator."""
        return self.generator(None, count, self.noise)[0]

    def drawn(self, sequences: Tensor) -> PolicyDraw:
        """Sequences (B, L) with the directions, places and partners of their ops."""
        count, length = sequences.shape
        uniform = torch.rand(4 * length, count, generator=self.noise)
        return draw_of(sequences[:, 0], self.op[sequences], self.magnitude[sequences], uniform)

    @torch.no_grad()
    def rewards(self, images: Tensor, sequences: Tensor) -> Tensor:
        """What each step of the sequences (B, L) takes off the loss of its image: (B, L), more is better."""
        settings, training = self.settings, self.discriminator.training
        costs: list[Tensor] = []
        self.discriminator.eval()
        try:
            for shown in self.shown(images, self.drawn(sequences)):
                scores, features = self.discriminator(shown)
                points = shown if settings.distance == "pixels" else features
                if not costs:
                    original = points
                distance = (points - original).square().flatten(1).mean(1)
                costs.append(softplus(-scores) + settings.diversity_weight / (distance + FLOOR))
        finally:
            self.discriminator.train(training)
        self.seen[1], self.seen[2] = scores.sigmoid().mean(), distance.mean()
        return (torch.stack(costs[:-1]) - torch.stack(costs[1:])).T

    def shown(self, images: Tensor, draw: PolicyDraw) -> Iterator[Tensor]:
        """Images (B, C, H, W) as the network sees them: before the first step, and after every one.

        Each image keeps its crop and its cutout throughout, so that a difference is due to the step alone.
        """
        began, before = self.noise.get_state(), list[Tensor]()

        def noticed(pixels: Tensor) -> Tensor:
            before.append(pixels)
            return pixels

        yield augment_with(noticed, images, self.standard, self.noise)
        now = before[0]
        for step in range(draw.op.shape[1]):
            one = replace(draw, **{name: getattr(draw, name)[:, step : step + 1] for name in OF_STAGES})
            now = apply_draw(now, one, pool=before[0])
            self.noise.set_state(began)
            yield augment_with(lambda pixels, now=now: now, images, self.standard, self.noise)  # type: ignore[misc]

    def found(self) -> Found:
        """The policy, what the discriminator makes of its images, and how often each op is drawn at a place."""
        _, spreads = sample(self.generator, self.seed)
        shares = spreads.double().exp().mean((0, 1))  # (K,)
        facts: dict[str, Any] = dict(
            zip(("discriminator_loss", "taken_for_real", "distance"), self.seen.tolist(), strict=True)
        )
        facts["effective_functions"] = float(torch.special.entr(shares).sum().exp())
        for function, share in zip(self.functions, shares.tolist(), strict=True):
            facts[f"share/{function.op}"] = facts.get(f"share/{function.op}", 0.0) + share
        if self.settings.generator == "mean_field":  # the functions are its sub-policies
            facts["effective_sub_policies"] = facts["effective_functions"]
            facts["sub_policy_shares"] = [round(share, 8) for share in shares.tolist()]
            facts["sub_policy_preferences"] = [round(one, 6) for one in (shares * len(shares)).log().tolist()]
        return Found(self.generator.policy(self.functions, self.seed), facts=facts)

    def state(self) -> State:
        """Everything that a checkpoint has to hold; the loop keeps the network itself."""
        return {
            "generator": self.generator.state_dict(),
            "head": self.discriminator.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "seen": self.seen,
        }

    def restore(self, state: State) -> None:
        """Continue from a state."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.seen = state["seen"].to(self.seen.device)
