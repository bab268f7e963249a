"""Render every page with Pandoc, the engine inside Quarto, so that pages are proven where Quarto is not installed.

Runs nbdev's own docs pass (directives, API tables, links) and Pandoc on its result, and checks the sidebar, the
alternative text of pictures, links between pages, and README.md. Not covered: Quarto's theme, search, cross references.
"""

import base64
import json
import posixpath
import re
import subprocess
import sys
from collections import Counter
from html import escape
from pathlib import Path

import pypandoc
import yaml
from fastcore.script import call_parse
from nbdev.config import get_config
from nbdev.serve import proc_nbs

PICTURE = "nbs/pictures/home.png"  # in README.md
STYLE = """<style>
:root { color-scheme: light dark } html { color: CanvasText; background: Canvas } a { color: LinkText }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 16px/1.55 sans-serif; overflow-wrap: break-word }
header, .title { text-align: left; margin: 0 } .subtitle { margin: .5rem 0 2rem; opacity: .8 }
img { max-width: 100%; background: white } figcaption { opacity: .8 } nav { margin: 1rem 0 } nav li { margin: 0 }
pre { background: #8882; padding: .6rem; overflow-x: auto; font-size: .85em } code { white-space: inherit }
math[display="block"] { overflow-x: auto; overflow-y: hidden; max-width: 100% }
table { display: block; overflow-x: auto; border: 0; border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .6rem; text-align: left; border: 0; border-bottom: 1px solid #8884; overflow-wrap: normal }
@media (max-width: 40rem) { p > img, .cell-output-display img { min-width: 32rem } }
@media (max-width: 40rem) { .output, figure, p { overflow-x: auto } }
@media (prefers-color-scheme: dark) { pre code span span { filter: invert(1) hue-rotate(180deg) } }
</style>"""


def read_page(path: Path) -> tuple[str, list[str]]:
    "A notebook as Pandoc's strict reader takes it (nbdev leaves `has_sd` and null counts), and its `fig-alt`s."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    alternatives = []
    for cell in notebook["cells"]:
        cell.pop("has_sd", None)
        code = "".join(cell["source"])
        if "#| output: asis" in code:
            show_reference(cell)
            continue
        alternative = re.search(r'^#\| ?fig-alt: "(.*)"\n', code, re.MULTILINE)
        # Pandoc does not know Quarto's options
        cell["source"] = "" if "#| echo: false" in code else re.sub(r"(?m)^#\| (code-|fig-).*\n", "", code)
        for output in cell.get("outputs", []):
            if output["output_type"] == "execute_result":
                output["execution_count"] = output["execution_count"] or 1
            if "image/png" in output.get("data", {}):
                alternatives.append(alternative[1] if alternative else "")
    return json.dumps(notebook), alternatives


def show_reference(cell: dict) -> None:
    "Turn a cell whose output is a part of the API reference into that part."
    texts = [output["data"]["text/markdown"] for output in cell.pop("outputs") if "text/markdown" in output["data"]]
    cell.pop("execution_count", None)
    cell |= {"cell_type": "markdown", "source": "\n\n".join("".join(text) for text in texts)}


def with_alternatives(html: str, alternatives: list[str]) -> str:
    "Pandoc leaves the alternative text of output pictures empty; they come in the notebook's order."
    texts = iter(alternatives)
    return re.sub(r"<img (?=[^>]*src=\"data)", lambda _: f'<img alt="{escape(next(texts))}" ', html)


def pandoc(source: str, to: str, *args: str) -> str:
    "Pandoc's rendering of a notebook."
    command = [pypandoc.get_pandoc_path(), "-f", "ipynb+link_attributes", "-t", to, *args]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=True).stdout


def front_matter(notebook: Path) -> dict[str, str]:
    "Title and description, which nbdev puts into the first cell."
    cell = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    return dict(yaml.safe_load("".join(cell["source"]).strip().strip("-").replace("`", "")))


def link(page: str, target: str, text: str) -> str:
    "A link from one page to another, both as in the sidebar."
    address = posixpath.relpath(target, posixpath.dirname(page) or ".").replace(".ipynb", ".html")
    return f'<a href="{address}">{escape(text)}</a>'


def navigation(sidebar: list, titles: dict[str, str], page: str) -> tuple[str, str]:
    "The list of all pages, folded, and the links to the page before and after."
    parts, order = [], []
    for entry in sidebar:
        section, pages = (entry["section"], entry["contents"]) if isinstance(entry, dict) else ("", [entry])
        order += pages
        links = "".join(f"<li>{link(page, target, titles.get(target, target))}</li>" for target in pages)
        parts.append(f"<b>{escape(section)}</b><ul>{links}</ul>")
    place = order.index(page) if page in order else 0
    near = [order[i] for i in (place - 1, place + 1) if 0 <= i < len(order)]
    foot = " · ".join(link(page, target, titles.get(target, target)) for target in near)
    return f"<nav><details><summary>All pages</summary>{''.join(parts)}</details></nav>", f"<nav>{foot}</nav>"


def linked_pages(node: object) -> set[str]:
    "Every page that the site configuration names."
    if isinstance(node, dict):
        return set().union(*map(linked_pages, node.values()))
    if isinstance(node, list):
        return set().union(*map(linked_pages, node))
    return {node} if isinstance(node, str) and node.endswith((".ipynb", ".qmd")) else set()


def address(page: str, target: str) -> str:
    "A relative link's target, from the top of the site."
    folder = "" if target.startswith("/") else posixpath.dirname(page)
    return posixpath.normpath(posixpath.join(folder, target.strip("/")))


def without_numbers(page: str) -> str:
    "A page's name on the site, where nbdev leaves out the numbers that give the reading order."
    return re.sub(r"(^|/)\d+[a-z]?_", r"\1", page)


def with_near_links(text: str, page: str, html: dict[str, str], site: str) -> str:
    "A page whose links to the published site lead to the pages rendered here."
    known = {without_numbers(name): name for name in html}

    def near(found: re.Match[str]) -> str:
        target = known.get(found[1], found[1])
        return f'href="{posixpath.relpath(target, posixpath.dirname(page) or ".")}'

    return re.sub(f'href="{re.escape(site)}([^"#]+)', near, text)


def broken_links(html: dict[str, str], site: str) -> list[str]:
    "Links between pages, and to places in them, that lead nowhere, and pictures without alternative text."
    rows, known = [], {without_numbers(page): page for page in html} | {page: page for page in html}
    places = {page: {"", *re.findall(r'\bid="([^"]+)"', text)} for page, text in html.items()}
    for page, text in html.items():
        for link in sorted({link.replace(site, "/") for link in re.findall(r'href="([^"]+)"', text)}):
            target, _, place = link.partition("#")
            found = known.get(address(page, target)) if target else page
            if ":" not in target and (found is None or place not in places[found]):
                rows.append(f"{page}: broken link {link}")
        pictures = re.findall(r"<img[^>]*>", text)
        rows += [f"{page}: picture without alternative text" for tag in pictures if not re.search('alt="[^"]', tag)]
    return rows


def raw_links(text: str) -> list[str]:
    "Markdown links that stand as text, as a link within a link does; code and its outputs may hold them."
    return re.findall(r"\[[^][]*\]\(http[^)]*\)", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL))


def home_picture(page: Path) -> bytes:
    "The home page's one picture."
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    (picture,) = [data["image/png"] for data in outputs if "image/png" in data]
    return base64.b64decode("".join(picture))


def readme_text(page: Path, title: str) -> str:
    "README.md from the home page: with its title, which nbdev moves away, links into nbs/, and its picture in a file."
    source, alternatives = read_page(page)
    body, texts = pandoc(source, "gfm-raw_html", "--wrap=preserve"), iter(alternatives)
    place = re.compile(r"!\[\]\([^)]*\)\n\n.*?\n\n", re.DOTALL)  # a picture and its caption
    body = place.sub(lambda _: f"![{next(texts)}]({PICTURE})\n\n", body)
    body = body.replace("``` python\n```\n\n", "")  # a cell that is not shown
    return f"# {title}\n\n" + re.sub(r"\]\((?!http)([^)]+\.ipynb)", r"](nbs/\1", body)


@call_parse
def main(
    out: Path = Path("_docs"),  # Where the HTML goes
    readme: bool = False,  # Write README.md
    only: str = "",  # Render no others than these pages, by a regular expression; nothing is checked then
    check: bool = False,  # Fail on a stale README.md, a broken link, a missing or an orphan page
):
    "Process the notebooks, render them with Pandoc, check the site"
    cfg = get_config()
    cache = proc_nbs(force=not only, n_workers=0)
    site = yaml.safe_load((cfg.nbs_path / "_quarto.yml").read_text(encoding="utf-8"))["website"]
    pages = sorted(cache.rglob("*.ipynb"))
    fronts = {str(page.relative_to(cache)): front_matter(page) for page in pages}
    titles = {name: front["title"] for name, front in fronts.items()}
    html = {}
    for page in (page for page in pages if re.search(only, str(page.relative_to(cache)))):
        name = page.relative_to(cache).with_suffix(".html")
        source, alternatives = read_page(page)
        front = fronts[str(page.relative_to(cache))]
        head, foot = navigation(site["sidebar"]["contents"], titles, str(page.relative_to(cache)))
        options = ["--standalone", "--embed-resources", "--mathml", "--columns=9999"]
        options += [f"--metadata=title:{front['title']}", f"--metadata=subtitle:{front.get('description', '')}"]
        options += [f"--variable=header-includes:{STYLE}", f"--variable=include-before:{head}"]
        rendered = pandoc(source, "html5", *options, f"--variable=include-after:{foot}")
        rendered = re.sub(r'href="([^":]+)\.ipynb', r'href="\1.html', rendered)
        html[str(name)] = with_alternatives(rendered, alternatives)
    home = f"{cfg.doc_host}{cfg.doc_baseurl}/"
    for name, text in html.items():
        target = cfg.config_path / out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(with_near_links(text, name, html, home), encoding="utf-8")

    target = cfg.config_path / "README.md"
    body = readme_text(cache / "index.ipynb", cfg.title) if readme or not only else ""
    if readme:
        picture = cfg.config_path / PICTURE
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(home_picture(cache / "index.ipynb"))
        target.write_text(body, encoding="utf-8")
    if only:
        return
    linked = linked_pages(site)
    names = {str(page.relative_to(cache)) for page in pages}
    rows = [f"_quarto.yml names a missing page: {name}" for name in sorted(linked - names)]
    rows += [f"page without a place in _quarto.yml: {name}" for name in sorted(names - linked)]
    site_names = Counter(map(without_numbers, html))
    rows += [f"{count} pages would be {name}: rename one" for name, count in site_names.items() if count > 1]
    rows += broken_links(html, home)
    rows += [f"{page}: not rendered: {found}" for page, text in html.items() for found in raw_links(text)]
    rows += [f"{page}: a path of this machine" for page, text in html.items() if "/site-packages" in text]
    rows += [f"{page}: output of a Matplotlib object" for page, text in html.items() if "<code>&lt;matplotlib." in text]

    if target.read_text(encoding="utf-8") != body:
        rows.append("README.md is not what nbs/index.ipynb renders to: run `make notebooks NB=nbs/index.ipynb`")
    print("\n".join([*rows, f"{len(pages)} pages rendered, {len(rows)} faults"]))
    sys.exit(bool(rows) and check)
