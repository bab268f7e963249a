"""Package metadata comes from settings.ini, the one file that nbdev reads too; commands from the code."""

import ast
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]


def commands() -> list[str]:
    "Every function of the package that is decorated with `command` becomes a console script."
    found = []
    for path in sorted((HERE / "anomaly_nb").rglob("*.py")):
        module = ".".join(path.relative_to(HERE).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            decorators = getattr(node, "decorator_list", [])
            if any(isinstance(each, ast.Name) and each.id == "command" for each in decorators):
                found.append(f"{node.name} = {module}:{node.name}.main")
    return found


def described() -> str:
    "README.md as an index shows it: links between files of the repository become addresses."
    text, home = (HERE / "README.md").read_text(encoding="utf-8"), f"{cfg['git_url']}/blob/{cfg['branch']}"
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#|data:)", rf"\g<1>{home.replace('/blob/', '/raw/')}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#|mailto:)", rf"\g<1>{home}/", text)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=described(),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    url=cfg["git_url"],
    project_urls={
        "Documentation": cfg["doc_host"] + cfg["doc_baseurl"],
        "Source": cfg["git_url"],
        "Issues": f"{cfg['git_url']}/issues",
        "Changelog": f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md",
    },
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=cfg["keywords"].split(),
    classifiers=[
        "Development Status :: 3 - Alpha",
        f"Intended Audience :: {cfg['audience']}",
        "Operating System :: OS Independent",
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.11", "3.12", "3.13", "3.14")),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["anomaly_nb", "anomaly_nb.*"]),
    package_data={"anomaly_nb": ["py.typed", "samples/**/*", "templates/*"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={
        name.removesuffix("_requirements"): cfg[name].split() for name in cfg if name.endswith("_requirements")
    },
    entry_points={"console_scripts": commands(), "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
)
