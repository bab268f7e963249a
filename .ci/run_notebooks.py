"""Run notebooks in place and keep their outputs, skipping the cells that `nbdev_test` skips.

`nbdev_test` throws outputs away and nbdev's own runner ignores the skip rules; pages need both.
"""

import logging
import os
import sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.script import call_parse
from fastcore.xtras import working_directory
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.process import NBProcessor


def drop_handles(notebook: dict) -> None:
    "Remove outputs that only name a Matplotlib object, such as the legend that a last line returns."
    for cell in notebook["cells"]:
        if "outputs" in cell:
            texts = ["".join(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]]
            shown = zip(cell["outputs"], texts, strict=True)
            cell["outputs"] = [
                out for out, text in shown if "image/png" in out.get("data", {}) or not text.startswith("<matplotlib.")
            ]


def run(path: Path, skipped_flags: set[str]) -> None:
    "Execute one notebook; the outputs of skipped cells stay as they were committed."
    notebook = read_nb(path)
    directives = [getattr(cell, "directives_", None) or {} for cell in NBProcessor(path, process=True).nb.cells]

    def skipped(cell: dict) -> bool:
        rules = directives[cell["idx_"]]
        return (
            cell["cell_type"] != "code"
            or rules.get("eval", [""])[0].lower() == "false"
            or bool(skipped_flags & rules.keys())
        )

    for cell in notebook["cells"]:
        if not skipped(cell):
            cell["outputs"] = []  # a cell that shows nothing would keep what it once showed
    with working_directory(path.parent):
        CaptureShell(path, mpl_format="png").run_all(notebook, exc_stop=True, preproc=skipped)
    drop_handles(notebook)
    clean_nb(notebook, clean_ids=get_config().clean_ids)
    write_nb(notebook, path)


@call_parse
def main(
    path: str | None = None,  # Notebook or folder (default: all of nbs)
    flags: str = "",  # Space separated test flags to run as well, for example 'slow'
):
    "Execute notebooks in place, keep outputs, clean metadata"
    cfg = get_config()
    sys.path.insert(0, str(cfg.config_path))
    os.environ["IN_TEST"] = "1"  # nbdev_export() inside a notebook becomes a no-op
    logging.disable(logging.INFO)
    for notebook in sorted(nbglob(path, as_path=True)):
        print(notebook, flush=True)
        run(notebook.absolute(), set(cfg.tst_flags.split()) - set(flags.split()))
