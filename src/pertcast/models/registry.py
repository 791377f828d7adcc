"""Find models by name. A model is one file of this folder that registers itself."""

from pertcast.registry import Entry, Registry

_MODELS = Registry("model", "pertcast.models")

register, entries, entry, build = _MODELS.register, _MODELS.entries, _MODELS.entry, _MODELS.build
described = _MODELS.described

__all__ = ["Entry", "build", "described", "entries", "entry", "register"]
