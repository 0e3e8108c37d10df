"""Reads SVHN, photographed house numbers, from the published .mat files."""

from pathlib import Path

import torch

from jointsearch.data.download import check_place, fetch
from jointsearch.data.files import shown
from jointsearch.data.sets import FoundSplits, ImageSet
from search_spaces.errors import InputError

PUBLISHED = "http://ufldl.stanford.edu/housenumbers"
MEGABYTES = {"train": 182, "test": 64, "extra": 1330}
MD5 = {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
    "extra": "a93ce644f1a588dc4d68dda5feec44a7",
}


def read_svhn(path: Path | None, download: bool, extra: bool) -> FoundSplits:
    """The core training images, with the extra images if `extra`, and the test images."""
    place = path or Path("data") / "svhn"
    train = _read_part(place, "train", download)
    if extra:
        more = _read_part(place, "extra", download)
        train = ImageSet(torch.cat([train.images, more.images]), torch.cat([train.labels, more.labels]), train.classes)
    return FoundSplits(train, None, _read_part(place, "test", download))


def _read_part(place: Path, part: str, download: bool) -> ImageSet:
    from scipy.io import loadmat  # takes 0.6 s, so other data sets do not import it

    file = place / f"{part}_32x32.mat"
    url = f"{PUBLISHED}/{file.name}"
    if download and not file.exists():
        check_place(place, [f"{one}_32x32.mat" for one in MD5], "svhn")
        fetch(url, MD5[part], file, MEGABYTES[part])
    if not file.is_file():
        raise InputError(
            f"{shown(str(file))} is not there; leave dataset.download=false out to fetch it from {url}, "
            "or set dataset.path to the folder that holds it"
        )
    # scipy raises nearly any exception for a damaged file (ValueError, TypeError, zlib.error, KeyError, ...).
    try:
        content = loadmat(file)
        images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()  # (H, W, C, N) -> (N, C, H, W)
        labels = torch.from_numpy(content["y"].astype("int64")).flatten() % 10  # published as 1..10, with 10 for zero
    except Exception as error:
        raise InputError(f"{shown(str(file))} is no SVHN file ({type(error).__name__}); download it again") from error
    if images.dtype != torch.uint8 or len(images) != len(labels):
        raise InputError(f"{shown(str(file))} holds {images.dtype} images and {len(labels)} labels; download it again")
    return ImageSet(images, labels, tuple("0123456789"))
