"""Check of a condition that a user writes: one expression over known columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.errors import InputError, one_line, suggest

_MAX_LENGTH = 1000

# Classes of nodes of DuckDB's syntax tree; TYPE is that of a cast. Subqueries, windows, lambdas, parameters and the star are not
# among them.
_CLASSES = frozenset({"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "BETWEEN", "CASE", "CAST", "TYPE"})
_OPERATORS = frozenset(
    {"OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE", "OPERATOR_NULLIF"}
)
# Functions that read their arguments alone, and whose result is not longer than they are.
_FUNCTIONS = frozenset(
    {"+", "-", "*", "/", "//", "%", "~~", "!~~", "~~*", "!~~*", "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"}
    | {"lower", "upper", "trim", "length", "contains", "starts_with", "prefix", "ends_with", "suffix"}
    | {"abs", "round", "floor", "ceil", "sqrt", "ln", "log10", "exp", "greatest", "least", "isnan", "isfinite", "isinf"}
)


def check_expression(text: str, columns: Sequence[str], serialise: Callable[[str], str], source: str) -> str:
    """Return the expression in parentheses, as a condition of SQL.

    DuckDB's parser reads it; every node of its tree must be among the allowed ones. It reads nothing but the columns.

    Args:
        columns: that it may name.
        serialise: returns DuckDB's `json_serialize_sql` of a query.
        source: of the text, such as an option of the command line, for errors.

    Raises:
        InputError: if it is not one expression of allowed parts over the columns.
    """

    def refused(reason: str) -> InputError:
        return InputError(f"{source} {one_line(Exception(text), 100)!r}: {reason}")

    if not text.strip():
        raise InputError(f"{source}: the condition is empty")
    if len(text) > _MAX_LENGTH:
        raise InputError(f"{source}: it has more than {_MAX_LENGTH} characters; write a shorter one")
    condition = f"({text}\n)"  # the line break ends a comment, which would hide the parenthesis
    tree = json.loads(serialise(f"SELECT 1 FROM t WHERE {condition}"))  # noqa: S608 - it is parsed, not run
    if tree.get("error"):
        reason = one_line(Exception(tree.get("error_message", "it cannot be read")), 200)
        raise refused(f"{reason}; write an expression such as probability > 0.9 and class_name = 'wren'")
    node = _only_condition(tree)
    if node is None:
        raise refused("it is more than one expression")
    known = {name.lower() for name in columns}
    for each in _expressions(node):
        kind, type_ = each["class"], each.get("type", "")
        if kind == "FUNCTION":
            if each["function_name"].lower() not in _FUNCTIONS or each.get("schema") or each.get("catalog"):
                raise refused(f"the function {each['function_name']} is not allowed")
        elif kind == "OPERATOR":
            if type_ not in _OPERATORS:
                raise refused(f"{type_.lower()} is not allowed")
        elif kind not in _CLASSES:
            raise refused(f"{kind.lower()} is not allowed; write one expression over the columns")
        elif kind == "COLUMN_REF":
            names = each["column_names"]
            if len(names) != 1 or names[0].lower() not in known:
                raise refused(f"no column {'.'.join(names)}{suggest(names[-1], columns)}; text stands in single quotes")
    return condition


def _only_condition(tree: dict[str, Any]) -> dict[str, Any] | None:
    """Return the condition of the only, plain SELECT; None if there is more."""
    statements = tree.get("statements", [])
    node = statements[0].get("node", {}) if len(statements) == 1 else {}
    plain = node.get("type") == "SELECT_NODE" and not node.get("modifiers") and not node.get("cte_map", {}).get("map")
    table = node.get("from_table") or {}
    plain = plain and table.get("type") == "BASE_TABLE" and table.get("table_name") == "t"
    plain = plain and not any(node.get(key) for key in ("group_expressions", "group_sets", "having", "sample", "qualify"))
    condition = node.get("where_clause")
    if not plain or not isinstance(condition, dict) or statements[0].get("named_param_map"):
        return None
    return condition


def _expressions(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a syntax tree that are expressions."""
    if isinstance(value, dict):
        if "class" in value:
            yield value
        for each in value.values():
            yield from _expressions(each)
    elif isinstance(value, list):
        for each in value:
            yield from _expressions(each)
