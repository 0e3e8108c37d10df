"""A stand-in for the server of Weights & Biases on this machine: sweeps, agents, runs, files and artifacts.

It answers as much of the server's interface as `wandb` 0.31 asks for, and records what it is told:

    with Loopback() as server:
        subprocess.run(["wandb", "sweep", "sweep.yaml"], env=server.environment)
        server.runs[identity]["summary"]
"""

import gzip
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import yaml

from tests.conftest import REPOSITORY

ENTITY, SWEEP = "local", "sweep001"
GONE_AFTER = 20.0  # seconds without a word of an agent, after which its run goes back into the queue

Data = dict[str, Any]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error."""


class Loopback:
    """The server, running in a thread while entered."""

    def __init__(self) -> None:
        self.runs: dict[str, Data] = {}  # config, summary, history, files and exit code of each run
        self.artifacts: dict[str, Data] = {}
        self.uploads: dict[str, bytes] = {}
        self.unknown: list[str] = []  # operations that it does not answer
        self.sweep_config: Data = {}
        self.queue: list[tuple[str, Data, str]] = []  # runs that wait for an agent, with how they begin
        self.agents: dict[str, Data] = {}  # the run of each agent, and when it was last heard of
        self._lock = threading.Lock()
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that finds it, and that shares no service with this one."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        told = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "local-" + "0" * 40, "WANDB_ERROR_REPORTING": "false"}
        return own | told | {"PYTHONPATH": str(REPOSITORY)}

    def __enter__(self) -> "Loopback":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # ------------------------------------------------------------------------------------------------- what is asked

    def answer(self, operation: str, query: str, given: Data) -> Data:
        """The data of a GraphQL operation."""
        with self._lock:
            answer = ANSWERS.get(operation)
            if answer is not None:
                return answer(self, given)
            if "viewer" in query[:200]:
                return {"viewer": VIEWER}
            self.unknown.append(f"{operation} {query}")
            return {}

    def stream(self, identity: str, told: Data) -> None:
        """History, summary and console of a run."""
        run = self.runs.setdefault(identity, new_run())
        for name, file in (told.get("files") or {}).items():
            lines = [json.loads(line) if name.endswith((".jsonl", ".json")) else line for line in file["content"]]
            if name == "wandb-summary.json":
                run["summary"] = lines[-1]
            elif name == "wandb-history.jsonl":
                run["history"] += lines
        if told.get("complete"):
            run["exit_code"] = told.get("exitcode")

    def put(self, name: str, content: bytes) -> None:
        """A file."""
        self.uploads[name] = content

    def upload_url(self, name: str) -> str:
        """Where a file is put."""
        return f"{self.url}/files/{name}"


def new_run() -> Data:
    """What is recorded of a run."""
    return {"config": {}, "summary": {}, "history": [], "told": {}, "starts": 0, "exit_code": None}


# --------------------------------------------------------------------------------------------------------- operations


def _upsert_sweep(server: Loopback, given: Data) -> Data:
    server.sweep_config = yaml.safe_load(given["config"])
    parameters = server.sweep_config["parameters"]
    values = [what["values"] if "values" in what else [what["value"]] for what in parameters.values()]
    for number, chosen in enumerate(itertools.product(*values)):
        server.queue.append((f"run{number:03d}", dict(zip(parameters, chosen, strict=True)), "run"))
    sweep = {"name": SWEEP, "project": _project(given.get("projectName"))}
    return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}


def _sweep(server: Loopback, given: Data) -> Data:
    fields = {"id": "S1", "name": SWEEP, "method": "grid", "state": "RUNNING", "description": "", "runCount": 0}
    nothing = ("heartbeatAt", "bestLoss", "controller", "scheduler", "displayName", "priorRuns", "user")
    sweep = {
        **fields,
        **dict.fromkeys(nothing),
        "__typename": "Sweep",
        "config": yaml.dump(server.sweep_config),
        "createdAt": "2026-01-01T00:00:00",
        "updatedAt": None,
        "earlyStopJobRunning": False,
        "runs": {"edges": []},
        "agents": {"edges": []},
        "project": _project(None),
    }
    return {"project": {**_project(None), "sweep": sweep}}


def _create_agent(server: Loopback, given: Data) -> Data:
    name = f"agent{len(server.agents) + 1}"
    server.agents[name] = {"run": None, "heard": time.monotonic()}
    return {"createAgent": {"agent": {"id": name}}}


def _heartbeat(server: Loopback, given: Data) -> Data:
    agent, running = server.agents[given["id"]], json.loads(given["runState"])
    agent["heard"] = time.monotonic()
    for other in server.agents.values():  # as the real one does with a run that was marked as preemptible
        if other["run"] is not None and time.monotonic() - other["heard"] > GONE_AFTER:
            identity, chosen = other["run"]
            server.queue.append((identity, chosen, "resume"))
            other["run"] = None
    commands: list[Data] = []
    if not running:
        agent["run"] = None
        waits = any(other["run"] is not None for other in server.agents.values())
        if server.queue:
            identity, chosen, kind = server.queue.pop(0)
            agent["run"] = (identity, chosen)
            values = {name: {"value": value} for name, value in chosen.items()}
            program = server.sweep_config.get("program")
            commands = [{"type": kind, "run_id": identity, "program": program, "args": values}]
        elif not waits:
            commands = [{"type": "exit"}]
    return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}


def _upsert_run(server: Loopback, given: Data) -> Data:
    identity = given.get("name") or given.get("id")
    is_new = identity not in server.runs
    run = server.runs.setdefault(identity, new_run())
    if given.get("config"):
        run["config"] = {name: told["value"] for name, told in json.loads(given["config"]).items()}
    run["starts"] += given.get("program") is not None
    run["told"].update({name: value for name, value in given.items() if value is not None})
    bucket = {
        "id": identity,
        "name": identity,
        "displayName": given.get("displayName") or identity,
        "description": "",
        "config": json.dumps({name: {"value": value} for name, value in run["config"].items()}),
        "sweepName": given.get("sweep"),
        "project": _project(given.get("project")),
        "historyLineCount": len(run["history"]),
    }
    return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}


def _resume_status(server: Loopback, given: Data) -> Data:
    run = server.runs.get(given["name"])
    if run is None or not run["starts"]:
        return {"model": None}
    tail = [json.dumps(run["history"][-1])] if run["history"] else []
    bucket = {
        "id": given["name"],
        "name": given["name"],
        "summaryMetrics": json.dumps(run["summary"]),
        "displayName": given["name"],
        "logLineCount": 0,
        "historyLineCount": len(run["history"]),
        "eventsLineCount": 0,
        "historyTail": json.dumps(tail),
        "eventsTail": "[]",
        "config": json.dumps({name: {"value": value} for name, value in run["config"].items()}),
        "tags": [],
        "wandbConfig": "{}",
    }
    return {"model": {"id": "m1", "name": "jointsearch", "entity": {"id": "e1", "name": ENTITY}, "bucket": bucket}}


def _create_files(server: Loopback, given: Data) -> Data:
    files = [{"name": name, "uploadUrl": server.upload_url(f"{given['run']}/{name}")} for name in given["files"]]
    return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}


def _create_artifact(server: Loopback, given: Data) -> Data:
    given = given.get("input", given)
    name = (given.get("artifactCollectionNames") or [given.get("artifactCollectionName")])[0]
    identity = f"artifact{len(server.artifacts) + 1}"
    server.artifacts[identity] = {"name": name, "type": given.get("artifactTypeName"), "committed": False, "files": {}}
    sequence = {"id": f"sequence{identity}", "latestArtifact": None}
    return {"createArtifact": {"artifact": {"id": identity, "state": "PENDING", "artifactSequence": sequence}}}


def _create_manifest(server: Loopback, given: Data) -> Data:
    given = given.get("input", given)
    name = f"{given['artifactID']}/{given['name']}"
    file = {
        "id": "f1",
        "name": given["name"],
        "displayName": None,
        "uploadUrl": server.upload_url(name),
        "uploadHeaders": [],
    }
    manifest = {"id": f"manifest:{given['artifactID']}", "file": file}
    return {"createArtifactManifest": {"artifactManifest": manifest}}


def _update_manifest(server: Loopback, given: Data) -> Data:
    given = given.get("input", given)
    identity = given["artifactManifestID"].partition(":")[2]
    name = f"{identity}/manifest"
    file = {
        "id": "f2",
        "name": "manifest",
        "displayName": None,
        "uploadUrl": server.upload_url(name),
        "uploadHeaders": [],
    }
    return {"updateArtifactManifest": {"artifactManifest": {"id": given["artifactManifestID"], "file": file}}}


def _artifact_files(server: Loopback, given: Data) -> Data:
    given = given.get("input", given)
    nodes = []
    for file in given["artifactFiles"]:
        identity, name = file["artifactID"], file["name"]
        url = server.upload_url(f"{identity}/{name}")
        server.artifacts[identity]["files"][name] = url
        extra = {"storagePath": name, "uploadMultipartUrls": None, "artifact": {"id": identity}}
        nodes.append({"node": _file(name, url) | extra})
    return {"createArtifactFiles": {"files": {"edges": nodes}}}


def _commit_artifact(server: Loopback, given: Data) -> Data:
    identity = given.get("input", given)["artifactID"]
    server.artifacts[identity]["committed"] = True
    return {"commitArtifact": {"artifact": {"id": identity, "digest": "d"}}}


def _file(name: str, url: str) -> Data:
    return {"id": name, "name": name, "displayName": name, "uploadUrl": url, "uploadHeaders": []}


def _project(name: str | None) -> Data:
    return {"id": "p1", "name": name or "jointsearch", "entity": {"id": "e1", "name": ENTITY}}


VIEWER: Data = {
    **{
        "id": "u1",
        "entity": ENTITY,
        "username": ENTITY,
        "admin": False,
        "flags": "{}",
        "email": "a@b.c",
        "name": ENTITY,
    },
    **{"teams": {"edges": []}, "apiKeys": {"edges": []}},
}
SERVER: Data = {"cliVersionInfo": "{}", "latestLocalVersionInfo": None, "features": []}

ANSWERS: dict[str, Callable[[Loopback, Data], Data]] = {
    "ServerFeaturesQuery": lambda server, given: {"serverInfo": {"features": []}},
    "Viewer": lambda server, given: {"viewer": VIEWER, "serverInfo": SERVER},
    "OrganizationCoreWeaveOrganizationID": lambda server, given: {"entity": {"organization": None}},
    "UpsertSweep": _upsert_sweep,
    **dict.fromkeys(("SweepConfig", "Sweep", "GetSweep", "SweepWithRuns"), _sweep),
    "CreateAgent": _create_agent,
    "Heartbeat": _heartbeat,
    "UpsertBucket": _upsert_run,
    "RunResumeStatus": _resume_status,
    "CreateRunFiles": _create_files,
    "ArtifactType": lambda server, given: {"project": {"artifact": None}},
    "CreateArtifact": _create_artifact,
    "CreateArtifactManifest": _create_manifest,
    "UpdateArtifactManifest": _update_manifest,
    "CreateArtifactFiles": _artifact_files,
    "CommitArtifact": _commit_artifact,
}


def _handler(server: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            told = json.loads(self._body() or b"{}")
            if self.path.endswith("/graphql"):
                query = told["query"]
                named = re.search(r"(?:query|mutation)\s+(\w+)", query)
                operation = told.get("operationName") or (named[1] if named else "")
                self._answer({"data": server.answer(operation, query, told.get("variables") or {})})
            elif "file_stream" in self.path:
                server.stream(self.path.split("/")[-2], told)
                self._answer({"limits": {}, "exitcode": None})
            else:
                self._answer({})

        def do_PUT(self) -> None:
            server.put(self.path.removeprefix("/files/"), self._body())
            self._answer({})

        def do_GET(self) -> None:
            self._answer({})

        def _body(self) -> bytes:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

        def _answer(self, data: Data) -> None:
            content = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
