"""What an annotation asks of a value: checking JSON against it, and building what it names.

`dict`, `TypedDict`, dataclasses, named tuples, enums, what the codec knows, `list`, `dict`, `tuple`, `set`, `Literal`
and unions are handled here; pydantic models by themselves; anything else by pydantic, where it is installed.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from durably_web.errors import InvalidInput

Loader = Callable[[Any, str], Any]
"""Checks a decoded value found at a path, and gives what the annotation names. Raises `InvalidInput`."""


class Unsupported(TypeError):
    """The annotation cannot be checked without pydantic."""


def loader(annotation: Any, *, lenient: bool = False) -> Loader:
    """The loader for an annotation. Raises `Unsupported`; a lenient one takes what it cannot check as it is."""
    return _Builder(lenient).build(annotation)


class _Builder:
    """Makes the loaders of one annotation and of all that it names, which may name each other."""

    def __init__(self, lenient: bool) -> None:
        self._lenient = lenient
        self._made: dict[Any, list[Loader]] = {}

    def build(self, annotation: Any) -> Loader:
        annotation = unwrapped(annotation)
        if annotation is Any or annotation is object:
            return _anything
        if is_model(annotation):
            return _pydantic(annotation.model_validate)
        if annotation in _PLAIN:
            return _plain(annotation)
        if isinstance(annotation, type):
            if is_typeddict(annotation) or dataclasses.is_dataclass(annotation) or is_named_tuple(annotation):
                return self._once(annotation)
            if issubclass(annotation, enum.Enum):
                return _enum(annotation)
            if (annotation.__module__, annotation.__qualname__) in _NATIVE:
                return _native(annotation)
        return self._generic(annotation)

    def _generic(self, annotation: Any) -> Loader:
        origin, args = get_origin(annotation) or annotation, get_args(annotation)
        if origin in (list, Sequence) and args:
            return _list(self.build(args[0]))
        if origin in (set, frozenset, Set):
            return _set(set if origin is Set else origin, self.build(args[0]) if args else _anything)
        if origin is tuple:
            if len(args) == 2 and args[1] is Ellipsis:
                return _tuple(self.build(args[0]), None)
            return _tuple(_anything, [self.build(arg) for arg in args] if args else None)
        if origin in (dict, Mapping) and args:
            return _dict(None if args[0] is str else self.build(args[0]), self.build(args[1]))
        if origin is typing.Literal:
            return _literal(args)
        if origin in (Union, types.UnionType):
            return _union([(arg, self.build(arg)) for arg in args])
        if origin in (typing.Required, typing.NotRequired):
            return self.build(args[0])
        try:
            return _by_pydantic(annotation)
        except Exception as error:
            # pydantic has an error of its own for what it cannot check.
            if self._lenient:
                return _anything
            if isinstance(error, Unsupported):
                raise
            raise Unsupported(f"{annotation!r} cannot be checked: {error}") from error

    def _once(self, annotation: Any) -> Loader:
        """One that may name itself: its loader is found when it is needed."""
        made = self._made.get(annotation)
        if made is None:
            made = self._made[annotation] = []
            hints = get_type_hints(annotation)
            if is_typeddict(annotation):
                fields = {name: self.build(hint) for name, hint in hints.items()}
                made.append(_typed_dict(annotation, fields))
            elif dataclasses.is_dataclass(annotation):
                declared = [field.name for field in dataclasses.fields(annotation) if field.init]
                made.append(_dataclass(annotation, {name: self.build(hints[name]) for name in declared}))
            else:
                fields = {name: self.build(hints.get(name, Any)) for name in annotation._fields}
                made.append(_named_tuple(annotation, fields))
        return made[0] if made else lambda value, path: made[0](value, path)


def unwrapped(annotation: Any) -> Any:
    """What a name for a type (`type X = …`, `NewType`) stands for."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def is_model(annotation: Any) -> bool:
    return hasattr(annotation, "__pydantic_validator__") and hasattr(annotation, "model_validate")


def is_named_tuple(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields")


def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """A function's annotations as they stand, the names in them found or not."""
    try:
        return fn.__annotations__
    except NameError:
        # Python 3.14 looks them up only now, and all at once.
        import annotationlib  # type: ignore[import-not-found, unused-ignore]

        found: dict[str, Any] = annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF)
        return found


def annotation_of(fn: Callable[..., Any], name: str) -> Any:
    """What a function's parameter, or its "return", is annotated with; `Any` without. Raises NameError."""
    annotations = annotations_of(fn)
    if name not in annotations:
        return Any

    def holder() -> None: ...

    # Only this one: the others may name what exists only for a type checker.
    holder.__annotations__ = {name: annotations[name]}
    fn = inspect.unwrap(fn)
    code, cells = getattr(fn, "__code__", None), getattr(fn, "__closure__", None)
    local = {}
    if code is not None and cells is not None:
        for variable, cell in zip(code.co_freevars, cells, strict=True):
            try:
                local[variable] = cell.cell_contents
            except ValueError:
                # Not set yet.
                continue
    return get_type_hints(holder, getattr(fn, "__globals__", {}), local)[name]


# -- one loader for each kind ----------------------------------------------------------------------------


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


# What the codec gives back as it was, and how it looks when a page has sent it.
_NATIVE: dict[tuple[str, str], tuple[str, tuple[type, ...], Callable[[Any, Any], Any]]] = {
    ("datetime", "datetime"): ("ISO 8601 text", (str,), lambda kind, text: kind.fromisoformat(text)),
    ("datetime", "date"): ("ISO 8601 text", (str,), lambda kind, text: kind.fromisoformat(text)),
    ("datetime", "time"): ("ISO 8601 text", (str,), lambda kind, text: kind.fromisoformat(text)),
    ("datetime", "timedelta"): ("a number of seconds", (int, float), lambda kind, seconds: kind(seconds=seconds)),
    ("decimal", "Decimal"): ("a number or text", (str, int, float), lambda kind, number: kind(str(number))),
    ("uuid", "UUID"): ("text", (str,), lambda kind, text: kind(text)),
    ("builtins", "bytes"): ("base64 text", (str,), lambda kind, text: _bytes(text)),
}


def _bytes(text: str) -> bytes:
    from durably_web.tagging import read_bytes

    return read_bytes(text)


def _native(annotation: type) -> Loader:
    looks, accepted, read = _NATIVE[annotation.__module__, annotation.__qualname__]
    name = annotation.__name__

    def load(value: Any, path: str) -> Any:
        # A datetime is a date in Python, and nowhere else.
        if isinstance(value, annotation) and (name != "date" or not hasattr(value, "hour")):
            return value
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise InvalidInput(f"{path} must be {name}, or {looks}, not {_name(value)}")
        try:
            return read(annotation, value)
        except (ValueError, ArithmeticError):
            raise InvalidInput(f"{path} must be {name}, or {looks}, not {value!r}") from None

    return load


def _enum(annotation: type[enum.Enum]) -> Loader:
    def load(value: Any, path: str) -> Any:
        try:
            return annotation(value)
        except (ValueError, TypeError):
            choices = ", ".join(repr(member.value) for member in annotation)
            raise InvalidInput(f"{path} must be one of {choices}, not {value!r}") from None

    return load


def _list(item: Loader) -> Loader:
    def load(value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple):
            raise InvalidInput(f"{path} must be a list, not {_name(value)}")
        return [item(part, f"{path}[{index}]") for index, part in enumerate(value)]

    return load


def _set(kind: Callable[[list[Any]], Any], item: Loader) -> Loader:
    def load(value: Any, path: str) -> Any:
        if not isinstance(value, list | set | frozenset):
            raise InvalidInput(f"{path} must be a set or a list, not {_name(value)}")
        try:
            return kind([item(part, f"{path}[…]") for part in value])
        except TypeError as error:
            raise InvalidInput(f"{path}: {error}") from None

    return load


def _tuple(item: Loader, items: list[Loader] | None) -> Loader:
    def load(value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple):
            raise InvalidInput(f"{path} must be a list of {len(items) if items else 'any'} items, not {_name(value)}")
        if items is not None and len(items) != len(value):
            raise InvalidInput(f"{path} must have {len(items)} items, not {len(value)}")
        loaders = items or [item] * len(value)
        return tuple(one(value[index], f"{path}[{index}]") for index, one in enumerate(loaders))

    return load


def _dict(key: Loader | None, item: Loader) -> Loader:
    def load(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise InvalidInput(f"{path} must be a dict, not {_name(value)}")
        if key is None:
            return {name: item(part, f"{path}[{name!r}]") for name, part in value.items()}
        return {load_key(name, path): item(part, f"{path}[{name!r}]") for name, part in value.items()}

    def load_key(name: Any, path: str) -> Any:
        assert key is not None
        try:
            return key(name, f"the key {name!r} of {path}")
        except InvalidInput:
            # A page can only send texts.
            if type(name) is not str or not name.removeprefix("-").isdecimal():
                raise
            return key(int(name), f"the key {name!r} of {path}")

    return load


def _literal(choices: tuple[Any, ...]) -> Loader:
    def load(value: Any, path: str) -> Any:
        if value not in choices:
            raise InvalidInput(f"{path} must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return value

    return load


def _union(members: list[tuple[Any, Loader]]) -> Loader:
    # What is one of the members already stays that: in `datetime | str` a text is a text, whatever it looks like.
    exact = {annotation: one for annotation, one in members if isinstance(annotation, type)}

    def load(value: Any, path: str) -> Any:
        complaints = []
        own = exact.get(type(value))
        for one in [own] if own is not None else [one for _, one in members]:
            try:
                return one(value, path)
            except InvalidInput as error:
                complaints.append(str(error))
        raise InvalidInput("; or ".join(dict.fromkeys(complaints)))

    return load


def _typed_dict(annotation: Any, fields: dict[str, Loader]) -> Loader:
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


def _dataclass(annotation: Any, fields: dict[str, Loader]) -> Loader:
    missing = dataclasses.MISSING
    required = {
        field.name
        for field in dataclasses.fields(annotation)
        if field.init and field.default is missing and field.default_factory is missing
    }

    def load(value: Any, path: str) -> Any:
        _check_keys(value, path, fields, required)
        arguments = {name: fields[name](part, f"{path}[{name!r}]") for name, part in value.items()}
        try:
            return annotation(**arguments)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{path}: {error}") from error

    return load


def _named_tuple(annotation: Any, fields: dict[str, Loader]) -> Loader:
    required = fields.keys() - annotation._field_defaults.keys()

    def load(value: Any, path: str) -> Any:
        if isinstance(value, list | tuple):
            if len(value) != len(fields):
                raise InvalidInput(f"{path} must have {len(fields)} items, not {len(value)}")
            value = dict(zip(fields, value, strict=True))
        _check_keys(value, path, fields, required)
        return annotation(**{name: fields[name](part, f"{path}[{name!r}]") for name, part in value.items()})

    return load


def _check_keys(value: Any, path: str, fields: Mapping[str, Loader], required: Set[str]) -> None:
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


def _pydantic(validate: Callable[..., Any]) -> Loader:
    # A page uses the aliases, and what was stored has the names of the fields.
    names = {"by_alias": True, "by_name": True} if "by_name" in inspect.signature(validate).parameters else {}

    def load(value: Any, path: str) -> Any:
        try:
            return validate(value, **names)
        except ValueError as error:  # pydantic's ValidationError is one
            raise InvalidInput(f"{path}: {error}") from error

    return load


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
