"""Give the project a version in every place that names it, or check that all places agree.

`python .ci/release.py 0.2.0` works on a copy, exports and checks there, and only then replaces files here.
`python .ci/release.py --check` writes nothing.
"""

import argparse
import datetime
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"
INIT = "anomaly_nb/__init__.py"
PLACES = {  # an expression with the version as its only group, which occurs once in the file
    "settings.ini": r"(?m)^version = (.*)$",
    INIT: r'(?m)^__version__ = "(.*)"$',
    "CITATION.cff": r"(?m)^version: (.*)$",
    "nbs/index.ipynb": r"\bversion = \{(.*?)\}",
    "README.md": r"\bversion = \{(.*?)\}",
    "CHANGELOG.md": rf"(?m)\A(?s:.*?)^## \[({VERSION})\] - ",
}
DATES = {  # the same for the date, or the year where only the year is named
    "CHANGELOG.md": rf"(?m)\A(?s:.*?)^## \[{VERSION}\] - (.*)$",
    "CITATION.cff": r"(?m)^date-released: (.*)$",
    "nbs/index.ipynb": r"\byear = \{(.*?)\}",
    "README.md": r"\byear = \{(.*?)\}",
}


class ReleaseError(Exception):
    "A sentence that says why there is no release."


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def stated(root: Path, name: str, expression: str) -> str:
    "Return what a file states. Raises `ReleaseError` if it states nothing, or more than once."
    found = re.findall(expression, read(root / name)) if (root / name).exists() else []
    if len(found) != 1:
        raise ReleaseError(f"{name}: has {len(found)} lines like {expression!r}, and must have one.")
    return str(found[0])


def put(root: Path, name: str, expression: str, value: str) -> None:
    "Replace what a file states."
    stated(root, name, expression)
    text = read(root / name)
    match = re.search(expression, text)
    assert match is not None
    changed = text[: match.start(1)] + value + text[match.end(1) :]
    (root / name).write_bytes(changed.encode("utf-8"))


def check(root: Path = ROOT) -> list[str]:
    "Return a sentence for each place that does not agree with settings.ini and with the date in the changelog."
    try:
        version = stated(root, "settings.ini", PLACES["settings.ini"])
        date = stated(root, "CHANGELOG.md", DATES["CHANGELOG.md"])
        versions = {name: stated(root, name, expression) for name, expression in PLACES.items()}
        dates = {name: stated(root, name, expression) for name, expression in DATES.items()}
    except ReleaseError as error:
        return [str(error)]
    rows = [f"{name}: version {found}, not {version}" for name, found in versions.items() if found != version]
    rows += [f"{name}: {found}, not {date}" for name, found in dates.items() if found not in (date, date[:4])]
    return rows + changelog_faults(read(root / "CHANGELOG.md"), address(root))


def changelog_faults(text: str, url: str) -> list[str]:
    "Return what is wrong with the order of the versions, their dates and their links."
    sections = re.findall(r"(?m)^## \[(.+?)\](.*)$", text)
    names = [name for name, _ in sections]
    released = [tuple(map(int, name.split("."))) for name in names if re.fullmatch(VERSION, name)]
    rows = [] if names[:1] == ["Unreleased"] else ["CHANGELOG.md: does not begin with [Unreleased]"]
    if len(released) != len(names) - 1 or released != sorted(set(released), reverse=True):
        rows.append(f"CHANGELOG.md: its versions are not in order: {', '.join(names)}")
    dated = [name for name, rest in sections[1:] if not re.fullmatch(r" - \d{4}-\d\d-\d\d", rest)]
    rows += [f"CHANGELOG.md: {name} has no date" for name in dated]
    links = "\n".join(["", *link_lines(names, url), ""])
    return rows if f"\n{text}".endswith(links) else [*rows, "CHANGELOG.md: its last lines do not link its versions"]


def link_lines(names: list[str], url: str) -> list[str]:
    "Return the lines that link each version with what has changed in it."
    rows = [f"[{now}]: {url}/compare/v{before}...v{now}" for now, before in pairwise(names[1:])]
    first = [f"[{names[-1]}]: {url}/releases/tag/v{names[-1]}"] if len(names) > 1 else []
    return [f"[Unreleased]: {url}/compare/v{names[1]}...HEAD", *rows, *first] if len(names) > 1 else []


def address(root: Path) -> str:
    "Return the address of the repository."
    parser = ConfigParser(delimiters=["="])
    parser.read(root / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]["git_url"]


def with_release(
    text: str,  # of the changelog
    version: str,
    date: str,
    url: str,  # of the repository
) -> str:
    "Return the changelog with what was unreleased under a version. Raises `ReleaseError` if that is nothing."
    if re.search(rf"(?m)^## \[{re.escape(version)}\]", text):
        return text
    match = re.search(r"(?ms)^## \[Unreleased\]\n(.*?)(?=^## \[|^\[|\Z)", text)
    if match is None or not match[1].strip():
        raise ReleaseError("CHANGELOG.md: has nothing under [Unreleased]; write what has changed for users.")
    section = f"## [Unreleased]\n\n## [{version}] - {date}\n\n{match[1].strip()}\n\n"
    text = text[: match.start()] + section + text[match.end() :]
    text = re.sub(r"(?m)^\[[^]\n]+\]: .*\n?", "", text).rstrip()
    names = re.findall(r"(?m)^## \[(.+?)\]", text)
    return "\n".join([text, "", *link_lines(names, url), ""])


def refuse(version: str, now: str) -> None:
    "Raise `ReleaseError` for a version that is none or lower than the one of today."
    if not re.fullmatch(VERSION, version):
        raise ReleaseError(f"{version!r} is no version: give three numbers such as 0.2.0.")
    if not re.fullmatch(VERSION, now):
        raise ReleaseError(f"settings.ini: {now!r} is no version of three numbers.")
    if [int(part) for part in version.split(".")] < [int(part) for part in now.split(".")]:
        raise ReleaseError(f"{version} is lower than {now}, the version of settings.ini: give a higher one.")


def copy_tree(root: Path, target: Path) -> None:
    "Copy what a release changes, and what export and README need."
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "samples")
    for folder in ("nbs", "anomaly_nb"):
        shutil.copytree(root / folder, target / folder, symlinks=True, ignore=ignore)
    for name in [name for name in PLACES if "/" not in name]:
        if not (root / name).exists():
            raise ReleaseError(f"{name}: is not there.")
        shutil.copy(root / name, target)


def generate(copy: Path) -> None:
    "Export the notebooks and write README.md from the home page, without the other pages."
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"}
    quiet = {"check": True, "capture_output": True, "env": environment | {"PYTHONWARNINGS": "ignore"}}
    home = copy / "home"
    (home / "nbs").mkdir(parents=True)
    for name in ("settings.ini", "README.md", "nbs/index.ipynb", "nbs/_quarto.yml"):
        shutil.copy(copy / name, home / name)
    try:
        subprocess.run([Path(sys.executable).with_name("nbdev_export")], cwd=copy, **quiet)
        command = [sys.executable, ROOT / ".ci/pages.py", "--readme", "--only", r"^index\."]
        subprocess.run(command, cwd=home, **quiet)
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ReleaseError(f"nbs/: cannot be exported ({last}).") from error
    shutil.move(home / "README.md", copy / "README.md")
    shutil.rmtree(home)


def changes(root: Path, copy: Path) -> dict[str, bytes]:
    "Return the files that differ in the copy. Raises `ReleaseError` if the package was not what the notebooks export."
    rows = [path.relative_to(copy) for folder in ("nbs", "anomaly_nb") for path in (copy / folder).rglob("*.*")]
    names = sorted({path.as_posix() for path in rows if path.suffix in (".py", ".ipynb")} | PLACES.keys())
    same = [name for name in names if (root / name).exists() and filecmp.cmp(root / name, copy / name, shallow=False)]
    found = {name: (copy / name).read_bytes() for name in names if name not in same}
    others = [name for name in found if name not in PLACES]
    before = re.sub(PLACES[INIT], "", read(root / INIT))
    if others or before != re.sub(PLACES[INIT], "", read(copy / INIT)):
        raise ReleaseError(f"{(others or [INIT])[0]}: is not what the notebooks export: run nbdev_export, then test.")
    return found


def replace_all(root: Path, files: dict[str, bytes]) -> None:
    "Replace files one by one; if one of them fails, all are as they were before."
    before = {name: (root / name).read_bytes() for name in files}
    parts = {name: (root / name).with_name(f".{Path(name).name}.part") for name in files}
    done: list[str] = []
    try:
        for name, data in files.items():
            parts[name].write_bytes(data)
            shutil.copymode(root / name, parts[name])
        for name in files:
            os.replace(parts[name], root / name)
            done.append(name)
    except BaseException:
        for name in done:
            (root / name).write_bytes(before[name])
        raise
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def release(
    version: str,  # three numbers, not lower than today's; the same once more completes what was interrupted
    root: Path = ROOT,
    today: str = "",  # ISO; a version that the changelog has already keeps its date
) -> list[str]:  # the files that were changed
    "Give every place the version. Raises `ReleaseError`, and changes nothing then."
    refuse(version, stated(root, "settings.ini", PLACES["settings.ini"]))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        copy_tree(root, copy)
        log = copy / "CHANGELOG.md"
        today = today or datetime.datetime.now(datetime.UTC).date().isoformat()
        log.write_bytes(with_release(read(log), version, today, address(root)).encode("utf-8"))
        date = stated(copy, "CHANGELOG.md", DATES["CHANGELOG.md"])
        for name in ("settings.ini", "CITATION.cff", "nbs/index.ipynb"):
            put(copy, name, PLACES[name], version)
        put(copy, "CITATION.cff", DATES["CITATION.cff"], date)
        put(copy, "nbs/index.ipynb", DATES["nbs/index.ipynb"], date[:4])
        generate(copy)
        if faults := check(copy):
            raise ReleaseError(faults[0])
        files = changes(root, copy)
        replace_all(root, files)
    return list(files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", nargs="?", help="the new version, such as 0.2.0")
    parser.add_argument("--check", action="store_true", help="check that all places name the same version")
    options = parser.parse_args()
    if options.check:
        faults = check()
        print("\n".join(faults) or "every place names the same version")
        sys.exit(bool(faults))
    if not options.version:
        sys.exit("error: give a version: make release VERSION=0.2.0")
    try:
        changed = release(options.version)
    except (ReleaseError, OSError) as error:
        sys.exit(f"error: {error}")
    print("\n".join(changed) or f"Every place names {options.version} already.")
    if changed:
        print(f"Now: make test, commit, and git tag v{options.version}.")


if __name__ == "__main__":
    main()
