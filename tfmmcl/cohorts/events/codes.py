"""Patterns of codes: `*` stands for anything, all else for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

import polars as pl


def expression(pattern: str) -> str:
    """Returns the regular expression that the same codes match."""
    return "(?s)^" + ".*".join(re.escape(part) for part in pattern.split("*")) + r"\z"


def matches(pattern: str, code: str) -> bool:
    """Whether a code is among those that a pattern stands for."""
    return re.match(expression(pattern).replace(r"\z", r"\Z"), code) is not None


def may_begin(pattern: str, prefix: str) -> bool:
    """Whether a pattern stands for some code that begins with `prefix`."""
    literal, star, _ = pattern.partition("*")
    return literal.startswith(prefix) or (bool(star) and prefix.startswith(literal))


def wanted(code: pl.Expr, patterns: Iterable[str]) -> pl.Expr:
    """Returns whether a column's codes are among those that any of the patterns stands for."""
    patterns = set(patterns)
    exact = sorted(pattern for pattern in patterns if "*" not in pattern)
    return pl.any_horizontal(
        code.is_in(exact), *(code.str.contains(expression(pattern)) for pattern in sorted(patterns.difference(exact)))
    )
