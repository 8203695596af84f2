"""GraphQL requests, checked against the schema and run by graphql-core; fields are snake_case attributes of views."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graphql

from .faults import HTML
from .history import Row
from .root import Root
from .views import Refused, snake

TEXT = Path(__file__).with_name("schema.graphql").read_text()


@functools.cache
def schema(lacks: frozenset[str]) -> graphql.GraphQLSchema:
    """What can be asked, without what an older server lacks: fields of runs and files, and arguments, by name."""

    class Older(graphql.Visitor):
        def enter_object_type_definition(self, node: graphql.ObjectTypeDefinitionNode, *_: Any) -> Any:
            return None if node.name.value in ("Run", "ParquetHistory", "File") else False

        def enter_field_definition(self, node: graphql.FieldDefinitionNode, *_: Any) -> Any:
            return graphql.REMOVE if node.name.value in lacks else None

        enter_input_value_definition = enter_field_definition

    return graphql.build_ast_schema(graphql.visit(graphql.parse(TEXT), Older()))


@functools.lru_cache(maxsize=512)
def document(
    query: str, lacks: frozenset[str] = frozenset()
) -> tuple[graphql.DocumentNode | None, list[graphql.GraphQLError]]:
    """A parsed query, or what the schema has against it."""
    try:
        parsed = graphql.parse(query)
    except graphql.GraphQLError as error:
        return None, [error]
    return parsed, graphql.validate(schema(lacks), parsed)


def operation_name(payload: Row) -> str:
    """The name of the operation asked for; queries without one go by their first field."""
    if payload.get("operationName"):
        return str(payload["operationName"])
    parsed, _ = document(payload.get("query") or "")
    for definition in parsed.definitions if parsed else ():
        if isinstance(definition, graphql.OperationDefinitionNode):
            names = [definition.name, *(getattr(field, "name", None) for field in definition.selection_set.selections)]
            return next((name.value for name in names if name), "graphql")
    return "graphql"


def execute(root: Root, payload: Row, *, anonymous: bool = False) -> tuple[int, Row | bytes]:
    """Run one GraphQL request; what comes back is a status and the body. Whoever is `anonymous` finds nothing."""
    lacks = frozenset(root.lacks)
    parsed, errors = document(payload.get("query") or "", lacks)
    if parsed is None or errors:
        return 400, {"errors": [error.formatted for error in errors]}
    with root.store.lock:
        root.anonymous, root.records = anonymous, 0
        result = graphql.execute_sync(
            schema(lacks),
            parsed,
            root_value=root,
            variable_values=payload.get("variables") or {},
            operation_name=payload.get("operationName") or None,  # wandb.Api sends ""
            field_resolver=_resolve,
        )
        if root.records > root.most_records:
            return 502, HTML
    if not result.errors:
        return 200, {"data": result.data}
    statuses = [error.original_error.status for error in result.errors if isinstance(error.original_error, Refused)]
    status = statuses[0] if statuses else 200 if result.data is not None else 400
    data = result.data
    if status >= 500 and data is not None:  # one bad run, and W&B gives nothing of all that was asked for
        data = dict.fromkeys(data)
    return status, {"data": data, "errors": [error.formatted for error in result.errors]}


def _resolve(source: Any, info: graphql.GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    if isinstance(source, Mapping):
        return source.get(info.field_name)
    value = getattr(source, snake(info.field_name))
    return value(**{snake(name): item for name, item in arguments.items()}) if callable(value) else value
