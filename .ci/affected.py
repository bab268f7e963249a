"""Find the pages and tests that a change concerns, from the imports that stand in the files, and run the near ones.

`python .ci/affected.py` compares the work tree with HEAD and lists the near ones, nearest first; `--base REV` compares
with where the branch left REV; `--run` runs them, as long as the processor time of `--seconds` lasts. Near are changed
pages and tests, pages of their system that depend on the change, pages that import a changed module themselves, and
tests that import no other system. One line tells what was left out: `make test` runs everything.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = "anomaly_nb"
IMPORTERS = 12  # if more pages import a module, those of other systems are left to `make test`


@dataclass
class Source:
    "A file of Python, or the code of a notebook."

    path: str  # from the root
    module: str = ""  # that it is, or that a notebook exports to
    imports: set[str] = field(default_factory=set)  # modules by dotted name
    words: set[str] = field(default_factory=set)  # its texts

    fixtures: set[str] = field(default_factory=set)  # what it uses of the tests' shared files
    walks: bool = False  # whether it reads all pages or modules as texts


def code_of(notebook: str) -> list[str]:
    "Return the code of a notebook's cells, without lines for the shell."
    cells = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]
    texts = ["".join(cell["source"]) for cell in cells]
    return [re.sub(r"(?m)^[ \t]*[%!].*$", "", text) for text in texts if not text.startswith("%%")]


def exported(notebook: str) -> list[str]:
    "Return what a notebook exports: its module depends on nothing else."
    return [code for code in code_of(notebook) if re.search(r"(?m)^#\| *(export|default_exp)", code)]


def parse(code: str) -> ast.Module:
    "Parse code; what is none has no imports."
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def at_runtime(tree: ast.AST) -> Iterator[ast.AST]:
    "Walk through a tree, past what only a type checker reads."
    yield tree
    skipped = isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING"
    for node in tree.orelse if isinstance(tree, ast.If) and skipped else ast.iter_child_nodes(tree):
        yield from at_runtime(node)


def text_of(node: ast.AST) -> str | None:
    "Return a text; the parts of an f-string that are not known are written as `{}`."
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


class Library:
    "The modules of the library with the names that they give."

    def __init__(self, root: Path) -> None:
        self.trees: dict[str, ast.Module] = {}
        self.paths: dict[str, str] = {}
        for path in sorted((root / LIBRARY).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if parts[-1] != "_modidx":
                self.trees[name] = parse(path.read_text(encoding="utf-8"))
                self.paths[name] = path.relative_to(root).as_posix()
        self.fronts = {name for name, path in self.paths.items() if path.endswith("/__init__.py")}
        self.names = {name: set(self._names(tree)) for name, tree in self.trees.items()}
        self.commands = {
            node.name: name
            for name, tree in self.trees.items()
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
            and any(isinstance(each, ast.Name) and each.id == "command" for each in node.decorator_list)
        }

    def _names(self, tree: ast.Module) -> Iterator[str]:
        "Name what stands at the top of a module."
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                yield from [each.id for each in ast.walk(target) if isinstance(each, ast.Name)] if target else []

    def home(self, module: str, name: str) -> set[str]:
        "Return the modules that `from module import name` reads: a front passes on the names of its modules."
        if f"{module}.{name}" in self.trees:
            return {module, f"{module}.{name}"}
        if module not in self.fronts or name in self.names[module]:
            return {module}
        inside = [each for each in self.trees if each.startswith(f"{module}.")]
        homes = {each for each in inside if name in self.names[each]}
        return {module} | (homes if name != "*" else set(inside))

    def like(self, pattern: str, words: set[str]) -> set[str]:
        "Return the modules of a name that is put together, of those only the ones with a part among the words."
        expression = re.escape(pattern).replace(re.escape("{}"), r"([\w.]+)")
        found = {name: match[1] for name in self.trees if (match := re.fullmatch(expression, name))}
        return {name for name, part in found.items() if part in words} or set(found)


def relative(node: ast.ImportFrom, package: str) -> str:
    "Return the absolute name of what an import reads."
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def read(trees: Iterable[ast.AST], library: Library, package: str = "") -> tuple[set[str], set[str]]:
    "Return the modules that some code imports, also in its functions and in programs that it holds, and its texts."
    nodes = [node for tree in trees for node in at_runtime(tree)]
    texts = {text for node in nodes if (text := text_of(node)) is not None}
    found, aliases = set[str](), dict[str, str]()
    for node in nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                found.add(each.name)
                aliases[each.asname or each.name.split(".")[0]] = each.name if each.asname else each.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            module = relative(node, package)
            for each in node.names:
                found |= library.home(module, each.name)
                aliases[each.asname or each.name] = f"{module}.{each.name}"
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            root, _, rest = ast.unparse(node.value).partition(".")
            module = aliases.get(root, "") + (f".{rest}" if rest else "")
            found |= library.home(module, node.attr) if module in library.fronts else set()
    for text in texts:
        if re.fullmatch(rf"{LIBRARY}\.[\w.]*{{}}[\w.{{}}]*", text):
            found |= library.like(text, texts)
        elif re.fullmatch(rf"{LIBRARY}(\.\w+)+", text):
            found.add(text)
        elif "import" in text and LIBRARY in text:
            program = re.sub(r"(?m)^\s*(?=from|import)", "", text).replace("{}", "_")
            found |= read([(parse(text).body and parse(text)) or parse(program)], library)[0]
    parents = {name.rsplit(".", depth)[0] for name in found for depth in range(1, name.count(".") + 1)}
    return {name for name in found | parents if name.split(".")[0] == LIBRARY}, texts


class Tree:
    "The library, its pages and its tests, with what each imports."

    def __init__(self, root: Path = ROOT) -> None:
        self.root, self.library = root, Library(root)
        self.modules = {name: self._module(name) for name in self.library.trees}
        self.pages = {page.path: page for page in map(self._page, sorted((root / "nbs").rglob("*.ipynb")))}
        self.pages = {path: page for path, page in self.pages.items() if ".ipynb_checkpoints" not in path}
        self.helpers = self._helpers()
        self.tests = {test.path: test for test in map(self._test, sorted((root / "tests").glob("test_*.py")))}

    def _module(self, name: str) -> Source:
        package = name if name in self.library.fronts else name.rpartition(".")[0]
        return Source(self.library.paths[name], name, *read([self.library.trees[name]], self.library, package))

    def _page(self, path: Path) -> Source:
        code = code_of(path.read_text(encoding="utf-8"))
        target = next((match[1] for text in code if (match := re.search(r"#\| *default_exp +(\S+)", text))), "")
        module = re.sub(r"\.?__init__$", "", f"{LIBRARY}.{target}") if target else ""
        return Source(path.relative_to(self.root).as_posix(), module, *read(map(parse, code), self.library))

    def _helpers(self) -> dict[str, ast.stmt]:
        "Return what stands in the tests' shared files: whole modules, and `conftest` name by name."
        found: dict[str, ast.stmt] = {}
        self.shared = set[str]()
        for path in sorted([*(self.root / "tests").glob("*.py"), *(self.root / "benchmarks").glob("*.py")]):
            if path.name.startswith("test_"):
                continue
            body = parse(path.read_text(encoding="utf-8")).body
            if path.name == "conftest.py":
                found |= {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
                self.shared = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            else:
                found[path.stem] = ast.If(ast.Constant(True), body, [])
        return found

    def _test(self, path: Path) -> Source:
        "Read a test with the fixtures and helpers that it names, and with the commands in its texts."
        todo: list[ast.AST] = [parse(path.read_text(encoding="utf-8"))]
        seen, imports, words = set[str](), set[str](), set[str]()
        while todo:
            tree = todo.pop()
            more, texts = read([tree], self.library)
            imports, words = imports | more, words | texts
            used = {each.arg for each in ast.walk(tree) if isinstance(each, ast.arg)}
            used |= {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
            for each in (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)):
                used |= {name.name for name in each.names}
            used |= {Path(text).stem for text in texts if text.endswith(".py")}
            todo += [self.helpers[name] for name in used & self.helpers.keys() - seen]
            seen |= used & self.helpers.keys()
        spoken = {word for text in words for word in re.findall(r"\w+", text)}
        imports |= {module for name, module in self.library.commands.items() if name in spoken}
        code = path.read_text(encoding="utf-8")
        walks = bool(re.search(rf"[\"'](nbs|{LIBRARY})[\"'][^\n]*\)\.r?glob\(", code))
        return Source(path.relative_to(self.root).as_posix(), "", imports, words, seen, walks)

    def systems(self, source: Source) -> set[str]:
        "Return the systems that a file reads, itself or through a page of the house such as the tour."
        names = source.imports | {source.module}
        house = {each for each in names if each.count(".") == 1 and each not in self.library.fronts}
        names = names.union(*(self.modules[each].imports for each in house if each in self.modules))
        return {name.split(".")[1] for name in names if name.count(".") > 1}

    def distances(self, seeds: set[str]) -> dict[str, int]:
        "Return the modules that depend on some modules, with the number of imports between."
        found, distance = dict.fromkeys(seeds, 0), 0
        while more := {name for name, each in self.modules.items() if each.imports & found.keys()} - found.keys():
            distance += 1
            found |= dict.fromkeys(more, distance)
        return found

    def mentions(self, source: Source, path: str) -> bool:
        "Tell whether a file is named in the texts of another, or, for one of the tests' shared files, used."
        name, stem = Path(path).name, Path(path).stem
        pattern = re.compile(rf"(^|[^\w.-]){re.escape(name)}($|[^\w-])")
        used = bool(source.fixtures & (self.shared if name == "conftest.py" else {stem}))
        named = any(text == stem or pattern.search(text) for text in source.words)
        return source.path != path and (named or (used and name.endswith(".py")))


@dataclass
class Concern:
    "What a change concerns: pages and tests, by path."

    near: list[str]  # the nearest first
    far: list[str]  # those that depend on the change from further away
    unknown: list[str]  # changed files that nothing names

    def left_out(self, late: Iterable[str] = ()) -> str:
        "Say in one line what is left to `make test`."
        late = list(late)
        told = f"; no time for {', '.join(late)}" if late else ""
        told += f"; nothing names {', '.join(self.unknown)}" if self.unknown else ""
        pages = sum(path.endswith(".ipynb") for path in self.far)
        tests = [Path(path).stem for path in self.far if path.endswith(".py")]
        names = f" ({', '.join(tests[:4])}{', ...' if len(tests) > 4 else ''})" if tests else ""
        return f"Left to `make test`: {pages} pages and {len(tests)} tests further away{names}{told}."


def seeds_of(tree: Tree, changed: set[str], same: set[str]) -> set[str]:
    "Return the modules whose code has changed, also those that are gone."
    modules = {path for path in changed if path.startswith(f"{LIBRARY}/") and path.endswith(".py")}
    names = {re.sub(r"\.__init__$", "", path.removesuffix(".py").replace("/", ".")) for path in modules}
    names |= {tree.pages[path].module for path in (changed & tree.pages.keys()) - same}
    return names - {f"{LIBRARY}._modidx", ""}


def with_templates(root: Path, changed: set[str]) -> list[str]:
    "Return changed files that are no code, with the templates that name a changed one."
    found = sorted(path for path in changed if not path.endswith((".py", ".ipynb")))
    for path in found:  # it grows
        if "/templates/" in path:
            others = [each for each in sorted((root / path).parent.glob("*")) if each.is_file()]
            users = [each for each in others if Path(path).name in each.read_text(encoding="utf-8")]
            found += {each.relative_to(root).as_posix() for each in users} - set(found)
    return found


def concern(
    tree: Tree,
    changed: Iterable[str],  # paths from the root
    same: Iterable[str] = (),  # those of them that are pages and export what they did before
) -> Concern:
    "Find what a change concerns, near and further away."
    changed = set(changed)
    seeds = seeds_of(tree, changed, set(same))
    sources = tree.pages | tree.tests
    chosen, unknown = changed & sources.keys(), list[str]()
    places = re.compile(r"(\.ci|benchmarks|tests)/[^/]+\.py")
    scripts = sorted(path for path in changed - tree.tests.keys() if places.fullmatch(path))
    for path in with_templates(tree.root, changed) + scripts:
        modules = {each.module for each in tree.modules.values() if tree.mentions(each, path)}
        users = {name for name, each in sources.items() if tree.mentions(each, path)}
        seeds, chosen = seeds | modules, chosen | users
        unknown += [] if modules or users else [path]

    distances = tree.distances(seeds)
    steps = {
        path: 1 + min(distances[name] for name in each.imports & distances.keys())
        for path, each in sources.items()
        if each.imports & distances.keys()
    }
    steps |= {path: 1 for path, each in tree.tests.items() if each.walks and (seeds or chosen & tree.pages.keys())}
    steps |= {path: 0 for path, each in sources.items() if path in chosen or each.module in seeds}
    systems = {name.split(".")[1] for name in seeds if name.count(".") > 1 or name in tree.library.fronts - {LIBRARY}}
    systems = systems.union(*(tree.systems(tree.modules[name]) for name in seeds & tree.modules.keys()))
    systems |= {Path(path).parts[1] for path in chosen & tree.pages.keys() if len(Path(path).parts) > 2}

    outside = {path for path in steps.keys() & tree.pages.keys() if Path(path).parts[1] not in systems}
    direct = {path for path in outside if steps[path] == 1 and len(tree.systems(tree.pages[path]) - systems) <= 1}
    if len(direct) > IMPORTERS:
        direct = {path for path in direct if len(Path(path).parts) == 2 and tree.systems(tree.pages[path]) <= systems}
    other = {path for path in steps.keys() & tree.tests.keys() if not tree.systems(tree.tests[path]) <= systems}
    slow = {path for path, each in tree.tests.items() if each.walks and each.fixtures}
    far = {path for path in (outside - direct) | other | slow if steps.get(path)}
    near = sorted(steps.keys() - far, key=lambda path: (steps[path], len(sources[path].imports), path))
    return Concern(near, sorted(far), unknown)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def changed_files(base: str) -> tuple[list[str], list[str]]:
    "Return the paths that differ from a revision, and the pages among them that export the same as there."
    start = git("merge-base", base, "HEAD").strip()
    paths = git("diff", "--name-only", "--no-renames", "-z", start).split("\0")
    paths += git("ls-files", "--others", "--exclude-standard", "-z").split("\0")
    paths = sorted({path for path in paths if path})
    before = set(git("ls-tree", "-r", "--name-only", "-z", start).split("\0"))
    pages = [path for path in paths if path.endswith(".ipynb") and path in before and (ROOT / path).exists()]
    kept = [p for p in pages if exported(git("show", f"{start}:{p}")) == exported((ROOT / p).read_text("utf-8"))]
    return paths, kept


def processor_seconds() -> float:
    "Return the processor time of the checks that have ended; where the system does not tell it, the time of day."
    try:
        import resource
    except ImportError:  # Windows
        return time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check(path: str) -> bool:
    "Run a page or the tests of a file, show what it says if it fails, and tell whether it passed."
    if path.endswith(".ipynb"):
        lessons = str(Path(sys.executable).with_name("nbdev_test"))
        command = [lessons, "--path", str(ROOT / path), "--n_workers", "0"]
    else:
        command = [sys.executable, "-m", "pytest", "-q", path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=environment, encoding="utf-8", errors="replace", **pipes)
    passed = done.returncode in ((0, 5) if path.endswith(".py") else (0,))  # 5: all tests of the file are slow ones
    print(f"{'passed' if passed else 'FAILED'}  {path}" + ("" if passed else f"\n{done.stdout}"), flush=True)
    return passed


def run(found: Concern, changed: list[str], seconds: float) -> bool:
    "Lint what has changed, run pages and tests on all cores while there is time; tell whether all is green."
    linted = [path for path in changed if path.endswith((".py", ".ipynb")) and not path.startswith(f"{LIBRARY}/")]
    linted = [path for path in linted if (ROOT / path).exists()]
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--config", ".ci/ruff.toml", *linted]
    green = not linted or subprocess.run(command, cwd=ROOT).returncode == 0
    begin, late = processor_seconds(), list[str]()

    def timely(path: str) -> bool:
        if path not in changed and processor_seconds() - begin > seconds:
            late.append(path)
            return True
        return check(path)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(timely, found.near))
    print(found.left_out(late))
    return green and all(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="HEAD", help="the revision to compare with (HEAD)")
    parser.add_argument("--run", action="store_true", help="run the near pages and tests")
    parser.add_argument("--seconds", type=float, default=40, help="of processor time, after which no more begin (40)")
    options = parser.parse_args()
    if not shutil.which("git"):
        sys.exit("error: git tells what has changed, and is not installed here.")
    changed, same = changed_files(options.base)
    found = concern(Tree(), changed, same)
    if options.run:
        sys.exit(not run(found, changed, options.seconds))
    print(*(found.near or ["No page and no test is concerned."]), found.left_out(), sep="\n")


if __name__ == "__main__":
    main()
