"""The visitor's personal head on the pages: the browser holds it, see assets/browser/personal.js."""

import hashlib
from functools import lru_cache

from handful import FingerCounter, shared_counter
from handful.personal import FITTED, with_heads


@lru_cache(1)
def browser_model(counter: FingerCounter) -> tuple[bytes, str]:
    """Return the model file that browsers run, and its SHA-256. Its heads are those of the counter's personal head."""
    model = with_heads(counter.path.read_bytes(), counter.personal.weights if counter.personal else {})
    return model, hashlib.sha256(model).hexdigest()


def heads_data() -> dict:
    """Return what `connect` of assets/browser/personal.js takes: which personal heads are for this model."""
    counter = shared_counter()
    return {"model": counter.sha256, "shapes": {name: counter.heads[name].shape for name in FITTED}}
