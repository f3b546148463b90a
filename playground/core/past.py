"""The name a model has for its key-value cache: `cache` since transformers 5.24, `past_key_values` before."""

import functools
import inspect


def past(model, cache) -> dict:
    """The cache as the keyword argument that `model` takes."""
    return {_name(type(model)): cache}


def past_of(model, out):
    """The cache in what `model` returned."""
    return out[_name(type(model))]


@functools.cache
def _name(model: type) -> str:
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
