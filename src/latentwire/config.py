"""Registries and config trees: the only file that knows the config library.

A method is a dataclass registered by name with a base that derives from :class:`Choice`; YAML picks it by ``type``:

>>> from latentwire.config import Choice
>>> class Shape(Choice): ...
>>> @Shape.register_subclass("circle")
... @dataclass
... class Circle(Shape):
...     radius: float = 1.0
>>> decode(Shape, {"type": "circle", "radius": 2}).radius
2.0
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import json
import pkgutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import draccus
import yaml
from draccus.utils import DecodingError, ParsingError

from latentwire.errors import UserError

T = TypeVar("T")
ENTRY_POINTS = "latentwire.methods"
"""Entry-point group through which outside packages register methods: each entry names a module to import."""


class Choice:
    """Base of a family of methods; each direct subclass becomes a registry of its own."""

    _choice_registry: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Choice in cls.__bases__:
            # draccus takes a class for a registry if it has these methods and none of its parents has: they are
            # given to the heads of families, not to this class
            cls._choice_registry = {}
            for name in ("get_choice_class", "get_known_choices", "get_choice_name", "default_choice_name"):
                if name not in cls.__dict__:
                    setattr(cls, name, classmethod(getattr(_Registry, name)))

    @classmethod
    def register_subclass(cls, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: register a dataclass under ``name``. A name that is taken is refused."""

        def register(method: type[T]) -> type[T]:
            taken = cls._choice_registry.setdefault(name, method)
            if taken is not method and taken.__qualname__ != method.__qualname__:
                raise UserError(f"{cls.__name__} {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
            cls._choice_registry[name] = method
            return method

        return register

    @classmethod
    def known(cls) -> dict[str, Any]:
        """All registered methods of this family, by name."""
        load_outside_methods()
        return dict(cls._choice_registry)


class _Registry:
    """The registry's side that the config library asks; plain functions, bound to each family as class methods."""

    def get_choice_class(cls: Any, name: str) -> Any:
        load_outside_methods()
        if name not in cls._choice_registry:
            known = ", ".join(sorted(cls._choice_registry))
            raise UserError(f"no {cls.__name__} is called {name!r}; there are: {known}")
        return cls._choice_registry[name]

    def get_known_choices(cls: Any) -> dict[str, Any]:
        return cls.known()

    def get_choice_name(cls: Any, subclass: Any) -> str:
        for name, method in cls._choice_registry.items():
            if method is subclass:
                return name
        raise ValueError(f"{subclass} is not registered")  # the library's way of asking: no person sees this

    def default_choice_name(cls: Any) -> str | None:
        return None


def discover(package: str, path: Iterable[str]) -> None:
    """Import every module of a room, so that a new file is found without a second edit."""
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")


@functools.cache
def load_outside_methods() -> None:
    """Import what outside packages registered under the entry-point group, once."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry.load()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict. A key ``base: other.yaml`` is read first and overridden by the rest."""
    path = Path(path)
    tree = read_plain_yaml(path)
    if "base" in tree:
        base = read_yaml(path.parent / tree.pop("base"))
        tree = _merge(base, tree)
    return tree


def read_plain_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict, as it stands there. UserError: there is no such file, it is no YAML, or no mapping."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no config file {path}; give the path of a YAML file")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds a {type(tree).__name__}; a config is a mapping of keys to values")
    return tree


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        # another `type` means another method: the base's keys would not fit it
        same = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if same and value.get("type", merged[key].get("type")) == merged[key].get("type"):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def override(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """``["train.steps=20", "encoder.d_z=64"]`` laid over a tree; values are read as YAML, list items by number."""
    for item in overrides:
        key, value = read_override(item)
        put(tree, key, value)
    return tree


def read_override(item: str) -> tuple[str, Any]:
    """``"train.steps=20"`` as ``("train.steps", 20)``."""
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"override {item!r} is not of the form key=value (for example train.steps=20)")
    return key.lstrip("-"), yaml.safe_load(text) if text else None


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set what stands at a dotted key of a tree."""
    *parents, leaf = key.split(".")
    node: Any = tree
    for name in parents:
        node = _step_into(node, name, key)
    if isinstance(node, list):
        node[_index(node, leaf, key)] = value
    elif isinstance(node, dict):
        node[leaf] = value
    else:
        raise UserError(f"override {key!r}: {leaf!r} stands below a plain value")


def _step_into(node: Any, name: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, key)]
    if not isinstance(node, dict):
        raise UserError(f"override {key!r}: {name!r} stands below a plain value")
    child = node.get(name)
    if child is None:
        child = node[name] = {}
    return child


def _index(node: list[Any], name: str, key: str) -> int:
    if name.isdigit() and int(name) < len(node):
        return int(name)
    raise UserError(f"override {key!r}: {name!r} is no place in a list of {len(node)}")


def decode(cls: type[T], tree: Any) -> T:
    """A plain tree as a config of class ``cls``; unknown keys and wrong types are refused by name."""
    try:
        return draccus.decode(cls, tree)
    except (DecodingError, ParsingError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"config for {cls.__name__}: {_told(error)}") from None


def _told(error: BaseException) -> str:
    """What a person needs of an error: where in the config, and what a method itself had to say, if it was one."""
    words, own = " ".join(str(error).split()), error
    while own is not None and not isinstance(own, UserError):
        own = own.__cause__ or own.__context__
    return words if own is None else f"{words.split(': ')[0]}: {own}"


def encode(config: Any) -> Any:
    """A config as a plain tree of dicts, lists and values."""
    return draccus.encode(config)


def load(path: str | Path, cls: type[T], overrides: Iterable[str] = ()) -> T:
    """The config in a YAML file with dotted overrides."""
    return decode(cls, override(read_yaml(path), overrides))


def save(config: Any, path: str | Path) -> None:
    """Write a config as YAML that :func:`load` reads back equal; whole or not at all, as processes of one run read what
    others write."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    part.write_text(yaml.safe_dump(encode(config), sort_keys=False, allow_unicode=True))
    part.replace(path)


def config_hash(config: Any) -> str:
    """Twelve hex digits that name a config: equal trees, equal names."""
    tree = config if isinstance(config, dict) else encode(config)
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]


__all__ = ["Choice", "config_hash", "dataclass", "decode", "discover", "encode", "load", "override", "put", "save"]
