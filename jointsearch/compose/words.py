"""Reads the words of a command line, and combines the YAML files that they choose."""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jointsearch import registry
from jointsearch.compose.files import (
    brought_by,
    chosen,
    class_of,
    content,
    fits,
    may_be_null,
    offered,
    scripts_with,
    used_groups,
    yaml_of,
)
from jointsearch.compose.values import NAMED, check_beside, plain, put
from jointsearch.registry import CONFIGS, groups
from jointsearch.settings import TARGET, is_settings
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import shown

FORBIDDEN = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_", "hydra.", "hydra/")
WHOLE = ("preset", "experiment")  # groups whose members set anything, and may be left out
NOTHING = tuple(f"{group}=null" for group in WHOLE)
OF_USERS = ("folder", "coco", "voc")  # forms of data that lie in a folder of one's own
OF_ANY_SIZE = ("folder", "hf")  # the small sizes for them are a guess, and a paper's settings have their own
METHOD = ("search", "searcher")
FOR_ANY_CHOICE = (*WHOLE, "dataset", "search")  # what a preset says of data is meant for whatever data are chosen


@dataclass(frozen=True)
class Composed:
    """A configuration as plain dicts and lists, and who set what in it."""

    values: dict[str, Any]
    typed: frozenset[str] = frozenset()  # dotted names that the user set
    brought: dict[str, frozenset[str]] = field(default_factory=dict)  # and those of each preset=NAME, experiment=NAME
    notes: tuple[str, ...] = ()  # what a person should know of it

    @property
    def named(self) -> set[str]:
        """The top-level names that the user or a preset set."""
        return {name.partition(".")[0] for names in (self.typed, *self.brought.values()) for name in names}

    def by(self, name: str) -> str | None:
        """The preset or experiment that set a top-level name, where the user did not."""
        if any(one.partition(".")[0] == name for one in self.typed):
            return None
        return next(
            (word for word, names in self.brought.items() if name in {one.split(".")[0] for one in names}), None
        )

    def explained(self, message: str) -> str:
        """An error that says of what the user never wrote which preset set it."""
        for word, names in self.brought.items():
            told = sorted(name for name in names - self.typed if word not in message and _mentions(message, name))
            if told:
                message += f" ({', '.join(told)} {'is' if len(told) == 1 else 'are'} set by {word})"
        return message


def _mentions(message: str, name: str) -> bool:
    after = r"(?!\w)" if "." in name else r"(=| is\b)"
    return re.search(rf"(?<![\w.]){re.escape(name)}{after}", message) is not None


def compose_words(config_name: str, words: Sequence[str], settings: Mapping[str, Any] | None = None) -> Composed:
    """Compose a configuration; the words come from a user and are not trusted. Python values come without words."""
    values = {name: plain(value) for name, value in (settings or {}).items()}
    nothing = {*NOTHING, *(f"{name}=null" for name in may_be_null(config_name))}
    for word in words:
        _check_word(word)
    more = values.get("plugins", [])
    for plugin in [*_plugins(words), *([more] if isinstance(more, str) else more)]:
        registry.load_plugin(plugin)
    overrides = [word for word in (*words, *_choices_among(values, config_name)) if word not in nothing]
    _check_choices(config_name, overrides)
    whole = any(word.partition("=")[0] in WHOLE for word in overrides)
    data = next((value for name, _, value in (word.partition("=") for word in overrides) if name == "dataset"), None)
    sizes = ["specialized=none"] if whole and data in OF_ANY_SIZE and "specialized" in used_groups(config_name) else []
    try:
        found: Any = OmegaConf.to_container(_combined(config_name, [*overrides, *sizes]), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(f"{_first_line(error)}; see --help") from None
    _check_overruled(found, overrides)
    typed = {word.lstrip("+~").partition("=")[0].partition("@")[0] for word in overrides} | set(values)
    check_beside(values, typed)
    for name, value in values.items():
        put(found, name, value)
    brought = {word: brought_by(word, data) for word in overrides if word.partition("=")[0] in WHOLE}
    halves = tuple(note for word in brought for note in _half(word, overrides))
    return Composed({str(name): value for name, value in found.items()}, frozenset(typed), brought, halves)


def _choices_among(values: dict[str, Any], config_name: str) -> list[str]:
    """The words of Python values that choose one of a group. An object chooses what goes with its class, and stays."""
    words = []
    for name in [name for name in values if name in groups()]:
        value = values[name]
        if value is None or isinstance(value, str):
            words.append(f"{name}={values.pop(name) or 'null'}")
        elif is_settings(value):
            words += [f"{name}={choice}" for choice in groups()[name] if class_of(name, choice) is type(value)][:1]
        elif not isinstance(value, dict):
            names = ", ".join(offered(name, config_name))
            raise InputError(f"{name} is {shown(value)}; give a settings object, a dict of settings, or one of {names}")
    return words


def _half(whole: str, words: Sequence[str]) -> Iterator[str]:
    """What to say of a preset whose method is not the one that is searched with: the rest of it is no paper's."""
    file, given = yaml_of(whole), dict(word.split("=", 1) for word in words if "=" in word)
    own = chosen(file)
    for group in (name for name in METHOD if name in own and given.get(name, own[name]) != own[name]):
        rest = ", ".join([*content(file), *(name for name in own if name not in given and name not in content(file))])
        yield f"{whole} is for {group}={own[group]}; with {group}={given[group]} only this of it counts: {rest}"


def _combined(config_name: str, words: Sequence[str]) -> DictConfig:
    """The YAML files that the words choose, with the values that they set, as Hydra combines them."""
    sets = [word for word in words if _free(word) != word and re.match(r"(?!hydra=)[a-z][\w.]*=", word)]
    if any(word.startswith(("+", "~")) for word in words):
        sets = []  # what adds or removes depends on the words before it: all of them to Hydra
    for group, names in registry.choices.items():  # what user code added
        for name in names:
            ConfigStore.instance().store(group=group, name=name, node={TARGET: f"plugin:{group}:{name}"})
    composed = deepcopy(_by_hydra(config_name, tuple(_free(word) for word in words if word not in sets)))
    for override in map(_parsed, sets):
        try:
            key, value = _beside_a_name(composed, override.key_or_group, override.value())
            OmegaConf.update(composed, key, value, merge=True, force_add=True)
        except OmegaConfBaseException:
            raise HydraException(f"Error merging override ++{override.input_line}") from None
    return composed


def _beside_a_name(composed: DictConfig, key: str, value: Any) -> tuple[str, Any]:
    """What is set, where a single word and settings of the same thing stand beside each other in any order."""
    first, _, rest = key.partition(".")
    if first in NAMED and rest and isinstance(composed.get(first), str):
        OmegaConf.update(composed, first, {NAMED[first]: composed[first]}, merge=False)
    if first in NAMED and not rest and isinstance(value, str) and isinstance(composed.get(first), DictConfig):
        return f"{first}.{NAMED[first]}", value
    return key, value


# Hydra takes 0.1 s, most of it for the same files again. What sets a value cannot change which of them are chosen.
@lru_cache(maxsize=256)
def _by_hydra(config_name: str, words: tuple[str, ...]) -> DictConfig:
    """The configuration that Hydra makes of these words; callers change a copy of it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return compose(config_name=config_name, overrides=list(words))


@lru_cache(maxsize=1024)
def _parsed(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


def _free(word: str) -> str:
    """A word as Hydra takes it: values may set what no YAML file holds, and the dataclasses check them."""
    name = word.partition("=")[0]
    is_choice = (CONFIGS / name.partition("@")[0]).is_dir() or name.startswith(("+", "~"))
    return word if is_choice else f"++{word}"


def _check_word(word: str) -> None:
    key, _, value = word.partition("=")
    if not value.strip("'\"") and not key.startswith("~"):  # as of run=$RUN where RUN is not set
        raise InputError(f"{key}= is empty; leave it out, or give a value")
    found = [bad for bad in FORBIDDEN if bad in key] + [bad for bad in ("${", "_target_") if bad in value]
    if found:
        raise InputError(f"{word} holds {found[0]}, which is not allowed on the command line; leave it out")
    try:
        several = _parsed(word).is_sweep_override()
    except HydraException as error:
        remedy = "close brackets and quotes, and quote a value that holds = or brackets: 'run=\"a=b\"'"
        raise InputError(f"{word} cannot be read ({_first_line(error)}); {remedy}") from None
    if several:
        raise InputError(
            f"{word} holds several values; put brackets around them, as in {key}=[{value}], or quotes where they are "
            f"one: \"{key}='{', '.join(value.split(','))}'\""
        )


def _plugins(words: Sequence[str]) -> list[str]:
    given = [_parsed(word) for word in words if word.lstrip("+").startswith("plugins=")]
    values = [override.value() for override in given]
    return [str(path) for value in values for path in (value if isinstance(value, list) else [value])]


def _check_choices(config_name: str, words: Sequence[str]) -> None:
    """Refuse choices that Hydra ignores silently: unknown presets, and groups of other commands."""
    own = used_groups(config_name)
    for word in words:
        name, _, value = word.partition("=")
        known, top = offered(name, config_name), name.lstrip("+~").partition(".")[0]
        if top in groups() and top not in own:
            use = " or ".join(f"scripts/{one}.py" for one in scripts_with(top))
            raise InputError(f"{word} is not for scripts/{config_name}.py; use it with {use}")
        every = groups().get(name, [])
        if every and value not in every and _is_place(value):
            use = " or ".join(f"{name}={one} {name}.path={value}" for one in OF_USERS if one in known)
            raise InputError(f"{word} is a place and no name of a data set; write {use}")
        if every and value not in every:
            raise InputError(f"{name}={value} is not known; {nearest(value, known or every)}")
        if every and value not in known:
            scripts = [one for one in scripts_with(name) if fits(name, value, one)]
            use = " or ".join(f"scripts/{one}.py" for one in scripts)
            raise InputError(f"{word} is not for scripts/{config_name}.py; use it with {use}")


def _is_place(value: str) -> bool:
    """Whether a choice looks like a folder or an archive, and not like a name."""
    return "/" in value or Path(value).exists()


def _check_overruled(config: dict[str, Any], words: Sequence[str]) -> None:
    # Hydra lets a preset override a choice beside it silently: a control would repeat the search.
    given = {name.lstrip("+~"): value for name, _, value in (one.partition("=") for one in words)}
    for group, value in given.items():
        now, path = config.get(group), CONFIGS / group / f"{value}.yaml"
        if group in FOR_ANY_CHOICE or not path.is_file() or not isinstance(now, dict):
            continue
        wanted = content(path)
        lost = [key for key in wanted if now.get(key) != wanted[key] and f"{group}.{key}" not in given]
        if lost:
            whole = [f"{one}={given[one]}" for one in WHOLE if one in given]
            by = " and ".join(whole) or "the sizes for this data set"
            raise InputError(
                f"{by} would overrule {group}={value} in {', '.join(lost)}; leave one of them out, or set what should "
                f"differ, as in {group}.{lost[0]}={wanted[lost[0]]}"
            )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())
