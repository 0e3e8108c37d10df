"""Adversarial AutoAugment (Zhang et al., ICLR 2020): policies that make the training loss of a network high.

In each epoch an LSTM writes several policies, and every step trains on one copy of the batch under each of them. After
the epoch the controller learns by REINFORCE to write policies whose copies had a high training loss. The result is the
network itself, and the policies of every epoch as a schedule.

Nothing but the range of the ops keeps an image recognizable; `safe` leaves out copies that a teacher does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from jointsearch.augmenters.copies import Copies
from jointsearch.augmenters.teachers import Teachers, guarded
from jointsearch.data.sets import Batch
from jointsearch.front_end import augment
from jointsearch.protocols import About, Context, Found, Moment, Needs, State, StepReport, passes_of
from jointsearch.searchers.controller import AUTOAUGMENT_OPS, ENTROPY, MAGNITUDES, STAGES, Controller
from jointsearch.searchers.ohl import normalized
from jointsearch.settings import bounded, check_fields, setting
from search_spaces.augment.table import OPS, check_op_names
from search_spaces.controls import named_policy
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

SUB_POLICIES = 5  # of a policy; every image draws one of them
KINDS = 2  # of decisions: op and magnitude
DECAY = 0.95  # of the moving mean of a copy's losses; the paper does not say its own


@dataclass(frozen=True)
class Adversarial:
    """A controller writes policies under which the training loss is high; the network trains on all of them."""

    about: ClassVar[About] = About(own_network=True)

    copies: int = bounded(8, 1, 1024, help="of every image in each step, each under a policy of its own")
    ops: tuple[str, ...] = setting(AUTOAUGMENT_OPS, help="ops to choose from")
    learning_rate: float = bounded(3.5e-4, 0.0, 10.0, help="of the controller, with Adam; 0: random policies")
    safe: bool = setting(False, help="copies that a teacher no longer recognizes are replaced by the plain image")
    short: bool = setting(False, help="epochs divided by copies: as many gradients as a row of one copy")
    shuffled: bool = setting(False, help="the control: losses are permuted among the copies")

    def __post_init__(self) -> None:
        check_fields(self)
        check_op_names(self.ops, "searcher.ops")

    @property
    def drawn(self) -> Copies:
        """On how many copies of every image its steps train."""
        return Copies(self.copies, self.copies, safe=self.safe, short=self.short)

    def start(self, context: Context) -> "AdversarialSearcher":
        """Begin a search on a network."""
        return AdversarialSearcher(self, context)


class AdversarialSearcher:
    """Trains on the copies of an epoch's policies, and lets the controller learn after it."""

    needs = Needs(batches=0)

    def __init__(self, settings: Adversarial, context: Context) -> None:
        self.settings, self.context = settings, context
        self.generator = torch.Generator().manual_seed(context.seed)
        decisions = SUB_POLICIES * STAGES * KINDS
        self.controller = Controller((len(settings.ops), MAGNITUDES), decisions, self.generator)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), settings.learning_rate)
        self.teachers = Teachers(context.train_step) if settings.safe else None
        self.history = torch.empty(0, settings.copies, decisions, dtype=torch.int64)  # the last are those in use
        self.losses = torch.zeros(settings.copies)  # moving sums of this epoch
        self.weight = 0.0  # of the losses in them
        self.entropy = 0.0
        self.spans: list[tuple[int, Policy]] = []  # of the epochs that have ended
        self._draw()

    def step(self, train: Batch, validation: Sequence[Batch], at: Moment) -> StepReport:
        """Train on a copy of the batch under each policy; after an epoch's last step learn, and draw new policies."""
        standard, noise = self.context.standard, self.context.noise
        copies = [augment(train.images, policy, standard, noise) for policy in self.policies]
        if self.teachers is not None:
            plain = replace(train, images=augment(train.images, named_policy("none"), standard, noise))
            together = torch.stack(copies)
            copies = list(guarded(together, self.teachers.guard(together, plain, at), plain))
        passes = passes_of(self.context.train_step.objective)
        losses = self.context.train_step.of_copies(copies, train.targets)
        self.losses = DECAY * self.losses.to(losses.device) + (1 - DECAY) * losses
        self.weight = DECAY * self.weight + (1 - DECAY)
        if at.step == at.steps - 1:
            self._learn()
            self._end_epoch()
            self._draw()
        return StepReport(losses.mean(), forward_equivalents=self.settings.drawn.cost(passes))

    def found(self) -> Found:
        """The policies of all epochs that have ended, a span for each.

        Where epochs were divided by copies, a span is as many epochs long as a training on one copy has for one.
        """
        spans = self.spans or [(0, self._joined(self.history[-1]))]
        length = self.settings.copies if self.settings.short else 1
        schedule = PolicySchedule(tuple((epoch * length, policy) for epoch, policy in spans), name="found")
        facts = {"decision_entropy": self.entropy, **(self.teachers.facts() if self.teachers else {})}
        return Found(schedule, facts=facts | self._shares(self.history[len(spans) - 1]))

    def _shares(self, decisions: Tensor) -> dict[str, float]:
        """The share of images on which an op acts, and the magnitudes of those ops that have any, in an epoch."""
        ops, magnitudes = (decisions.reshape(-1, KINDS)[:, kind] for kind in range(KINDS))
        counted = torch.bincount(ops, minlength=len(self.settings.ops)) / len(ops) * STAGES
        shares = {f"share/{name}": share for name, share in zip(self.settings.ops, counted.tolist(), strict=True)}
        read = torch.tensor([OPS[name].has_magnitude for name in self.settings.ops])[ops]
        if not bool(read.any()):
            return shares
        levels = (torch.bincount(magnitudes[read], minlength=MAGNITUDES) / int(read.sum())).tolist()
        mean = sum(level * share for level, share in enumerate(levels)) / (MAGNITUDES - 1)
        return shares | {"mean_magnitude": mean} | {f"magnitude/{level}": share for level, share in enumerate(levels)}

    def state(self) -> State:
        """Everything that a checkpoint has to hold."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "losses": self.losses,
            "weight": self.weight,
            "entropy": self.entropy,
            "teachers": {} if self.teachers is None else self.teachers.state(),
        }

    def restore(self, state: State) -> None:
        """Continue from a state."""
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.history, self.losses = state["history"], state["losses"]
        self.weight, self.entropy = state["weight"], state["entropy"]
        if self.teachers is not None:
            self.teachers.restore(state["teachers"])
        self.policies = [self._policy(one) for one in self.history[-1]]
        self.spans = [(epoch, self._joined(one)) for epoch, one in enumerate(self.history[:-1])]

    def _end_epoch(self) -> None:
        """Note the policies of an epoch that has ended."""
        self.spans.append((len(self.spans), self._joined(self.history[-1])))

    def _draw(self) -> None:
        """The policies of the next epoch."""
        with torch.no_grad():
            drawn, *_ = self.controller(None, self.settings.copies, self.generator)
        self.history = torch.cat([self.history, drawn[None]])
        self.policies = [self._policy(one) for one in drawn]

    def _learn(self) -> None:
        """Raise the probability of policies whose copies were hard for the network."""
        rewards = normalized((self.losses / self.weight).double().cpu())
        if self.settings.shuffled:
            rewards = rewards[torch.randperm(len(rewards), generator=self.generator)]
        _, logs, entropies = self.controller(self.history[-1], self.settings.copies)
        loss = -(rewards.to(logs.dtype) * logs.sum(1)).mean() - ENTROPY * entropies.sum(1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses, self.weight = torch.zeros_like(self.losses), 0.0
        self.entropy = float(entropies.detach().mean())

    def _policy(self, decisions: Tensor) -> Policy:
        """The sub-policies that some decisions mean, equally likely."""
        chosen = [self._op(op, magnitude) for op, magnitude in decisions.view(-1, KINDS).tolist()]
        pairs = zip(*(chosen[stage::STAGES] for stage in range(STAGES)), strict=True)
        return Policy(tuple(SubPolicy(pair) for pair in pairs), name="found")

    def _joined(self, decisions: Tensor) -> Policy:
        """All policies of an epoch in one."""
        return Policy(tuple(row for one in decisions for row in self._policy(one).sub_policies), name="found")

    def _op(self, op: int, magnitude: int) -> OpChoice:
        name = self.settings.ops[op]
        return OpChoice(name, 1.0, magnitude / (MAGNITUDES - 1) if OPS[name].has_magnitude else None)
