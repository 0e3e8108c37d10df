"""One training to be done: its settings, what must stay when it is resumed, and a check before anything is written."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from jointsearch.data.sets import AnySet, DataSplits, ImageSet, StreamSet
from jointsearch.data.standard import Standard, normalize
from jointsearch.front_end import augment
from jointsearch.loops.recipe import Recipe, Trainer, beyond_recipe_defaults
from jointsearch.networks.create import create_network
from jointsearch.plain_state import encode_state
from jointsearch.provenance import birth_certificate
from jointsearch.randomness import own_global_randomness
from jointsearch.run_folder import write_json
from jointsearch.settings import as_plain, called, leaves
from search_spaces.errors import InputError
from search_spaces.genotype import Genotype
from search_spaces.plain_json import read_json, read_text, shown_path
from search_spaces.policy import Policy
from search_spaces.schedule import SCHEDULE_BYTES, PolicySchedule

CPU = torch.device("cpu")

COMPARED = ("network_options.genotype",)  # beside policies; trainings in one table agree in the others
DRAWN = ("seed", "data.digest")  # and in these only where seeds are shared


@dataclass(frozen=True)
class Trial:
    """What is trained, how, and where its files go."""

    folder: Path
    policy: Policy | PolicySchedule  # of a search: the one it starts from
    network: str
    recipe: Recipe
    standard: Standard
    seed: int
    dataset: dict[str, Any]  # the settings of the data set, as plain data
    search: dict[str, Any] | None = None  # the settings of a search, as plain data; None where nothing is searched
    network_options: dict[str, Any] = field(default_factory=dict)  # what only this network knows, as a genotype
    device: torch.device = CPU
    wandb_mode: Literal["disabled", "offline", "online"] = "disabled"
    save_seconds: float = 60.0
    show_progress: bool = False

    @property
    def name(self) -> str:
        """What a person calls it: policy and seed."""
        return f"{self.folder.parent.name} {self.folder.name}"

    def policy_at(self, epoch: int) -> Policy:
        """The policy in force in an epoch."""
        return self.policy if isinstance(self.policy, Policy) else self.policy.at(epoch)

    @property
    def start_file(self) -> str:
        """The file of the policy: that of a training, or what a search starts from, which is not what it finds."""
        return "policy.json" if self.search is None else "start.json"

    def diverged(self, sign: str) -> InputError:
        """What ends a training that leads nowhere, with the remedy; `sign` is what showed it."""
        # Clipping would mend a search too, and shorten the steps by which its rewards are measured.
        group, or_clip = ("recipe", " or set recipe.clip_gradient=5") if self.search is None else ("search_recipe", "")
        rate = f"{group}.learning_rate (now {self.recipe.learning_rate:g})"
        return InputError(f"{sign}: training diverged; lower {rate}{or_clip}")

    def identity(self, splits: DataSplits) -> dict[str, Any]:
        """All that decides the result, as plain data."""
        searches = {} if self.search is None else {"search": self.search}
        options = {"network_options": plain_options(self.network_options)} if self.network_options else {}
        return {
            **searches,
            **options,
            "network": self.network,
            "recipe": as_plain(self.recipe),
            "seed": self.seed,
            "dataset": self.dataset,
            "data": {"train": len(splits.train), "validation": len(splits.validation), "digest": _digest(splits)},
            "precision": "bf16" if self.recipe.autocasts(self.device) else "float32",
            "device": self.device.type,
        }


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a network as plain data; a genotype is written as DARTS writes it."""
    return {key: value.to_darts() if isinstance(value, Genotype) else value for key, value in options.items()}


def new_trainer(trial: Trial, splits: DataSplits, device: torch.device) -> Trainer:
    """The network of a trial with its fresh weights, and what trains it; draws from the global generator."""
    channels, height, width = splits.train.image_shape
    classes = len(splits.train.classes)
    network = create_network(
        trial.network, classes, channels, min(height, width), trial.recipe.drop_rate, trial.network_options
    )
    return Trainer(network, trial.recipe, device, classes, trial.recipe.check_steps(len(splits.train)))


def check_trial(trial: Trial, splits: DataSplits) -> None:
    """Raise InputError for what would go wrong later, before anything is written: one step is tried on blank images."""
    with own_global_randomness(trial.seed):
        trainer = new_trainer(trial, splits, CPU)
        blank = torch.zeros(2, *splits.train.image_shape, dtype=torch.uint8)
        images = augment(blank, trial.policy_at(0), trial.standard, torch.Generator())
        normalize(blank, trial.standard)
        try:
            trainer.step(images, torch.zeros(2, dtype=torch.long), 0)
            encode_state(trainer.state())
        except InputError:
            raise
        except Exception as error:  # other people's networks and optimizers raise whatever they like
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"network={trial.network} with recipe.optimizer={trial.recipe.optimizer} cannot take a step on images "
                f"of {'x'.join(map(str, splits.train.image_shape))} ({reason}); choose another network, optimizer or "
                "dataset.image_size"
            ) from None


def check_identity(trial: Trial, splits: DataSplits) -> None:
    """In a folder that was begun before, compare what decides the result with what was written; name a difference."""
    path = trial.folder / "trial.json"
    if not path.is_file():
        return
    changed = differences(read_json(path, "trial"), trial.identity(splits))
    if trial.search is not None:
        changed = [called(one, Recipe.GROUP, "search_recipe").removeprefix("search.") for one in changed]
    if read_text(trial.folder / trial.start_file, "policy", SCHEDULE_BYTES) != trial.policy.to_json():
        changed.append("another policy")
    if changed:
        raise InputError(
            f"{trial.folder} was begun with other settings ({shown_path(', '.join(changed)[:300])}); "
            "give the same settings, or another run folder"
        )


def check_folder(trial: Trial, splits: DataSplits, folder: Path) -> None:
    """Refuse a run folder with trainings that could not stand in one table with this one."""
    begun = sorted(folder.glob("*/seed*/trial.json"))
    ours = trial.identity(splits) if begun else {}
    for path in begun:
        if changed := differences(read_json(path, "trial"), ours, (*COMPARED, *DRAWN)):
            raise InputError(
                f"{path.parent} was not trained alike ({shown_path(', '.join(changed)[:300])}), and all trainings of a "
                "folder stand in one table; give another run folder, or the same settings"
            )


def differences(was: Any, is_now: Any, but: tuple[str, ...] = ()) -> list[str]:
    """In which settings one identity differs from another."""
    before, after = leaves(was), leaves(is_now)
    names = {name for name, _ in beyond_recipe_defaults(before) ^ beyond_recipe_defaults(after)} - set(but)
    return [f"{name} was {dict(before).get(name)}, is {dict(after).get(name)}" for name in sorted(names)]


def write_identity(trial: Trial, splits: DataSplits) -> None:
    """Write down what decides the result, once; trial.json comes last and says that the rest is there."""
    if not (trial.folder / "trial.json").is_file():
        trial.policy.save(trial.folder / trial.start_file)
        if isinstance(trial.network_options.get("genotype"), Genotype):
            trial.network_options["genotype"].save(trial.folder / "genotype.json")
        write_json(trial.folder / "birth.json", birth_certificate())
        write_json(trial.folder / "trial.json", trial.identity(splits))


def _digest(splits: DataSplits) -> str:
    # Names and sizes may agree where images do not: another archive of the same name is another training.
    digest = hashlib.sha256()
    for part in (splits.train, splits.validation, splits.test):
        digest.update("\n".join(part.classes).encode())
        for values in _contents(part):
            digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _contents(part: AnySet) -> tuple[torch.Tensor, ...]:
    if isinstance(part, StreamSet):
        return part.labels, part.rows
    return (part.labels, part.images) if isinstance(part, ImageSet) else ()
