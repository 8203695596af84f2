"""One script, two imports: `python contract.py wandb` asks the SDK, `python contract.py wandbsync` asks the drop-in.

It takes {"name": "expression"} as JSON from stdin, with `api` and what came before in reach, and prints what each gives
with the type of every value: 1 is not 1.0, and a row is told by its values, not by the order of its keys.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from pathlib import Path
from typing import Any


def typed(value: Any) -> Any:
    """A value as JSON that tells types apart."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return [type(value).__name__, repr(value)]
    if isinstance(value, (list, tuple)):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {str(key): typed(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, datetime.datetime):
        return ["datetime", value.isoformat()]
    if dataclasses.is_dataclass(value):
        return [type(value).__name__, typed(dataclasses.asdict(value))]  # type: ignore[arg-type]
    if hasattr(value, "_json_dict"):  # a summary
        return ["summary", typed(value._json_dict)]
    if hasattr(value, "to_dicts"):  # polars
        return ["polars", {name: str(kind) for name, kind in sorted(value.schema.items())}, typed(value.to_dicts())]
    if hasattr(value, "dtypes"):  # pandas
        columns = {str(name): str(kind) for name, kind in sorted(value.dtypes.items())}
        return ["pandas", columns, typed(value.to_dict("records"))]
    return [type(value).__name__, repr(value)]


def main() -> None:
    if sys.argv[1] == "wandb":
        import wandb

        api: Any = wandb.Api(timeout=60)
    else:
        import wandbsync

        api = wandbsync.Api(offline=sys.argv[1] == "offline")
    scope: dict[str, Any] = {"api": api, "Path": Path}
    answers = {}
    for name, expression in json.load(sys.stdin).items():
        answers[name] = answer(name, expression, scope)
    json.dump(answers, sys.stdout)


def answer(name: str, expression: str, scope: dict[str, Any]) -> Any:
    try:
        scope[name] = eval(expression, scope)
        return typed(scope[name])
    except Exception as error:  # an answer too
        kinds = (ValueError, IndexError, KeyError, AttributeError)
        return ["raises", *[kind.__name__ for kind in kinds if isinstance(error, kind)], str(error)]


if __name__ == "__main__":
    main()
