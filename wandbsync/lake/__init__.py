"""One lake for the whole team: the caches of many machines published as Delta tables, which any engine reads.

    address   where a lake is, and what is needed for it     plan      what changed since -> actions; pure
    tables    the tables: columns, partitions, statistics    publish   claims, plans, has it carried out
    here      what this cache has, at one moment             claims    which projects are this cache's
    there     what the lake has: owners, runs, how far       memory    what was published last: a hint
    records   rows of the tables, but for the histories      batch     one batch: a row of commits
    flow      the histories on their way, counted            upkeep    compaction, vacuum
    delta     the boundary to delta-rs                       read      a lake answered from without a cache

Tables: `projects`, `runs`, `metrics`, `files`, and the rows: `history`, `system`, `console`, lossless as in the cache.
All but `projects` are partitioned by server, entity, project and bucket. A bucket holds the first 256 runs of a project
that were published, the next one the next 256, and a run stays in its bucket: so one run is in the files of one bucket,
what goes on now is in few buckets, and old ones are never touched again. Files are sorted by run_id, key, step, and the
log has the least and greatest of run_id, key and step of each, but not of `value`: NaN would be pruned away by them.

**How a publication cannot count twice.** Delta commits one table at a time, so a batch of runs is published as a row of
commits: history, system, console, metrics, files, and `runs` last. Each commit carries a transaction of Delta's own,
named after the project, with the number of the batch. That is a compare-and-swap: a commit is refused if another one
with a transaction of this project came since the table was looked at, and one that seemed to fail but had landed is
found out by its number. The row of a run in `runs` says whose publication it is, of which revision and generation of
that cache, and how many values of each stream are in the lake, up to which step. The state of the lake is read from
the lake alone:

    all tables as far as `runs`      everything is as `runs` says: rows after the last step are added to a run that grew
    a table is ahead of `runs`       a batch did not come to its end: what it may have added is replaced, not added to

Values are added to a run only if the cache has as many up to the last step as the lake says; else, and after a rewind
or a new generation, all of the run is replaced in one commit. A batch that was interrupted anywhere is thereby done
again without adding anything twice, and readers see a run's rows as they were or as they are, never a mixture.

**Many caches.** A project of a server is published by one cache, its owner, which stands in `projects`. Another one
leaves it alone until the owner has not been heard of for seven days, or until `--take-over`. Whoever takes over
replaces all runs it has, for what another cache wrote is not known to the last value. Should the old owner wake up in
the middle of a batch, the transactions refuse either its commit or the new owner's, which then plans again: clocks
only decide who tries. Local runs that no server has belong to the server `local@` and the name of the machine.

Conflicts, also with a compaction, are retried after a random while.
"""
