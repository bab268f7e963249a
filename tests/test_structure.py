"""How the house is built: whole classes, pages that show what they export, modules of a readable length."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for path in (ROOT / "anomaly_nb").rglob("*.py") if path.name != "_modidx.py")
PAGES = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def last_name(base: ast.expr) -> str:
    "The name of a base class without its module and its parameters."
    while isinstance(base, ast.Subscript):
        base = base.value
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def own_classes() -> dict[str, list[str]]:
    "The classes of the package with the names of their bases."
    nodes = [node for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: [last_name(base) for base in node.bases] for node in nodes}


CLASSES = own_classes()


def ancestors(name: str) -> set[str]:
    "A class and the classes of the package that it is built on."
    return {name}.union(*(ancestors(base) for base in CLASSES[name] if base in CLASSES))


def test_no_class_is_only_a_layer() -> None:
    children = Counter(base for bases in CLASSES.values() for base in bases)
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    used = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    used.update(node.attr for node in nodes if isinstance(node, ast.Attribute))
    layers = [name for name in CLASSES if children[name] == 1 and used[name] <= 2]
    assert len(layers) <= 1, f"they exist to be subclassed once: {layers}"


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_stands_on_few_others(name: str) -> None:
    assert len(ancestors(name)) <= 5


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 460


def runs(page: Path) -> Iterator[int]:
    "Lengths of rows of exported cells between which nothing is shown."
    length = 0
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        if re.match(r"#\| exports?\b", source):
            length += bool(re.search(r"^(class|def|@|[A-Z_]+ *[:=])", source, re.MULTILINE))
            yield length
        elif cell["outputs"] or re.search(r"\b(assert|test_\w+)\b", source):
            length = 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_shows_what_it_exports(page: Path) -> None:
    assert max(runs(page), default=0) <= 6


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    weak = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                begin = re.match(r"(What|How|Whether|Where|Who|Is |Are )", ast.get_docstring(node) or "")
                weak += [f"{path.stem}.{node.name}"] if begin else []
    assert not weak


def test_a_page_imports_what_stands_before_it() -> None:
    "Inside a system the arrows run downwards, and no system knows another."
    wrong = []
    for page in PAGES:
        if not page.name[0].isdecimal() or page.parent.name == "nbs":
            continue
        code = "\n".join(
            "".join(cell["source"])
            for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]
            if re.match(r"#\| exports?\b", "".join(cell["source"]))
        )
        for system, module in re.findall(r"from anomaly_nb\.(\w+)\.(\w+) import", code):
            homes = [other.stem for other in (ROOT / "nbs" / system).glob(f"[0-9]*_{module}.ipynb")]
            if system in {path.parent.name for path in PAGES} and (
                system != page.parent.name or any(home > page.stem for home in homes)
            ):
                wrong.append(f"{page.parent.name}/{page.stem} imports {system}.{module}")
    assert not wrong
