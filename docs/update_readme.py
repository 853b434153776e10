"""`make readme`: runs the main job and puts what it printed, and its figure, into the README."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- main job -->\n```text\n).*?(```\n<!-- end -->)", re.S)


def main() -> None:
    """Writes docs/results/main_job.txt, docs/results/curves.png and the README's block."""
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as out:
        command = [bin_folder / "mpirun", "-n", "8", sys.executable, ROOT / "mpi_examples/train.py", "--out", out]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        shutil.copy(next(Path(out).iterdir()) / "curves.png", ROOT / "docs/results/curves.png")
    printed = re.sub(r"Written to .*\n\n", "", printed)
    (ROOT / "docs/results/main_job.txt").write_text(printed)
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda found: found[1] + printed + found[2], readme.read_text()))


if __name__ == "__main__":
    main()
