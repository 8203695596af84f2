"""`status`: how fresh and complete the cache is, and how whoever keeps it so is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..terminal import echo
from .entry import Settings, as_json, main_group, settings

if TYPE_CHECKING:
    from ..status import Snapshot


@main_group.command()
@as_json
@settings
def status(on: Settings, /, as_json: bool) -> int:
    """Tell how fresh and complete the cache is, what could not be read and why, and how the daemon is. Asks nobody.

    Exit codes: 0 ok, 10 stale, 11 failing, 12 stopped. 0 too where no daemon ever ran: the cache is kept by hand.
    """
    import time

    from .. import output, query
    from .. import status as health

    cache = on.cache()
    snapshot, alive = health.of(cache.folder)
    if not alive or not cache.exists():
        on.filled()
    found = query.status(cache)
    verdict = health.verdict(snapshot, alive=alive, now=time.time())
    if as_json:
        daemon = None if snapshot is None else output.snapshot_fields(snapshot, alive=alive)
        output.show_json({"verdict": verdict.word, "reasons": list(verdict.reasons), "daemon": daemon} | found)
    else:
        _show(found)
        if snapshot is not None:
            _show_daemon(snapshot, alive=alive)
        for reason in verdict.reasons if snapshot is not None or alive else ():
            echo(f"{verdict.word}: {reason}")
    return 0 if snapshot is None and not alive else verdict.exit_code


def _show(found: dict[str, Any]) -> None:
    from .. import output

    output.show_table(
        ["ENTITY", "PROJECT", "RUNS", "RUNNING", "INCOMPLETE", "EVICTED", "DELETED", "SOURCE", "SYNCED"],
        [
            [
                *(p[name] for name in ("entity", "project", "runs", "running", "incomplete", "evicted")),
                *(p[name] for name in ("deleted", "source")),
                output.ago(p["synced_at"]),
            ]
            for p in found["projects"]
        ],
    )
    for run in found["incomplete"]:
        again = f"; tried {run['failures']} times, again after {run['retry_at'][:19]}Z" if run["retry_at"] else ""
        echo(f"incomplete: {run['entity']}/{run['project']}/{run['run_id']}: {run['reason']}{again}")
    for problem in found["problems"]:
        echo(f"not read: {problem['subject']}: {problem['reason']} (since {problem['since'][:19]}Z)")


def _show_daemon(snapshot: Snapshot, *, alive: bool) -> None:
    from .. import output

    if not alive:
        return
    echo()
    echo(f"daemon {snapshot.pid}, started {output.ago_seconds(snapshot.started_at)}")
    output.show_table(
        ["KEPT FRESH", "SYNCED", "NEXT", "EVERY", "RUNNING", "ERROR"],
        [
            [
                one.location,
                output.ago_seconds(one.fresh_at),
                output.ahead_seconds(one.next_at),
                output.show_seconds(one.interval),
                one.running,
                output.shorten(one.error or "", 60),
            ]
            for one in snapshot.sources
        ],
    )
    for live in sorted(snapshot.live, key=lambda one: -one.lag)[:10]:
        echo(f"live: {live.run}, {live.lag:.1f} s from its last write to the cache")
    server = snapshot.server
    if server is not None and server.url:
        quiet = f", quiet for {output.ahead_seconds(server.quiet_until)}" if server.quiet_until else ""
        waited = f", waited {server.waited:.0f} s for its rate limit" if server.waited >= 1 else ""
        echo(f"{server.url}: {server.requests:,} requests, {output.show_size(server.bytes)}{waited}{quiet}")
