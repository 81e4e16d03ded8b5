"""Codes become variables: in one unit, within the plausible range, one value at a time; what is lost is counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from tfmmcl.cohorts.events.canonical import finite
from tfmmcl.cohorts.events.codes import matches
from tfmmcl.cohorts.events.settings import Variable

CODES = {
    "code": pl.String,
    "variable": pl.UInt16,
    "scale": pl.Float64,
    "offset": pl.Float64,
    "fixed": pl.Float64,
    "old": pl.List(pl.Float64),
    "new": pl.List(pl.Float64),
}
COUNTS = ("events", "values", "capped", "below", "above", "sharing", "untimed")


def code_table(variables: Mapping[str, Variable], codes: Iterable[str]) -> pl.DataFrame:
    """Returns which of the codes that occur make which variable (its position), and how; columns as in `CODES`.

    A code may serve several variables. Where several codes of one variable match, the first counts.
    """
    rows = []
    for code in sorted(codes):
        for position, variable in enumerate(variables.values()):
            item = next((item for item in variable.codes if matches(item.code, code)), None)
            if item is not None:
                old, new = (list(item.map), list(item.map.values())) if item.map else (None, None)
                rows.append((code, position, item.scale, item.offset, item.value, old, new))
    return pl.DataFrame(rows, CODES, orient="row")


def convert(events: pl.DataFrame, codes: pl.DataFrame) -> pl.DataFrame:
    """Returns the events of variables, in their units: `code` becomes `variable`, its position."""
    maps = codes.select("code", "variable", "new", value="old").explode("value", "new").drop_nulls()
    ways = codes.select(pl.exclude("old", "new"), mapped=pl.col("old").is_not_null())
    events = events.join(ways, on="code").join(maps, on=["code", "variable", "value"], how="left")
    number = finite(pl.col("value") * pl.col("scale") + pl.col("offset"))
    own = pl.when("mapped").then("new").otherwise(number)
    return events.select(
        "subject",
        "variable",
        "time",
        value=pl.coalesce("fixed", own),
        capped=pl.col("capped") & pl.col("fixed").is_null(),
    )


def merge(events: pl.DataFrame, variables: Mapping[str, Variable]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Keeps plausible values, and one event for each subject, variable and time, whatever the rows' order.

    Args:
        events: `subject`, `variable`, `time`, `value`, `capped`, in the variables' units.
        variables: The variables.

    Returns:
        `subject`, `variable`, `time` and `value`, sorted; the value is null where no event has a plausible one, else
        the mean of the distinct ones. And per `variable` how many events there were of which kind: `COUNTS`.
    """
    ranges = [variable.plausible or (None, None) for variable in variables.values()]
    limits = pl.DataFrame(
        [(position, *limit) for position, limit in enumerate(ranges)],
        {"variable": pl.UInt16, "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )
    key = ["subject", "variable", "time"]
    events = events.join(limits, on="variable").with_columns(
        below=(pl.col("value") < pl.col("low")).fill_null(False),
        above=(pl.col("value") > pl.col("high")).fill_null(False),
    )
    kept = (
        events.filter(pl.col("time").is_not_null())
        .with_columns(value=pl.when(~pl.col("below") & ~pl.col("above")).then("value"))
        .sort(key)
        .group_by(key, maintain_order=True)
        # Distinct, as some sources say the same twice; sorted, as a sum's last digits depend on its order.
        .agg(pl.col("value").unique().sort().mean(), rows=pl.len())
    )
    counts = events.group_by("variable").agg(
        pl.len().alias("events"),
        pl.col("value").count().alias("values"),
        pl.col("capped", "below", "above").sum(),
        pl.col("time").null_count().alias("untimed"),
    )
    sharing = kept.filter(pl.col("rows") > 1).group_by("variable").agg(sharing=pl.col("rows").sum())
    counts = counts.join(sharing, on="variable", how="left").with_columns(pl.col("sharing").fill_null(0))
    return kept.select(*key, "value"), counts.select("variable", pl.col(COUNTS).cast(pl.Int64))


def notes(variables: Mapping[str, Variable], counts: Iterable[pl.DataFrame]) -> list[str]:
    """Returns sentences on what was found, from the counts of `merge`."""
    total = pl.concat(counts).group_by("variable").sum()
    found = {row["variable"]: row for row in total.iter_rows(named=True)}
    sentences = []
    for position, (name, variable) in enumerate(variables.items()):
        if position in found:
            sentences += [f"{name}: {sentence}" for sentence in _sentences(variable, found[position])]
        else:
            codes = ", ".join(item.code for item in variable.codes)
            sentences.append(f"variable '{name}': none of its codes ({codes}) occurs in the events.")
    return sentences


def _sentences(variable: Variable, count: Mapping[str, int]) -> list[str]:
    events, values = f"{count['events']:,} events", f"{count['values']:,} values"
    low, high = variable.plausible or (0.0, 0.0)
    plausible = f"the plausible {low:g} to {high:g} {'' if variable.unit == '1' else variable.unit}".rstrip()
    without = count["events"] - count["values"]
    # Of an admission or a death, the event itself is what is wanted.
    wants_numbers = bool(count["values"] or variable.plausible or variable.unit != "1")
    lines = (
        (without if wants_numbers else 0, f"of {events} without a number."),
        (count["capped"], f"of {values}, such as '90+', read as the number before the plus sign."),
        (count["below"], f"of {values} below {plausible} became missing."),
        (count["above"], f"of {values} above {plausible} became missing."),
        (count["sharing"], f"of {events} share their time with another; the mean of their values is kept."),
        (count["untimed"], f"of {events} left out for want of a readable time."),
    )
    return [f"{number:,} {rest}" for number, rest in lines if number]
