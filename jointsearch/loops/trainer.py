"""timm's optimizer, schedule, mixing and averaging for one network under one recipe, and one step with them."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from jointsearch.data.groups import as_read_by
from jointsearch.distributed import add_up, part_of, processes
from jointsearch.loops.recipe import Recipe, Timm
from jointsearch.loops.task import CLASSIFICATION, Task, cross_entropy
from jointsearch.protocols import Objective
from jointsearch.randomness import kept_global_randomness
from search_spaces.cells.derived import DropPath, set_drop_path
from search_spaces.errors import InputError

# After which shares of the epochs the rate of detectors falls to a tenth: 8 and 11 of 12, 16 and 22 of 24.
TWO_STEPS = (2 / 3, 11 / 12)


class Trainer:
    """A network with its optimizer, which minimizes an objective."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        device: torch.device,
        classes: int,
        steps: int,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.recipe, self.device, self.classes, self.steps, self.task = recipe, device, classes, steps, task
        check_network(network, recipe)
        self.trained = network.to(device).to(memory_format=torch.channels_last)
        self.mixing: Mixup | None = None
        if mixing := recipe.mixing:
            self.mixing = Mixup(
                mixing.mixup, mixing.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes
            )
        self.objective = task.new_objective(recipe)
        self.optimizer = create_optimizer_v2(
            network,
            # torch knows no Nesterov momentum of 0.
            opt="momentum" if recipe.optimizer == "sgd" and not recipe.momentum else recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
        self.schedule = new_schedule(self.optimizer, recipe, steps)
        self.erasing: RandomErasing | None = None
        if (more := recipe.timm) and more.reprob:
            self.erasing = RandomErasing(more.reprob, mode=more.remode, max_count=more.recount, device=device)
        self.averaged = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None

    def step(self, images: Any, labels: Any, done: int) -> Tensor:
        """Take one optimizer step after `done` others. Returns the loss, still on the device."""
        return self.step_on([images], labels, done)[0]

    def step_on(self, copies: Sequence[Any], labels: Any, done: int) -> Tensor:
        """The same on the mean gradient of copies of a batch, each with statistics of its own; the loss of each."""
        labels = as_read_by(self.objective, labels)
        if self.recipe.drop_path:
            set_drop_path(self.trained, self.recipe.drop_path * (done // self.steps) / self.recipe.epochs)
        losses = []
        for images in copies:
            if self.erasing is not None:  # after normalization, and in place
                images = self.erasing(images.clone())
            losses.append(self._gradients(images, labels, 1 / len(copies)))
        self._add_up(losses, part_of(len(copies[0])).weight)
        if self.recipe.clip_gradient:
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged is not None:
            self.averaged.update(self.trained, step=done + 1)
        if self.schedule is not None:
            self.schedule.step_update(done + 1)
        return torch.stack(losses) * len(copies)

    def _gradients(self, images: Any, labels: Any, share: float) -> Tensor:
        """Add a share of the gradient of a batch, or of its parts where steps accumulate; return that of the loss."""
        # Not of batch_size each: a part of one image, at the end of an epoch, would have no batch statistics.
        parts = min(1 if self.recipe.timm is None else self.recipe.timm.grad_accum_steps, max(1, len(images) // 2))
        if parts == 1:
            return self._backward(images, labels, share)
        loss = torch.zeros((), device=self.device)
        for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            loss += self._backward(some, theirs, share * len(some) / len(images))
        return loss

    def _backward(self, images: Any, labels: Any, share: float) -> Tensor:
        """Add the gradients of a share of the mean loss of images, which are blended first where the recipe says so."""
        if self.mixing is not None and len(images) % 2 == 0:
            images, labels = self.mixing(images, labels)
        elif self.mixing is not None:
            labels = self.soft(labels)  # timm mixes pairs only
        mine = part_of(len(images))
        images = mine.of(images).contiguous(memory_format=torch.channels_last)
        with self.recipe.autocast(self.device):
            loss = self.objective.loss(self.trained, images, mine.of(labels)) * (mine.weight * share)
        loss.backward()
        return loss.detach()

    def _add_up(self, losses: Sequence[Tensor], weight: float) -> None:
        """Add up what each process has of the losses and their gradient, and take the mean of the running statistics.

        Batch statistics are those of the images of one process.
        """
        if processes() == 1:
            return
        gradients = [parameter.grad for parameter in self.trained.parameters() if parameter.grad is not None]
        statistics = [
            buffer.mul_(weight)
            for module in self.trained.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if module.training and name in ("running_mean", "running_var")
        ]
        add_up([*losses, *gradients, *statistics])

    def soft(self, labels: Tensor) -> Tensor:
        """Labels as timm's Mixup writes them, (B, classes), without mixing."""
        classes, smoothing = self.classes, self.recipe.label_smoothing
        one_hot = nn.functional.one_hot(labels, classes).to(torch.float32)
        return one_hot * (1 - smoothing) + smoothing / classes

    def network(self) -> nn.Module:
        """The network that is evaluated: the averaged one where there is one."""
        return self.trained if self.averaged is None else self.averaged.module

    def outputs(self, images: Any) -> Any:
        """Its outputs for normalized images, in the precision of the recipe."""
        images = images.contiguous(memory_format=torch.channels_last)
        with self.recipe.autocast(self.device):
            if not isinstance(images, Tensor):  # what a detector finds is no tensor: every process looks at all images
                return self.network()(images)
            mine = part_of(len(images))
            (outputs,) = mine.whole(self.network()(mine.of(images)))
            return outputs

    @torch.no_grad()
    def losses(self, images: Any, labels: Any) -> Tensor:
        """The loss of each image (B,) in evaluation mode, of the network that is trained; nothing is changed."""
        modes = {module: module.training for module in self.trained.modules()}
        self.trained.eval()
        try:
            mine = part_of(len(images))
            part = mine.of(images).contiguous(memory_format=torch.channels_last)
            with self.recipe.autocast(self.device):
                losses = self.objective.losses(self.trained, part, mine.of(labels))
            (whole,) = mine.whole(losses)
        finally:
            for module, training in modes.items():
                module.training = training
        return whole

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def state(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {
            "network": self.trained.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state(),
        }

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Train inside for a while: on leaving, all is as it was on entering, also the global generators."""
        before = copy.deepcopy(self.state())
        with kept_global_randomness():
            try:
                yield
            finally:
                self.load(before)

    def restore(self, state: dict[str, Any], done: int) -> None:
        """Continue from a state after `done` steps."""
        self.load(state)
        if self.schedule is not None:
            self.schedule.step_update(done)

    def load(self, state: dict[str, Any]) -> None:
        """Put back everything that training changes."""
        self.trained.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.restore(state["objective"])


def new_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Scheduler | None:
    """How the learning rate of every step follows from the recipe, in epochs of so many steps; None: it stays."""
    more, name = recipe.timm or Timm(), recipe.schedule_name
    by_third = max(1, recipe.epochs // 3) if name == "step" else None
    milestones: Any = more.decay_milestones
    if name == "two_steps":
        name, milestones = "multistep", [recipe.epochs * share for share in TWO_STEPS]
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=name,
        num_epochs=recipe.epochs,
        decay_epochs=more.decay_epochs or by_third,
        decay_milestones=milestones,
        decay_rate=more.decay_rate,
        min_lr=more.min_lr or float(recipe.schedule.partition("_to_")[2] or 0),
        warmup_epochs=recipe.warmup.epochs if recipe.warmup else 0,
        warmup_lr=recipe.learning_rate * recipe.warmup.start if recipe.warmup else 0.0,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return schedule


@dataclass(frozen=True)
class StepOf:
    """The training step of a trainer, as searchers call it."""

    trainer: Trainer
    done: Callable[[], int]  # optimizer steps since the beginning
    begin_part: Callable[[int, int], None] = lambda part, parts: None  # see protocols.TrainStep

    @property
    def objective(self) -> Objective:
        """What the step descends."""
        return self.trainer.objective

    def __call__(self, images: Any, labels: Any) -> Tensor:
        """Take one optimizer step."""
        return self.trainer.step(images, labels, self.done())

    def of_copies(self, copies: Sequence[Any], labels: Any) -> Tensor:
        """Take one optimizer step on several copies of a batch; the loss of each."""
        return self.trainer.step_on(copies, labels, self.done())

    def losses(self, images: Any, labels: Any) -> Tensor:
        """The loss of each image in evaluation mode."""
        return self.trainer.losses(images, labels)

    def beside(self) -> Trainer:
        """A second training of the same network, with the weights that it has now, on its cross entropy."""
        of, task = self.trainer, replace(self.trainer.task, new_objective=cross_entropy)
        network = copy.deepcopy(of.trained)
        network.zero_grad()
        return Trainer(network, of.recipe, of.device, of.classes, of.steps, task)

    def undone(self) -> AbstractContextManager[None]:
        """Train inside for a while and take it back; the learning rate stays the same inside."""
        return self.trainer.undone()


def check_network(network: nn.Module, recipe: Recipe) -> None:
    """Refuse a recipe that asks for what the network does not have."""
    if recipe.drop_path and not any(isinstance(module, DropPath) for module in network.modules()):
        raise InputError(
            f"recipe.drop_path is {recipe.drop_path:g}, and {type(network).__name__} has no paths to drop; set it to 0"
        )
    if recipe.auxiliary_weight and getattr(network, "auxiliary", None) is None:
        raise InputError(
            f"recipe.auxiliary_weight is {recipe.auxiliary_weight:g}, and {type(network).__name__} has no second "
            "classifier; set it to 0"
        )
