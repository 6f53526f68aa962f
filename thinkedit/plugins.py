"""Finds editors, judges, reward terms, task sources and advantage estimators by name.

Everything is an entry point, ours included, so a plug-in package is listed and chosen
exactly as the built-in ones are. `build` checks options against the class's own `Config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thinkedit.errors import ConfigError, UnknownName

KINDS = ("editors", "judges", "reward_terms", "tasks", "advantages")


def available(kind: str) -> dict[str, EntryPoint]:
    """Entry points of one kind by name.

    Raises:
        UnknownName: no such kind.
        ConfigError: two installed packages claim the same name.
    """
    if kind not in KINDS:
        raise UnknownName("plug-in kind", kind, KINDS)
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"thinkedit.{kind}"):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise ConfigError(
                f"two packages offer the {kind} plug-in {point.name!r}: {other.value} and {point.value}; "
                "uninstall one or rename its entry point"
            )
        found[point.name] = point
    return found


def load(kind: str, name: str) -> Any:
    """The object behind an entry point.

    Raises:
        UnknownName: nobody registered it; the message offers the nearest name.
        ConfigError: its module or attribute can't be imported.
    """
    points = available(kind)
    if name not in points:
        raise UnknownName(f"{kind} plug-in", name, points)
    point = points[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} plug-in {name!r} ({point.value}) can't be imported: {error}") from error


def build(kind: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """An instance of a plug-in class: `cls(cls.Config(**options))`, options checked by type.

    Raises:
        UnknownName: no such plug-in, or no such option.
        ConfigError: an option has the wrong type.
    """
    cls = load(kind, name)
    return cls(typed(cls.Config, options or {}, where=f"{kind}.{name}.options"))


def typed(schema: type[Any], options: Mapping[str, Any], *, where: str) -> Any:
    """`options` as an instance of the dataclass `schema`; unknown keys are refused with the nearest."""
    known = set(schema.__dataclass_fields__)
    for key in options:
        if key not in known:
            raise UnknownName(f"option of {where}", str(key), known)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(options)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error


@dataclass
class NoOptions:
    """`Config` of a plug-in that has nothing to set."""
