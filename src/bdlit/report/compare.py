"""`bdlit compare`: one table over any number of runs."""

from __future__ import annotations

import sys
from pathlib import Path

from bdlit.errors import BdlitError
from bdlit.report.collect import collect
from bdlit.report.export import lines_to_csv, lines_to_json, to_csv, to_json
from bdlit.report.row import row_columns
from bdlit.report.select import DEFAULT_SORT, Attacks, select, sort_by
from bdlit.report.table import compare_table, print_table


def compare(
    directories: list[str],
    *,
    sort: str = DEFAULT_SORT,
    where: list[str] | str | None = None,
    attacks: Attacks = "own",
    against: str | None = None,
    json: bool = False,
    csv: bool = False,
    lines: bool = False,
    html: str | None = None,
) -> None:
    """Compare clean accuracy and attack success of victims and their defenses.

    Reads every results.jsonl and every offline W&B run below the directories, and prints one line
    per data set, victim, attack and defense: the means over seeds, with 95% intervals.

    Args:
        directories: Folders of runs or studies, or results files.
        sort: Columns to sort by, divided by commas; a minus before a name turns its order around
            (`--sort=-asr`).
        where: Keep what meets a condition `column=value` or `column!=value`, where a value may
            hold wildcards (`--where 'defense=WAG*'`). Several: `--where+=data=sst2
            --where+=victim!=benign`.
        attacks: `own` shows victims against the attack they were trained with, `all` against every
            attack that they were measured on.
        against: A defense, or `none` for the undefended victim: adds the differences of ASR and
            CACC to it, paired by seed, with intervals, and says which are within noise.
        json: Print the single measurements as JSON instead of the table. The ends of intervals
            are those of one seed, over its rows only.
        csv: Print the single measurements as CSV instead of the table.
        lines: With `--json` or `--csv`: print the lines of the table in place of single
            measurements, with means, intervals over seeds, and the values of every seed.
        html: Also write the table and plots to this file, as one self-contained page.

    Raises:
        BdlitError: Nothing is found, a column or a defense is unknown, options do not go together,
            or the page cannot be written.
    """
    _require_fitting(json=json, csv=csv, lines=lines, against=against)
    conditions = [where] if isinstance(where, str) else where or []
    found = collect([Path(name) for name in directories])
    rows = select(found, conditions, attacks)
    single = (json or csv) and not lines
    if single:
        ordered = sort_by(rows, f"{sort},seed,run", (*row_columns(), "change"))
        print(to_json(ordered) if json else to_csv(ordered))
        sort = DEFAULT_SORT  # of the page: lines have other columns
    table = compare_table(found, sort=sort, where=conditions, attacks=attacks, against=against)
    if lines:
        print(lines_to_json(table) if json else lines_to_csv(table))
    elif not single:
        print_table(table)
    if html:
        from bdlit.report.page import write_page

        write_page(Path(html), rows, table)
        print(f"wrote {html}", file=sys.stderr)


def _require_fitting(*, json: bool, csv: bool, lines: bool, against: str | None) -> None:
    if json and csv:
        raise BdlitError("--json and --csv both print to standard output: give one of them")
    if lines and not (json or csv):
        raise BdlitError("--lines says what --json or --csv print: give one of them as well")
    if against is not None and (json or csv) and not lines:
        raise BdlitError(
            "--against is about lines, and --json and --csv print single measurements: add --lines"
        )
