"""Records one training step, to make the network a function of its weights with all else as in that step.

Batch normalization divides by statistics of the batch, which move with the weights. Live statistics do so here too: the
mean loss has the gradient of the training step. Frozen statistics are constants, those of the step: the loss of an
image does not depend on the other images, so that its reward is its own.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from jointsearch.through_step.loss import ImageLosses, cross_entropies


@dataclass(frozen=True, eq=False)
class StepNetwork:
    """A network as a function of its weights, with the dropout noise, buffers and modes of one step."""

    network: nn.Module
    weights: dict[str, Tensor]  # of the trainable parameters, before the step
    buffers: dict[str, Tensor]  # a forward pass may write to them, so every call gets a copy
    modes: dict[nn.Module, bool]
    noise: dict[torch.device, Tensor]  # generator states; empty where the step drew nothing
    image_losses: ImageLosses = cross_entropies

    def losses(self, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image (B,) at these weights; unnamed weights have their values before the step."""
        return self.image_losses(lambda *inputs: self(weights, *inputs), images, labels)

    def __call__(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
        """The outputs at these weights; unnamed weights have their values before the step."""
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        with ExitStack() as undo:
            undo.callback(_set_modes, {module: module.training for module in self.modes})
            _set_modes(self.modes)
            if self.noise:
                undo.enter_context(torch.random.fork_rng([device for device in self.noise if device.type == "cuda"]))
                _set_generators(self.noise)
            return functional_call(self.network, {**self.weights, **weights, **buffers}, inputs)


class StepRecord:
    """The state at the start of one training step. After the step, it gives the network as it was then."""

    def __init__(self, network: nn.Module, image_losses: ImageLosses) -> None:
        self._network, self._image_losses = network, image_losses
        self._norms = [
            _BatchNormWatch(name, module)
            for name, module in network.named_modules()
            if isinstance(module, _BatchNorm) and module.training
        ]
        self._weights = {
            name: parameter.detach().clone()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        self._buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
        self._modes = {module: module.training for module in network.modules()}
        self._noise: dict[torch.device, Tensor] | None = None
        self._finished = False

    def live(self) -> StepNetwork:
        """The network as a function of its weights, normalized by the statistics that a batch has at these weights."""
        return self._function(self._buffers, self._modes)

    def frozen(self) -> StepNetwork:
        """The network as a function of its weights, normalized by the statistics of the recorded step."""
        statistics = {name: value for watch in self._norms for name, value in watch.frozen().items()}
        # In eval mode a batch normalization reads its statistics from its buffers.
        modes = self._modes | {watch.module: False for watch in self._norms}
        return self._function(self._buffers | statistics, modes)

    def _function(self, buffers: dict[str, Tensor], modes: dict[nn.Module, bool]) -> StepNetwork:
        if not self._finished or self._noise is None:
            state = "called no forward pass of the network" if self._finished else "is not over or has failed"
            raise ValueError(
                f"the recorded step {state}, so there is nothing to repeat; run forward, backward and "
                "optimizer.step() inside record_step(network), and call live() or frozen() after it"
            )
        return StepNetwork(self._network, self._weights, buffers, modes, self._noise, self._image_losses)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observe the step while it runs. Restores hooks, momenta and buffers even if the step fails."""
        with ExitStack() as undo:
            undo.callback(self._network.register_forward_pre_hook(self._before_forward).remove)
            undo.callback(self._network.register_forward_hook(self._after_forward).remove)
            for watch in self._norms:
                undo.callback(watch.release)
                watch.lend()
            yield
        self._finished = True

    def _before_forward(self, *_: Any) -> None:
        if self._noise is not None:
            raise ValueError(
                "the recorded step called the network twice, and batch statistics and dropout noise of two forward "
                "passes cannot both be repeated; make one forward pass inside record_step(network)"
            )
        self._noise = _generators(self._network)

    def _after_forward(self, *_: Any) -> None:
        before, after = self._noise or {}, _generators(self._network)
        if all(torch.equal(before[device], after[device]) for device in before):
            self._noise = {}


@contextmanager
def record_step(network: nn.Module, image_losses: ImageLosses = cross_entropies) -> Iterator[StepRecord]:
    """Record one training step: the weights before it, its batch statistics and its dropout noise."""
    record = StepRecord(network, image_losses)
    with record.watching():
        yield record


class _BatchNormWatch:
    """Reads a batch normalization's statistics without another pass over the activations.

    For one forward pass the layer gets temporary buffers and momentum 1, so that these buffers hold the batch's
    statistics afterwards. The layer's own buffers then get their usual update at once, because an averaged copy of the
    network may read them before the step is over.
    """

    def __init__(self, name: str, module: _BatchNorm) -> None:
        self.name, self.module = name, module
        self.statistics: dict[str, Tensor] = {}
        self.runs = 0
        self.momentum = module.momentum
        kept = ("running_mean", "running_var") if module.track_running_stats else ()
        self.own = {name: module.get_buffer(name) for name in kept}
        self.undo = ExitStack()

    def frozen(self) -> dict[str, Tensor]:
        """Mean and biased variance of the recorded batch, by the names of the buffers that hold them in eval mode."""
        if not self.own:
            raise ValueError(
                f"batch normalization {self.name!r} keeps no running statistics, so those of a training step cannot be "
                "frozen; use live statistics, or build it with track_running_stats=True"
            )
        if self.runs > 1:
            raise ValueError(
                f"batch normalization {self.name!r} ran twice in the recorded step, and the statistics of only one "
                "pass can be frozen; use live statistics, or give every use its own layer, without checkpointing"
            )
        return self.statistics

    def lend(self) -> None:
        """Give the layer temporary buffers until its forward pass is over."""
        module = self.module
        if not self.own:
            return
        self.undo.callback(module.register_forward_hook(self._after_forward).remove)
        self.undo.callback(self._take_back)
        module.momentum = 1.0
        for name, own in self.own.items():
            setattr(module, name, torch.zeros_like(own))

    def release(self) -> None:
        """Remove the remaining hooks and temporary buffers from the layer."""
        self.undo.close()

    def _take_back(self) -> None:
        self.module.momentum = self.momentum
        for name, own in self.own.items():
            setattr(self.module, name, own)

    def _after_forward(self, module: _BatchNorm, _inputs: Any, output: Tensor) -> None:
        self.runs += 1
        if self.runs > 1:
            return
        batch = {name: module.get_buffer(name) for name in self.own}  # (C,) each, the variance unbiased
        self._take_back()
        share = self._share()
        for name, own in self.own.items():
            own.mul_(1 - share).add_(share * batch[name])
        count = output.numel() // module.num_features
        # Normalization divides the variance by the count, the running variance by count - 1.
        self.statistics = {
            f"{self.name}.running_mean": batch["running_mean"],
            f"{self.name}.running_var": batch["running_var"] * ((count - 1) / count),
        }

    def _share(self) -> Any:
        """The weight of the batch in the running statistics. Without a momentum these are the mean over all batches."""
        return 1 / self.module.get_buffer("num_batches_tracked") if self.momentum is None else self.momentum


def _set_modes(modes: Mapping[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode


def _generators(network: nn.Module) -> dict[torch.device, Tensor]:
    """The states of the global generators that a forward pass of this network may use."""
    devices = {parameter.device for parameter in network.parameters() if parameter.device.type == "cuda"}
    states = {torch.device("cpu"): torch.get_rng_state()}
    return states | {device: torch.cuda.get_rng_state(device) for device in devices}


def _set_generators(states: Mapping[torch.device, Tensor]) -> None:
    for device, state in states.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
