"""How a network is trained, in numbers: of a whole training, and of a search."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from timm.optim import list_optimizers

from jointsearch.augmenters.copies import Copies
from jointsearch.settings import as_plain, bounded, check_fields, choice, setting
from search_spaces.errors import InputError, nearest

# Preconditioners of timm's Kron live outside its state_dict: a resumed run took other steps than an undisturbed one.
UNSTORED_OPTIMIZERS = ("kron", "kronw")
SCHEDULES = ("cosine", "cosine_to_0.001", "step", "two_steps", "none")
TO_THE_LEAST = ("cosine", "tanh", "poly", "wsd", "rsqrt")  # schedules of timm's that end at min_lr
# timm's plateau follows a score once an epoch. Ours are measured every evaluate_every epochs, and rates change by step.
TIMM_SCHEDULES = (*TO_THE_LEAST, "step", "multistep", "constant")
READ_BY = {
    "min_lr": TO_THE_LEAST,
    "decay_rate": ("step", "multistep", "poly"),
    "decay_epochs": ("step", "wsd", "rsqrt"),
    "decay_milestones": ("multistep",),
}


@dataclass(frozen=True)
class Warmup:
    """A linear rise of the learning rate at the beginning."""

    epochs: int | float = bounded(5, 0.001, 10_000, help="of the rise")
    start: float = bounded(0.01, 0.0, 1.0, help="share of the learning rate at the first step")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Mixing:
    """Pairs of images are blended, and their labels with them."""

    mixup: float = bounded(0.2, 0.0, 100.0, help="alpha of Mixup; 0 switches it off")
    cutmix: float = bounded(0.0, 0.0, 100.0, help="alpha of CutMix; 0 switches it off")

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.mixup or self.cutmix):
            raise InputError("recipe.mixing has mixup=0 and cutmix=0, which blend nothing; leave recipe.mixing out")


@dataclass(frozen=True)
class Timm:
    """What timm trains with beyond a recipe, by the names of the arguments of its train.py."""

    momentum: float = bounded(0.9, 0.0, 0.9999, help="of optimizers that have one")
    grad_accum_steps: int = bounded(1, 1, 1024, help="batches of batch_size whose gradients make one step")
    sched: str | None = choice(None, None, *TIMM_SCHEDULES, help="in the place of recipe.schedule")
    min_lr: float = bounded(0.0, 0.0, 100.0, help="learning rate at the end of cosine, tanh, poly, wsd and rsqrt")
    decay_rate: float = bounded(0.1, 0.0, 100.0, help="of sched=step and multistep the factor; of poly the power")
    decay_epochs: float | None = bounded(
        None,
        0.001,
        100_000,
        help="of sched=step from one fall to the next, of wsd and rsqrt the last part; null: timm's",
    )
    decay_milestones: tuple[int, ...] = setting((90, 180, 270), help="epochs after which sched=multistep falls")
    reprob: float = bounded(0.0, 0.0, 1.0, help="share of images of which a random rectangle is erased; 0: none")
    remode: str = choice("pixel", "pixel", "rand", "const", help="filled with noise, with a random color, or with 0")
    recount: int = bounded(1, 1, 100, help="rectangles of an image, at most")
    bce_loss: bool = setting(False, help="binary cross entropy of each class in the place of cross entropy")
    bce_target_thresh: float | None = bounded(
        None, 0.0, 1.0, help="labels above it count as 1, others as 0; null: soft"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def unread(self, schedule: str) -> list[str]:
        """What is set and would change nothing, with this schedule and with erasing or binary cross entropy off."""
        read = {name: schedule in schedules for name, schedules in READ_BY.items()}
        read |= {"remode": bool(self.reprob), "recount": bool(self.reprob), "bce_target_thresh": self.bce_loss}
        given = {item.name for item in fields(self) if getattr(self, item.name) != item.default}
        return sorted(name for name in given if not read.get(name, True))

    def scaled(self, budget: float, schedule: str) -> "Timm":
        """The same for a training of another length, with this schedule."""
        times = None if self.decay_epochs is None or self.decay_epochs < 1 else max(1.0, self.decay_epochs * budget)
        milestones = self.decay_milestones
        if schedule in READ_BY["decay_milestones"]:
            milestones = tuple(max(1, round(one * budget)) for one in milestones)
        return replace(self, decay_epochs=times or self.decay_epochs, decay_milestones=milestones)


@dataclass(frozen=True)
class Recipe:
    """A training recipe. A value of 0 switches off what its name says."""

    GROUP: ClassVar[str] = "recipe"  # how its errors name it

    epochs: int = bounded(100, 1, 100_000, help="of each training")
    batch_size: int = bounded(128, 2, 65_536, help="images of a step")
    optimizer: str = setting("sgd", help="any of timm's; sgd has Nesterov momentum, momentum has plain momentum")
    learning_rate: float = bounded(0.1, 1e-8, 100.0, help="the highest one")
    weight_decay: float = bounded(5e-4, 0.0, 1.0, help="of all weights but biases and normalization")
    schedule: str = choice("cosine", *SCHEDULES, help="how the learning rate falls; two_steps as for detectors")
    warmup: Warmup | None = setting(None, help="a rise of the learning rate at the start, as in recipe.warmup.epochs=5")
    drop_rate: float = bounded(0.0, 0.0, 0.99, help="dropout, where the network has it")
    drop_path: float = bounded(
        0.0, 0.0, 0.99, help="of networks of cells: share of dropped paths; rises from 0 to this"
    )
    auxiliary_weight: float = bounded(
        0.0, 0.0, 100.0, help="of networks of cells: loss of a second classifier; 0: none"
    )
    label_smoothing: float = bounded(0.0, 0.0, 0.9, help="share of a label that is spread over all classes; 0: none")
    mixing: Mixing | None = setting(None, help="blended images and labels, as in recipe.mixing.mixup=0.2")
    ema_decay: float = bounded(
        0.0, 0.0, 0.999999, help="decay of a running mean of the weights, which is evaluated; 0: none"
    )
    clip_gradient: float = bounded(0.0, 0.0, 1e6, help="largest norm of the gradient; 0: any")
    precision: str = choice("auto", "auto", "float32", "bf16", help="auto: bf16 where the hardware multiplies in it")
    evaluate_every: int = bounded(10, 1, 100_000, help="so many epochs between two looks at the validation images")
    timm: Timm | None = setting(None, help="more that timm trains with, by timm's names, as in recipe.timm.reprob=0.25")

    def __post_init__(self) -> None:
        check_fields(self)
        check_optimizer(self.optimizer, self.GROUP)
        more, name = self.timm or Timm(), self.schedule_name
        if unread := more.unread(name):
            raise InputError(
                f"recipe.timm.{unread[0]} would change nothing with schedule {name}, reprob={more.reprob:g} and "
                f"bce_loss={str(more.bce_loss).lower()}; leave it out, or choose what reads it"
            )
        if more.min_lr >= self.learning_rate:
            raise InputError(
                f"recipe.timm.min_lr={more.min_lr:g} is not below recipe.learning_rate={self.learning_rate:g}; lower it"
            )
        if self.warmup is not None and (name == "none" or self.warmup.epochs >= self.epochs):
            raise InputError(
                f"recipe.warmup has {self.warmup.epochs} of {self.epochs} epochs, with schedule={name}; it "
                "needs fewer than recipe.epochs and another schedule than none; change one of them, or leave it out"
            )

    @property
    def schedule_name(self) -> str:
        """The schedule as timm calls it; ours with other numbers keep their name."""
        if self.timm is not None and self.timm.sched is not None:
            return self.timm.sched
        return "cosine" if self.schedule.startswith("cosine") else self.schedule

    @property
    def step_images(self) -> int:
        """Images of an optimizer step."""
        return self.batch_size * (1 if self.timm is None else self.timm.grad_accum_steps)

    def plain(self) -> dict[str, Any]:
        """As plain data; `timm` only where it is set."""
        plain: dict[str, Any] = as_plain(self) | {"momentum": self.momentum}
        return plain if self.timm is not None else {name: value for name, value in plain.items() if name != "timm"}

    @property
    def momentum(self) -> float:
        """Of optimizers that have one."""
        return (self.timm or Timm()).momentum

    def shorter(self, budget: float) -> "Recipe":
        """The recipe with its epochs multiplied, and whatever counts epochs with them. At least one is left."""
        warmup = self.warmup and replace(self.warmup, epochs=times(self.warmup.epochs, budget))
        epochs = times(self.epochs, budget)
        return replace(
            self,
            epochs=epochs,
            warmup=None if warmup and warmup.epochs >= epochs else warmup,
            timm=self.timm and self.timm.scaled(budget, self.schedule_name),
        )

    def for_copies(self, copies: Copies | None) -> "Recipe":
        """The recipe of a row that trains on copies of every image."""
        return self if copies is None or not copies.short else self.shorter(1 / copies.kept)

    def scaled(self, factors: Mapping[str, float]) -> "Recipe":
        """The recipe with some of its settings multiplied."""
        values: dict[str, Any] = {name: getattr(self, name) * factor for name, factor in factors.items()}
        return replace(self, **values)

    def check_steps(self, images: int) -> int:
        """Optimizer steps in an epoch. A last batch of one image has no batch statistics and is left out."""
        steps = images // self.step_images + (images % self.step_images > 1)
        if not steps:
            raise InputError(f"{images} training image(s) make no batch; training needs at least 2, give more data")
        return steps

    def autocasts(self, device: torch.device) -> bool:
        """Whether steps run in bfloat16: where it is asked for, or by itself where the hardware multiplies in it."""
        return self.precision == "bf16" or (self.precision == "auto" and _multiplies_bf16(device))

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of forward passes."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.autocasts(device))


@dataclass(frozen=True)
class SearchRecipe:
    """How the weights are trained during a search: in float32, on plain labels, evaluated after every epoch.

    Rewards are differences of nearly equal losses, which bf16 cannot tell apart. They are measured on plain labels, and
    an image that is blended with another one has no draw of its own.
    """

    GROUP: ClassVar[str] = "search_recipe"

    epochs: int = bounded(50, 1, 100_000, help="of each search")
    batch_size: int = bounded(64, 2, 65_536, help="images of a step, and of a validation batch")
    optimizer: str = setting("momentum", help="any of timm's; gradient-based search needs a kind of SGD")
    learning_rate: float = bounded(0.025, 1e-8, 100.0, help="the highest one")
    weight_decay: float = bounded(3e-4, 0.0, 1.0, help="of all weights but biases and normalization")
    schedule: str = choice("cosine", *SCHEDULES, help="how the learning rate falls; two_steps as for detectors")
    clip_gradient: float = bounded(5.0, 0.0, 1e6, help="largest norm of the gradient; 0: any")

    def __post_init__(self) -> None:
        check_fields(self)
        check_optimizer(self.optimizer, self.GROUP)

    def whole(self) -> Recipe:
        """The same as a recipe."""
        return Recipe(**vars(self), precision="float32", evaluate_every=1)


def times(count: Any, budget: float, fewest: int = 1) -> Any:
    """A number of epochs, multiplied; whole ones stay whole."""
    return max(fewest, round(count * budget)) if isinstance(count, int) else count * budget


def check_scaled(recipe: Recipe, factors: Mapping[str, float]) -> None:
    """Refuse a recipe that cannot be multiplied so."""
    for name in factors:
        if not getattr(recipe, name):
            raise InputError(f"tune=recipe multiplies recipe.{name}, which is 0; give it a value, or leave tune out")
    try:
        recipe.scaled(factors)
    except InputError as error:
        told = ", ".join(f"recipe.{name} by {factor:g}" for name, factor in factors.items())
        raise InputError(f"tune=recipe multiplies {told}, and then {error}; change that, or leave tune out") from None


def check_optimizer(name: str, group: str) -> None:
    """Refuse what timm does not know, and what could not be resumed."""
    if name not in list_optimizers():
        raise InputError(f"{group}.optimizer is {name!r}; {nearest(name, list_optimizers())}")
    if name in UNSTORED_OPTIMIZERS:
        raise InputError(
            f"{group}.optimizer is {name}, whose state is not all in its state_dict, so that it could not be resumed; "
            "choose another"
        )


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without tiles a training step took 1.4 times as long in bf16 as in float32: WRN-16-2, batch 128, one thread of a
    # Xeon with avx512_bf16 and no AMX, where torch 2.15 has instructions for it.
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


# What recipe=small and recipe=cells say, for whoever makes a Grid or a Study in Python.
SMALL = Recipe(epochs=60, batch_size=64)
OF_CELLS = Recipe(
    epochs=600,
    batch_size=96,
    optimizer="momentum",
    learning_rate=0.025,
    weight_decay=3e-4,
    drop_path=0.2,
    auxiliary_weight=0.4,
    clip_gradient=5.0,
)
