"""What a server lists: the runs of a project, those asked for by name, and whether those that are missed are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

from ..errors import NotFound
from ..model import RunRef
from ..sources.api.client import FILES_A_PAGE, RECORDS_A_PAGE, Api
from ..sources.api.nodes import Node

FEW = 20  # runs that are asked for one by one; more in listings

Nodes = dict[RunRef, Node]


def listed(
    api: Api,
    entity: str,
    project: str,
    *,
    filters: str = "{}",
    records: bool = False,
    tell: Callable[[int], None] = lambda _: None,
) -> Nodes:
    """The runs of a project. Pages may slip while it changes: if runs are missing, it is listed once more."""
    found: Nodes = {}
    for _ in range(2):
        expected = 0
        for node, counted in api.runs(entity, project, filters=filters, records=records):
            expected = counted
            found[RunRef(entity, project, node["name"])] = node
            if len(found) % 1000 == 0:
                tell(len(found))
        if len(found) >= expected:
            break
    return found


def some(api: Api, refs: Sequence[RunRef], *, records: bool) -> Nodes:
    """Those of some runs of one project that are there."""
    found: Nodes = {}
    for start in range(0, len(refs), RECORDS_A_PAGE):
        ids = [ref.run_id for ref in refs[start : start + RECORDS_A_PAGE]]
        filters = json.dumps({"name": {"$in": ids}})
        found |= listed(api, refs[0].entity, refs[0].project, filters=filters, records=records)
    return found


def named(api: Api, entity: str, project: str, names: Sequence[str], *, files: bool) -> tuple[Nodes, list[RunRef]]:
    """The runs asked for by run_id, with their records; by a display name where no run has such an id. And the others.

    Raises NotFound if there is no such project.
    """
    found: Nodes = {}
    absent: list[RunRef] = []
    for name in names:
        ref = RunRef(entity, project, name)
        try:
            found[ref] = api.run(ref, {"record", "files"} if files else {"record"}, fileLimit=FILES_A_PAGE)
            continue
        except NotFound:
            so_called = listed(api, entity, project, filters=json.dumps({"displayName": name}))
            # A server that does not know this filter lists them all.
            so_called = {ref: node for ref, node in so_called.items() if node.get("displayName") == name}
        found |= so_called
        if not so_called:
            absent.append(ref)
    return found, absent


def missing(api: Api, refs: Sequence[RunRef]) -> list[RunRef]:
    """Those of some runs of one project that are not there when asked for."""
    if len(refs) > FEW:
        there: Collection[RunRef] = some(api, refs, records=False)
        return [ref for ref in refs if ref not in there]
    return [ref for ref in refs if not _is_there(api, ref)]


def _is_there(api: Api, ref: RunRef) -> bool:
    try:
        api.run(ref, {"record"})
    except NotFound:
        return False
    return True
