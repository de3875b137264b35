"""Reads the tables `calls` and `calls_1m` as anybody can, with Polars, and prints what is in them.

    read_delta.py LAKE_DIR [TOOL NOW_US]

LAKE_DIR is the folder `lake` of a data folder. One JSON object goes to stdout:

    rows            all rows
    tools           by tool name, of the counted rows of kind `tool`: attempts, final, errors, final_errors
    duration_ns     sum over the same rows
    cost_usd        sum over the same rows, decimal; null if nothing is priced
    columns         names, in order
    minutes         tools, duration_ns and cost_usd again, from the sums of `calls_1m`

and with TOOL and an instant, in microseconds since 1970, of the counted attempts of this tool:

    windows         by window, which ends with the minute of NOW_US, from `calls` and `calls_1m`: [good, bad] of `attempts`, and of
                    `calls`, which are the last attempts; from `slo_1m`: [good, bad] by SLO and revision
    quantiles_ns    50th, 90th, 95th and 99th percentile of their durations, by nearest rank

Exit code 1, with a message, if the table cannot be read.
"""

import json
import sys
from pathlib import Path

import polars as pl


def sums_of(minutes: pl.DataFrame) -> dict:
    """The figures of rows of sums: several may have one key."""
    number, failed = pl.col("calls"), pl.col("outcome") == "error"
    by_tool = minutes.group_by("tool_name").agg(
        attempts=number.sum(),
        final=number.filter(pl.col("final")).sum(),
        errors=number.filter(failed).sum(),
        final_errors=number.filter(failed & pl.col("final")).sum(),
    )
    priced = minutes["cost_usd"].drop_nulls()
    return {
        "tools": {row.pop("tool_name"): row for row in by_tool.sort("tool_name").to_dicts()},
        "duration_ns": int(minutes["duration_ns_sum"].sum()),
        "cost_usd": format(priced.sum(), "f") if priced.len() else None,
    }


MINUTE_US = 60_000_000
# Windows in minutes.
WINDOWS = {"5m": 5, "30m": 30, "1h": 60, "2h": 120, "6h": 360, "1d": 1440, "3d": 3 * 1440, "30d": 30 * 1440}


def good_and_bad(rows: pl.DataFrame, number: pl.Expr) -> list[int]:
    """How many went well, and how many did not."""
    failed = pl.col("outcome") == "error"
    sums = rows.select(good=number.filter(~failed).sum(), bad=number.filter(failed).sum())
    return [int(sums["good"][0]), int(sums["bad"][0])]


def windows_of(calls: pl.DataFrame, minutes: pl.DataFrame, slos: pl.DataFrame, now_us: int) -> dict:
    """The counts of each window, from three tables."""
    running = now_us - now_us % MINUTE_US
    one = pl.col("duration_ns").is_not_null().cast(pl.Int64)
    windows = {}
    for name, length in WINDOWS.items():

        def within(table: pl.DataFrame, column: str) -> pl.DataFrame:
            at = pl.col(column).cast(pl.Int64)
            return table.filter((at >= running - length * MINUTE_US) & (at < running + MINUTE_US))

        rows, sums, cached = within(calls, "end_time"), within(minutes, "minute"), within(slos, "minute")
        by_slo: dict = {}
        for row in cached.group_by("slo", "slo_revision").agg(pl.col("good", "bad").sum()).to_dicts():
            by_slo.setdefault(row["slo"], {})[row["slo_revision"]] = [row["good"], row["bad"]]
        windows[name] = {
            "calls": {
                "attempts": good_and_bad(rows, one),
                "calls": good_and_bad(rows.filter("final"), one),
            },
            "calls_1m": {
                "attempts": good_and_bad(sums, pl.col("calls")),
                "calls": good_and_bad(sums.filter("final"), pl.col("calls")),
            },
            "slo_1m": by_slo,
        }
    return windows


def quantiles_of(durations: list[int]) -> list[int]:
    """Percentiles by nearest rank, in integers."""
    ranked = sorted(durations)
    return [ranked[max(-(-len(ranked) * percent // 100), 1) - 1] for percent in (50, 90, 95, 99)]


def main() -> int:
    if len(sys.argv) not in (2, 4):
        print("usage: read_delta.py LAKE_DIR [TOOL NOW_US]", file=sys.stderr)
        return 2
    tables = []
    for name in ("calls", "calls_1m", "slo_1m")[: 2 if len(sys.argv) == 2 else 3]:
        table = Path(sys.argv[1]) / name
        try:
            tables.append(pl.read_delta(str(table)))
        except Exception as error:  # Whatever the reason, the caller wants it in one line.
            reason = " ".join(str(error).split())
            print(f'read_delta: read table "{table}": {type(error).__name__}: {reason}', file=sys.stderr)
            return 1
    calls, minutes, *rest = tables
    counted = calls.filter((pl.col("kind") == "tool") & pl.col("counted"))
    failed = pl.col("outcome") == "error"
    by_tool = counted.group_by("tool_name").agg(
        attempts=pl.len(),
        final=pl.col("final").sum(),
        errors=failed.sum(),
        final_errors=(failed & pl.col("final")).sum(),
    )
    priced = counted["cost_usd"].drop_nulls()
    answer = {
        "rows": calls.height,
        "tools": {row.pop("tool_name"): row for row in by_tool.sort("tool_name").to_dicts()},
        "duration_ns": int(counted["duration_ns"].sum()),
        "cost_usd": format(priced.sum(), "f") if priced.len() else None,
        "columns": calls.columns,
        "minutes": sums_of(minutes.filter((pl.col("kind") == "tool") & pl.col("counted"))),
    }
    if rest:
        tool, now_us = sys.argv[2], int(sys.argv[3])
        of_tool = (pl.col("kind") == "tool") & pl.col("counted") & (pl.col("tool_name") == tool)
        attempts = calls.filter(of_tool)
        answer["windows"] = windows_of(attempts, minutes.filter(of_tool), rest[0], now_us)
        answer["quantiles_ns"] = quantiles_of(attempts["duration_ns"].to_list())
    json.dump(answer, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
