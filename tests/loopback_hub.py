"""A Hugging Face hub on loopback, and the environment of a process that asks no other."""

import base64
import hashlib
import http.server
import json
import os
import re
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import ROOT

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
"""Commits of every repository: the tag v1, and main."""

Answer = tuple[int, dict[str, str], bytes]
Files = dict[str, bytes]


@dataclass
class Repository:
    commits: dict[str, Files]
    names: dict[str, str] = field(default_factory=lambda: {"main": NEW, "v1": OLD})
    refusal: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    cut: str | None = None  # the file whose download breaks off
    private: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def error(status: int, code: str) -> Answer:
    return status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}"


def as_json(content: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


class Hub(http.server.ThreadingHTTPServer):
    """Serves `repositories` and `pages` (other paths) as the Hugging Face hub does, and lists what was asked."""

    daemon_threads = True
    API = re.compile(
        r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|preupload|commit)/([^/]+)/?(.*))?"
    )
    FILE = re.compile(r"(?:/datasets)?/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)")

    def __init__(self, repositories: dict[str, Repository], pages: Files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.pages, self.requests, self.cards = repositories, pages, [], []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, body: bytes) -> Answer:
        if path in self.pages:
            return 200, {"ETag": f'"{oid(self.pages[path])}"'}, self.pages[path]
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return as_json({"errors": [], "warnings": []})
        if (match := self.API.fullmatch(path) or self.FILE.fullmatch(path)) is None:
            return error(404, "NoSuchPage")
        name, call, revision, inside = (urllib.parse.unquote(part or "") for part in match.groups())
        if (repository := self.repositories.get(name)) is None:
            return error(401, "RepoNotFound")  # it does not tell strangers which ids are private
        if repository.refusal is not None:
            return error(*repository.refusal)
        commit = repository.names.get(revision or "main", revision)
        if (files := repository.commits.get(commit)) is None:
            return error(404, "RevisionNotFound")
        entries = tree(files)
        match call:
            case "resolve":
                if inside not in files:
                    return error(404, "EntryNotFound")
                return 200, {"ETag": f'"{oid(files[inside])}"', "X-Repo-Commit": commit}, files[inside]
            case "preupload":
                asked = json.loads(body)["files"]
                return as_json(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
                )
            case "commit":
                return self.commit(name, repository, [json.loads(line) for line in body.splitlines()])
            case "tree":
                if inside and inside not in entries:
                    return error(404, "EntryNotFound")
                return as_json([entry for path, entry in entries.items() if path.rpartition("/")[0] == inside])
            case "paths-info":
                return as_json(
                    [entries[path] for path in urllib.parse.parse_qs(body.decode())["paths"] if path in entries]
                )
        files = [{"rfilename": path} for path in files]
        return as_json({"id": name, "sha": commit, "tags": [], "siblings": files, "private": repository.private})

    def create(self, wish: dict) -> Answer:
        name = f"{wish.get('organization')}/{wish['name']}"
        if name in self.repositories:
            return 409, {"Content-Type": "application/json"}, json.dumps({"url": f"{self.endpoint}/{name}"}).encode()
        private = wish.get("private") or wish.get("visibility") == "private"
        self.repositories[name] = Repository({NEW: {}}, private=bool(private))
        return as_json({"url": f"{self.endpoint}/{name}"})

    def commit(self, name: str, repository: Repository, lines: list[dict]) -> Answer:
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                repository.commits[NEW][value["path"]] = base64.b64decode(value["content"])
        return as_json({"success": True, "commitOid": NEW, "commitUrl": f"{self.endpoint}/{name}/commit/{NEW}"})


def tree(files: Files) -> dict[str, dict]:
    """{path: what the hub says of it} of the files and the folders above them."""
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    entries = {path: {"type": "directory", "path": path, "size": 0, "oid": oid(path.encode())} for path in folders}
    return entries | {
        path: {"type": "file", "path": path, "size": len(files[path]), "oid": oid(files[path])} for path in files
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self):
        path = urllib.parse.urlsplit(self.path).path
        self.server.requests.append(Request(self.command, path))
        status, headers, content = self.server.answer(path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if any(
            repository.cut and path.endswith(repository.cut) and name in path
            for name, repository in self.server.repositories.items()
        ):
            self.close_connection, content = True, content[: len(content) // 2]
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = respond

    def log_message(self, *arguments):
        pass


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """This process's, without its proxies, tokens and hub settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"(?i)HF_|HUGGING|TRANSFORMERS_|.*_proxy$", name)
    }
    return {
        **kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "5",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5", "PYTHONPATH": str(ROOT), **more,
    }  # fmt: skip
