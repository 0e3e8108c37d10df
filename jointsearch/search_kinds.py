"""What a study can search: a policy and cells together, one of them alone, or one after the other.

Each kind is a class of settings that says which searches it makes, its `stages`. Whoever carries them out does not need
to know the kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from jointsearch.data.standard import Standard
from jointsearch.loops.grid import CELLS, SEED, CellsSettings
from jointsearch.loops.plan import NewStepSearcher
from jointsearch.loops.recipe import SearchRecipe
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.networks.supernet import SUPERNET
from jointsearch.protocols import About, Context, SearcherSettings, StepSearcher, TrainStep
from jointsearch.runs.run_folder import GENOTYPE_FILE, POLICY_FILE
from jointsearch.searchers.cell_learner import ArchitectureSettings, CellLearner
from jointsearch.searchers.differentiable import CellsOnly, Differentiable
from jointsearch.searchers.spaces import one_policy
from jointsearch.searchers.table import Trials
from jointsearch.settings import as_plain, bounded, check_fields, choice, group, setting
from jointsearch.soft.network import SuperNet
from search_spaces.cells.space import CELL_SPACES
from search_spaces.errors import InputError
from search_spaces.policy import Policy

FOLDER = f"search-seed{SEED}"
FOUND, FOUND_CELLS = f"{FOLDER}/{POLICY_FILE}", f"{FOLDER}/{GENOTYPE_FILE}"
POLICY_FOLDER = "policy"  # of the first of two searches
POLICY_RECIPE = SearchRecipe(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4)

# Steps of these follow the gradient; others divide it by its own size, or take its sign.
PROPORTIONAL = ("sgd", "nesterov", "momentum", "sgdw", "nesterovw", "momentumw")
VARIANTS: dict[str, dict[str, Any]] = {
    "darts": {},
    "pc_darts": {"channel_share": 4},
    "darts_minus": {"auxiliary_skip": True},
    "gdas": {"single_path": True},
}


@dataclass(frozen=True)
class SupernetSettings:
    """The network whose cells are searched. The defaults are those of DARTS."""

    space: str = choice("darts", *CELL_SPACES, help="the candidates of an edge; small has five, in cells of two nodes")
    channels: int = bounded(16, 1, 4096, help="of the first cells")
    layers: int = bounded(8, 3, 1000, help="cells, one after the other")
    variant: str = choice(
        "darts", *VARIANTS, help="pc_darts: a quarter of the channels; darts_minus: an extra skip; gdas: one path"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def options(self) -> dict[str, Any]:
        """The options of the network."""
        return {"space": self.space, "channels": self.channels, "layers": self.layers, **VARIANTS[self.variant]}


@dataclass(frozen=True)
class Stage:
    """One search, made with every seed."""

    outcome: str  # in words, as in "Policy and cells"
    settings: dict[str, Any]  # as plain data
    searcher: Callable[[Path | None, int], SearcherSettings]  # from the run folder, once there is one, and the seed
    recipe: SearchRecipe
    network: NetworkSettings
    network_options: dict[str, Any]
    architecture: ArchitectureSettings | None = None  # None: no cells are searched
    folder: str = ""  # below that of the run
    epochs_from: str = "search_recipe.epochs"  # the setting that holds its epochs
    images: int | None = None  # of the training images, so many at most; None: all

    @property
    def about(self) -> About:
        """What there is to know of its searcher."""
        return about(self.searcher(None, 0))

    def new_searcher(self, folder: Path | None, seed: int, standard: Standard) -> NewStepSearcher:
        """Builds the searcher of a seed from a network, its training step and a generator."""
        settings = self.searcher(folder, seed)

        def start(network: nn.Module, train_step: TrainStep, noise: torch.Generator) -> StepSearcher:
            cells = None
            if self.architecture is not None and isinstance(network, SuperNet):
                cells = CellLearner(self.architecture, network)
            return settings.start(Context(network, train_step, standard, noise, self.recipe.epochs, seed, cells))

        return start

    def start_policy(self, folder: Path | None, seed: int) -> Policy | None:
        """The policy that a search starts from, where it says so."""
        settings = self.searcher(folder, seed)
        space = getattr(settings, "policy_space", None)
        fixed = getattr(settings, "policy", None)
        return space.policy() if space is not None else fixed if isinstance(fixed, Policy) else None

    def check_epochs(self, steps: int) -> None:
        """Refuse epochs of so many steps that are too few for this search."""
        check = getattr(self.searcher(None, 0), "check", lambda *_: None)
        check(self.recipe.epochs, steps, self.epochs_from)

    def check(self, select_epoch: str, seed: int) -> None:
        """Refuse what cannot be learned with this recipe, or on a network or from a policy that nobody knows."""
        self.network.check()
        self.start_policy(None, seed)
        searcher, epochs = self.searcher(None, 0), self.recipe.epochs
        learners = {"searcher": searcher, "architecture": self.architecture}
        begins = {name: getattr(learner, "from_epoch", 0) for name, learner in learners.items()}
        for name, begin in begins.items():
            if begin >= epochs:
                raise InputError(
                    f"{name}.from_epoch is {begin} of {epochs} epochs: nothing would be learned; lower it, or raise "
                    f"{self.epochs_from} or budget"
                )
        through_cells = self.architecture is not None and self.architecture.order == "second"
        if self.recipe.optimizer not in PROPORTIONAL and (self.about.rewards_are_steps or through_cells):
            raise InputError(
                f"search_recipe.optimizer={self.recipe.optimizer} does not step along the gradient, and the reward of "
                "an image is what such a step does to the validation loss; use search_recipe.optimizer=sgd or momentum "
                "(recipe may have any)"
            )
        if select_epoch == "best" and self.about.complete_at_end:
            raise InputError(
                "select_epoch=best could select an epoch before the last measurement, and the estimates of "
                "searcher=trials and table improve with every one; use select_epoch=last"
            )


def about(searcher: SearcherSettings) -> About:
    """What there is to know of a searcher; one that says nothing searches a policy."""
    return getattr(searcher, "about", About())


class SearchKind(Protocol):
    """What is searched, with all settings of it."""

    @property
    def retrained(self) -> NetworkSettings:
        """The network that is trained afterwards."""

    def stages(self) -> tuple[Stage, ...]:
        """The searches, one after the other."""


@dataclass(frozen=True)
class Joint:
    """Policy and cells together: one validation gradient serves both."""

    searcher: SearcherSettings = group(Differentiable, help="differentiable, first_order")
    architecture: ArchitectureSettings = group(ArchitectureSettings, help="how cells learn")
    supernet: SupernetSettings = group(SupernetSettings, help="the network whose cells are searched")
    search_recipe: SearchRecipe = group(SearchRecipe, help="how the weights are trained during the search")
    cells: CellsSettings = group(CellsSettings, help="the size of the network that is trained with the cells found")

    retrained: ClassVar[NetworkSettings] = NetworkSettings(CELLS)

    def __post_init__(self) -> None:
        check_fields(self)
        if not about(self.searcher).searches_cells:
            raise InputError(
                f"searcher={type(self.searcher).__name__} searches no cells; use search=policy, or "
                "searcher=differentiable"
            )
        measures = getattr(self.searcher, "measures", None)
        if self.architecture.remedies.hessian_monitor and measures is None:
            raise InputError(
                "architecture.against_collapse.hessian_monitor needs searcher=differentiable; set it to false"
            )
        if self.architecture.order == "second" and (
            measures is None or measures.exact or getattr(self.searcher, "shuffled", False)
        ):
            raise InputError(
                "architecture.order=second learns from the real losses of a finite difference; use "
                "searcher=differentiable with searcher.rewards.epsilon=0.01 and no shuffled rewards, or "
                "architecture.order=first"
            )

    def stages(self) -> tuple[Stage, ...]:
        """One search."""
        return (cell_stage("Policy and cells", self, lambda folder, seed: self.searcher),)


@dataclass(frozen=True)
class PolicyOnly:
    """A policy alone, for one network."""

    searcher: SearcherSettings = group(Trials, help="trials, differentiable, faster_aa, first_order, table, random")
    network: NetworkSettings = group(NetworkSettings, help="one of ours or any of timm's, as resnet18")
    search_recipe: SearchRecipe = group(lambda: POLICY_RECIPE, help="how the weights are trained during the search")

    def __post_init__(self) -> None:
        check_fields(self)
        check_network(self.network.name)
        unusual = {name for name, value in vars(self.search_recipe).items() if value != vars(POLICY_RECIPE)[name]}
        if about(self.searcher).own_optimizer and (unread := unusual - {"epochs", "batch_size"}):
            raise InputError(f"search_recipe.{min(unread)} is not read by {type(self.searcher).__name__}; leave it out")

    @property
    def retrained(self) -> NetworkSettings:
        """The network that is trained afterwards."""
        return self.network

    def stages(self) -> tuple[Stage, ...]:
        """One search."""
        return (policy_stage(self.searcher, self.network, self.search_recipe),)


@dataclass(frozen=True)
class CellsAlone:
    """DARTS: cells alone, under a policy that stays as it is."""

    policy: str = setting("none", help="of the training images: a control, or a policy file")
    architecture: ArchitectureSettings = group(ArchitectureSettings, help="how cells learn")
    supernet: SupernetSettings = group(SupernetSettings, help="the network whose cells are searched")
    search_recipe: SearchRecipe = group(SearchRecipe, help="how the weights are trained during the search")
    cells: CellsSettings = group(CellsSettings, help="the size of the network that is trained with the cells found")

    retrained: ClassVar[NetworkSettings] = NetworkSettings(CELLS)

    def __post_init__(self) -> None:
        check_fields(self)

    def stages(self) -> tuple[Stage, ...]:
        """One search."""
        policy = one_policy(self.policy, None)
        return (cell_stage("Cells", self, lambda folder, seed: CellsOnly(policy)),)


@dataclass(frozen=True)
class OneAfterTheOther:
    """A policy on a fixed network, then cells under the policy found: the baseline of joint search."""

    searcher: SearcherSettings = group(Differentiable, help="of the policy: any that search=policy has")
    network: NetworkSettings = group(NetworkSettings, help="on which the policy is searched")
    policy_epochs: int | None = bounded(None, 1, 100_000, help="of the policy search; null: as search_recipe has them")
    policy_images: int | None = bounded(None, 4, help="training images of the policy search, at most; null: all")
    architecture: ArchitectureSettings = group(ArchitectureSettings, help="how cells learn")
    supernet: SupernetSettings = group(SupernetSettings, help="the network whose cells are searched")
    search_recipe: SearchRecipe = group(SearchRecipe, help="how the weights are trained during both searches")
    cells: CellsSettings = group(CellsSettings, help="the size of the network that is trained with the cells found")

    retrained: ClassVar[NetworkSettings] = NetworkSettings(CELLS)

    def __post_init__(self) -> None:
        check_fields(self)
        check_network(self.network.name)

    def stages(self) -> tuple[Stage, ...]:
        """Two searches."""
        recipe = replace(self.search_recipe, epochs=self.policy_epochs or self.search_recipe.epochs)
        first = policy_stage(self.searcher, self.network, recipe)
        if self.policy_epochs:
            first = replace(first, epochs_from="policy_epochs")
        if images := self.policy_images:
            first = replace(first, images=images, settings=first.settings | {"images": images})

        def under_found(folder: Path | None, seed: int) -> CellsOnly:
            if folder is None:
                return CellsOnly(first.start_policy(None, seed) or one_policy("none", None))
            return CellsOnly(Policy.load(folder / POLICY_FOLDER / FOUND.replace(SEED, str(seed))))

        return replace(first, folder=POLICY_FOLDER), cell_stage("Cells", self, under_found)


def policy_stage(searcher: SearcherSettings, network: NetworkSettings | str, recipe: SearchRecipe) -> Stage:
    """A search of a policy on a network as it is."""
    plain = {"outcome": "Policy", "searcher": {"is": type(searcher).__name__} | as_plain(searcher)}
    return Stage("Policy", plain, lambda folder, seed: searcher, recipe, NetworkSettings.of(network), {})


def cell_stage(
    outcome: str,
    kind: "Joint | CellsAlone | OneAfterTheOther",
    searcher: Callable[[Path | None, int], SearcherSettings],
) -> Stage:
    """A search in a supernet."""
    plain: dict[str, Any] = {"outcome": outcome, "architecture": as_plain(kind.architecture)}
    if isinstance(kind, Joint):
        plain["searcher"] = {"is": type(kind.searcher).__name__} | as_plain(kind.searcher)
    network, options = NetworkSettings(SUPERNET), kind.supernet.options()
    return Stage(outcome, plain, searcher, kind.search_recipe, network, options, architecture=kind.architecture)


def check_network(network: str) -> None:
    """Refuse networks that are built of cells: a policy is searched on a network as it is."""
    if network in (SUPERNET, CELLS):
        raise InputError(
            f"network={network} is built of cells, and a policy is searched on a network as it is; choose another "
            "network, as network=wide_resnet40_2, or search=joint"
        )
