"""The file stream: how the SDK sends history, system metrics, summary, console lines and the end of a run."""

from __future__ import annotations

import json
from typing import Any

from .history import Row
from .store import LogLine, Run


def receive(run: Run, message: Row) -> Row:
    """Take in one message; the answer tells the SDK its limits and whether somebody pressed stop."""
    for name, chunk in (message.get("files") or {}).items():
        _receive_file(run, name, int(chunk["offset"]), chunk["content"])
    run.beat()
    if message.get("complete"):
        run.exit_code = int(message.get("exitcode") or 0)
        run.declared = "failed" if run.exit_code else "finished"
    else:
        run.declared = "preempting" if message.get("preempting") else "running"
    run.project.store.changes += 1
    return {"exitcode": None, "limits": {}, "stopped": run.stopped}


def _receive_file(run: Run, name: str, offset: int, content: list[str]) -> None:
    if name == "wandb-history.jsonl":
        run.write_history(offset, [json.loads(line) for line in content])
    elif name == "wandb-events.jsonl":
        run.events[offset:] = [json.loads(line) for line in content]
    elif name == "wandb-summary.json":
        run.summary = json.loads(content[-1])
    elif name == "output.log":
        gap = range(len(run.console), offset + len(content))
        run.console += [LogLine(number, "") for number in gap]
        run.console[offset : offset + len(content)] = [_line(offset + i, text) for i, text in enumerate(content)]


def _line(number: int, text: str) -> LogLine:
    """A line as JSON, or as `ERROR 2024-01-01T00:00:00.000000 text`, which older servers are sent."""
    fields = _object(text)
    if fields is not None:
        level, label, stamp = (fields.get(name) or None for name in ("level", "label", "ts"))
        return LogLine(number, fields.get("content", ""), level, label, stamp)
    level, _, rest = text.partition(" ") if text.startswith("ERROR ") else (None, "", text)
    stamp, _, line = rest.partition(" ")
    return LogLine(number, line, level and level.lower(), None, stamp)


def _object(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
