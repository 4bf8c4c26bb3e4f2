"""The two modules that are compared.

With ``LOADERD_SURFACE=keras`` Keras is compared with itself: everything must be equal,
which proves the comparison and not the product.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

KERAS_WITH_ITSELF = os.environ.get("LOADERD_SURFACE") == "keras"

keras_image: Any = importlib.import_module("keras.src.legacy.preprocessing.image")
ours: Any = keras_image if KERAS_WITH_ITSELF else importlib.import_module("loaderd_client.image")
