"""Draw a policy as a picture, or convert one that others published."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from jointsearch.commands.found import first_policy
from jointsearch.data.datasets import DataSettings
from jointsearch.data.load import load_splits
from jointsearch.report.contact_sheet import (
    IMAGES,
    check_picture,
    evenly_spread,
    folder_images,
    photo_images,
    write_contact_sheet,
)
from jointsearch.settings import bounded, group, setting
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path
from search_spaces.policy import Policy
from search_spaces.readers.read import SUFFIXES, read_policy, recognized
from search_spaces.schedule import PolicySchedule

SUBJECT = "policy"
MOST_USED = ()
SPANS = 8  # of a schedule, at most: one may have a policy for each of hundreds of epochs


@dataclass(frozen=True)
class Settings:
    """What is drawn, and where to."""

    policy: str = setting(
        "autoaugment",
        help="a control, a file of ours or of others (.py, .txt, .npz, .json), or the run folder of a search",
    )
    name: str | None = setting(None, help="which policy, in a Python file that holds several")
    skip_unknown: bool = setting(False, help="leave out the ops that have no counterpart here; they are listed")
    save: str | None = setting(None, help="a new .json file for the policy in our format")
    ops: tuple[str, ...] | None = setting(
        None, help="ops that random, randaugment and trivialaugment may use; null for all of theirs"
    )
    images: str | None = setting(None, help="a folder of images; null takes squares of two photos")
    dataset: DataSettings | None = group(lambda: None, help="draw eight of its test images")
    out: str | None = setting(None, help="the PNG file; null makes one with the policy's name in the current folder")
    rows: int = bounded(25, 1, 1000, help="how many sub-policies, the likeliest first")
    seed: int = bounded(0, 0, 2**31, help="of the random policy, and of the draws")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops of your own")


def main(given: Settings) -> None:
    """Write one picture, or one for each span of a schedule; and the policy as a file of ours."""
    out = Path(given.out or f"{Path(given.policy).stem}.png")
    found = _found(replace(given, policy=first_policy(given.policy)))
    if isinstance(found, Policy):
        sheets = [(found, out)]
    else:
        shown = [found.spans[place] for place in evenly_spread(len(found.spans), SPANS)]
        sheets = [(policy, out.with_stem(f"{out.stem}_from_epoch_{start}")) for start, policy in shown]
        if len(shown) < len(found.spans):
            print(f"a policy for each of {len(found.spans)} spans of epochs; {len(shown)} of them are drawn")
    images = _images(given)
    check_picture(out)
    try:
        if given.save:
            _save(found, given.save)
        for policy, path in sheets:
            write_contact_sheet(policy, images, path, given.seed, given.rows)
            print(path)
    except OSError as error:
        where = shown_path(error.filename or out)
        raise InputError(f"{where} cannot be written ({error.strerror}); give another in save or out") from None


def _found(given: Settings) -> Policy | PolicySchedule:
    """A policy of ours, or one that others published, with a line for everything that ours says differently."""
    if not given.policy.lower().endswith(SUFFIXES) or recognized(given.policy)[0] == "ours":
        if given.name or given.skip_unknown:
            raise InputError("name and skip_unknown are for files of others; leave them out")
        return resolve_policy(given.policy, given.ops, given.seed)
    if given.ops:
        raise InputError(f"policy file {shown_path(given.policy)} has its own ops; leave ops out, or name a control")
    imported = read_policy(given.policy, given.name, given.skip_unknown)
    for line in imported.approximations:
        print(f"approximated: {line}")
    return imported.policy


def _save(found: Policy | PolicySchedule, path: str) -> None:
    if not path.endswith(".json") or not Path(path).absolute().parent.is_dir():
        raise InputError(f"save is {shown_path(path)}; give a file name that ends in .json, in a folder that exists")
    if Path(path).exists():
        raise InputError(f"save is {shown_path(path)}, which exists; give a new name")
    found.save(path)
    print(path)


def _images(given: Settings) -> Tensor:
    if given.images and given.dataset:
        raise InputError("both images and dataset are given; give one of them")
    if given.dataset is None:
        return folder_images(given.images) if given.images else photo_images()
    test = load_splits(given.dataset, given.seed).test
    order = torch.tensor(evenly_spread(len(test), IMAGES))
    return next(iter(test.batches(order, IMAGES))).images
