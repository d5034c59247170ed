"""Start-up times: each command as a whole process, the fastest of several runs.

python benchmarks/startup.py
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bdlit.evaluation.result import Result, append_results
from bdlit.types import Rate


def seconds(arguments, repeats):
    fastest = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


def results(folder, files, lines):
    """Write as many results as a large project has."""
    for i in range(files):
        records = [
            Result(
                data="demo",
                attack="badnet",
                victim=f"v{j}",
                defense="WAG",
                seed=i,
                cacc=Rate(90, 100),
                asr=Rate(10, 50),
            )
            for j in range(lines)
        ]
        append_results(Path(folder) / str(i) / "results.jsonl", records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    bdlit = [sys.executable, "-m", "bdlit"]
    with tempfile.TemporaryDirectory() as folder:
        results(folder, files=50, lines=30)
        commands = {
            "import bdlit": [sys.executable, "-c", "import bdlit"],
            "bdlit --help": [*bdlit, "--help"],
            "bdlit list defenses": [*bdlit, "list", "defenses"],
            "bdlit compare (50 files)": [*bdlit, "compare", folder],
            "bdlit fit --help": [*bdlit, "fit", "--help"],
        }
        for name, arguments in commands.items():
            print(f"{name:<26}{seconds(arguments, options.repeats):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
