"""Reads the table `calls` as anybody can, with Polars, and prints what is in it.

    read_delta.py LAKE_DIR

LAKE_DIR is the folder `lake` of a data folder. One JSON object goes to stdout:

    rows            all rows
    tools           by tool name, of the counted rows of kind `tool`: attempts, final, errors, final_errors
    duration_ns     sum over the same rows
    cost_usd        sum over the same rows, decimal; null if nothing is priced
    columns         names, in order

Exit code 1, with a message, if the table cannot be read.
"""

import json
import sys
from pathlib import Path

import polars as pl


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: read_delta.py LAKE_DIR", file=sys.stderr)
        return 2
    table = Path(sys.argv[1]) / "calls"
    try:
        calls = pl.read_delta(str(table))
    except Exception as error:  # Whatever the reason, the caller wants it in one line.
        reason = " ".join(str(error).split())
        print(f'read_delta: read table "{table}": {type(error).__name__}: {reason}', file=sys.stderr)
        return 1
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
    }
    json.dump(answer, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
