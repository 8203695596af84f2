"""What is asked of the server, as GraphQL. Names and fields are those the SDK asks for, so every server has them.

Fields in OPTIONAL came later or are used by few; a server that does not know one is asked again without it. For that,
each stands on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection

OPTIONAL = frozenset(
    [
        *("eventsLineCount", "logLineCount", "description", "useImprovedPagination", "parquetHistory", "liveData"),
        *("historyKeys", "events", "logLines", "files", "md5", "mimetype", "updatedAt", "sweepName", "jobType"),
    ]
)

# Those of them that the SDK does not ask for: left out where a server refuses a question and does not say what of it.
RARE = ("eventsLineCount", "logLineCount", "description")

LISTED = """
          name
          displayName
          state
          tags
          notes
          group
          jobType
          sweepName
          createdAt
          heartbeatAt
          historyLineCount
          eventsLineCount
          logLineCount
"""

RECORD = """
          config
          summaryMetrics
"""

VIEWER = """
query Viewer {
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
}
"""

PROJECTS = """
query GetProjects($entity: String, $cursor: String, $perPage: Int = 50) {
  models(entityName: $entity, after: $cursor, first: $perPage) {
    edges {
      node {
        name
        entityName
        description
        createdAt
      }
    }
    pageInfo {
      endCursor
      hasNextPage
    }
  }
}
"""

_RUNS = """
query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50, $order: String,
    $filters: JSONString) {
  project(name: $project, entityName: $entity) {
    runCount(filters: $filters)
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
RUNS = _RUNS.replace("FIELDS", LISTED)
RUNS_WITH_RECORDS = _RUNS.replace("FIELDS", LISTED + RECORD)

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


def without(text: str, unknown: Collection[str]) -> str:
    """A query without the fields and arguments that the server does not know, what is inside, and idle variables."""
    kept: list[str] = []
    skipping = 0
    for line in text.splitlines():
        word = re.match(r"\s*(\w+)", line)
        depth = line.count("{") + line.count("(") - line.count("}") - line.count(")")
        if skipping:
            skipping += depth
        elif word and word[1] in unknown:
            skipping = depth
        else:
            kept.append(line)
    head, _, body = "\n".join(kept).partition("{")
    idle = [name for name in re.findall(r"\$(\w+):", head) if not re.search(rf"\${name}\b", body)]
    for name in idle:
        head = re.sub(rf"\${name}:[^,)]*(,\s*|(?=\)))", "", head)
    return re.sub(r",\s*\)", ")", head).replace("()", "") + "{" + body
