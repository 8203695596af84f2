"""`status`: how fresh and complete the cache is."""

from __future__ import annotations

import click

from .entry import Settings, as_json, main_group, settings


@main_group.command()
@as_json
@settings
def status(on: Settings, /, as_json: bool) -> None:
    """Tell how fresh and complete the cache is, what could not be read, and why. Asks nobody."""
    from .. import output, query

    found = query.status(on.filled())
    if as_json:
        output.show_json(found)
        return
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
        click.echo(f"incomplete: {run['entity']}/{run['project']}/{run['run_id']}: {run['reason']}{again}")
    for problem in found["problems"]:
        click.echo(f"not read: {problem['subject']}: {problem['reason']} (since {problem['since'][:19]}Z)")
