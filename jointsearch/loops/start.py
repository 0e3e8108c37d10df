"""What a network that starts from weights asks of its images, and what a person should know of its start."""

from dataclasses import fields, replace
from typing import Any, TypeVar

from jointsearch.data.sets import DataSplits
from jointsearch.data.standard import Standard
from jointsearch.networks.create import adaptation
from jointsearch.networks.network_settings import NetworkSettings
from jointsearch.networks.weights import MODEL_FILE, classes_of, told_by
from jointsearch.randomness import kept_global_randomness
from search_spaces.errors import InputError

D = TypeVar("D")


def normalized_as_weights(dataset: D, network: NetworkSettings) -> D:
    """A data set with the mean and std that the first weights of a network were trained with.

    One whose own were set is left as it is: they differ from those that the data set has by itself.
    """
    wanted, given = _of_weights(dataset, network), getattr(dataset, "standard", None)
    if wanted is None or given is None or _numbers(given) != _numbers(_by_itself(dataset)):
        return dataset
    return replace(dataset, standard=replace(given, mean=wanted[0], std=wanted[1]))  # type: ignore[type-var]


def start_notes(dataset: Any, network: NetworkSettings, splits: DataSplits) -> list[str]:
    """In words: what was changed for small images, from which weights it starts, and how images are normalized."""
    channels, *sides = splits.train.image_shape
    with kept_global_randomness():
        adapted = adaptation(network, channels, min(sides))
    notes = [] if adapted is None else [adapted]
    if network.starts_fresh:
        return notes
    kept = classes_of(network) == len(splits.train.classes)
    notes.append(f"network={network}; its last layer is {'kept: it is for as many classes' if kept else 'fresh'}")
    wanted, given = _of_weights(dataset, network), _numbers(dataset.standard)
    if wanted is None:
        told = "; which mean and std its weights were trained with is not known"
    elif wanted == given:
        told = ", as those that its weights were trained on"
    else:
        told = f"; its weights were trained with {list(wanted[0])} and {list(wanted[1])}"
    return [*notes, f"Images are normalized by mean {list(given[0])} and std {list(given[1])}{told}"]


def _of_weights(dataset: Any, network: NetworkSettings) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of the images that the first weights were trained on, for as many channels as the data set has."""
    told = told_by(network)
    if "mean" not in told or "std" not in told:
        return None
    try:
        mean, std = tuple(map(float, told["mean"])), tuple(map(float, told["std"]))
    except (TypeError, ValueError):
        raise InputError(f"{MODEL_FILE} beside {network.weights} has no numbers as mean and std; restore it") from None
    if getattr(dataset, "channels", None) == 1 and len(mean) > 1:  # as timm's loaders do with gray images
        return (sum(mean) / len(mean),), (sum(std) / len(std),)
    return mean, std


def _numbers(standard: Standard) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return standard.mean, standard.std


def _by_itself(dataset: Any) -> Standard:
    """The augmentation that a data set has where nothing is set."""
    made = {item.name: item.default_factory for item in fields(dataset)}["standard"]
    return made()  # type: ignore[operator]
