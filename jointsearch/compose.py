"""From words of a command line, or of a notebook, to checked settings. The only module that uses Hydra.

Hydra combines the YAML files of `configs/`, which hold what differs from the defaults in the code. Which settings exist
is decided by the dataclasses alone: a word that sets another one is refused when they are built.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jointsearch import registry
from jointsearch.loops.recipe import SearchRecipe
from jointsearch.registry import CONFIGS, groups
from jointsearch.settings import TARGET, build, target_class
from jointsearch.study import Study
from search_spaces.errors import InputError, nearest

FORBIDDEN = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_", "hydra.", "hydra/")
WHOLE = ("preset", "experiment")  # groups whose members set anything, and may be left out
NOTHING = tuple(f"{group}=null" for group in WHOLE)
FOR_ANY_CHOICE = (*WHOLE, "dataset", "search")  # what a preset says of data is meant for whatever data are chosen


@dataclass(frozen=True)
class Composed:
    """A configuration as plain dicts and lists, and the top-level names in it that the user or a preset set."""

    values: dict[str, Any]
    named: frozenset[str] = frozenset()


def compose_study(*words: str, **settings: Any) -> Study:
    """A study from words of the command line and from Python values.

    compose_study("search=policy", "network=wide_resnet16_1", dataset="digits", seeds=(0,))
    """
    values = [f"{name}={_as_word(value)}" for name, value in settings.items()]
    return study_of(compose_words("joint_search", [*words, *values]))


def study_of(composed: Composed) -> Study:
    """The study of a configuration of joint_search.py, with its epochs multiplied by the budget."""
    budget = composed.values.get("budget", 1.0)
    try:
        study = build(Study, nested(composed))
    except InputError as error:
        raise InputError(as_typed(str(error))) from None
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 1e-4 <= budget <= 1000:
        raise InputError(f"budget is {budget}; wanted a number from 0.0001 to 1000")
    return study if budget == 1 else scaled(study, budget)


def as_typed(message: str) -> str:
    """An error with every setting by the name that the command line has for it."""
    inner = re.sub(r"(?<![\w.])search[.](searcher[.])?(policy_space|estimator)\b", r"\2", message)
    return re.sub(r"(?<![\w.])search[.](?=[a-z])", "", inner)


def nested(composed: Composed) -> dict[str, Any]:
    """The configuration with every group inside of the settings that hold it."""
    of_command = ("run", "budget", "plugins")
    config = {name: value for name, value in composed.values.items() if value != {} and name not in of_command}
    search, searcher = dict(config["search"]), config.get("searcher")
    kinds = [target_class(search[TARGET])]
    if "searcher" in names_of(kinds[0]) and isinstance(searcher, dict):
        config["searcher"] = _with(dict(searcher), config)
        kinds.append(target_class(searcher[TARGET]))
    config["search"] = _with(search, config)
    unread = [name for name in config if name not in names_of(Study)]
    if wrong := [name for name in unread if name in composed.named or not (CONFIGS / name).is_dir()]:
        known = [name for cls in (Study, *kinds) for name in names_of(cls)]
        this = " and ".join(cls.__name__ for cls in kinds)
        use = readers(wrong[0])
        remedy = f"leave it out, or use it with {use}" if use else nearest(wrong[0], known)
        raise InputError(f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not read by {this}; {remedy}")
    return {name: value for name, value in config.items() if name in names_of(Study)}


def readers(name: str) -> str:
    """The choices of search and searcher that read a setting."""
    found = [
        f"{group}={choice}"
        for group in ("search", "searcher")
        for choice in groups()[group]
        if (path := CONFIGS / group / f"{choice}.yaml").is_file()
        and name in names_of(target_class((content(path).get(group) or content(path))[TARGET]))
    ]
    return ", ".join(found)


def names_of(cls: Any) -> list[str]:
    """The fields of a settings class."""
    return [item.name for item in fields(cls)]


def _with(settings: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of their fields that stand beside them in the configuration, which loses them."""
    cls = target_class(settings[TARGET])
    for item in fields(cls):
        if item.name in settings and isinstance(config.get(item.name), dict):
            raise InputError(
                f"{item.name} is a group of its own; write {item.name}=... or {item.name}.SETTING=..., without the "
                "name of another group before it"
            )
    return settings | {item.name: config.pop(item.name) for item in fields(cls) if item.name in config}


def scaled(study: Study, budget: float) -> Study:
    """The study with the epochs of search and training multiplied by the budget, at least one."""

    def times(count: int) -> int:
        return max(1, round(count * budget))

    recipe, kind = study.recipe, study.search
    warmup = recipe.warmup and replace(recipe.warmup, epochs=times(recipe.warmup.epochs))
    epochs = times(recipe.epochs)
    shorter = replace(recipe, epochs=epochs, warmup=None if warmup and warmup.epochs >= epochs else warmup)
    changes: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]
        value = getattr(kind, item.name)
        if isinstance(value, SearchRecipe):
            changes[item.name] = replace(value, epochs=times(value.epochs))
        elif item.name == "policy_epochs" and value:
            changes[item.name] = times(value)
        elif getattr(value, "from_epoch", 0):
            last = kind.search_recipe.epochs * budget - 1  # type: ignore[attr-defined]
            changes[item.name] = replace(value, from_epoch=min(round(value.from_epoch * budget), max(0, int(last))))
        elif hasattr(value, "scaled"):
            changes[item.name] = value.scaled(budget)
    return replace(study, recipe=shorter, search=replace(kind, **changes))  # type: ignore[type-var]


def compose_words(config_name: str, words: Sequence[str]) -> Composed:
    """Compose a configuration; the words come from a user and are not trusted."""
    nothing = {*NOTHING, *(f"{name}=null" for name in may_be_null(config_name))}
    overrides = [word for word in words if word not in nothing]
    for override in overrides:
        _check_word(override)
    for plugin in _plugins(overrides):
        registry.load_plugin(plugin)
    _store_choices()
    GlobalHydra.instance().clear()
    _check_choices(config_name, overrides)
    try:
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            composed = compose(config_name=config_name, overrides=[_free(word) for word in overrides])
            plain: Any = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(f"{_first_line(error)}; see --help") from None
    _check_overruled(plain, overrides)
    return Composed({str(name): value for name, value in plain.items()}, frozenset(_named(overrides)))


def content(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, with those of the files that it is built on."""
    own: Any = OmegaConf.to_container(OmegaConf.load(path)) or {}
    bases = [entry for entry in own.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return {key: value for base in bases for key, value in content(path.with_stem(base)).items()} | own


def _as_word(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(_as_word, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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
        several = OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException as error:
        remedy = "close brackets and quotes, and quote a value that holds = or brackets: 'run=\"a=b\"'"
        raise InputError(f"{word} cannot be read ({_first_line(error)}); {remedy}") from None
    if several:
        raise InputError(
            f"{word} holds several values; put brackets around them, as in {key}=[{value}], or quotes where they are "
            f"one: \"{key}='{', '.join(value.split(','))}'\""
        )


def _plugins(words: Sequence[str]) -> list[str]:
    given = [OverridesParser.create().parse_override(word) for word in words if word.lstrip("+").startswith("plugins=")]
    values = [override.value() for override in given]
    return [str(path) for value in values for path in (value if isinstance(value, list) else [value])]


def _store_choices() -> None:
    """Tell Hydra which choices user code added."""
    for group, names in registry.choices.items():
        for name in names:
            ConfigStore.instance().store(group=group, name=name, node={TARGET: f"plugin:{group}:{name}"})


def _check_choices(config_name: str, words: Sequence[str]) -> None:
    """Refuse choices that Hydra ignores silently: unknown presets, and groups of other commands."""
    own = used_groups(config_name)
    for word in words:
        name, _, value = word.partition("=")
        known, top = groups().get(name, []), name.lstrip("+~").partition(".")[0]
        if top in groups() and top not in own:
            use = " or ".join(f"scripts/{one}.py" for one in scripts_with(top))
            raise InputError(f"{word} is not for scripts/{config_name}.py; use it with {use}")
        if known and value not in known:
            raise InputError(f"{name}={value} is not known; {nearest(value, known)}")
        if name in WHOLE and not fits(name, value, config_name):
            scripts = [one for one in scripts_with(name) if fits(name, value, one)]
            use = " or ".join(f"scripts/{one}.py" for one in scripts)
            raise InputError(f"{word} is not for scripts/{config_name}.py; use it with {use}")


def used_groups(config_name: str) -> set[str]:
    """The groups that a command has."""
    return {name for name, _ in _defaults(config_name)}


def may_be_null(config_name: str) -> set[str]:
    """The groups of a command of which nothing needs to be chosen."""
    return {name for name, value in _defaults(config_name) if value is None}


def _defaults(config_name: str) -> list[tuple[str, Any]]:
    """The groups of a command, each with what is chosen where the user says nothing."""
    whole: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{config_name}.yaml"))
    entries = [entry for entry in whole.get("defaults", []) if isinstance(entry, dict)]
    return [(name.split()[-1], value) for entry in entries for name, value in entry.items()]


def scripts_with(group: str) -> list[str]:
    """The commands that have a group."""
    return [path.stem for path in sorted(CONFIGS.glob("*.yaml")) if group in used_groups(path.stem)]


def fits(group: str, name: str, config_name: str) -> bool:
    """Whether a preset or experiment is meant for a command: it stands in the command of its first line."""
    text = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8")
    first = re.search(r"^# python scripts/(\w+)[.]py", text, re.MULTILINE)
    return first is not None and first[1] == config_name


def _named(words: Sequence[str]) -> set[str]:
    names = {word.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0] for word in words}
    for word in words:
        group, _, value = word.partition("=")
        if group in WHOLE:
            own: Any = OmegaConf.to_container(OmegaConf.load(path := CONFIGS / group / f"{value}.yaml")) or {}
            chosen = [name for entry in own.get("defaults", []) if isinstance(entry, dict) for name in entry]
            names |= set(content(path)) | {name.rpartition("/")[2].partition("@")[0] for name in chosen}
    return names


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
