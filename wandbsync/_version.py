"""The version, written here and nowhere else; `make release` tags it."""

__version__ = "0.1.0"
