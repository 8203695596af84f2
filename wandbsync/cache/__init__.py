"""The local cache: a catalog in SQLite, segments in Parquet, and `wandb.duckdb` for anybody's DuckDB."""

from .store import Cache, LogCursor, Share

__all__ = ["Cache", "LogCursor", "Share"]
