"""What GraphQL can be asked and told: the fields of Query and Mutation."""

from __future__ import annotations

import base64
import functools
import json
import secrets
from types import SimpleNamespace

from .history import Row
from .signing import Signer
from .store import Run, Store
from .views import INTERNAL, EntityView, FileView, ProjectView, Refused, RunView, UserView, connection

FEATURES = ("LARGE_FILENAMES", "ARTIFACT_TAGS", "CLIENT_IDS", "STRUCTURED_CONSOLE_LOGS", "MARK_RUN_FILES_UPLOADED",
            "FILESTREAM_GZIP", "TOTAL_COUNT_IN_FILE_CONNECTION")  # fmt: skip


class Root:
    """Query and Mutation.

    `history_serves_exported` says whether pages of `history` also hold exported rows. Lists of projects and of runs
    begin with `hidden_pages` empty ones; with `stuck` a list of runs stays where it is. Fields and arguments whose
    names are in `lacks` are not in the schema, as those that came later are not in that of an older server. `records`
    counts the summaries given; an answer with more than `most_records` is too much for the gateway: 502.
    """

    def __init__(self, store: Store, signer: Signer, base: str) -> None:
        self.store, self.signer, self.base = store, signer, base
        self.history_serves_exported = False
        self.hidden_pages, self.stuck = 0, False
        self.records, self.most_records = 0, 1 << 30
        self.anonymous = False  # of the request that is answered: its key is none, so there is nobody and nothing
        self.features = set(FEATURES)
        self.lacks: set[str] = set()

    # Query

    def viewer(self) -> UserView | None:
        return None if self.anonymous else UserView(self, self.store.username)

    def entity(self, name: str | None = None) -> EntityView | None:
        name = name or self.store.username
        return EntityView(self, name) if name in self.store.entities else None

    def organization(self, name: str | None = None) -> SimpleNamespace:
        return SimpleNamespace(name=name, feature_flags=lambda ramp_idtype: [], org_entity=None)

    def server_info(self) -> Row:
        versions = {"max_cli_version": "0.99.0", "min_cli_version": "0.10.0"}
        latest = {"outOfDate": False, "latestVersionString": "0.80.0", "versionOnThisInstanceString": "0.80.0"}
        features = [{"name": name, "isEnabled": True} for name in sorted(self.features)]
        return {"cliVersionInfo": versions, "latestLocalVersionInfo": latest, "features": features}

    def project(self, name: str | None = None, entity_name: str | None = None) -> ProjectView | None:
        found = self.model(name, entity_name)
        if not found and not self.anonymous:
            raise Refused(404, "project not found")
        return found

    def model(self, name: str | None = None, entity_name: str | None = None) -> ProjectView | None:
        found = self.store.project(entity_name or self.store.username, name or "uncategorized")
        return ProjectView(self, found) if found and not self.anonymous else None

    def projects(self, entity_name: str | None = None, after: str | None = None, first: int | None = None) -> Row:
        entity = entity_name or self.store.username
        mine = [project for project in self.store.projects.values() if project.entity == entity]
        if self.anonymous:
            return connection([], functools.partial(ProjectView, self), None, first)
        return connection(mine, functools.partial(ProjectView, self), after, first, hidden=self.hidden_pages)

    models = projects

    def client_id_mapping(self, client_id: str) -> Row:
        return {"serverID": client_id}

    # Mutation

    def upsert_bucket(self, input: Row) -> Row:
        run, inserted = self._upserted(input)
        for field, name in _UPSERTED.items():
            if input.get(field) is not None:
                setattr(run, name, input[field])
        if input.get("config") is not None:
            run.config = json.loads(input["config"])
        if input.get("summaryMetrics") is not None:
            run.summary = json.loads(input["summaryMetrics"])
        if "debug" in input or "state" in input:  # a process that logs, not an edit by hand
            run.declared = input.get("state") or "running"
            run.beat()
        if inserted:
            self._fork(run)
        self.store.changes += 1
        return {"bucket": RunView(self, run), "inserted": inserted}

    def _upserted(self, input: Row) -> tuple[Run, bool]:
        if input.get("id"):
            return self._by_id(input["id"]), False
        entity = input.get("entityName") or self.store.username
        if entity not in self.store.entities:
            raise Refused(404, f"entity {entity} not found during upsertBucket")
        project = self.store.project(entity, input.get("modelName") or "uncategorized", create=True)
        assert project
        name = input.get("name") or secrets.token_hex(4)
        if name in project.runs:
            return project.runs[name], False
        return self.store.create(project, name), True

    def _fork(self, run: Run) -> None:
        point = run.config.get(INTERNAL, {}).get("value", {}).get("branch_point")
        parent = run.project.runs.get(point["run_id"]) if point else None
        if parent:
            run.history.append(parent.history.between(0, int(point["step"]) + 1))

    def upsert_model(self, input: Row) -> Row:
        entity, name = input.get("entityName") or self.store.username, input["name"]
        inserted = self.store.project(entity, name) is None
        project = self.store.project(entity, name, create=True)
        assert project
        view = ProjectView(self, project)
        return {"project": view, "model": view, "inserted": inserted}

    def create_run_files(self, input: Row) -> Row:
        run = self._run(input)
        path = run.project.entity, run.project.name, run.name
        files = [
            {"name": name, "uploadUrl": self.signer.url("files", *path, name, method="PUT")} for name in input["files"]
        ]
        return {"runID": run.id, "uploadHeaders": [], "files": files}

    def mark_run_files_uploaded(self, input: Row) -> Row:
        self._run(input)
        return {"success": True}

    def rewind_run(self, input: Row) -> Row:
        run = self._run(input)
        run.rewind(int(input["metricValue"]))
        run.declared = "running"
        run.beat()
        self.store.changes += 1
        return {"rewoundRun": RunView(self, run)}

    def update_run_state(self, input: Row) -> Row:
        self._by_id(input["id"]).declared = input["state"]
        self.store.changes += 1
        return {"success": True}

    def stop_run(self, input: Row) -> Row:
        self._by_id(input["id"]).stopped = True
        return {"success": True}

    def delete_run(self, input: Row) -> Row:
        self.store.delete(self._by_id(input["id"]))
        return {"clientMutationId": None}

    def delete_files(self, input: Row) -> Row:
        doomed = set(input["files"])
        for run in self.store:
            run.files = {name: file for name, file in run.files.items() if FileView(self, run, file).id not in doomed}
        return {"success": True}

    def notify_scriptable_run_alert(self, input: Row) -> Row:
        self._run(input)
        return {"success": True}

    def create_artifact(self, input: Row) -> Row:
        name = input.get("artifactCollectionName") or "artifact"
        number = base64.b64encode(f"Artifact:{name}:{input['digest']}".encode()).decode()
        artifact = {"id": number, "state": "COMMITTED" if number in self.store.artifacts else "PENDING"}
        return {"artifact": artifact | {"digest": input["digest"], "artifactSequence": {"latestArtifact": artifact}}}

    def create_artifact_manifest(self, input: Row) -> Row:
        return self._manifest(input["artifactID"])

    def update_artifact_manifest(self, input: Row) -> Row:
        return self._manifest(input["artifactManifestID"])

    def _manifest(self, number: str) -> Row:
        return {"artifactManifest": {"id": number, "file": self._artifact_file(number, "manifest")}}

    def create_artifact_files(self, input: Row) -> Row:
        nodes = [self._artifact_file(file["artifactID"], file["name"]) for file in input["artifactFiles"]]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def _artifact_file(self, number: str, name: str) -> Row:
        url = self.signer.url("artifacts", number, name, method="PUT")
        target = {"id": number, "storagePath": name, "uploadUrl": url, "uploadHeaders": []}
        return target | {"artifact": {"id": number, "state": "PENDING"}}

    def commit_artifact(self, input: Row) -> Row:
        self.store.artifacts.add(input["artifactID"])
        return {"artifact": {"id": input["artifactID"], "state": "COMMITTED"}}

    def use_artifact(self, input: Row) -> Row:
        return {"artifact": {"id": input["artifactID"], "state": "COMMITTED"}}

    def _run(self, input: Row) -> Run:
        entity, project = input.get("entityName") or self.store.username, input.get("projectName") or "uncategorized"
        run = self.store.run(entity, project, input["runName"])
        if not run:
            raise Refused(404, f"run {entity}/{project}/{input['runName']} not found")
        return run

    def _by_id(self, storage_id: str) -> Run:
        run = self.store.by_id(storage_id)
        if not run:
            raise Refused(404, f"run {storage_id} not found")
        return run


_UPSERTED = {name: name for name in ("description", "notes", "commit", "host", "tags")}
_UPSERTED |= {"displayName": "display_name", "groupName": "group", "jobType": "job_type", "sweep": "sweep_name"}
