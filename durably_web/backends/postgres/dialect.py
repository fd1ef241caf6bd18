"""The store's SQL, which is SQLite's, as PostgreSQL reads it.

What a rule can say is said here; `edits` has what is to be different in one place. Both know only what the store uses:
a statement with something else in it may fail on the server, and never means something else there.

Text of the store is sorted by its bytes, as in SQLite, whatever the database's own order is. An integer has 64 bits.
What is true is `true`, not 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

from durably_web.backends.postgres.edits import edited


class Group(list["Node"]):
    """The nodes between two parentheses; `called` right behind a word, as those of a function."""

    called = False


Node = str | Group
"""A word of SQL, or more."""

_WORD = re.compile(
    r"\s+|--[^\n]*|('(?:[^']|'')*'|\"[^\"]*\"|\$\d+|\d[\d.]*(?:[eE][+-]?\d+)?|\w+(?:\.(?:\w+|\*))*"
    r"|<=|>=|<>|!=|\|\||::|->>|->|#>>|.)",
    re.DOTALL,
)

# What is not text in the JSON of the store's statements.
_TYPES = {
    "runs": "BIGINT",
    "perKey": "BIGINT",
    "rate": "BIGINT",
    "period": "BIGINT",
    "ratePerKey": "BOOLEAN",
    "wakeAt": "BIGINT",
    "paused": "BIGINT",
}

_TABLES = "(SELECT 'table' AS type, tablename AS name FROM pg_tables WHERE schemaname = current_schema())"


@lru_cache(maxsize=1024)
def translate(sql: str) -> str:
    """The same statement for PostgreSQL, with `$1` for the first `?`, and so on."""
    return _text(_rewritten(_parsed(edited(sql))))


def _parsed(sql: str) -> list[Node]:
    stack = [Group()]
    parameters = 0
    for match in _WORD.finditer(sql):
        word = match[1]
        if word is None:
            continue
        if word == "(":
            group = Group()
            group.called = sql[match.start() - 1 : match.start()].isalnum()
            stack.append(group)
        elif word == ")" and len(stack) > 1:
            group = stack.pop()
            stack[-1].append(group)
        elif word == "?":
            parameters += 1
            stack[-1].append(f"${parameters}")
        else:
            stack[-1].append(word)
    while len(stack) > 1:
        # Not SQL at all, and the server says so.
        group = stack.pop()
        stack[-1] += ["(", *group]
    return stack[0]


def _text(nodes: Sequence[Node]) -> str:
    parts: list[str] = []
    for node in nodes:
        text = node if isinstance(node, str) else f"({_text(node)})"
        glued = text in (",", "::") or (parts and parts[-1] == "::") or (isinstance(node, Group) and node.called)
        parts.append(text if glued or not parts else f" {text}")
    return "".join(parts)


def _rewritten(nodes: list[Node]) -> list[Node]:
    if _words(nodes, 0, "CREATE") or _words(nodes, 0, "ALTER"):
        return _definition(nodes)
    out: list[Node] = []
    at = 0
    while at < len(nodes):
        length = 1
        for rule in _RULES:
            found = rule(nodes, at)
            if found is not None:
                new, length = found
                out += new
                break
        else:
            node = nodes[at]
            out.append(node if isinstance(node, str) else _within(node))
        at += length
    return out


def _within(node: Node) -> Group:
    """The same parentheses, with what the rules make of what is in them."""
    group = _group(node)
    found = Group(_rewritten(group))
    found.called = group.called
    return found


def _group(node: Node) -> Group:
    assert isinstance(node, Group), node
    return node


def _inner(node: Node) -> str:
    return _text(_rewritten(_group(node)))


def _words(nodes: Sequence[Node], at: int, *words: str) -> bool:
    """Whether these words are at that place. `$` stands for any parameter, and `()` for parentheses."""
    if at + len(words) > len(nodes):
        return False
    for node, word in zip(nodes[at:], words, strict=False):
        if isinstance(node, Group):
            if word != "()":
                return False
        elif node.upper() != word.upper() and not (word == "$" and node[0] == "$"):
            return False
    return True


def _arguments(group: Node) -> list[list[Node]]:
    found: list[list[Node]] = [[]]
    for node in _group(group):
        if node == ",":
            found.append([])
        else:
            found[-1].append(node)
    return found


# -- rules: what is at this place of these nodes becomes that, and takes so many of them; or it is not the rule's ------

_Found = tuple[list[Node], int] | None


def _listed(nodes: list[Node], at: int) -> _Found:
    """The values of a list: once, not for each row."""
    start = at + _words(nodes, at, "NOT")
    if not _words(nodes, start, "IN", "()"):
        return None
    group = _group(nodes[start + 1])
    if len(group) != 5 or not _words(group, 0, "SELECT", "value", "FROM", "json_each", "()"):
        return None
    given = _inner(group[4])
    operator = "<> ALL" if start > at else "= ANY"
    return [f"{operator} (ARRAY(SELECT json_array_elements_text(({given})::JSON)))"], start + 2 - at


def _json_each(nodes: list[Node], at: int) -> _Found:
    """The rows of an array, each as text (`value`) and as it is (`element`); or the members of an object."""
    if not _words(nodes, at, "json_each", "()"):
        return None
    given = _inner(nodes[at + 1])
    name, length = "each", 2
    if _words(nodes, at + 2, "AS"):
        name, length = str(nodes[at + 3]), 4
    if "key" in nodes or f"{name}.key" in nodes:
        return [f"json_each_text(({given})::JSON) AS {name}"], length
    rows = (
        f"LATERAL (SELECT (e.element #>> '{{}}') COLLATE \"C\" AS value, e.element "
        f"FROM json_array_elements(({given})::JSON) AS e (element)) AS {name}"
    )
    return [rows], length


def _json_extract(nodes: list[Node], at: int) -> _Found:
    if not _words(nodes, at, "json_extract", "()"):
        return None
    [source], [path] = _arguments(nodes[at + 1])
    word = str(source)
    table, _, column = word.rpartition(".")
    value = f"({word})::JSON" if column != "value" else f"{table}.element" if table else "element"
    member = str(path).strip("'").removeprefix("$").removeprefix(".")
    if member.startswith("["):
        return [f"({value} ->> {member[1:-1]})"], 2
    text = f"({value} ->> '{member}')"
    return [f"{text}::{_TYPES[member]}" if member in _TYPES else text], 2


def _json_object(nodes: list[Node], at: int) -> _Found:
    """To the letter what SQLite makes of it: the same entry is the same text in every database."""
    if not _words(nodes, at, "json_object", "()"):
        return None
    arguments = _arguments(nodes[at + 1])
    parts: list[str] = []
    for number, (key, value) in enumerate(zip(arguments[::2], arguments[1::2], strict=True)):
        parts.append(f"'{',' if number else '{'}{json.dumps(str(key[0]).strip(chr(39)))}:'")
        parts.append(_as_json(value))
    return [f"concat({', '.join(parts)}, '}}')"], 2


def _as_json(value: list[Node]) -> str:
    if len(value) == 1 and str(value[0]).startswith("'"):
        return f"'{json.dumps(str(value[0])[1:-1])}'"
    if _words(value, 0, "json", "()"):
        return _inner(value[1])
    text = _text(_rewritten(value))
    if len(value) == 1 and text.startswith("$"):
        text += "::TEXT"
    # In JSON, what `nulls` makes of a U+0000 is an escape.
    return f"coalesce(replace(to_json({text})::TEXT, chr(64976), '\\ufdd0'), 'null')"


def _exists(nodes: list[Node], at: int) -> _Found:
    """Looked up for each row, by the index that is there for it. Without an offset, the planner may take it for a join,
    or read all there is beforehand, as it seems cheap while tables are small."""
    if not _words(nodes, at, "EXISTS", "()"):
        return None
    group = _within(nodes[at + 1])
    return ["EXISTS", group if "OFFSET" in group else Group([*group, "OFFSET 0"])], 2


def _least(nodes: list[Node], at: int) -> _Found:
    for name, function in (("min", "least"), ("max", "greatest")):
        if _words(nodes, at, name, "()") and len(_arguments(nodes[at + 1])) > 1:
            return [function, _within(nodes[at + 1])], 2
    return None


def _limit(nodes: list[Node], at: int) -> _Found:
    if not _words(nodes, at, "LIMIT", "$"):
        return None
    return [f"LIMIT nullif({nodes[at + 1]}::BIGINT, -1)"], 2


def _is(nodes: list[Node], at: int) -> _Found:
    if _words(nodes, at, "IS", "NOT", "$"):
        return ["IS DISTINCT FROM"], 2
    if _words(nodes, at, "IS", "$"):
        return ["IS NOT DISTINCT FROM"], 1
    if _words(nodes, at, "$", "IS"):
        # Nothing else tells the type of what is only asked whether it is there.
        return [f"{nodes[at]}::TEXT"], 1
    return None


def _unnamed(nodes: list[Node], at: int) -> _Found:
    """Before version 16, every query in a FROM has to have a name."""
    if (
        not _words(nodes, at, "FROM", "()")
        or not _words(_group(nodes[at + 1]), 0, "SELECT")
        or _words(nodes, at + 2, "AS")
    ):
        return None
    return ["FROM", _within(nodes[at + 1]), "AS unnamed"], 2


def _tables(nodes: list[Node], at: int) -> _Found:
    return ([f"{_TABLES} AS tables"], 1) if _words(nodes, at, "sqlite_master") else None


def _integer(nodes: list[Node], at: int) -> _Found:
    return (["BIGINT"], 1) if _words(nodes, at, "INTEGER") else None


_RULES = (_listed, _json_each, _json_extract, _json_object, _exists, _least, _limit, _is, _unnamed, _tables, _integer)


def _definition(nodes: Sequence[Node]) -> Group:
    out = Group()
    for node in nodes:
        if isinstance(node, Group):
            out.append(_definition(node))
        else:
            out.append(
                {"INTEGER": "BIGINT", "REAL": "FLOAT8", "BLOB": "BYTEA", "TEXT": 'TEXT COLLATE "C"'}.get(node, node)
            )
    while out and out[-1] in ("STRICT", "WITHOUT", "ROWID", ","):
        out.pop()
    return out
