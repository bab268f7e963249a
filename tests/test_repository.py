"""What a repository shows before a line of code: forms, workflow, hooks, notes on contributing and security."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
NOTES = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ".github/PULL_REQUEST_TEMPLATE.md", "nbs/release.ipynb"]
CONFIGURATION = [
    ".github/workflows/ci.yml",
    ".pre-commit-config.yaml",
    *(str(path.relative_to(ROOT)) for path in FORMS),
]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_workflow_runs_every_check_everywhere() -> None:
    workflow = read(".github/workflows/ci.yml")
    job = workflow["jobs"]["checks"]
    systems, versions = job["strategy"]["matrix"]["os"], job["strategy"]["matrix"]["python"]
    assert [name.split("-")[0] for name in systems] == ["ubuntu", "macos", "windows"]
    assert versions == ["3.11", "3.12", "3.13", "3.14"] and job["strategy"]["fail-fast"] is False
    assert job["steps"][-1]["run"] == ".ci/run" and job["defaults"]["run"]["shell"] == "bash"
    assert workflow[True].keys() == {"push", "pull_request"}, "YAML reads the key `on` as true"
    assert f"min_python = {versions[0]}\n" in (ROOT / "settings.ini").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_a_form_asks_for_something(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [each for each in form["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in fields}) == len(fields)
    assert all(each["type"] in ("input", "textarea") and each["attributes"]["label"] for each in fields)
    assert any(each.get("validations", {}).get("required") for each in fields)


def test_hooks_are_commands_of_the_environment() -> None:
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local" and [hook["id"] for hook in local["hooks"]] == ["ruff", "nbdev-clean", "in-sync"]
    for hook in local["hooks"]:
        assert hook["language"] == "system" and hook["entry"].split()[0] in ("python", "nbdev_clean")
        re.compile(hook.get("files", "")), re.compile(hook.get("exclude", ""))
        assert all((ROOT / word).exists() for word in hook["entry"].split() if word.startswith(".ci/"))


@pytest.mark.parametrize("name", [*NOTES, *CONFIGURATION])
def test_no_other_host_and_no_path_of_a_machine_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    addresses = re.findall(r"https?://[^\s)>\"]+", text)
    assert all(address.startswith("https://github.com/anomaly-nb/anomaly_nb") for address in addresses)
    assert not re.search(r"(/home/|/root/|/Users/|/work/)", text) and not re.search(r"\w@[\w-]+\.\w", text)


@pytest.mark.parametrize("name", [name for name in NOTES if name.endswith(".md")])
def test_links_between_files_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert all((ROOT / name).parent.joinpath(link).exists() for link in links)
