"""What a study can search: a policy and cells together, one of them alone, or one after the other.

Each kind is a class of settings that says which searches it makes, its `stages`. Whoever carries them out does not need
to know the kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jointsearch.jobs import PopulationSettings
from jointsearch.loops.grid import CELLS, SEED, CellsSettings
from jointsearch.loops.recipe import SearchRecipe
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.networks.supernet import SUPERNET, SupernetSettings
from jointsearch.online import OnlineStage
from jointsearch.protocols import SearcherSettings
from jointsearch.runs.run_folder import OWN_NETWORK, PROPOSAL
from jointsearch.searchers.cell_learner import ArchitectureSettings
from jointsearch.searchers.differentiable import CellsOnly, Differentiable
from jointsearch.searchers.race import Race
from jointsearch.searchers.spaces import one_policy
from jointsearch.searchers.table import Trials
from jointsearch.settings import as_plain, bounded, check_fields, group, setting
from jointsearch.stages import FOUND, Stage, about
from jointsearch.whole_trainings import WholeTrainings
from search_spaces.errors import InputError, check_distinct
from search_spaces.policy import Policy

POLICY_FOLDER = "policy"  # of the first of two searches
POLICY_RECIPE = SearchRecipe(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4)

JUDGE = "race: 40 more trainings with each seed decide whether what is found beats TrivialAugment with random cells"


class SearchKind(Protocol):
    """What is searched, with all settings of it."""

    @property
    def retrained(self) -> NetworkSettings:
        """The network that is trained afterwards."""

    def stages(self) -> "tuple[Stage | WholeTrainings, ...]":
        """The searches, one after the other."""


@dataclass(frozen=True)
class Joint:
    """Policy and cells together: one validation gradient serves both."""

    searcher: SearcherSettings = group(Differentiable, help="differentiable, first_order")
    architecture: ArchitectureSettings = group(ArchitectureSettings, help="how cells learn")
    supernet: SupernetSettings = group(SupernetSettings, help="the network whose cells are searched")
    search_recipe: SearchRecipe = group(SearchRecipe, help="how the weights are trained during the search")
    cells: CellsSettings = group(CellsSettings, help="the size of the network that is trained with the cells found")
    judge: Race | None = setting(None, help=JUDGE, words={"race": Race()})

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

    def stages(self) -> tuple[Stage | WholeTrainings, ...]:
        """One search, and the race that judges what it finds."""
        return with_judge(cell_stage("Policy and cells", self, lambda folder, seed: self.searcher), self)


@dataclass(frozen=True)
class Proposal:
    """A search of a policy whose finding another search judges."""

    name: str
    search: Any  # PolicyOnly

    def __str__(self) -> str:
        return self.name

    def trained_by(self, recipe: SearchRecipe) -> "Proposal":
        """The same with a recipe, unless it brings one of its own."""
        if self.search.search_recipe != POLICY_RECIPE or trains_by_recipe(self.search.searcher):
            return self
        searcher = self.search.searcher
        if isinstance(searcher, Trials):  # as many measurements as the epochs have room for
            searcher = replace(searcher, measurements=min(searcher.measurements, max(2, (recipe.epochs + 1) // 2)))
        return replace(self, search=replace(self.search, search_recipe=recipe, searcher=searcher))


def trains_by_recipe(searcher: object) -> bool:
    """Whether a searcher trains as everything is trained afterwards."""
    return has_population(searcher) or about(searcher).own_network


def has_population(searcher: object) -> bool:
    """Whether a searcher asks for whole trainings."""
    return hasattr(searcher, "population")


@dataclass(frozen=True)
class PolicyOnly:
    """A policy alone, for one network."""

    searcher: SearcherSettings | PopulationSettings = group(
        Race, help="race, trials, differentiable, faster_aa, first_order, table, random, pba, ..."
    )
    network: NetworkSettings = group(NetworkSettings, help="one of ours or any of timm's, as resnet18")
    search_recipe: SearchRecipe = group(lambda: POLICY_RECIPE, help="how the weights are trained during the search")
    proposals: tuple[Proposal, ...] | None = setting(
        None,
        help="what searcher=race judges: searchers or presets, as [dada2020_relax]; null: trials and differentiable",
    )
    policy_images: int | None = bounded(None, 4, help="training images of the policy search, at most; null: all")
    policy_classes: int | None = bounded(None, 2, help="classes of its images, the same with every seed; null: all")

    def __post_init__(self) -> None:
        check_fields(self)
        check_network(self.network.name)
        if self.proposals and not about(self.searcher).judges:
            raise InputError(
                f"proposals are judged by whole trainings, and {type(self.searcher).__name__} does not judge; use "
                "searcher=race, or leave proposals out"
            )
        check_distinct("proposals", [one.name for one in self.proposals or ()])
        takes = any(one.search.search_recipe == self.search_recipe for one in self.judged)
        if trains_by_recipe(self.searcher) and not takes and self.search_recipe != POLICY_RECIPE:
            raise InputError(
                f"search_recipe is not read by {type(self.searcher).__name__}, which trains by recipe; leave it out"
            )
        unusual = {name for name, value in vars(self.search_recipe).items() if value != vars(POLICY_RECIPE)[name]}
        if trains_by_recipe(self.searcher) and (self.policy_images or self.policy_classes):
            raise InputError(
                f"policy_images and policy_classes are of searches inside one training; {type(self.searcher).__name__} "
                "has all training images, so use dataset.reduced"
            )
        if about(self.searcher).own_optimizer and (unread := unusual - {"epochs", "batch_size"}):
            raise InputError(f"search_recipe.{min(unread)} is not read by {type(self.searcher).__name__}; leave it out")

    @property
    def retrained(self) -> NetworkSettings:
        """The network that is trained afterwards."""
        return self.network

    @property
    def judged(self) -> tuple[Proposal, ...]:
        """The searches that are made before a race, each with search_recipe unless it brings a recipe of its own."""
        if not about(self.searcher).judges:
            return ()
        default = (Proposal("trials", PolicyOnly(Trials())), Proposal("differentiable", PolicyOnly(Differentiable())))
        given = default if self.proposals is None else self.proposals
        return tuple(one.trained_by(self.search_recipe) for one in given)

    def stages(self) -> tuple[Stage | WholeTrainings, ...]:
        """One search, after those whose findings it judges."""
        searcher: Any = self.searcher
        if not has_population(searcher):
            share = self.policy_images, self.policy_classes
            return (policy_stage(searcher, self.network, self.search_recipe, *share),)
        before = {}
        for proposal in self.judged:
            [before[proposal.name]] = replace(proposal.search, network=self.network).stages()
        return by_trainings("Policy", searcher, self.network, before)


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

    searcher: SearcherSettings = group(Differentiable, help="of the policy: any inside one training, as trials")
    network: NetworkSettings = group(NetworkSettings, help="on which the policy is searched")
    policy_epochs: int | None = bounded(None, 1, 100_000, help="of the policy search; null: as search_recipe has them")
    policy_images: int | None = bounded(None, 4, help="training images of the policy search, at most; null: all")
    architecture: ArchitectureSettings = group(ArchitectureSettings, help="how cells learn")
    supernet: SupernetSettings = group(SupernetSettings, help="the network whose cells are searched")
    search_recipe: SearchRecipe = group(SearchRecipe, help="how the weights are trained during both searches")
    cells: CellsSettings = group(CellsSettings, help="the size of the network that is trained with the cells found")
    judge: Race | None = setting(None, help=JUDGE, words={"race": Race()})

    retrained: ClassVar[NetworkSettings] = NetworkSettings(CELLS)

    def __post_init__(self) -> None:
        check_fields(self)
        check_network(self.network.name)

    def stages(self) -> tuple[Stage | WholeTrainings, ...]:
        """Two searches, and the race that judges what they find."""
        recipe = replace(self.search_recipe, epochs=self.policy_epochs or self.search_recipe.epochs)
        first = policy_stage(self.searcher, self.network, recipe, self.policy_images)
        if self.policy_epochs:
            first = replace(first, epochs_from="policy_epochs")

        def under_found(folder: Path | None, seed: int) -> CellsOnly:
            if folder is None:
                return CellsOnly(first.start_policy(None, seed) or one_policy("none", None))
            return CellsOnly(Policy.load(folder / POLICY_FOLDER / FOUND.replace(SEED, str(seed))))

        return replace(first, folder=POLICY_FOLDER), *with_judge(cell_stage("Cells", self, under_found), self)


def policy_stage(searcher: SearcherSettings, network: Any, recipe: SearchRecipe, *share: int | None) -> Stage:
    """A search of a policy on a network as it is, with a `share` of the images: so many, of so many classes."""
    online = {OWN_NETWORK: True} if about(searcher).own_network else {}
    given = {name: value for name, value in zip(("images", "classes"), share, strict=False) if value is not None}
    plain = {"outcome": "Policy", "searcher": {"is": type(searcher).__name__} | as_plain(searcher), **given, **online}
    kind, network = OnlineStage if online else Stage, NetworkSettings.of(network)
    return kind("Policy", plain, lambda folder, seed: searcher, recipe, network, {}, share=share)


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


def with_judge(stage: Stage, kind: "Joint | OneAfterTheOther") -> tuple[Stage | WholeTrainings, ...]:
    """A search of cells, and the race that judges what it finds, if there is one."""
    if kind.judge is None:
        return (stage,)
    space = kind.supernet.space
    return by_trainings("Policy and cells", kind.judge, kind.retrained, {"found": stage}, sizes=kind.cells, space=space)


def by_trainings(
    outcome: str, searcher: Any, network: NetworkSettings, before: Mapping[str, Stage], **cells: Any
) -> tuple[Stage | WholeTrainings, ...]:
    """A search by whole trainings, after the searches whose findings it judges, by name."""
    deciding = {name: value for name, value in as_plain(searcher).items() if name != "storage"}
    plain = {"outcome": outcome, "searcher": {"is": type(searcher).__name__} | deciding}
    plain |= {name: as_plain(value) for name, value in cells.items()}
    for name, stage in before.items():
        plain[f"proposal {name}"] = stage.settings | {"recipe": as_plain(stage.recipe)}
    folders = {name: f"{PROPOSAL}{name}" for name in before}
    moved = (replace(stage, folder=folders[name]) for name, stage in before.items())
    return (*moved, WholeTrainings(plain, searcher, network, folders, outcome, **cells))


def check_network(network: str) -> None:
    """Refuse networks that are built of cells: a policy is searched on a network as it is."""
    if network in (SUPERNET, CELLS):
        raise InputError(
            f"network={network} is built of cells, and a policy is searched on a network as it is; choose another "
            "network, as network=wide_resnet40_2, or search=joint"
        )
