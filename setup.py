"""Package metadata comes from settings.ini, the one file that nbdev reads too; commands from the code."""

import ast
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


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    url=cfg["git_url"],
    license="Apache-2.0",
    packages=find_packages(include=["anomaly_nb", "anomaly_nb.*"]),
    package_data={"anomaly_nb": ["py.typed", "samples/**/*", "templates/*"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={
        extra: cfg[f"{extra}_requirements"].split() for extra in ("lab", "cluster", "peers", "onnx", "dev")
    },
    entry_points={"console_scripts": commands(), "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
)
