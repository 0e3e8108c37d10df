"""How a network is trained: the numbers of a recipe, and timm's optimizer, schedule, loss and mixing made from them."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from torch import nn

from jointsearch.randomness import kept_global_randomness
from jointsearch.settings import as_plain, bounded, check_fields, choice, leaves
from search_spaces.cells.derived import DropPath, set_drop_path
from search_spaces.errors import InputError, nearest

# Preconditioners of timm's Kron live outside its state_dict: a resumed run took other steps than an undisturbed one.
UNSTORED_OPTIMIZERS = ("kron", "kronw")


@dataclass(frozen=True)
class Recipe:
    """A training recipe. A value of 0 switches off what its name says."""

    GROUP: ClassVar[str] = "recipe"  # as its errors call it, whatever settings hold it

    epochs: int = bounded(100, 1, 100_000)
    batch_size: int = bounded(128, 2, 65_536)
    optimizer: str = "sgd"  # any name of timm; there "sgd" has Nesterov momentum and "momentum" has not
    learning_rate: float = bounded(0.1, 1e-8, 100.0)
    momentum: float = bounded(0.9, 0.0, 0.9999)
    weight_decay: float = bounded(5e-4, 0.0, 1.0)
    schedule: str = choice("cosine", "cosine", "step", "none")
    warmup_epochs: int = bounded(0, 0, 10_000)
    warmup_from: float = bounded(0.01, 0.0, 1.0)  # share of the learning rate at the first step
    drop_rate: float = bounded(0.0, 0.0, 0.99)
    drop_path: float = bounded(0.0, 0.0, 0.99)  # of networks of cells, at the last epoch; it rises from 0
    auxiliary_weight: float = bounded(0.0, 0.0, 100.0)  # of the second classifier's loss
    label_smoothing: float = bounded(0.0, 0.0, 0.9)
    mixup: float = bounded(0.0, 0.0, 100.0)
    cutmix: float = bounded(0.0, 0.0, 100.0)
    ema_decay: float = bounded(0.0, 0.0, 0.999999)
    clip_gradient: float = bounded(0.0, 0.0, 1e6)
    precision: str = choice("auto", "auto", "float32", "bf16")
    evaluate_every: int = bounded(10, 1, 100_000)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.optimizer not in list_optimizers():
            raise InputError(f"recipe.optimizer is {self.optimizer!r}; {nearest(self.optimizer, list_optimizers())}")
        if self.optimizer in UNSTORED_OPTIMIZERS:
            raise InputError(
                f"recipe.optimizer is {self.optimizer}, whose state is not all in its state_dict: it could not be "
                "resumed; choose another"
            )
        if self.schedule == "none" and self.warmup_epochs:
            raise InputError("recipe.schedule=none has no warm-up; set recipe.warmup_epochs=0 or another schedule")
        if self.warmup_epochs >= self.epochs:
            raise InputError(
                f"recipe.warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs; make it less than recipe.epochs"
            )

    def check_steps(self, images: int) -> int:
        """Optimizer steps in an epoch. A last batch of one image has no batch statistics and is left out."""
        steps = images // self.batch_size + (images % self.batch_size > 1)
        if not steps:
            raise InputError(f"{images} training image(s) make no batch; training needs at least 2, give more data")
        return steps

    def autocasts(self, device: torch.device) -> bool:
        """Whether steps run in bfloat16: where it is asked for, or by itself where the hardware multiplies in it."""
        return self.precision == "bf16" or (self.precision == "auto" and _multiplies_bf16(device))

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of forward passes."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.autocasts(device))


def beyond_recipe_defaults(settings: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The leaves of settings without those of a recipe that are at their defaults.

    What was trained before a field existed was trained with its default.
    """
    return settings - leaves({"recipe": as_plain(Recipe())})


class Trainer:
    """timm's pieces for one network under one recipe, and one step with them."""

    def __init__(self, network: nn.Module, recipe: Recipe, device: torch.device, classes: int, steps: int) -> None:
        self.recipe, self.device, self.classes, self.steps = recipe, device, classes, steps
        check_network(network, recipe)
        mixes = bool(recipe.mixup or recipe.cutmix)
        self.mixing = (
            Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)
            if mixes
            else None
        )
        self.task = ClassificationTask(
            network.to(device).to(memory_format=torch.channels_last),
            criterion_kwargs={"smoothing": recipe.label_smoothing, "soft_targets": mixes},
            device=device,
            verbose=False,
        )
        self.optimizer = create_optimizer_v2(
            network,
            # torch knows no Nesterov momentum of 0.
            opt="momentum" if recipe.optimizer == "sgd" and not recipe.momentum else recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            sched=recipe.schedule,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.learning_rate * recipe.warmup_from,
            decay_epochs=max(1, recipe.epochs // 3),
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
        if recipe.ema_decay:
            self.task.setup_ema(decay=recipe.ema_decay, use_warmup=True)

    def step(self, images: torch.Tensor, labels: torch.Tensor, done: int) -> torch.Tensor:
        """One optimizer step; `done` steps came before it. Returns the loss, still on the device."""
        if self.mixing is not None and len(images) % 2 == 0:
            images, labels = self.mixing(images, labels)
        elif self.mixing is not None:
            labels = self.soft(labels)  # timm mixes pairs only
        if self.recipe.drop_path:
            set_drop_path(
                self.task.get_trainable_module(), self.recipe.drop_path * (done // self.steps) / self.recipe.epochs
            )
        with self.recipe.autocast(self.device):
            loss = self.loss(images.contiguous(memory_format=torch.channels_last), labels)
        loss.backward()
        if self.recipe.clip_gradient:
            nn.utils.clip_grad_norm_(self.task.get_clip_parameters(), self.recipe.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.task.update_ema(step=done + 1)
        if self.schedule is not None:
            self.schedule.step_update(done + 1)
        return loss.detach()

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, with that of the second classifier where the recipe weighs one."""
        if not self.recipe.auxiliary_weight:
            return self.task(images, labels)["loss"]
        outputs, auxiliary = self.task.get_trainable_module().forward_with_auxiliary(images)
        return self.task.criterion(outputs, labels) + self.recipe.auxiliary_weight * self.task.criterion(
            auxiliary, labels
        )

    def soft(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels as timm's Mixup writes them, (B, classes), without mixing."""
        classes, smoothing = self.classes, self.recipe.label_smoothing
        one_hot = nn.functional.one_hot(labels, classes).to(torch.float32)
        return one_hot * (1 - smoothing) + smoothing / classes

    def network(self) -> nn.Module:
        """The network that is evaluated: the averaged one where there is one."""
        averaged = self.task.get_trainable_module(ema=True)
        return self.task.get_trainable_module() if averaged is None else averaged.module

    def state(self) -> dict:
        """Everything that training changes."""
        averaged = self.task.get_trainable_module(ema=True)
        return {
            "network": self.task.get_trainable_module().state_dict(),
            "averaged": None if averaged is None else averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Train inside for a trial: on leaving, all is as it was on entering, also what the global generators drew."""
        before = copy.deepcopy(self.state())
        with kept_global_randomness():
            try:
                yield
            finally:
                self.load(before)

    def restore(self, state: dict, done: int) -> None:
        """Go on from a state after `done` steps."""
        self.load(state)
        if self.schedule is not None:
            self.schedule.step_update(done)

    def load(self, state: dict) -> None:
        """Put back everything that training changes."""
        self.task.get_trainable_module().load_state_dict(state["network"])
        averaged = self.task.get_trainable_module(ema=True)
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def check_network(network: nn.Module, recipe: Recipe) -> None:
    """Refuse a recipe that asks for what the network does not have."""
    if recipe.drop_path and not any(isinstance(module, DropPath) for module in network.modules()):
        raise InputError(
            f"recipe.drop_path is {recipe.drop_path:g}, and {type(network).__name__} has no paths to drop; set it to 0"
        )
    if recipe.auxiliary_weight and getattr(network, "auxiliary", None) is None:
        raise InputError(
            f"recipe.auxiliary_weight is {recipe.auxiliary_weight:g}, and {type(network).__name__} has no second "
            "classifier; set it to 0, or cells.auxiliary=true for a network of cells"
        )


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # A CPU without such instructions emulates them, slower than float32.
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
