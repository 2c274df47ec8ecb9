"""Text -> vectors: encoders, and the store that keeps what they gave.

Importing this package, and reading a store, needs neither transformers nor RecBole.
"""

from recbole_lsvcr.encoding.build import build_store
from recbole_lsvcr.encoding.encoders import TextEncoder, load_encoder, resolve_encoder
from recbole_lsvcr.encoding.store import TextStore

__all__ = ["TextEncoder", "TextStore", "build_store", "load_encoder", "resolve_encoder"]
