"""What a search learns about cells: the architecture weights of a supernet, and their optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jointsearch.searchers.settings import ArchitectureSettings
from jointsearch.soft.network import KINDS, SuperNet, beta_decay
from search_spaces.cells.derive import skips
from search_spaces.genotype import Genotype

# Of single-path draws, as GDAS lets it fall. Which candidate is drawn does not depend on it, only how sharply the
# gradient tells that one from the others.
FIRST_TEMPERATURE, LAST_TEMPERATURE = 10.0, 0.1


class ArchitectureLearner:
    """Moves the architecture weights of a supernet, which are parameters of it that its own training leaves alone."""

    def __init__(self, settings: ArchitectureSettings, network: SuperNet) -> None:
        self.settings, self.network = settings, network
        self.logits = network.architecture()
        first, second = settings.betas
        self.optimizer = torch.optim.Adam(
            self.logits.values(), settings.learning_rate, betas=(first, second), weight_decay=settings.weight_decay
        )

    def prepare(self, progress: float, noise: torch.Generator) -> None:
        """Before a step: what the network draws, and what fades; `progress` is how much of the search is over."""
        if self.network.settings.single_path:
            temperature = FIRST_TEMPERATURE + progress * (LAST_TEMPERATURE - FIRST_TEMPERATURE)
            self.network.draw(noise, temperature)
        if self.network.settings.auxiliary_skip:
            self.network.skip_weight.fill_(1 - progress)

    def leaves(self) -> dict[str, Tensor]:
        """The architecture as the network's parameters are named, for the graph of one step."""
        return {name: logits.detach().requires_grad_() for name, logits in self.logits.items()}

    def penalty(self, leaves: Mapping[str, Tensor], progress: float) -> Tensor:
        """What is added to the objective."""
        if not self.settings.beta_decay:
            return torch.zeros(())
        penalty = torch.stack([beta_decay(logits) for logits in leaves.values() if logits.dim() == 2]).mean()
        return self.settings.beta_decay * progress * penalty

    def descend(self, leaves: Mapping[str, Tensor]) -> None:
        """One step along the gradients of the leaves."""
        for name, logits in self.logits.items():
            logits.grad = leaves[name].grad
        self.optimizer.step()
        self.optimizer.zero_grad()

    def genotype(self) -> Genotype:
        """The finished cells as things stand."""
        return self.network.harden(most_skips=self.settings.most_skips)

    @torch.no_grad()
    def metrics(self) -> dict[str, float | str]:
        """The finished cells as things stand, how decided the edges are, and how many skips the normal cell would have.

        Skip connections that crowd out all else are the known way in which such searches collapse; a cap on them hides
        that from the finished cells, and not from their count.
        """
        of_edges = [logits.softmax(1) for logits in self.network.logits.values()]
        entropy = torch.cat([torch.special.entr(one).sum(1) for one in of_edges]).mean()
        return {
            "effective_candidates": float(entropy.exp()),
            "normal_skips": float(skips(self.network.harden().normal)),
            "genotype": self.genotype().to_darts(),
        }

    @torch.no_grad()
    def found(self) -> dict[str, Any]:
        """The weight of every candidate of every edge, from which the finished cells are derived."""
        return {f"weights/{kind}": self.network.shares(kind).tolist() for kind in KINDS}

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside the network, which holds the architecture weights."""
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.optimizer.load_state_dict(state["optimizer"])
