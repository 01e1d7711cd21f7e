"""What tests need of wandb: its offline files read, and a server that takes a report."""

import json
import struct
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

from wandb.proto.wandb_internal_pb2 import Record

REPORT_ID = "Vmlldzox"


def records(file: Path):
    """The records of an offline run's .wandb file.

    It has LevelDB's log format: blocks of 32 KiB, with chunks of crc, length, type and data.
    """
    data, chunks = file.read_bytes(), b""
    assert data[:4] == b":W&B"
    position = 7
    while position < len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        chunks += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last chunk
            yield Record.FromString(chunks)
            chunks = b""


def read_run(file: Path) -> SimpleNamespace:
    """What wandb would show of a run: id, group, job type, config, and every key of its history and summary."""
    run = SimpleNamespace(config={}, history={}, summary={})
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.group, run.job_type, run.tags, run.name = (
                record.run.run_group,
                record.run.job_type,
                list(record.run.tags),
                record.run.display_name,
            )
            run.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind in ("history", "summary"):
            items = record.history.item if kind == "history" else record.summary.update
            for item in items:
                getattr(run, kind)[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return run


class Server(BaseHTTPRequestHandler):
    """So much of wandb's GraphQL that its client sends a report: one account, `me`, with one project, `adept`."""

    def answer(self, query: str, given: dict) -> dict:
        here = given.get("projectName", given.get("project")) == "adept"
        pages = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
        if "upsertView" in query:
            if self.server.read_only:
                return {"errors": [{"message": "permission denied"}]}
            self.server.sent.append(given)
            owner = {"id": "1", "name": given["projectName"], "entityName": given["entityName"]}
            view = {name: given[name] for name in ("type", "name", "displayName", "description", "spec")}
            return {
                "data": {
                    "upsertView": {
                        "view": {"id": REPORT_ID, "project": owner, "updatedAt": None, **view},
                        "inserted": True,
                    }
                }
            }
        if "allViews" in query:
            nodes = [
                {**sent, "id": REPORT_ID, "user": None, "updatedAt": "", "createdAt": ""}
                for sent in self.server.sent[:1]
            ]
            views = {"edges": [{"node": node, "cursor": ""} for node in nodes], "pageInfo": pages}
            return {"data": {"project": {"allViews": views} if here else None}}
        if "internalId" in query:
            return {"data": {"project": {"id": "1", "internalId": "internal"} if here else None}}
        if "models(" in query:
            project = {
                "id": "1",
                "name": "adept",
                "entityName": "me",
                "createdAt": "2024-01-01T00:00:00Z",
                "isBenchmark": False,
            }
            edges = [{"node": {"__typename": "Project", "user": None, **project}}]
            return {"data": {"models": {"edges": edges, "pageInfo": pages}}}
        return {
            "data": {
                "viewer": {
                    "id": "1",
                    "entity": "me",
                    "username": "me",
                    "email": "",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        }

    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"{}"
        if self.path == "/graphql":
            asked = json.loads(asked)
            body = json.dumps(self.answer(asked["query"], asked.get("variables") or {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...
