"""Typed settings: YAML in, dotted overrides applied, validated, resolved YAML out."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tfmmcl.errors import InputError, nearest


class Settings(BaseModel):
    """Base of all settings: immutable; an unknown key, an infinity and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(path: str | Path, schema: type[SettingsT], overrides: Sequence[str] = ()) -> SettingsT:
    """Reads a YAML file, applies `key.sub=value` overrides and validates.

    Args:
        path: The YAML file.
        schema: The settings class to validate against.
        overrides: Dotted assignments, each value parsed as YAML (`optimizer.learning_rate=3e-4`).

    Returns:
        An instance of `schema`.

    Raises:
        InputError: If the file cannot be read, is not a YAML mapping, or a key or value is wrong.
    """
    tree = read_yaml(path)
    for override in overrides:
        _assign(tree, override)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        key, sentence = _explain(error, schema)
        # What the command line said is not the file's mistake.
        named = next((item for item in reversed(overrides) if _within(key, item.partition("=")[0])), None)
        raise InputError(f"{path if named is None else f'override {named!r}'}: {sentence}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML mapping with the safe loader; raises `InputError` naming the file."""
    path = Path(path)
    try:
        tree = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a YAML settings file.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a YAML settings file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"{path}: not valid YAML{where}: {problem}.") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: found {type(tree).__name__}, expected a YAML mapping of settings.")
    return tree


def validate(tree: dict[str, Any], schema: type[SettingsT], source: str) -> SettingsT:
    """Validates a plain mapping against `schema`.

    Raises:
        InputError: One sentence for the first wrong key or value, naming `source`.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error, schema)[1]}") from None


def dump(settings: BaseModel) -> str:
    """Returns every setting, resolved, as plain-ASCII YAML that `load` reads back to an equal object."""
    return yaml.dump(settings.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)


class _Loader(yaml.SafeLoader):
    """The safe loader, with two of YAML's traps removed: `1e-3` is a number, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} appears twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes a text that `_Loader` would read as a number."""


# YAML 1.1 wants "1.0e-3"; people write "1e-3".
_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _parse(text: str) -> Any:
    """Parses YAML; raises `yaml.YAMLError` whatever is wrong with the text."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # PyYAML lets these out of its constructors: `2020-13-01`, `? [a]`, `!!bool maybe`, `!!timestamp x`, `[[[[…`.
        problem = f"it cannot be parsed ({' '.join(str(error).split())})"
        raise yaml.MarkedYAMLError(problem=problem) from None


_short = reprlib.Repr()  # what was found may be a whole section, or an alias that unfolds without end
_short.maxstring = _short.maxother = _short.maxlong = 200


def _assign(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"override {override!r}: expected key=value, such as optimizer.learning_rate=3e-4.")
    try:
        value = _parse(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not a YAML value.") from None
    *parents, leaf = key.split(".")
    for name in parents:
        child = tree.get(name)
        # A section that is absent or null is opened by naming a key inside it; a scalar is a mistake.
        if child is None:
            child = tree[name] = {}
        elif not isinstance(child, dict):
            found = _short.repr(child)
            raise InputError(f"override {override!r}: {name!r} is a single value ({found}), not a section.")
        tree = child
    tree[leaf] = value


def _within(key: str, section: str) -> bool:
    return f"{key}.".startswith(f"{section}.")


def _explain(error: ValidationError, schema: type[BaseModel]) -> tuple[str, str]:
    """Returns the first wrong key, dotted, and what is wrong with it."""
    # An unknown key first: it may be a missing one, misspelt.
    first = min(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    key = ".".join(_follow(schema, first["loc"])[1])
    if first["type"] == "extra_forbidden":
        known = _follow(schema, first["loc"][:-1])[0]
        names = list(dict.fromkeys(name for candidate in known for name in candidate.model_fields))
        hint = nearest(str(first["loc"][-1]), names)
        return key, f"unknown key {key!r}{hint or '; expected one of: ' + ', '.join(names) + '.'}"
    if first["type"] == "missing":
        return key, f"key {key!r} is missing."
    message = " ".join(first["msg"].split()).removeprefix("Value error, ").rstrip(".")
    message = message[:1].lower() + message[1:]
    if first["type"] == "model_type":
        message = "expected a section, which holds keys of its own"
    return key, f"key {key!r}: found {_short.repr(first['input'])}, {message}." if key else f"{message}."


def _follow(schema: type[BaseModel], location: Sequence[str | int]) -> tuple[list[type[BaseModel]], list[str]]:
    """Returns the settings that may stand at an error's location, and its keys without the tags of unions."""
    schemas, path = [schema], []
    for part in location:
        tagged = [candidate for candidate in schemas if _has_tag(candidate, part)]
        if len(schemas) > 1 and tagged:  # a union's tag chooses among the candidates
            schemas = tagged
            continue
        path.append(str(part))
        fields = [candidate.model_fields[part] for candidate in schemas if part in candidate.model_fields]
        # An index into a list leaves the candidates as they are.
        schemas = [model for item in fields for model in _models_in(item.annotation)] or schemas
    return schemas, path


def _has_tag(schema: type[BaseModel], tag: str | int) -> bool:
    """Returns whether one of the settings' fields can only be `tag`."""
    return any(
        get_origin(item.annotation) is Literal and tag in get_args(item.annotation)
        for item in schema.model_fields.values()
    )


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
