"""OHL-Auto-Aug (Lin et al., ICCV 2019): a distribution over pairs of ops that is learned while the network trains.

Every epoch, several trainings go on from the same weights, each with its own draws from the distribution. Their scores,
normalized among them, are the rewards of REINFORCE for everything that each has drawn. All go on from the best of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from jointsearch.jobs import OWN_NETWORK, Job, JobResult, PopulationContext
from jointsearch.protocols import Found
from jointsearch.settings import bounded, check_fields, setting
from search_spaces.policy import OpChoice, Policy, SubPolicy

THIRDS, OTHERS = (1 / 3, 2 / 3, 1.0), (0.3, 0.6, 0.9)
WITH_THIRDS = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Color", "Contrast", "Sharpness", "Brightness"),
)
ELEMENTS = (
    *(OpChoice(op, 1.0, magnitude) for op in WITH_THIRDS for magnitude in THIRDS),
    *(OpChoice(op, 1.0, magnitude) for op in ("Posterize", "Solarize") for magnitude in OTHERS),
    *(OpChoice(op) for op in ("AutoContrast", "Invert", "Equalize")),
)
PAIRS = tuple(SubPolicy(pair) for pair in product(ELEMENTS, repeat=2))  # ordered, an element may stand twice
BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Ohl:
    """A distribution over pairs of ops learns from short trainings that continue the best of them."""

    trajectories: int = bounded(8, 1, 1000, help="trainings that go on from the best weights in every epoch")
    learning_rate: float = bounded(0.05, 0.0, 10.0, help="of the distribution, with Adam; 0: it stays uniform")
    every: int = bounded(1, 1, 100_000, help="epochs between two updates")
    folds: int = bounded(10, 2, 100, help="parts of the training images; the first judges")
    shuffled: bool = setting(False, help="the control: scores are permuted among the trajectories")

    def __post_init__(self) -> None:
        check_fields(self)

    def cost(self, epochs: int) -> tuple[int, float]:
        """Jobs, and whole trainings."""
        return 1 + self.trajectories * -(-epochs // self.every), self.trajectories

    def population(self, context: PopulationContext) -> "OhlSearcher":
        """Begin a search."""
        return OhlSearcher(self, context)


class OhlSearcher:
    """The distribution, and the best trajectory so far."""

    def __init__(self, settings: Ohl, context: PopulationContext) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        self.logits = torch.zeros(len(PAIRS), dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logits], settings.learning_rate, betas=BETAS)
        self.epoch = self.jobs = 0
        self.best: int | None = None  # the job that all go on from
        self.best_score = 0.0
        self.round: list[JobResult] = []

    def ask(self) -> Sequence[Job]:
        """The next epochs of every trajectory."""
        if self.epoch >= self.context.epochs:
            return ()
        policy = self._policy()
        if self.best is None:  # the fresh weights that all begin with
            return [Job("start", policy, seed=self.context.seed_of(0), until_epoch=0)]
        first, count = self.epoch, self.settings.trajectories
        self.epoch = min(self.epoch + self.settings.every, self.context.epochs)
        seeds = [self.context.seed_of(1 + first * count + place) for place in range(count)]
        return [
            Job(
                f"trajectory{place}",
                policy,
                seed=seed,
                until_epoch=self.epoch,
                start=self.best,
                counted=True,
            )
            for place, seed in enumerate(seeds)
        ]

    def tell(self, job: Job, result: JobResult) -> None:
        """Take in a trajectory; after the last one learn, and go on from the best."""
        if self.best is None:
            self.best, self.jobs = 0, 1
            return
        self.round.append(result)
        if len(self.round) < self.settings.trajectories:
            return
        scores = torch.tensor([self.context.sign * one.score for one in self.round], dtype=torch.float64)
        best = int(scores.argmax())
        self.best, self.best_score = self.jobs + best, self.round[best].score
        if self.settings.shuffled:
            scores = scores[torch.randperm(len(scores), generator=self.generator)]
        draws = torch.tensor([one.draws for one in self.round], dtype=torch.float64)  # (N, K)
        self.optimizer.zero_grad()
        self.logits.grad = -score_gradient(self.logits.detach(), draws, normalized(scores))
        self.optimizer.step()
        self.jobs += len(self.round)
        self.round = []

    @property
    def continued(self) -> frozenset[int]:
        """The best one."""
        return frozenset() if self.best is None else frozenset({self.best})

    def found(self) -> Found:
        """The distribution as a policy."""
        shares = distribution(self.logits.detach())
        first = shares.view(len(ELEMENTS), -1).sum(1)
        facts = {
            "best_score": self.best_score,
            OWN_NETWORK: self.best,
            "effective_sub_policies": float(torch.exp(-(shares * shares.log()).sum())),
            "first_element_shares": first.tolist(),
        }
        return Found(self._policy(), facts=facts)

    def _policy(self) -> Policy:
        shares = distribution(self.logits.detach()).tolist()
        rows = (SubPolicy(pair.ops, share) for pair, share in zip(PAIRS, shares, strict=True))
        return Policy(tuple(rows), name="found")


def distribution(logits: Tensor) -> Tensor:
    """Sigmoids, divided by their sum."""
    shares = logits.sigmoid()
    return shares / shares.sum()


def normalized(scores: Tensor) -> Tensor:
    """Scores with mean 0 and standard deviation 1; zeros where they do not differ, as with one alone."""
    centred = scores - scores.mean()
    deviation = centred.square().mean().sqrt()
    return torch.zeros_like(scores) if deviation <= 1e-12 * scores.abs().max().clamp(min=1e-30) else centred / deviation


def score_gradient(logits: Tensor, draws: Tensor, rewards: Tensor) -> Tensor:
    """The gradient of REINFORCE: of the log-probability of all draws (N, K) of a trajectory, times its reward, mean.

    Of one draw j it is (1 - s_k) (1[j = k] - p_k), where s is the sigmoid of the logit.
    """
    shares = logits.sigmoid()
    expected = draws.sum(1, keepdim=True) * distribution(logits)
    return (rewards.unsqueeze(1) * (1 - shares) * (draws - expected)).mean(0)
