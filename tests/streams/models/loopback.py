"""A hub on loopback that speaks as much of the protocol as a download needs."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def safetensors(weights: bytes = b"weights", **tensors: int) -> bytes:
    """A file with one-dimensional tensors of bytes, as long as told, or one with these weights."""
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name, size in (tensors or {"weight": len(weights)}).items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + (b"w" * end if tensors else weights)


def is_large(name: str) -> bool:
    """Whether the hub keeps a file as a large one, with its SHA-256."""
    return name.endswith((".safetensors", ".gguf"))


@dataclass
class Request:
    """What came in: method, path without its query, headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None


@dataclass
class Hub:
    """One repository.

    Attributes:
        files: of the main branch.
        tags: the commits and files of other revisions.
        refuse_with: status and X-Error-Code of every answer.
        refuse_files_with: the same, of requests for files only.
        cut_after: where in a large file the connection is cut; what is asked for from there on comes whole.
        flowing: clear it, and a connection stays open and silent where it would be cut.
        requests: all that came in.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, tuple[str, dict[str, bytes]]] = field(default_factory=dict)
    refuse_with: tuple[int, str] | None = None
    refuse_files_with: tuple[int, str] | None = None
    cut_after: int | None = None
    flowing: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)
    repo: str = "org/tiny"
    endpoint: str = ""

    SHA = "0123456789abcdef0123456789abcdef01234567"

    def fetched(self) -> list[Request]:
        """Requests for the content of large files."""
        return [each for each in self.requests if each.method == "GET" and is_large(each.path)]

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        info = f"/api/models/{self.repo}"
        commits = {"main": self.SHA} | {tag: commit for tag, (commit, _) in self.tags.items()}
        contents = {self.SHA: self.files} | dict(self.tags.values())
        _, resolving, rest = request.path.partition(f"/{self.repo}/resolve/")
        refusal = self.refuse_with or (self.refuse_files_with if resolving else None)
        if refusal:
            return Reply(refusal[0], {"X-Error-Code": refusal[1]})
        if resolving:
            commit, _, name = rest.partition("/")
            content = contents.get(commit, {}).get(name)
            return (
                Reply(404, {"X-Error-Code": "EntryNotFound"})
                if content is None
                else self._file(request, commit, name, content)
            )
        if request.path == info or request.path.startswith(f"{info}/revision/"):
            revision = request.path.removeprefix(info).removeprefix("/revision/") or "main"
            commit = commits.get(revision, revision)
            if commit not in contents:
                return Reply(404, {"X-Error-Code": "RevisionNotFound"})
            siblings = [
                {"rfilename": name, "size": len(content), "blobId": sha1(content).hexdigest()} | _lfs(name, content)
                for name, content in contents[commit].items()
            ]
            return Reply(body=json.dumps({"id": self.repo, "sha": commit, "siblings": siblings}).encode())
        commit = request.path.removeprefix(f"{info}/tree/")
        if commit in contents:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
                | _lfs(name, content)
                for name, content in contents[commit].items()
            ]
            return Reply(body=json.dumps(tree).encode())
        return Reply(404, {"X-Error-Code": "RepoNotFound"})

    def _file(self, request: Request, commit: str, name: str, content: bytes) -> Reply:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha1(content).hexdigest()}"'}
        if not is_large(name):
            return Reply(headers=headers, body=content)
        headers |= {"X-Linked-ETag": f'"{sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = None if self.cut_after is None or start >= self.cut_after else self.cut_after - start
        return Reply(206 if start else 200, headers, content[start:], cut)


def _lfs(name: str, content: bytes) -> dict[str, object]:
    # Of the two answers that tell of large files one calls the digest oid, the other sha256.
    digest = sha256(content).hexdigest()
    told = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 130}
    return {"lfs": told} if is_large(name) else {}


@contextmanager
def serving(hub: Hub) -> Iterator[None]:
    """Serve the hub and tell it its endpoint."""
    hub.flowing.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = hub.answer(Request(self.command, self.path.partition("?")[0], headers))
            self.send_response(reply.status)
            kind = {"Content-Type": "application/json", "Content-Length": str(len(reply.body))}
            for name, value in (kind | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            with contextlib.suppress(ConnectionError):
                self.wfile.write(reply.body[: reply.cut_after])
                if reply.cut_after is not None and reply.cut_after < len(reply.body):
                    self.close_connection = True
                    hub.flowing.wait()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        hub.flowing.set()
        server.shutdown()
        thread.join()
        server.server_close()
