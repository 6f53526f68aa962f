"""Composes a recipe, its groups and overrides into one checked `Config`.

A recipe is a YAML file. Its `defaults` list names a file of each group it uses (`editor:
procedural` is `editor/procedural.yaml`); the rest of the file sets values on top. Hydra composes
the files, OmegaConf's structured `Config` types them, and what neither knows is refused with the
nearest name. A recipe may live anywhere: its own folder is searched first, then ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from thinkedit.configs.check import check, unmet
from thinkedit.configs.schema import Config
from thinkedit.errors import ConfigError, UnknownName

ROOT = Path(__file__).parent
PACKAGE = ROOT.parent
GROUPS = tuple(sorted(field.name for field in fields(Config) if (ROOT / field.name).is_dir()))
RESOLVED = "config.yaml"  # the resolved config in a run folder


def recipes() -> list[str]:
    """Names of the recipes that come with thinkedit, such as "demo" or "paper/flux_kontext"."""
    names = (path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.yaml"))
    return sorted(name for name in names if name.split("/")[0] not in GROUPS)


def choices(group: str) -> list[str]:
    """Names that `group=NAME` accepts, of those that come with thinkedit."""
    return sorted(
        path.relative_to(ROOT / group).with_suffix("").as_posix() for path in (ROOT / group).rglob("*.yaml")
    )


def load_config(
    name_or_path: str | Path, overrides: Sequence[str] = (), *, require_plugins: bool = True
) -> Config:
    """Compose, type and check a configuration.

    Args:
        name_or_path: one of `recipes()`, a YAML file, or a run folder (its saved config).
        overrides: `group=NAME` picks a file of a group (`editor=procedural`), `a.b=VALUE` sets a
            value; in Hydra's grammar, so lists and quotes work.
        require_plugins: refuse names of plug-ins that are not installed. Only a dry run may do
            without; it shows `thinkedit.configs.check.unmet` instead.

    Raises:
        UnknownName: no such recipe, group choice, key, plug-in or option; offers the nearest.
        ConfigError: a value has the wrong type or contradicts another; names field and reason.
    """
    folder, stem = _locate(name_or_path)
    parsed = [_parse(text) for text in overrides]
    picks = [o for o in parsed if o.key_or_group in GROUPS and isinstance(o.value(), str)]
    values = [o for o in parsed if o not in picks]

    composed = _compose(folder, stem, picks)
    refuse_unknown(composed, Config, where=str(name_or_path))
    for override in values:
        _refuse_unknown_path(override.key_or_group.split("."), override.value())
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        assert isinstance(merged, DictConfig)
        for override in values:
            OmegaConf.update(merged, override.key_or_group, override.value(), force_add=True)
        if OmegaConf.is_missing(merged, "name"):
            merged.name = Path(stem).name
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(_plain(error)) from error
    check(config)
    if require_plugins and (missing := unmet(config)):
        raise missing[0]
    return config


def save_config(config: Config, path: Path) -> Path:
    """Write the resolved config; `load_config(path)` gives an equal one back.

    Args:
        path: a YAML file, or a run folder (then its `config.yaml`). Folders are made.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        path = path / RESOLVED
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(config), encoding="utf-8")
    return path


def to_yaml(config: Config) -> str:
    """The resolved config as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def refuse_unknown(given: Mapping[Any, Any], schema: type[Any], *, where: str, prefix: str = "") -> None:
    """Raise `UnknownName` for the first key that the dataclass `schema` lacks, at any depth.

    Fields typed `dict` hold free keys: names of rows, or plug-in options, which their plug-in checks.
    """
    for key, value in given.items():
        inner = _field_type(schema, str(key), where=where, prefix=prefix)
        if is_dataclass(inner):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{key}={value}: must hold keys of its own, in {where}")
            refuse_unknown(value, cast(type[Any], inner), where=where, prefix=f"{prefix}{key}.")
        elif isinstance(value, Mapping) and (rows := _row_type(schema, str(key))) is not None:
            for name, row in value.items():
                if isinstance(row, Mapping):  # OmegaConf tells otherwise
                    refuse_unknown(row, rows, where=where, prefix=f"{prefix}{key}.{name}.")


def _row_type(schema: type[Any], key: str) -> type[Any] | None:
    """The dataclass of the rows, where a field is a table of them by name; else None."""
    match get_args(get_type_hints(schema)[key]):
        case (_, row) if is_dataclass(row):
            return cast(type[Any], row)
    return None


def _field_type(schema: type[Any], key: str, *, where: str, prefix: str) -> Any:
    """Type of a field of `schema`, as its default factory or annotation tells it."""
    known = {field.name: field for field in fields(schema)}
    if key not in known:
        raise UnknownName(
            f"key in {where}", prefix + key, [prefix + name for name in known] or _all_paths(Config)
        )
    factory = known[key].default_factory
    return factory if isinstance(factory, type) else None


def _refuse_unknown_path(parts: Sequence[str], value: Any) -> None:
    """As `refuse_unknown`, for one override `a.b=value`."""
    schema: Any = Config
    for depth, part in enumerate(parts):
        if not is_dataclass(schema):
            break  # below a free dict, or below a value: OmegaConf tells the second
        prefix = ".".join(parts[:depth]) + "." if depth else ""
        if part not in {field.name for field in fields(schema)}:
            near = [path for path in _all_paths(Config) if path.split(".")[-1] == part]
            known = [prefix + field.name for field in fields(schema)]
            raise UnknownName("config key", ".".join(parts), known + near)
        schema = _field_type(cast(type[Any], schema), part, where="overrides", prefix=prefix)
    if is_dataclass(schema):
        key = ".".join(parts)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value}: {key} holds keys of its own; set one of them, {key}.KEY=VALUE")
        refuse_unknown(value, cast(type[Any], schema), where="overrides", prefix=f"{key}.")


def _all_paths(schema: Any, prefix: str = "") -> Iterator[str]:
    for field in fields(schema):
        yield prefix + field.name
        if isinstance(field.default_factory, type) and is_dataclass(field.default_factory):
            yield from _all_paths(field.default_factory, f"{prefix}{field.name}.")


def _locate(name_or_path: str | Path) -> tuple[Path, str]:
    """Folder to search first, and the recipe's name below it."""
    path = Path(name_or_path)
    if path.is_dir() and (path / RESOLVED).is_file():
        path = path / RESOLVED
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"no config file {str(path)!r}")
        if path.suffix == ".yml":
            raise ConfigError(f"{str(path)!r}: Hydra reads .yaml files only; rename it")
        return path.resolve().parent, path.stem
    if str(name_or_path) not in recipes():
        raise UnknownName("config (neither a recipe nor a .yaml file)", str(name_or_path), recipes())
    return ROOT, str(name_or_path)


def _parse(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"override {text!r} is not KEY=VALUE: {str(error).splitlines()[0]}") from error
    if override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override():
        raise ConfigError(f"override {text!r}: only KEY=VALUE is understood, without +, ~ or sweeps")
    return override


def _compose(folder: Path, name: str, picks: Sequence[Override]) -> DictConfig:
    """The recipe with the files of its groups, of which `picks` choose others."""
    search = [] if folder == ROOT else [f"hydra.searchpath=['file://{ROOT}']"]
    with _hydra(folder):
        try:
            if "defaults" in OmegaConf.load(folder / f"{name}.yaml"):
                return compose(
                    name, overrides=[*search, *(f"{o.get_key_element()}={o.value()}" for o in picks)]
                )
            # A recipe without such a list holds every part itself, as a run's does: each pick takes the
            # place of a whole part, or an editor would be built with options of the one before it.
            composed = compose(name, overrides=search)
            for pick in picks:
                place = pick.package or pick.key_or_group
                chosen = compose(overrides=[*search, f"+{pick.get_key_element()}={pick.value()}"])
                part = OmegaConf.select(chosen, place)
                OmegaConf.update(composed, place, part, merge=False, force_add=True)
            return composed
        except MissingConfigException as error:
            raise _missing(error) from error
        except (HydraException, OmegaConfBaseException) as error:
            message = str(error).splitlines()[0]
            if "No match in the defaults list" in message:
                message += (
                    " The recipe sets this part itself instead of naming a file of the group in its "
                    "defaults list; override its fields one by one."
                )
            raise ConfigError(message) from error
        except YAMLError as error:
            raise ConfigError(f"{name}.yaml is not YAML: {error}") from error


@contextmanager
def _hydra(folder: Path) -> Iterator[None]:
    """Hydra's state is global: keep a caller's own safe while we use it."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), job_name="thinkedit", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = before


def _missing(error: MissingConfigException) -> ConfigError:
    group, _, choice = (error.missing_cfg_file or "").strip("/").rpartition("/")
    if group in GROUPS:
        return UnknownName(f"choice of {group}", choice, error.options or choices(group))
    if group:
        return UnknownName("config group", group, GROUPS)
    return UnknownName("recipe in a defaults list", choice, recipes())


def _plain(error: OmegaConfBaseException) -> str:
    """One line that names the field first."""
    key = getattr(error, "full_key", None)
    if isinstance(error, MissingMandatoryValue):
        return f"{key} is not set"
    message = str(error).splitlines()[0]
    return f"{key}: {message}" if key and key not in message else message


def _package_path(relative: str) -> str:
    """`${package:learner/policy/base}`: a folder inside the installed thinkedit package."""
    return str(PACKAGE / relative)


OmegaConf.register_new_resolver("package", _package_path, replace=True)
