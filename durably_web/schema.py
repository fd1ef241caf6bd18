"""What an annotation asks of a value: checking JSON against it, and building what it names.

`dict`, `TypedDict`, dataclasses, the JSON types, `list`, `dict`, `tuple`, `Literal` and unions are handled here;
pydantic models by themselves; anything else by pydantic, where it is installed.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from durably_web.errors import InvalidInput

Loader = Callable[[Any, str], Any]
"""Checks a JSON value found at a path, and gives what the annotation names. Raises `InvalidInput`."""


class Unsupported(TypeError):
    """The annotation cannot be checked without pydantic."""


def loader(annotation: Any) -> Loader:
    """The loader for an annotation. Raises `Unsupported`."""
    if annotation is Any or annotation is object:
        return _anything
    if hasattr(annotation, "__pydantic_validator__") and hasattr(annotation, "model_validate"):
        return _pydantic(annotation.model_validate)
    if is_typeddict(annotation):
        return _typed_dict(annotation)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass(annotation)
    if annotation in _PLAIN:
        return _plain(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (list, Sequence):
        return _list(loader(args[0]))
    if origin in (dict, Mapping) and args[0] is str:
        return _dict(loader(args[1]))
    if origin is typing.Literal:
        return _literal(args)
    if origin in (Union, types.UnionType):
        return _union([loader(arg) for arg in args])
    if origin in (typing.Required, typing.NotRequired):
        return loader(args[0])
    return _by_pydantic(annotation)


def dump(value: Any) -> Any:
    """`value` with dataclasses and pydantic models as dicts."""
    if type(value) in (dict, list, str, int, float, bool, type(None)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value


def _anything(value: Any, path: str) -> Any:
    return value


_PLAIN: dict[Any, tuple[type, ...]] = {
    dict: (dict,),
    list: (list,),
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    None: (type(None),),
    type(None): (type(None),),
}


def _plain(annotation: Any) -> Loader:
    accepted = _PLAIN[annotation]
    name = "null" if annotation in (None, type(None)) else annotation.__name__

    def load(value: Any, path: str) -> Any:
        # True is an int in Python, and not in JSON.
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise InvalidInput(f"{path} must be {name}, not {_name(value)}")
        if annotation is float:
            return float(cast(float, value))
        return value

    return load


def _list(item: Loader) -> Loader:
    def load(value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple):
            raise InvalidInput(f"{path} must be a list, not {_name(value)}")
        return [item(part, f"{path}[{index}]") for index, part in enumerate(value)]

    return load


def _dict(item: Loader) -> Loader:
    def load(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise InvalidInput(f"{path} must be a dict, not {_name(value)}")
        return {key: item(part, f"{path}[{key!r}]") for key, part in value.items()}

    return load


def _literal(choices: tuple[Any, ...]) -> Loader:
    def load(value: Any, path: str) -> Any:
        if value not in choices:
            raise InvalidInput(f"{path} must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return value

    return load


def _union(loaders: list[Loader]) -> Loader:
    def load(value: Any, path: str) -> Any:
        complaints = []
        for one in loaders:
            try:
                return one(value, path)
            except InvalidInput as error:
                complaints.append(str(error))
        raise InvalidInput("; or ".join(dict.fromkeys(complaints)))

    return load


def _typed_dict(annotation: Any) -> Loader:
    fields = {name: loader(hint) for name, hint in get_type_hints(annotation).items()}
    required = set(annotation.__required_keys__)
    # Python itself does not see these words in a module whose annotations are texts.
    for name, hint in get_type_hints(annotation, include_extras=True).items():
        if get_origin(hint) is typing.NotRequired:
            required.discard(name)
        elif get_origin(hint) is typing.Required:
            required.add(name)

    def load(value: Any, path: str) -> Any:
        _check_keys(value, path, fields, required)
        return {name: fields[name](part, f"{path}[{name!r}]") for name, part in value.items()}

    return load


def _dataclass(annotation: Any) -> Loader:
    hints = get_type_hints(annotation)
    declared = [field for field in dataclasses.fields(annotation) if field.init]
    fields = {field.name: loader(hints[field.name]) for field in declared}
    missing = dataclasses.MISSING
    required = {field.name for field in declared if field.default is missing and field.default_factory is missing}

    def load(value: Any, path: str) -> Any:
        _check_keys(value, path, fields, required)
        arguments = {name: fields[name](part, f"{path}[{name!r}]") for name, part in value.items()}
        try:
            return annotation(**arguments)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{path}: {error}") from error

    return load


def _check_keys(value: Any, path: str, fields: Mapping[str, Loader], required: set[str]) -> None:
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} must be a dict, not {_name(value)}")
    if absent := sorted(required - value.keys()):
        raise InvalidInput(f"{path} lacks {', '.join(map(repr, absent))}")
    if unknown := sorted(value.keys() - fields.keys(), key=str):
        known = ", ".join(map(repr, fields))
        raise InvalidInput(f"{path} has {', '.join(map(repr, unknown))}, which is not known; known: {known}")


def _by_pydantic(annotation: Any) -> Loader:
    try:
        from pydantic import TypeAdapter
    except ImportError:
        raise Unsupported(
            f"{annotation!r} cannot be checked: use dict, a TypedDict or a dataclass, or install pydantic"
        ) from None
    return _pydantic(TypeAdapter(annotation).validate_python)


def _pydantic(validate: Callable[[Any], Any]) -> Loader:
    def load(value: Any, path: str) -> Any:
        try:
            return validate(value)
        except ValueError as error:  # pydantic's ValidationError is one
            raise InvalidInput(f"{path}: {error}") from error

    return load


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
