"""The local cache: a catalog in SQLite, segments in Parquet, and `wandb.duckdb` for anybody's DuckDB."""

from .store import Cache, Landed, LogCursor, Share

__all__ = ["Cache", "Landed", "LogCursor", "Share"]
