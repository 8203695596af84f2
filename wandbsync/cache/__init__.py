"""The local cache: a catalog in SQLite, segments in Parquet, and `wandb.duckdb` for anybody's DuckDB."""

from .cursors import LogCursor, MirrorCursor, Mirrored
from .store import Cache, Share

__all__ = ["Cache", "LogCursor", "MirrorCursor", "Mirrored", "Share"]
