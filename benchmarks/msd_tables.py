"""Finds the tables that MSD ships, anew: seconds and fitness for each, and whether it is the same.

python benchmarks/msd_tables.py                 # up to 6 layers, compared with the shipped ones
python benchmarks/msd_tables.py --all --write   # every table that is missing, written

A table depends on the depth, the number of module types and the number of models alone, and on the
seed of the search, which is 0.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import bdlit.defenses.msd
from bdlit.defenses.msd.neighbours import wiring_of
from bdlit.defenses.msd.table import SHIPPED, file_name, find_table, shipped_table

ENCODER, DECODER = "QKVOFP", ("q", "k", "v", "o", "gate", "up", "down")
DEPTHS = {ENCODER: (2, 4, 6, 8, 12, 24), DECODER: (16, 24, 28, 32)}
FOLDER = Path(bdlit.defenses.msd.__file__).parent / SHIPPED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="deep models as well")
    parser.add_argument("--write", action="store_true", help="write what is not shipped yet")
    options = parser.parse_args()
    for types, depths in DEPTHS.items():
        wiring = wiring_of(types)
        for layers in depths:
            for sources in (2, 3):
                known = shipped_table(wiring, layers, sources)
                if (not options.all and layers > 6) or (options.write and known is not None):
                    continue
                began = time.perf_counter()
                found = find_table(wiring, layers, sources)
                seconds = time.perf_counter() - began
                name = file_name(wiring, layers, sources)
                if options.write:
                    found.save(FOLDER / name)
                said = "new" if known is None else "same" if known == found else "ANOTHER"
                print(f"{name}: fitness {found.about['fitness']:g}, {seconds:.0f} s, {said}")


if __name__ == "__main__":
    main()
