"""The default data set: 1,797 real handwritten digits of 8x8 pixels, which scikit-learn contains."""

import torch

from jointsearch.data.sets import ImageSet


def read_digits() -> ImageSet:
    """All digits as one set; their 17 gray levels 0..16 are scaled to 0..255."""
    from sklearn.datasets import load_digits  # takes 2 s, so other data sets do not import it

    digits = load_digits()
    images = (torch.from_numpy(digits.images) * (255 / 16)).round().to(torch.uint8)
    return ImageSet(images.unsqueeze(1), torch.from_numpy(digits.target).long(), tuple("0123456789"))
