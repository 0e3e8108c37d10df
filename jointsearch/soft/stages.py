"""Soft stages, as in Faster AutoAugment: every stage applies all ops and passes on their weighted sum."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from jointsearch.estimators.draw import EDGE
from jointsearch.estimators.gumbel import straight_through
from jointsearch.soft.policy import FINEST, SMALLEST_SHARE
from search_spaces.augment.apply import PolicyDraw
from search_spaces.augment.op import OpNoise, partner_from, per_image, sign_from
from search_spaces.augment.table import DADA_OPS, OPS, check_op_names, op_tables
from search_spaces.policy import OpChoice, Policy, SubPolicy

# The ops of Faster AutoAugment: DADA's without Cutout, which its authors found unstable, and two more.
FASTER_AA_OPS = (*(name for name in DADA_OPS if name != "Cutout"), "HorizontalFlip", "SamplePairing")
# The paper clamps probabilities and magnitudes to [0, 1], where they get stuck at the ends. Here they are
# sigmoid(4 * x), which never gets stuck. Its slope is 1 in the middle: Adam's steps are as large as in the paper.
STEEPNESS = 4.0


@dataclass(frozen=True)
class StageDraw:
    """The random part of B images, without learned numbers: sub-policy, and noise for O ops at each of K stages."""

    sub_policy: Tensor  # (B,)
    choice: Tensor  # (B, K) uniform: which op acts where a single one is drawn
    act: Tensor  # (B, K, O) uniform: whether the op acts
    sign: Tensor  # (B, K, O)
    position: Tensor  # (B, K, O, 2)
    partner: Tensor  # (B, K, O)

    def to(self, device: torch.device) -> "StageDraw":
        """The same draw on another device."""
        return StageDraw(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


class SoftStages(nn.Module):
    """L equally likely sub-policies of K stages; each stage weighs all O ops by softmax(preference / temperature).

    Each op of each stage has its own probability and magnitude. All start uniformly at random, as in the paper. The
    module stays on the CPU, where draws are made.
    """

    op: Tensor  # (O,) place in OPS

    def __init__(
        self,
        ops: tuple[str, ...],
        sub_policies: int,
        stages: int,
        noise: torch.Generator,
        temperature: float = 0.05,
        act_temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.names = check_op_names(ops, "ops of the policy space")
        self.temperature, self.act_temperature = temperature, act_temperature
        places = list(OPS)
        self.register_buffer("op", torch.tensor([places.index(name) for name in self.names]))
        start = torch.rand(3, sub_policies, stages, len(self.names), generator=noise)
        shares = start.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE).logit() / STEEPNESS
        self.preference = nn.Parameter(start[0].clone())  # (L, K, O)
        self.probability_logits = nn.Parameter(shares[1].clone())  # (L, K, O)
        self.magnitude_logits = nn.Parameter(shares[2].clone())  # (L, K, O)

    def weights(self) -> Tensor:
        """The weight of every op at its stage, (L, K, O); the weights of a stage add up to 1."""
        return (self.preference / self.temperature).softmax(-1)

    def probabilities(self) -> Tensor:
        """The probability of every op, (L, K, O)."""
        return (STEEPNESS * self.probability_logits).sigmoid()

    def magnitudes(self) -> Tensor:
        """The magnitude of every op, (L, K, O)."""
        return (STEEPNESS * self.magnitude_logits).sigmoid()

    def draw(self, batch: int, chunk: int, noise: torch.Generator) -> StageDraw:
        """Draw the randomness of a batch. Each `chunk` of neighbouring images shares a sub-policy and nothing else."""
        sub_policies, stages, ops = self.preference.shape
        chunks = torch.randint(sub_policies, (-(-batch // chunk),), generator=noise)
        uniform = torch.rand(5, batch, stages, ops, generator=noise)
        return StageDraw(
            chunks.repeat_interleave(chunk)[:batch],
            torch.rand(batch, stages, generator=noise),
            uniform[0].clamp(EDGE, 1 - EDGE),
            sign_from(uniform[1]),
            uniform[2:4].movedim(0, -1),
            partner_from(uniform[4]),
        )

    def mixed(self, images: Tensor, draw: StageDraw, sampled: bool = False, whole_acts: bool = False) -> Tensor:
        """(B, C, H, W) images after K weighted sums x' = sum_o w_o [a_o O_o(x) + (1 - a_o) x], differentiable in all.

        `sampled` gives the image of one drawn op with the gradient of the whole sum. `whole_acts` rounds the relaxed
        a_o and keeps their gradient.
        """
        weights = self.weights()[draw.sub_policy]  # (B, K, O)
        if sampled:
            weights = straight_through(one_hot(self.chosen(draw), len(self.names)).to(weights), weights)
        shares = (weights * self.acts(draw, whole_acts)).to(images.device)  # (B, K, O)
        magnitudes = self.magnitudes()[draw.sub_policy].to(images.device)  # (B, K, O)
        draw = draw.to(images.device)
        changed = images
        for stage in range(shares.shape[1]):
            changed = changed + self._change(changed, images, draw, shares[:, stage], magnitudes[:, stage], stage)
        return changed

    def _change(
        self, images: Tensor, pool: Tensor, draw: StageDraw, shares: Tensor, magnitudes: Tensor, stage: int
    ) -> Tensor:
        change = torch.zeros_like(images)
        for place, name in enumerate(self.names):
            at = (slice(None), stage, place)
            noise = OpNoise(draw.sign[at], draw.position[at], draw.partner[at])
            result = OPS[name](images, magnitudes[:, place], noise, pool)
            change = change + per_image(shares[:, place]) * (result - images)
        return change

    def acts(self, draw: StageDraw, whole: bool = False) -> Tensor:
        """Whether each op acts, (B, K, O): relaxed Bernoulli draws, or rounded ones with the relaxed gradient."""
        logits = STEEPNESS * self.probability_logits[draw.sub_policy] + draw.act.logit()
        relaxed = (logits / self.act_temperature).sigmoid()
        return straight_through((logits > 0).to(relaxed), relaxed) if whole else relaxed

    def chosen(self, draw: StageDraw) -> Tensor:
        """The one op that each image draws at each stage, in proportion to the weights; (B, K) places in `names`."""
        below = self.weights().detach()[draw.sub_policy].cumsum(-1) <= draw.choice.unsqueeze(-1)
        return below.sum(-1).clamp(max=len(self.names) - 1)  # the last sum may round to just below 1

    @torch.no_grad()
    def sampled(self, draw: StageDraw) -> PolicyDraw:
        """The draw as one of a finished policy, one op per stage: what `mixed(sampled=True, whole_acts=True)` shows."""
        choice = self.chosen(draw)

        def of_choice(values: Tensor) -> Tensor:
            return values.gather(2, choice.unsqueeze(-1)).squeeze(-1)  # (B, K)

        return PolicyDraw(
            draw.sub_policy,
            torch.where(of_choice(self.acts(draw, whole=True)) > 0, self.op[choice], -1),
            of_choice(self.magnitudes()[draw.sub_policy]),
            of_choice(draw.sign),
            torch.stack([of_choice(draw.position[..., axis]) for axis in (0, 1)], -1),
            of_choice(draw.partner),
        )

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """How concentrated the weights are, how often an image stays nearly unchanged, and how often each op acts."""
        weights, probabilities = self.weights(), self.probabilities()
        nearly = op_tables().has_magnitude[self.op] & (self.magnitudes() < 0.05)  # (L, K, O)
        rests = (weights * torch.where(nearly, 1.0, 1 - probabilities)).sum(-1).prod(-1)  # (L,)
        acting = (weights * probabilities).sum(1).mean(0)  # (O,)
        entropy = torch.special.entr(weights).sum(-1).mean()
        return {
            "effective_ops": float(entropy.exp()),
            "largest_weight": float(weights.amax(-1).mean()),
            "idle_share": float(rests.mean()),
            **{f"share/{name}": float(share) for name, share in zip(self.names, acting, strict=True)},
        }

    @torch.no_grad()
    def harden(self, name: str = "found") -> Policy:
        """The finished policy: L equally likely sub-policies, with the op of largest weight at each of the K stages."""
        largest = self.preference.argmax(-1)  # (L, K); of equal ones the first
        probabilities, magnitudes = (
            values.gather(2, largest.unsqueeze(-1)).squeeze(-1).tolist()
            for values in (self.probabilities(), self.magnitudes())
        )
        rows = zip(largest.tolist(), probabilities, magnitudes, strict=True)
        return Policy(tuple(SubPolicy(tuple(map(self._choice, *row))) for row in rows), name=name)

    def _choice(self, place: int, probability: float, magnitude: float) -> OpChoice:
        name = self.names[place]
        exact = round(magnitude, FINEST) if OPS[name].has_magnitude else None
        return OpChoice(name, round(probability, FINEST), exact)
