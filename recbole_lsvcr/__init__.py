"""LSVCR for RecBole: `import recbole_lsvcr`, then use RecBole as ever.

The import is quick and needs no RecBole: `recbole_lsvcr.plugin` waits for RecBole's modules and registers our models
in them when they are imported; `register_model("my_module:MyModel")` adds one of yours.
"""

from recbole_lsvcr.custom_models import register_model
from recbole_lsvcr.plugin import install

__all__ = ["install", "register_model"]
__version__ = "0.1.0"

install()
