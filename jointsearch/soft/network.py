"""The supernet: a network of cells whose every edge is a weighted sum of all candidates (Liu et al. 2019, DARTS)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from jointsearch.estimators.gumbel import straight_through
from jointsearch.soft.mixed import MixedBody, Mixture
from jointsearch.soft.separable import as_channels_last
from search_spaces.cells.derive import derive
from search_spaces.cells.skeleton import CellNetwork, Skeleton
from search_spaces.cells.space import CellSpace
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype

KINDS = ("normal", "reduction")
START_SPREAD = 1e-3  # of the first logits, as in DARTS


@dataclass(frozen=True)
class SuperNetSettings:
    """Options of a supernet; the defaults are DARTS's. R-DARTS's drop path is `set_drop_path(network, rate)`."""

    # PC-DARTS: one in `channel_share` channels goes through the candidates (4 in the paper), and edges have logits.
    channel_share: int | None = None
    # DARTS-: every edge adds its source, times the buffer `skip_weight`, which falls from 1 to 0 during a search.
    auxiliary_skip: bool = False
    # GDAS: each edge computes only the candidate that `draw` drew for it.
    single_path: bool = False


class SuperNet(nn.Module):
    """The trainable form of a genotype: a network of cells, and logits (E, O) for the candidates of E edges per kind.

    Parameters are named `network.*` (weights), `logits.*` and, with PC-DARTS, `edge_logits.*` (architecture).
    """

    noise: Tensor  # (2, E, O) of the last draw; a buffer, so that a recorded training step repeats its draw
    temperature: Tensor  # () of the last draw
    skip_weight: Tensor  # ()

    def __init__(
        self,
        space: CellSpace,
        skeleton: Skeleton,
        generator: torch.Generator,
        settings: SuperNetSettings = SuperNetSettings(),
    ) -> None:
        super().__init__()
        self.space, self.settings = space, settings
        share = _checked_share(settings, skeleton)
        self.network = CellNetwork(
            skeleton,
            space.nodes,
            lambda channels, is_reduction: MixedBody(space, channels, is_reduction, share, settings.auxiliary_skip),
            affine=False,
        )
        shape = (len(space.edges), len(space.ops))

        def start(*shape: int) -> nn.ParameterDict:
            return nn.ParameterDict({kind: START_SPREAD * torch.randn(shape, generator=generator) for kind in KINDS})

        self.logits = start(*shape)
        self.edge_logits = nn.ParameterDict() if settings.channel_share is None else start(shape[0])
        self.register_buffer("noise", torch.zeros(2, *shape))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("skip_weight", torch.ones(()))

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.network.num_classes

    def architecture(self) -> dict[str, nn.Parameter]:
        """The architecture parameters, by name: those that are not weights of a layer."""
        return {name: value for name, value in self.named_parameters() if not name.startswith("network.")}

    def mixtures(self) -> tuple[Mixture, Mixture]:
        """The mixtures of normal and reduction cells by the logits; `forward` also accepts other mixtures."""
        logits = torch.stack([self.logits[kind] for kind in KINDS])  # (2, E, O)
        single_path = self.settings.single_path
        ops = torch.softmax((logits + self.noise) / self.temperature if single_path else logits, dim=2)
        chosen: tuple[tuple[int, ...] | None, ...] = (None, None)
        if single_path:
            places = ops.argmax(dim=2)
            ops = straight_through(one_hot(places, len(self.space.ops)), ops)
            chosen = tuple(tuple(edges) for edges in places.tolist())  # both at once, to wait for a GPU only once
        skip = self.skip_weight if self.settings.auxiliary_skip else None
        normal, reduction = (
            Mixture(ops[place], self._edge_shares(kind), chosen[place], skip) for place, kind in enumerate(KINDS)
        )
        return normal, reduction

    def forward(self, images: Tensor, mixtures: tuple[Mixture, Mixture] | None = None) -> Tensor:
        """Images (B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.network(as_channels_last(images), self.mixtures() if mixtures is None else mixtures)

    def draw(self, generator: torch.Generator, temperature: float = 1.0) -> None:
        """Draw one candidate for every edge; single-path forward passes compute only these until the next draw."""
        uniform = torch.rand(self.noise.shape, generator=generator, device=generator.device)
        self.noise.copy_(-(-uniform.clamp(1e-6, 1 - 1e-6).log()).log())
        self.temperature.fill_(temperature)

    def harden(self, name: str = "derived", most_skips: int | None = None) -> Genotype:
        """The genotype derived from the logits, without the noise of a draw; see `derive` for `most_skips`."""
        with torch.no_grad():
            normal, reduction = (self.shares(kind) for kind in KINDS)
        return derive(self.space, normal, reduction, name, most_skips)

    def shares(self, kind: str) -> Tensor:
        """(E, O): the softmax over the candidates of an edge; with PC-DARTS, times that over the edges of a node."""
        edges = self._edge_shares(kind)
        ops = torch.softmax(self.logits[kind], dim=1)
        return ops if edges is None else ops * edges.unsqueeze(1)

    def _edge_shares(self, kind: str) -> Tensor | None:
        """(E,) a softmax over the edges of every node; None if edges have no logits."""
        if kind not in self.edge_logits:
            return None
        of_nodes = self.edge_logits[kind].split([node + 2 for node in range(self.space.nodes)])
        return torch.cat([torch.softmax(logits, dim=0) for logits in of_nodes])


def beta_decay(logits: Tensor) -> Tensor:
    """The mean over edges of logsumexp(logits (E, O)): beta-DARTS (Ye et al. 2022) adds it, weighted, to the loss."""
    return logits.logsumexp(dim=1).mean()


def _checked_share(settings: SuperNetSettings, skeleton: Skeleton) -> int:
    share = 1 if settings.channel_share is None else settings.channel_share
    if not isinstance(share, int) or share < 1 or skeleton.channels % share:
        raise InputError(
            f"channel_share={share!r} of a supernet of {skeleton.channels} channels; wanted a divisor of its channels, "
            "such as 4, or null for all of them"
        )
    return share
