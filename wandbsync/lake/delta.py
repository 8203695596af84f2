"""The boundary to delta-rs: a lake's tables are opened, compared with, written to, and read as datasets."""

from __future__ import annotations

import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, WandbsyncError
from . import tables
from .address import Address, require

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties

    Write = Callable[[DeltaTable, CommitProperties], None]

TRIES = 12  # at a commit that conflicts with others
WAIT = 0.05, 5.0  # seconds between two of them: at first, at most


class Overtaken(Exception):
    """Another writer has published this project meanwhile: read how the lake stands, and plan again."""


class Lake:
    """The tables of a lake. Errors come as WandbsyncError."""

    def __init__(self, address: Address) -> None:
        require()
        os.environ.setdefault("RUST_LOG", "error")  # what delta-rs warns of comes back as an error of ours
        self.address = address
        self.commits = self.conflicts = 0
        self._open: dict[str, DeltaTable] = {}

    # -- look

    def table(self, name: str) -> DeltaTable | None:
        """A table as it stands now; None if there is none."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self.errors("read"):
            if name in self._open:
                self._open[name].update_incremental()
            else:
                try:
                    self._open[name] = DeltaTable(self.address.table(name))
                except TableNotFoundError:
                    return None
            return self._open[name]

    def version(self, name: str, app: str) -> int:
        """The number of the last commit to a table with a transaction of this name; 0 if there is none."""
        table = self.table(name)
        if table is None:
            return 0
        with self.errors("read"):
            return table.transaction_version(app) or 0

    def scan(self, name: str, columns: Sequence[str], predicate: str | None) -> pa.Table:
        """Some columns of the rows that a predicate chooses; files that cannot have any are not read.

        None if there is no table. Columns that a table of an older wandbsync lacks are null.
        """
        import pyarrow as pa

        table = self.table(name)
        wanted = pa.schema([tables.schema(name).field(column) for column in columns])
        if table is None:
            return wanted.empty_table()
        there = {field.name for field in table.schema().fields}
        with self.errors("read"):
            found = pa.table(table.scan([column for column in columns if column in there], predicate))
        count = found.num_rows
        return pa.table(
            [
                found.column(field.name).cast(field.type) if field.name in there else pa.nulls(count, field.type)
                for field in wanted
            ],
            schema=wanted,
        )

    def run_ids(self, name: str, predicate: str) -> set[str]:
        """The runs that have rows in a table."""
        import pyarrow as pa

        found: set[str] = set()
        table = self.table(name)
        if table is not None:
            with self.errors("read"):
                for batch in pa.RecordBatchReader.from_stream(table.scan(["run_id"], predicate)):
                    found.update(batch.column(0).unique().to_pylist())
        return found

    def dataset(self, name: str) -> ds.Dataset:
        """A table as an Arrow dataset, which DuckDB can push filters into. Raises NotFound if there is none."""
        import pyarrow as pa
        import pyarrow.fs as pafs

        table = self.table(name)
        if table is None:
            raise NotFound(f"there is no table {name} in the lake {self.address}")
        native = None
        if self.address.folder is not None:  # else what is read goes through Python
            native = pafs.SubTreeFileSystem(str(self.address.folder / name), pafs.LocalFileSystem())
        with self.errors("read"):
            return table.to_pyarrow_dataset(filesystem=native, schema=pa.schema(table.schema().to_arrow()))

    # -- write

    def commit(self, name: str, app: str, number: int, base: int, write: Write,
               *, also: Sequence[tuple[str, int]] = ()) -> None:  # fmt: skip
        """Commit once, with transactions that compare and swap. Raises Overtaken if another writer was first.

        `base` is the number of the last commit with a transaction `app` that `write` builds upon, `number` this one's.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError

        properties = CommitProperties(
            custom_metadata={"wandbsync": f"{app} {number}"},
            app_transactions=[Transaction(one, version) for one, version in ((app, number), *also)],
        )
        for attempt in range(TRIES):
            table = self.table(name) or self._make(name)
            self._widen(name, table)
            with self.errors("read"):
                last = table.transaction_version(app) or 0
            if last == number:
                return  # it had landed, though it seemed to fail
            if last != base:
                raise Overtaken
            try:
                with self.errors("write", but=CommitFailedError):
                    write(table, properties)
                self.commits += 1
                return
            except CommitFailedError as error:
                self.forget(name)
                self.conflicts += 1
                if attempt == TRIES - 1:
                    raise WandbsyncError(
                        f"cannot write {self.address.table(name)}: {_line(error)}", hint="it is busy; try again later"
                    ) from error
                self.pause(attempt)

    def forget(self, name: str) -> None:
        """Open a table anew next time."""
        self._open.pop(name, None)

    def pause(self, attempt: int) -> None:
        """Wait a random while, longer from try to try."""
        time.sleep(random.uniform(0.2, 1.0) * min(WAIT[1], WAIT[0] * 2**attempt))

    def append(self, name: str, data: Callable[[], Any]) -> Write:
        """A write that adds rows."""
        return lambda table, properties: self._write(table, name, properties, data(), mode="append")

    def replace(self, name: str, data: Callable[[], Any] | None, predicate: str | None) -> Write:
        """A write that puts rows in the place of those a predicate chooses (None: all), in one commit."""

        def write(table: DeltaTable, properties: CommitProperties) -> None:
            if data is not None:
                self._write(table, name, properties, data(), mode="overwrite", predicate=predicate)
            else:
                table.delete(
                    predicate,
                    writer_properties=tables.writing(name),
                    commit_properties=properties,
                    post_commithook_properties=_never_deletes(),
                )

        return write

    @staticmethod
    def _write(table: DeltaTable, name: str, properties: CommitProperties, data: Any, **how: Any) -> None:
        from deltalake import write_deltalake

        write_deltalake(
            table,
            data,
            commit_properties=properties,
            post_commithook_properties=_never_deletes(),
            writer_properties=tables.writing(name),
            target_file_size=tables.FILE_BYTES,
            **how,
        )

    def _make(self, name: str) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError, DeltaError

        if self.address.folder is not None:
            try:
                self.address.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WandbsyncError(f"cannot write the lake {self.address}: {error.strerror}") from error
        with self.errors("write"):
            try:
                DeltaTable.create(
                    self.address.table(name), tables.schema(name), mode="ignore",
                    partition_by=tables.PARTITIONS[name] or None, configuration=tables.configuration(name),
                    description=f"wandbsync: {tables.TITLES[name]}",
                )  # fmt: skip
            except (CommitFailedError, DeltaError):
                if self.table(name) is None:  # else another process has just made it
                    raise
        made = self.table(name)
        assert made is not None
        return made

    def _widen(self, name: str, table: DeltaTable) -> None:
        """Add the columns that a table of an older wandbsync lacks."""
        from deltalake.exceptions import CommitFailedError, DeltaError
        from deltalake.schema import Schema

        there = {field.name for field in table.schema().fields}
        lacking = [field for field in Schema.from_arrow(tables.schema(name)).fields if field.name not in there]
        if not lacking:
            return
        with self.errors("write"):
            try:
                table.alter.add_columns(lacking)
            except (CommitFailedError, DeltaError):
                table.update_incremental()
                if {field.name for field in lacking} - {field.name for field in table.schema().fields}:
                    raise  # else another process has just added them
            table.update_incremental()

    @contextmanager
    def errors(self, what: str, *, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """The errors of delta-rs as ours."""
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            yield
        except but:
            raise
        except (DeltaError, pa.ArrowException, OSError) as error:
            hint = "check the path and the permissions"
            if self.address.folder is None:
                hint = "check the address, the network, and the credentials in the environment"
            raise WandbsyncError(f"cannot {what} the lake {self.address}: {_line(error)}", hint=hint) from error


def _line(error: Exception) -> str:
    """The first of what delta-rs says, without colours."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return text if len(text) < 300 else text[:299] + "…"


def _never_deletes() -> PostCommitHookProperties:
    """Publishers need no permission to delete: old logs are removed with old files, by a vacuum."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


def next_number(last: int) -> int:
    """A number after `last` that no other writer chooses."""
    return ((last >> 32) + 1) << 32 | secrets.randbits(32)


def choose(**equal: str | Sequence[str]) -> str:
    """A predicate of delta-rs: columns that equal a text or are one of several."""
    parts = []
    for name, value in equal.items():
        if isinstance(value, str):
            parts.append(f"{name} = {_quoted(value)}")
        else:
            parts.append(f"{name} IN ({', '.join(map(_quoted, value))})")
    return " AND ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
