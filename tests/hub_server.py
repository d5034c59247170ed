"""A small Hugging Face hub on loopback: real HTTP for real clients, from a folder of files.

`root/datasets/<owner>/<name>/...` and `root/models/<owner>/<name>/...` are the repositories.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(
    r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?"
)
FILE = re.compile(
    r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)


@contextmanager
def hub_server(root: Path) -> Iterator[str]:
    """Serve the repositories under `root`; yields the endpoint for HF_ENDPOINT."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub_environment(endpoint: str, home: Path) -> dict[str, str]:
    """Return the environment of a process that knows this hub only, with an empty cache."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGG"))}
    return {
        **kept,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }


def commit_of(repository: Path) -> str:
    """Return the commit that the server gives a repository: a hash of its files."""
    digest = hashlib.sha1()
    for path in _files(repository):
        digest.update(str(path.relative_to(repository)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files(repository: Path) -> list[Path]:
    return sorted(path for path in repository.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._get(body=False)

    def do_GET(self):
        self._get(body=True)

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        paths = json.loads(text)["paths"] if is_json else parse_qs(text)["paths"]
        match = API.fullmatch(unquote(urlsplit(self.path).path))
        repository = match and self._repository(match)
        if not repository or match["verb"] != "paths-info":
            self._missing("EntryNotFound")
            return
        entries = [path for path in paths if (repository / path).exists()]
        self._json([self._entry(repository, repository / path) for path in entries])

    def _get(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := API.fullmatch(path):
            self._api(match)
        elif match := FILE.fullmatch(path):
            self._file(match, body=body)
        else:
            self._missing("EntryNotFound")

    def _repository(self, match: re.Match[str]) -> Path | None:
        kind = (match["kind"] or "models").strip("/")
        repository = self.root / kind / match["id"]
        if not repository.is_dir():
            self.error_code = "RepoNotFound"
            return None
        if match["revision"] not in (None, "main", commit_of(repository)):
            self.error_code = "RevisionNotFound"
            return None
        return repository

    def _api(self, match: re.Match[str]) -> None:
        repository = self._repository(match)
        if repository is None:
            self._missing(self.error_code)
        elif match["verb"] == "tree":
            folder = repository / (match["path"] or "")
            recursive = "recursive=true" in self.path.lower()
            found = sorted(folder.rglob("*") if recursive else folder.glob("*"))
            if folder.is_dir():
                self._json([self._entry(repository, path) for path in found])
            else:
                self._missing("EntryNotFound")
        else:
            names = [str(path.relative_to(repository)) for path in _files(repository)]
            self._json(
                {
                    "id": match["id"],
                    "sha": commit_of(repository),
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in names],
                }
            )

    def _entry(self, repository: Path, path: Path) -> dict[str, object]:
        name = str(path.relative_to(repository))
        if path.is_dir():
            return {
                "type": "directory",
                "path": name,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
        content = path.read_bytes()
        return {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }

    def _file(self, match: re.Match[str], *, body: bool) -> None:
        repository = self._repository(match)
        path = repository and repository / match["path"]
        if path is None or not path.is_file():
            self._missing("EntryNotFound" if repository else self.error_code)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit_of(repository))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "not on this hub")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        if os.environ.get("HUB_SERVER_LOG"):
            super().log_message(format, *args)
