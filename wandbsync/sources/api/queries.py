"""What is asked of the server, as GraphQL. Names and fields are those the SDK asks for, so every server has them.

Fields in OPTIONAL came later or are used by few; a server that does not know one is asked again without it. For that,
each stands on a line of its own; where several types have a field of one name, the line says in a comment which it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ...model import FIELDS, Field

OPTIONAL = frozenset(
    [
        *("eventsLineCount", "logLineCount", "description", "useImprovedPagination", "parquetHistory", "liveData"),
        *("historyKeys", "events", "logLines", "files", "md5", "mimetype", "updatedAt", "sweepName", "jobType"),
        *(
            "Run.updatedAt",
            "user",
            "host",
            "Project.description",
            "Project.createdAt",
            "Project.updatedAt",
            "totalRuns",
        ),
        *("sweeps", "method", "bestLoss", "runCountExpected", "Sweep.displayName", "Sweep.description"),
        *("Sweep.createdAt", "Sweep.updatedAt"),
    ]
)

TYPES = ("Run", "File", "Project", "Sweep")  # as W&B calls them
# Those of them that the SDK does not ask for: left out where a server refuses a question and does not say what of it.
RARE = (
    "eventsLineCount",
    "logLineCount",
    "Project.description",
    "Run.updatedAt",
    "host",
    "Project.updatedAt",
    "totalRuns",
)


def _asked(one: Field) -> str:
    inside = "".join(f"\n{name}" for name in one.asks)
    tag = f" # Run.{one.wandb}" if f"Run.{one.wandb}" in OPTIONAL else ""
    return f"{one.wandb}" + (f" {{{inside}\n}}" if inside else tag)


LISTED = "\n".join(["", *(_asked(one) for one in FIELDS if one.wandb), "eventsLineCount", "logLineCount", ""])

RECORD = """
          config
          summaryMetrics
"""

_VIEWER = """
  viewer {
    id
    entity
    username
    teams {
      edges {
        node {
          name
        }
      }
    }
  }
"""
VIEWER = f"query Viewer {{{_VIEWER}}}\n"

PROJECT = """description # Project.description
        createdAt # Project.createdAt
        updatedAt # Project.updatedAt
        totalRuns"""

PROJECTS = """
query GetProjects($entity: String, $cursor: String, $perPage: Int = 50) {
  models(entityName: $entity, after: $cursor, first: $perPage) {
    edges {
      node {
        name
        entityName
        PROJECT
      }
    }
    pageInfo {
      endCursor
      hasNextPage
    }
  }
}
""".replace("PROJECT", PROJECT)

# Of one project: SWEEPS.
SWEEPS = """
query GetSweeps($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50) {
  project(name: $project, entityName: $entity) {
    sweeps(after: $cursor, first: $perPage) {
      edges {
        node {
          name
          displayName # Sweep.displayName
          method
          state
          description # Sweep.description
          bestLoss
          config
          createdAt # Sweep.createdAt
          updatedAt # Sweep.updatedAt
          runCountExpected
        }
      }
      pageInfo {
        endCursor
        hasNextPage
      }
    }
  }
}
"""

_RUNS = """
query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50, $order: String,
    $filters: JSONString) {
  VIEWER
  project(name: $project, entityName: $entity) {
    runCount(filters: $filters)
    PROJECT
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {
      edges {
        node {
          FIELDS
        }
        cursor
      }
      pageInfo {
        endCursor
        hasNextPage
      }
    }
  }
}
"""
_RUNS = _RUNS.replace("PROJECT", PROJECT).replace("VIEWER", _VIEWER)
RUNS = _RUNS.replace("FIELDS", LISTED)
RUNS_WITH_RECORDS = _RUNS.replace("FIELDS", LISTED + RECORD)

# Addresses of files of many runs at once; each file that one of them may have is named.
URLS_OF_RUNS = """
query RunFileUrls($project: String!, $entity: String!, $filters: JSONString, $perPage: Int = 50,
    $fileNames: [String] = [], $fileLimit: Int = 50) {
  project(name: $project, entityName: $entity) {
    runs(filters: $filters, first: $perPage) {
      edges {
        node {
          name
          files(names: $fileNames, first: $fileLimit) {
            edges {
              node {
                name
                directUrl
              }
            }
          }
        }
      }
    }
  }
}
"""

# What can be asked of one run at once: part -> (variables, fields).
PARTS = {
    "record": ("", LISTED + RECORD),
    "config": ("", LISTED + "          config\n"),
    "listed": ("", LISTED),
    "exports": (
        "$liveKeys: [String!]!",
        """
      parquetHistory(liveKeys: $liveKeys) {
        parquetUrls
        liveData
      }
      historyKeys
""",
    ),
    "page": (
        "$minStep: Int64!, $maxStep: Int64!, $pageSize: Int!",
        """
      history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize)
""",
    ),
    "events": (
        "$samples: Int!",
        """
      events(samples: $samples)
""",
    ),
    "console": (
        "$first: Int, $after: String",
        """
      logLines(
        first: $first
        after: $after
        useImprovedPagination: true
      ) {
        edges {
          node {
            number
            timestamp
            level
            label
            line
          }
        }
        pageInfo {
          endCursor
          hasNextPage
        }
      }
""",
    ),
    "files": (
        "$fileCursor: String, $fileLimit: Int = 50",
        """
      files(
        after: $fileCursor
        first: $fileLimit
      ) {
        edges {
          node {
            name
            sizeBytes
            mimetype
            updatedAt
            md5
          }
          cursor
        }
        pageInfo {
          endCursor
          hasNextPage
        }
      }
""",
    ),
    "urls": (
        "$fileNames: [String] = [], $fileLimit: Int = 50",
        """
      files(names: $fileNames, first: $fileLimit) {
        edges {
          node {
            name
            directUrl
          }
        }
      }
""",
    ),
}

# The field of a part by which an answer shows that it has the part.
FIRST = {part: re.findall(r"\w+", fields)[0] for part, (_, fields) in PARTS.items()} | {"record": "summaryMetrics"}

# The name of a question about one run, after the part that weighs most: what the server's logs and limits call it; and
# what the SDK calls the run there.
_NAMES = {
    "exports": "RunParquetHistory",
    "page": "HistoryPage",
    "console": "RunConsoleLogPage",
    "files": "RunFiles",
    "events": "RunFullHistory",
}
_RUN_VARIABLES = {"RunParquetHistory": "runName", "HistoryPage": "run", "RunConsoleLogPage": "runName"}


def run_variable(operation: str) -> str:
    """The variable that holds the run_id in a question about one run."""
    return _RUN_VARIABLES.get(operation, "name")


def about_run(parts: Collection[str]) -> tuple[str, str]:
    """Operation name and text of a question about one run; parts are keys of PARTS."""
    name = next((_NAMES[part] for part in _NAMES if part in parts), "RunFiles" if "urls" in parts else "Run")
    if "record" in parts and name not in ("RunParquetHistory", "HistoryPage"):
        name = "Run"
    run = run_variable(name)
    variables = ", ".join(
        [
            f"$entity: String!, $project: String!, ${run}: String!",
            *(PARTS[p][0] for p in PARTS if p in parts and PARTS[p][0]),
        ]
    )
    fields = "".join(PARTS[part][1] for part in PARTS if part in parts)
    text = (  # the name: something must be asked for, whatever the server turns out not to have
        f"query {name}({variables}) {{\n  project(name: $project, entityName: $entity) {{\n"
        f"    run(name: ${run}) {{\n      name{fields}    }}\n  }}\n}}\n"
    )
    return name, text


def optional(refused: Collection[tuple[str | None, str]], text: str) -> set[str]:
    """What to leave out of a query of which a server refuses some names, with their types where it says those.

    Of several fields of one name, where it does not, those that their lines name with their types go first: they are
    the newer ones.
    """
    tags = set(re.findall(r"# (\S+)$", text, re.MULTILINE))
    found: set[str] = set()
    for kind, name in refused:
        alike = {tag for tag in tags if tag.endswith(f".{name}") and kind in (None, tag.partition(".")[0])}
        found |= alike or {name}
    return found & OPTIONAL


def without(text: str, unknown: Collection[str]) -> str:
    """A query without the fields and arguments that the server does not know, what is inside, and idle variables.

    A field is named by itself or, if its line says its type, with that: Run.updatedAt.
    """
    kept: list[str] = []
    skipping = 0
    for line in text.splitlines():
        name, tag = re.match(r"\s*(\w*)(?:.*# (\S+))?", line).groups()  # type: ignore[union-attr]
        depth = line.count("{") + line.count("(") - line.count("}") - line.count(")")
        if skipping:
            skipping += depth
        elif (tag or name) in unknown:
            skipping = depth
        else:
            kept.append(line)
    head, _, body = "\n".join(kept).partition("{")
    idle = [name for name in re.findall(r"\$(\w+):", head) if not re.search(rf"\${name}\b", body)]
    for name in idle:
        head = re.sub(rf"\${name}:[^,)]*(,\s*|(?=\)))", "", head)
    return re.sub(r",\s*\)", ")", head).replace("()", "") + "{" + body
