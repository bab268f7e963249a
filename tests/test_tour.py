"""The tour's report: whole, self-contained, readable without network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path


def test_the_quick_tour_is_one_self_contained_page(quick_tour, tmp_path):
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing may be loaded from elsewhere"
    assert page.count("<section") == page.count("<h2>") >= 1
    assert all('alt=""' not in tag and "alt=" in tag for tag in re.findall("<img[^>]*>", page))
    assert "SRCNN" in page and "|x - median|" in page
    tables = re.findall("<table.*?</table>", page, flags=re.DOTALL)
    assert len(tables) == page.count("<section") == 5 and not any("nan" in table.lower() for table in tables)
    assert sorted(path.name for path in quick_tour.iterdir()) == [".lock", "chapters", "index.html"]


def test_an_interrupted_tour_goes_on(quick_tour, tmp_path):
    command = Path(sys.executable).with_name("anomaly_nb_tour")
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    shutil.copytree(quick_tour / "chapters", tmp_path / "report/chapters")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "report/chapters").iterdir()}
    subprocess.run([command, "--quick", "--out", tmp_path / "report"], check=True, cwd=tmp_path)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "report/chapters").iterdir()}
    assert (tmp_path / "report/index.html").read_text(encoding="utf-8") == page
