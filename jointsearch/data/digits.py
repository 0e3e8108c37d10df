"""The embedded default: 1,797 real handwritten digits of 8x8 pixels that come inside scikit-learn."""

import torch

from jointsearch.data.sets import ImageSet


def read_digits() -> ImageSet:
    """All the digits as one set, their 17 gray levels 0..16 spread over 0..255."""
    from sklearn.datasets import load_digits  # takes 2 s, which no other data set should pay

    digits = load_digits()
    images = (torch.from_numpy(digits.images) * (255 / 16)).round().to(torch.uint8)
    return ImageSet(images.unsqueeze(1), torch.from_numpy(digits.target).long(), tuple("0123456789"))
