"""Reads the tables `calls` and `calls_1m` as anybody can, with Polars, and prints what is in them.

    read_delta.py LAKE_DIR

LAKE_DIR is the folder `lake` of a data folder. One JSON object goes to stdout:

    rows            all rows
    tools           by tool name, of the counted rows of kind `tool`: attempts, final, errors, final_errors
    duration_ns     sum over the same rows
    cost_usd        sum over the same rows, decimal; null if nothing is priced
    columns         names, in order
    minutes         tools, duration_ns and cost_usd again, from the sums of `calls_1m`

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


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: read_delta.py LAKE_DIR", file=sys.stderr)
        return 2
    tables = []
    for name in ("calls", "calls_1m"):
        table = Path(sys.argv[1]) / name
        try:
            tables.append(pl.read_delta(str(table)))
        except Exception as error:  # Whatever the reason, the caller wants it in one line.
            reason = " ".join(str(error).split())
            print(f'read_delta: read table "{table}": {type(error).__name__}: {reason}', file=sys.stderr)
            return 1
    calls, minutes = tables
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
    json.dump(answer, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
