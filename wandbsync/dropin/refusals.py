"""What only W&B itself has or does: an error that names the call of the SDK that has it or does it."""

from __future__ import annotations

from ..errors import NotMirrored

API = frozenset(
    (
        "artifact", "artifact_collection", "artifact_collection_exists", "artifact_collections", "artifact_exists",
        "artifact_type", "artifact_types", "artifact_versions", "artifacts", "automation", "automations", "client",
        "create_automation", "create_custom_chart", "create_project", "create_registry", "create_run",
        "create_run_queue", "create_team", "create_user", "delete_automation", "integrations", "job", "list_jobs",
        "organization", "queued_run", "registries", "registry", "reports", "run_queue", "slack_integrations",
        "sync_tensorboard", "team", "update_automation", "upsert_run_queue", "user", "users", "webhook_integrations",
    )
)  # fmt: skip
RUN = frozenset(
    (
        "commit", "create", "delete", "description", "dir", "download_history_exports", "historyKeys", "history_keys",
        "json_config", "log_artifact", "logged_artifacts", "projectId", "project_id", "rawconfig", "readOnly",
        "read_only", "save", "stop", "storage_id", "update", "update_state", "upload_file", "use_artifact",
        "used_artifacts", "wait_until_running",
    )
)  # fmt: skip
PROJECT = frozenset(
    (
        "artifacts_types", "collections", "id", "internal_id", "is_benchmark", "owner", "user",
    )
)  # fmt: skip
FILE = frozenset(
    (
        "delete", "directUrl", "direct_url", "id", "path_uri",
    )
)  # fmt: skip
SWEEP = frozenset(
    (
        "agent", "agents", "enqueue_run", "get", "load",
    )
)  # fmt: skip
USER = frozenset(
    (
        "admin", "api_keys", "create", "delete_api_key", "email", "flags", "generate_api_key", "id", "user_api",
    )
)  # fmt: skip


def refused(what: str, call: str) -> NotMirrored:
    """The error for one name."""
    return NotMirrored(f"wandbsync mirrors what was logged; it has no {what}", hint=f"use {call} of the wandb SDK")
