"""Results and outputs that are dataclasses, models, named tuples or enums: what is stored of them, and the way back.

A value of such a class is stored as a dict, and only where an annotation says of what: so nothing comes back as another
type than it was. Everything else is the codec's.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

from durably_web import schema
from durably_web.errors import InvalidInput, NotSerializable
from durably_web.schema import Loader

_SCALARS = frozenset({str, int, float, bool, type(None)})

# What most functions say, as a type and as a text.
_SIMPLE = frozenset({None, Any, object, dict, list, str, int, float, bool, bytes, tuple, set})
_SIMPLE_TEXTS = frozenset({"None", "Any", "object", "dict", "list", "str", "int", "float", "bool", "bytes"})

_loaders: weakref.WeakKeyDictionary[Callable[..., Any], Loader | None] = weakref.WeakKeyDictionary()


def result_loader(fn: Any) -> Loader | None:
    """What builds a function's result of the plain value that is stored; `None` when that is the result itself.

    `None` too where nothing is annotated, or with a name that cannot be found.
    """
    kind = type(fn)
    if kind is not types.FunctionType:
        if kind is types.MethodType:
            return result_loader(fn.__func__)
        if kind is functools.partial:
            return result_loader(fn.func)
        if isinstance(fn, type):
            return _loader_of_class(fn)
        fn = getattr(kind, "__call__", None)  # noqa: B004 — the function, not whether there is one
        if type(fn) is not types.FunctionType:
            return None
    try:
        annotation = fn.__annotations__.get("return")
    except NameError:
        annotation = schema.annotations_of(fn).get("return")
    if annotation is None or (type(annotation) is str and annotation in _SIMPLE_TEXTS):
        return None
    try:
        if annotation in _SIMPLE:
            return None
    except TypeError:
        # It has no hash, so it is none of these.
        pass
    try:
        return _loaders[fn]
    except KeyError:
        found = _loaders[fn] = _loader_of(fn)
        return found


def _loader_of(fn: Callable[..., Any]) -> Loader | None:
    try:
        annotation = schema.annotation_of(fn, "return")
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is not None and args and origin in (Awaitable, Coroutine):
            annotation = args[-1]
        return schema.loader(annotation, lenient=True) if names_a_shape(annotation) else None
    except Exception:
        # A name that exists only for a type checker, or something that only one of them understands.
        return None


@functools.cache
def _loader_of_class(kind: type) -> Loader | None:
    """Calling a class gives one of its own."""
    try:
        return schema.loader(kind, lenient=True) if names_a_shape(kind) else None
    except Exception:
        return None


def names_a_shape(annotation: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Whether an annotation names a class whose values are not what is stored of them."""
    annotation = schema.unwrapped(annotation)
    if annotation in seen:
        return False
    if isinstance(annotation, type):
        if is_typeddict(annotation):
            return any(names_a_shape(hint, (*seen, annotation)) for hint in get_type_hints(annotation).values())
        if _is_shape(annotation):
            return True
    if get_origin(annotation) is typing.Literal:
        return False
    return any(names_a_shape(arg, seen) for arg in get_args(annotation) if not isinstance(arg, list))


def _is_shape(kind: type) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or schema.is_model(kind)
        or schema.is_named_tuple(kind)
        or issubclass(kind, enum.Enum)
    )


def plain(value: Any, loader: Loader, path: str = "value") -> Any:
    """What is stored of `value`; that `loader` builds the same of it is checked. Raises `NotSerializable`."""
    dumped = dump(value)
    try:
        built = loader(dumped, path)
    except InvalidInput as error:
        raise NotSerializable(f"it is not what its annotation says: {error}") from error
    if found := difference(value, built, path) or difference(built, value, path, back=True):
        raise NotSerializable(f"it is not what its annotation says: {found}")
    return dumped


# -- taking apart ----------------------------------------------------------------------------------------


def dump(value: Any) -> Any:
    """`value` with dataclasses, models, named tuples and enums as dicts, tuples and their values, however deep."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is list:
        return [dump(item) for item in value]
    if isinstance(value, enum.Enum):
        return dump(value.value)
    if _is_shape(kind):
        if schema.is_model(kind):
            return _dump_leaves(value.model_dump(round_trip=True))
        if isinstance(value, tuple):
            return tuple([dump(item) for item in value])
        return _dump_leaves({name: dump(part) for name, part in _parts(value).items()})
    if isinstance(value, dict):
        return {_dump_key(key): dump(item) for key, item in value.items()}
    if kind is tuple:
        return tuple([dump(item) for item in value])
    if kind is set or kind is frozenset:
        items = [dump(item) for item in value]
        # A dict is in no set; the annotation makes one of the list.
        return items if any(type(item) is dict for item in items) else kind(items)
    return value


def _dump_key(key: Any) -> Any:
    return key if type(key) is str or dataclasses.is_dataclass(key) or schema.is_model(type(key)) else dump(key)


def _dump_leaves(value: Any) -> Any:
    """The same, with what only pydantic knows (addresses, paths) as it would write it into JSON."""
    kind = type(value)
    if kind in _SCALARS or kind.__module__ in ("datetime", "decimal", "uuid"):
        return value
    if kind is dict:
        return {_dump_key(key): _dump_leaves(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind([_dump_leaves(item) for item in value])
    if isinstance(value, enum.Enum) or _is_shape(kind) or kind.__module__ == "builtins":
        return dump(value)
    return _dump_leaf(value)


def _dump_leaf(value: Any) -> Any:
    try:
        adapter = _adapter(cast(Any, type(value)))
        written = adapter.dump_python(value, mode="json")
        return written if adapter.validate_python(written) == value else value
    except Exception:
        # The codec will say that it cannot be stored, and where it is.
        return value


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _parts(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that its constructor takes, or those of a model."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}


# -- is it the same again? -------------------------------------------------------------------------------


def difference(value: Any, built: Any, path: str, *, back: bool = False) -> str | None:
    """Where something of one of these classes in `value` is of another class in `built`; `None` when nowhere."""
    kind = type(value)
    if kind in _SCALARS:
        return None
    if _is_shape(kind):
        if type(built) is not kind:
            # An enum that is a text or a number counts as that.
            if isinstance(value, enum.Enum) and isinstance(value, str | int | float):
                return None
            was, is_now = (type(built), kind) if back else (kind, type(built))
            return f"{path} is a {was.__name__}, and would come back as a {is_now.__name__}"
        if isinstance(value, enum.Enum):
            return None
        if not isinstance(value, tuple):
            value, built = _parts(value), _parts(built)
    if isinstance(value, dict) and isinstance(built, dict):
        for key in value.keys() & built.keys():
            if found := difference(value[key], built[key], f"{path}[{key!r}]", back=back):
                return found
    elif isinstance(value, list | tuple) and isinstance(built, list | tuple):
        for index, (one, other) in enumerate(zip(value, built, strict=False)):
            if found := difference(one, other, f"{path}[{index}]", back=back):
                return found
    elif isinstance(value, set | frozenset) and isinstance(built, set | frozenset):
        return _difference_of_sets(cast("set[Any]", value), cast("set[Any]", built), path)
    return None


def _difference_of_sets(value: set[Any], built: set[Any], path: str) -> str | None:
    for kind in {type(item) for item in value}:
        if _is_shape(kind) and kind not in {type(item) for item in built}:
            return f"{path} holds a {kind.__name__}, and would come back without"
    return None
