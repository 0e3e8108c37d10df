"""Resized crops are torchvision's: the same boxes equally often, and the same pixels in each."""

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from jointsearch import augment, compose_study
from jointsearch.data.standard import PhotoStandard, ResizedCrop, crop_boxes, random_crop_flip
from search_spaces.controls import named_policy
from search_spaces.errors import InputError

DRAWS = 4000


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int, height: int = 12, width: int = 9) -> Tensor:
    return torch.rand(count, 3, height, width, generator=noise(1))


# The last two images are so long that no try ever fits, which leaves the largest part in its middle.
@pytest.mark.parametrize(
    ("height", "width", "smallest"), [(64, 64, 0.08), (40, 90, 0.5), (20, 200, 0.9), (200, 20, 0.9)]
)
def test_boxes_are_drawn_as_torchvision_draws_them(height: int, width: int, smallest: float) -> None:
    ours = crop_boxes(DRAWS, (height, width), ResizedCrop(smallest), noise())
    torch.manual_seed(0)
    image, scale, ratio = torch.empty(1, height, width), [smallest, 1.0], [3 / 4, 4 / 3]
    theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(DRAWS)]).T
    for name, one, other in zip(("top", "left", "height", "width"), ours, theirs, strict=True):
        # Two samples of 4,000 from one distribution differ by more than 0.05 in one of 10,000 cases.
        assert ks_2samp(one.numpy(), other.numpy()).statistic < 0.05, name
    areas, wanted = ours[2] * ours[3], theirs[2] * theirs[3]
    assert ks_2samp(areas.numpy(), wanted.numpy()).statistic < 0.05


def test_the_area_of_a_crop_is_uniform_from_the_smallest_share_to_all() -> None:
    boxes = crop_boxes(DRAWS, (1000, 1000), ResizedCrop(0.25, ratio=1.0), noise())
    assert torch.equal(boxes[2], boxes[3])
    shares = (boxes[2] * boxes[3] / 1e6).double()
    assert shares.min() >= 0.249
    for quarter in (0.25, 0.5, 0.75):
        assert abs(shares.quantile(quarter) - (0.25 + 0.75 * quarter)) < 0.03


@pytest.mark.parametrize("antialias", [True, False])
def test_each_crop_has_the_pixels_of_torchvisions_with_and_without_antialiasing(antialias: bool) -> None:
    images, crop = batch(50), ResizedCrop(0.1)
    found = random_crop_flip(images, PhotoStandard(resized_crop=crop), noise(3))
    boxes = crop_boxes(50, (12, 9), crop, noise(3)).int().T.tolist()
    assert len({tuple(box) for box in boxes}) > 30
    for image, result, box in zip(images, found, boxes, strict=True):
        expected = reference.resized_crop(image, *box, [12, 9], antialias=antialias)
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)


def test_half_of_the_crops_are_mirrored_where_that_is_wanted() -> None:
    ramp = torch.linspace(0, 1, 8).expand(600, 1, 8, 8)
    for flip, least, most in ((True, 240, 360), (False, 0, 0)):
        standard = PhotoStandard(flip=flip, resized_crop=ResizedCrop(0.3))
        found = random_crop_flip(ramp, standard, noise())
        assert least <= int((found[:, 0, 0, 0] > found[:, 0, 0, -1]).sum()) <= most


def test_bytes_are_cropped_as_floats_are_and_a_shift_is_left_out() -> None:
    images = (batch(6) * 255).round()
    standard = PhotoStandard(crop_padding=4, resized_crop=ResizedCrop())
    found = random_crop_flip(images.byte(), standard, noise())
    assert found.dtype == torch.uint8
    torch.testing.assert_close(found.float(), random_crop_flip(images, standard, noise()).round())
    assert torch.equal(found, random_crop_flip(images.byte(), PhotoStandard(resized_crop=ResizedCrop()), noise()))


def test_they_reach_the_training_images_from_the_command_line() -> None:
    words = ("dataset=folder", "dataset.standard.resized_crop.smallest=0.25", "dataset.standard.mean=imagenet")
    standard = compose_study(*words, "dataset.standard.std=imagenet").dataset.standard
    assert standard == PhotoStandard(
        crop_padding=4, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resized_crop=ResizedCrop(0.25)
    )
    images = batch(5)
    cropped = random_crop_flip(images, standard, noise(7))
    expected = reference.normalize(cropped, list(standard.mean), list(standard.std))
    torch.testing.assert_close(augment(images, named_policy("none"), standard, noise(7)), expected)


def test_imagenet_stands_for_its_numbers_in_python_too() -> None:
    standard = PhotoStandard(mean="imagenet", std="imagenet")  # type: ignore[arg-type]
    assert (standard.mean, standard.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(InputError, match="has 3 means and 1 stds; give one of each per channel"):
        compose_study("dataset=folder", "dataset.standard.mean=imagenet")
    with pytest.raises(InputError, match="mean is 'imagnet'; wanted a list or imagenet"):
        compose_study("dataset=folder", "dataset.standard.mean=imagnet")


def test_the_named_sets_have_no_resized_crop() -> None:
    with pytest.raises(InputError, match=r"dataset\.standard\.resized_crop is not a setting"):
        compose_study("dataset=cifar10", "dataset.standard.resized_crop.smallest=0.25")
