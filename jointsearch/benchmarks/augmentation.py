"""How fast the augmentation front-end is: beside other libraries, and as a share of a training step."""

from collections.abc import Callable
from functools import partial

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import AugmentOp, AutoAugment
from torch import Tensor
from torchvision.transforms import v2

from jointsearch.benchmarks.timing import time_in_turn
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trainer import Trainer
from jointsearch.networks.create import create_network
from search_spaces.augment.apply import apply_policy
from search_spaces.controls import named_policy
from search_spaces.policy import Policy

COMPARED = ("randaugment-n2-m15", "trivialaugment", "trivialaugment-x2", "autoaugment", "autoaugment-x2")
STANDARD = Standard(crop_padding=4, flip=True, cutout=16)
TIMM_NAMES = {"Posterize": "PosterizeOriginal", "TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}


def photographs(count: int, size: int) -> Tensor:
    """Square cut-outs of the two photographs in scikit-learn, (count, 3, size, size) uint8."""
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in load_sample_images().images]
    cut = []
    for place in range(count):
        picture = pictures[place % len(pictures)]
        row, column = (int(torch.randint(side - size, (), generator=generator)) for side in picture.shape[1:])
        cut.append(picture[:, row : row + size, column : column + size])
    return torch.stack(cut)


def compare_libraries(size: int, batch: int, rounds: int = 7, block_seconds: float = 0.3) -> dict[str, float]:
    """Seconds per batch under AutoAugment's 25 CIFAR-10 sub-policies, one thread, all in one run."""
    images = photographs(batch, size)
    floats = images.float() / 255
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    policy = named_policy("autoaugment_cifar10")
    timm_policy = _timm_policy(policy)
    torchvision_policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    noise = torch.Generator().manual_seed(0)
    calls: dict[str, Callable[[], object]] = {
        "jointsearch, float batch": lambda: apply_policy(policy, floats, noise),
        "jointsearch, uint8 batch": lambda: apply_policy(policy, images, noise),
        "timm AutoAugment, PIL, per image": lambda: [timm_policy(picture) for picture in pictures],
        "torchvision v2 AutoAugment, tensor, per image": lambda: [torchvision_policy(image) for image in images],
        "torchvision v2 AutoAugment, PIL, per image": lambda: [torchvision_policy(picture) for picture in pictures],
        "torchvision v2 AutoAugment, one draw for the batch": lambda: torchvision_policy(images),
        "kornia AutoAugment, one draw for the batch": _kornia_call(floats),
    }
    return _on_one_thread(calls, rounds, block_seconds)


def compare_policies(size: int, batch: int, rounds: int = 7, block_seconds: float = 0.3) -> dict[str, float]:
    """Seconds per batch of the front-end under some controls, one thread, all in one run."""
    images, noise = photographs(batch, size), torch.Generator().manual_seed(0)
    calls: dict[str, Callable[[], object]] = {
        name: partial(apply_policy, named_policy(name), images, noise) for name in COMPARED
    }
    return _on_one_thread(calls, rounds, block_seconds)


def _on_one_thread(calls: dict[str, Callable[[], object]], rounds: int, block_seconds: float) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return time_in_turn(calls, rounds, block_seconds)
    finally:
        torch.set_num_threads(threads)


def share_of_step(network: str, batch: int, precision: str, device: torch.device, rounds: int = 7) -> dict[str, float]:
    """Seconds of the whole front-end (crop, flip, policy, normalization, cutout) and of a training step behind it."""
    images = photographs(batch, 32).to(device)
    labels = torch.arange(batch, device=device) % 10
    policy = named_policy("autoaugment_cifar10")
    noise = torch.Generator().manual_seed(0)
    recipe = Recipe(precision=precision)
    trainer = Trainer(create_network(network, 10, 3, 32), recipe, device, classes=10, steps=100)
    inputs = augment(images, policy, STANDARD, noise)
    calls: dict[str, Callable[[], object]] = {
        "front-end": lambda: augment(images, policy, STANDARD, noise),
        "training step": lambda: trainer.step(inputs, labels, 0),
    }
    return time_in_turn(calls, rounds, block_seconds=0.2)


def _timm_policy(policy: Policy) -> AutoAugment:
    # The same ops and probabilities; timm counts levels 0 to 10.
    return AutoAugment(
        [
            [AugmentOp(TIMM_NAMES.get(c.op, c.op), c.probability, 10 * c.magnitudes[0]) for c in sub_policy.ops]
            for sub_policy in policy.sub_policies
        ]
    )


def _kornia_call(images: Tensor) -> Callable[[], object]:
    from kornia.augmentation.auto import AutoAugment as KorniaAutoAugment  # takes 0.3 s to import

    augmentation = KorniaAutoAugment("cifar10")
    return lambda: augmentation(images)
