"""`bdlit compare`: one table over any number of runs."""

from __future__ import annotations

import sys
from pathlib import Path

from bdlit.errors import BdlitError
from bdlit.report.collect import collect
from bdlit.report.export import to_csv, to_json
from bdlit.report.row import row_columns
from bdlit.report.select import DEFAULT_SORT, Attacks, select, sort_by
from bdlit.report.table import compare_table, print_table


def compare(
    directories: list[str],
    *,
    sort: str = DEFAULT_SORT,
    where: list[str] | str | None = None,
    attacks: Attacks = "own",
    json: bool = False,
    csv: bool = False,
    html: str | None = None,
) -> None:
    """Compare clean accuracy and attack success of victims and their defenses.

    Reads every results.jsonl and every offline W&B run below the directories, and prints one line
    per data set, victim, attack and defense, averaged over seeds.

    Args:
        directories: Folders of runs or studies, or results files.
        sort: Columns to sort by, divided by commas; a minus before a name turns its order around
            (`--sort=-asr`).
        where: Keep what meets a condition `column=value` or `column!=value`, where a value may
            hold wildcards (`--where 'defense=WAG*'`). Several: `--where+=data=sst2
            --where+=victim!=benign`.
        attacks: `own` shows victims against the attack they were trained with, `all` against every
            attack that they were measured on.
        json: Print the single measurements as JSON instead of the table.
        csv: Print the single measurements as CSV instead of the table.
        html: Also write the table and plots to this file, as one self-contained page.

    Raises:
        BdlitError: Nothing is found, a column is unknown, or the page cannot be written.
    """
    if json and csv:
        raise BdlitError("--json and --csv both print to standard output: give one of them")
    conditions = [where] if isinstance(where, str) else where or []
    rows = select(collect([Path(name) for name in directories]), conditions, attacks)
    if json or csv:
        ordered = sort_by(rows, f"{sort},seed,run", (*row_columns(), "change"))
        print(to_json(ordered) if json else to_csv(ordered))
    else:
        print_table(compare_table(rows, sort=sort, attacks="all"))  # selected already
    if html:
        from bdlit.report.page import write_page

        write_page(Path(html), rows)
        print(f"wrote {html}", file=sys.stderr)
