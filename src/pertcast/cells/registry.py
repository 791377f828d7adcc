"""Find models of cells by name. A model is one file of this folder that registers itself."""

from pertcast.registry import Registry

_MODELS = Registry("model of cells", "pertcast.cells")

register, entries, entry, build = _MODELS.register, _MODELS.entries, _MODELS.entry, _MODELS.build
described = _MODELS.described

__all__ = ["build", "described", "entries", "entry", "register"]
