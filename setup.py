"""Package metadata comes from settings.ini, the one file that nbdev reads too."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

_parser = ConfigParser(delimiters=["="])
_parser.read("settings.ini", encoding="utf-8")
cfg = _parser["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
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
    entry_points={
        "console_scripts": [line.strip() for line in cfg["console_scripts"].splitlines() if line.strip()],
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
)
