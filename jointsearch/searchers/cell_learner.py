"""Learns the architecture weights of a supernet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from jointsearch.protocols import Moment
from jointsearch.settings import bounded, check_fields, choice, setting
from jointsearch.soft.network import KINDS, SuperNet, beta_decay
from search_spaces.cells.derive import skips
from search_spaces.genotype import Genotype

# Of single-path draws, as GDAS lets it fall. Which candidate is drawn does not depend on it, only how sharply the
# gradient tells that one from the others.
FIRST_TEMPERATURE, LAST_TEMPERATURE = 10.0, 0.1


@dataclass(frozen=True)
class AgainstCollapse:
    """Remedies for cells in which skip connections crowd out everything else."""

    beta_decay: float = bounded(0.0, 0.0, 10_000.0, help="beta-DARTS: penalty at the last epoch; it rises from 0")
    most_skips: int | None = bounded(None, 0, 1000, help="P-DARTS: skip connections in the normal cell, at most")
    hessian_monitor: bool = setting(False, help="R-DARTS: write the sharpness of the validation loss, every epoch")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ArchitectureSettings:
    """How the architecture weights learn, with Adam. The defaults are those of DARTS, first order."""

    BETAS: ClassVar[tuple[float, float]] = (0.5, 0.999)

    learning_rate: float = bounded(3e-4, 1e-8, 10.0, help="of the architecture weights, with Adam")
    weight_decay: float = bounded(1e-3, 0.0, 1.0, help="of the architecture weights")
    order: str = choice("first", "first", "second", help="second: also through the training step, at twice the cost")
    from_epoch: int = bounded(0, 0, 100_000, help="epochs of the weights alone before cells learn")
    against_collapse: AgainstCollapse | None = setting(
        None, help="remedies for cells of skips, as in architecture.against_collapse.most_skips=2"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def remedies(self) -> AgainstCollapse:
        """Those that are chosen, else all switched off."""
        return self.against_collapse or AgainstCollapse()


class CellLearner:
    """Moves the architecture weights of a supernet: parameters that its own training leaves alone."""

    def __init__(self, settings: ArchitectureSettings, network: SuperNet) -> None:
        self.settings, self.network, self.remedies = settings, network, settings.remedies
        self.logits = network.architecture()
        self.optimizer = torch.optim.Adam(
            self.logits.values(), settings.learning_rate, betas=settings.BETAS, weight_decay=settings.weight_decay
        )

    def learns(self, at: Moment) -> bool:
        """Whether the architecture moves in this step."""
        return at.epoch >= self.settings.from_epoch

    @property
    def through_step(self) -> bool:
        """Whether the architecture also learns through the training step of the weights."""
        return self.settings.order == "second"

    def prepare(self, progress: float, noise: torch.Generator) -> None:
        """Before a step: draw paths, and fade skip connections; `progress` is 0 in the first epoch, 1 in the last."""
        if self.network.settings.single_path:
            temperature = FIRST_TEMPERATURE + progress * (LAST_TEMPERATURE - FIRST_TEMPERATURE)
            self.network.draw(noise, temperature)
        if self.network.settings.auxiliary_skip:
            self.network.skip_weight.fill_(1 - progress)

    def leaves(self) -> dict[str, Tensor]:
        """The architecture by the names of the network's parameters, as leaves of the graph of one step."""
        return {name: logits.detach().requires_grad_() for name, logits in self.logits.items()}

    def penalty(self, leaves: Mapping[str, Tensor], progress: float) -> Tensor:
        """What is added to the objective."""
        if not self.remedies.beta_decay:
            return torch.zeros(())
        penalty = torch.stack([beta_decay(logits) for logits in leaves.values() if logits.dim() == 2]).mean()
        return self.remedies.beta_decay * progress * penalty

    def descend(self, leaves: Mapping[str, Tensor]) -> None:
        """Take one step along the gradients of the leaves."""
        for name, logits in self.logits.items():
            logits.grad = leaves[name].grad
        self.optimizer.step()
        self.optimizer.zero_grad()

    def genotype(self) -> Genotype:
        """The finished cells as things stand."""
        return self.network.harden(most_skips=self.remedies.most_skips)

    @torch.no_grad()
    def facts(self) -> dict[str, Any]:
        """The finished cells, how decided the edges are, the weight of every candidate, and skips of the normal cell.

        Skip connections that crowd out all else are the known way in which such searches collapse. A cap on them hides
        that from the finished cells, but not from their count.
        """
        of_edges = [logits.softmax(1) for logits in self.network.logits.values()]
        entropy = torch.cat([torch.special.entr(one).sum(1) for one in of_edges]).mean()
        return {
            "effective_candidates": float(entropy.exp()),
            "normal_skips": float(skips(self.network.harden().normal)),
            "genotype": self.genotype().to_darts(),
            **{f"weights/{kind}": self.network.shares(kind).tolist() for kind in KINDS},
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside the network, which holds the architecture weights."""
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.optimizer.load_state_dict(state["optimizer"])
