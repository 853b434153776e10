"""`make readme`: runs the main job; its table, picture and findings go into the book, three arms of it into the README."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from syncbn_sim.report.tables import aligned

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"
BLOCK = re.compile(r"(<!-- three arms -->\n```text\n).*?(```\n<!-- end -->)", re.S)
ARMS = {
    "iid+local": "shuffled, local batch norm",
    "sorted+local": "sorted, local batch norm",
    "sorted+sync": "sorted, SyncBN",
}
HEADINGS = {"digits": ("accuracy (%) on digits", 1), "requests": ("AUC (%) on a click log", 2)}


def three_arms(results: list[dict[str, Any]], sentences: str) -> str:
    """The shortest table that shows the effect, and the sentences that the job itself prints."""
    rows = [["", *(f"{HEADINGS[r['task']][0]}, sorted by {r['sorted_by']}" for r in results)]]
    for arm, words in ARMS.items():
        cells = []
        for r in results:
            found, digits = r["arms"][arm][r["metric"]], HEADINGS[r["task"]][1]
            mean, low, high = (f"{100 * value:.{digits}f}" for value in (found[end] for end in ("mean", "low", "high")))
            cells.append(f"{mean} [{low}, {high}]")
        rows.append([words, *cells])
    about = f"{results[0]['ranks']} ranks, {results[0]['config']['seeds']} seeds, 95 % intervals"
    return "\n".join([about, "", *aligned(rows), "", *textwrap.wrap(sentences, 140), ""])


def main() -> None:
    """Writes docs/results/*, and the README's block."""
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as out:
        command = [bin_folder / "mpirun", "-n", "8", sys.executable, ROOT / "mpi_examples/train.py", "--out", out]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        folder = next(Path(out).iterdir())
        shutil.copy(folder / "curves.png", RESULTS / "curves.png")
        results = json.loads((folder / "result.json").read_text())
    tables, sentences = re.split(r"Written to .*\n\n", printed)
    (RESULTS / "main_job.txt").write_text(tables + sentences)
    short = three_arms(results, sentences)
    (RESULTS / "three_arms.txt").write_text(short)
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda found: found[1] + short + found[2], readme.read_text()))


if __name__ == "__main__":
    main()
