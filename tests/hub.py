"""A stand-in for the Hugging Face hub: an HTTP server with models in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
Files = dict[str, bytes]


@dataclass
class Repo:
    """A model on the hub."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)  # name -> commit
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add(self, files: Files, branch: str = "main", message: str = "by hand") -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        content = {**before, **files}
        text = repr((len(self.commits), sorted(content.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit], self.branches[branch] = content, commit
        self.messages.append(message)
        return commit

    def at(self, revision: str) -> str | None:
        """Return the commit of a branch, or the commit of this name."""
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Hub:
    """The models of the server, and the requests that it received."""

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: Files = field(default_factory=dict)  # sha256 -> content, of large files
    large_from: int = 10 << 20  # bytes
    requests: list[str] = field(default_factory=list)
    broken: int = 0  # the status of every answer
    refuses_large: bool = False
    refused_head: str = ""  # the error in any model card

    def add(self, name: str, files: Files, **facts: Any) -> Repo:
        repo = self.repos.setdefault(name, Repo(**facts))
        repo.add(files)
        return repo

    def fetched(self) -> list[str]:
        """Return the requested files, in order."""
        paths = [line.split("/resolve/")[1] for line in self.requests if "/resolve/" in line]
        return [path.partition("/")[2] for path in paths]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.broken:
            self._say(self.hub.broken, {"error": "the hub is being mended"})
            return
        words = [unquote(word) for word in path.strip("/").split("/")]
        if words[:2] == ["api", "validate-yaml"]:
            wrong = self.hub.refused_head
            self._say(400 if wrong else 200, {"errors": [{"message": wrong}] if wrong else []})
        elif words[:3] == ["api", "repos", "create"]:
            self._create(json.loads(content))
        elif words[0] == "large" and self.hub.refuses_large:
            self._say(403, {"error": "too much"})
        elif words[0] == "large":
            self.hub.large[words[1]] = content
            self._say(200, {})
        elif words[:2] == ["api", "models"]:
            self._of_model("/".join(words[2:4]), words[4:], content)
        elif len(words) < 3:
            self._say(404, {"error": "no such page"})
        elif words[1].endswith(".git"):
            self._large("/".join(words[:2])[:-4], json.loads(content))
        elif words[2] == "resolve":
            self._resolve("/".join(words[:2]), words[3], "/".join(words[4:]))
        else:
            self._say(404, {"error": "no such page"})

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str) -> Repo | None:
        """Return a model that this caller may see; otherwise answer that there is none."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.known):
            status = 404 if self.known else 401
            self._say(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repo

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.at(revision)
        if commit is None:
            error = {"error": f"Invalid rev id: {revision}"}
            self._say(404, error, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        if not self.known:
            self._say(401, {"error": "Invalid username or password."})
        elif not name.startswith("someone/"):
            self._say(403, {"error": f"You don't have the rights to create {name}"})
        elif name in self.hub.repos:
            url = f"{self.hub.address}/{name}"
            self._say(409, {"error": "You already created this model repo", "url": url})
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repos[name] = Repo(private=private)
            self.hub.repos[name].add({".gitattributes": b"*.safetensors filter=lfs\n"})
            self._say(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def _of_model(self, name: str, words: list[str], content: bytes) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        verb, rest = (words[0], words[1:]) if words else ("revision", ["main"])
        if self.command == "POST" and not self.known:
            self._say(401, {"error": "Invalid username or password."})
        elif self.command == "POST" and not name.startswith("someone/"):
            self._say(403, {"error": "You may not write here"})
        elif verb == "revision":
            self._about(name, repo, rest[0])
        elif verb == "tree":
            self._tree(repo, rest[0])
        elif verb == "refs":
            refs = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
                for branch, commit in repo.branches.items()
            ]
            self._say(200, {"branches": refs, "tags": [], "converts": []})
        elif verb == "branch":
            if rest[0] in repo.branches:
                self._say(409, {"error": "Reference already exists"})
            else:
                repo.branches[rest[0]] = repo.branches["main"]
                self._say(200, {})
        elif verb == "preupload":
            files = []
            for file in json.loads(content)["files"]:
                mode = "lfs" if file["size"] >= self.hub.large_from else "regular"
                files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            self._say(200, {"files": files})
        elif verb == "commit":
            self._take(name, repo, rest[0], content)

    def _about(self, name: str, repo: Repo, revision: str) -> None:
        commit = self._commit(repo, revision)
        if commit is not None:
            files = [{"rfilename": path} for path in repo.commits[commit]]
            facts = {"id": name, "modelId": name, "sha": commit, "private": repo.private}
            self._say(200, {**facts, "siblings": files, "tags": [], "downloads": 0})

    def _tree(self, repo: Repo, revision: str) -> None:
        commit = self._commit(repo, revision)
        if commit is not None:
            rows = [
                {"type": "file", "path": path, "size": len(file), "oid": _blob(file)}
                for path, file in repo.commits[commit].items()
            ]
            self._say(200, rows)

    def _take(self, name: str, repo: Repo, branch: str, content: bytes) -> None:
        message, files = "", {}
        for line in content.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "header":
                message = value["summary"]
            elif row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = repo.add(files, branch, message)
        url = f"{self.hub.address}/{name}/commit/{commit}"
        self._say(200, {"commitUrl": url, "commitOid": commit, "success": True})

    def _large(self, name: str, asked: dict[str, Any]) -> None:
        if self._repo(name) is None:
            return
        for row in asked["objects"]:
            row["actions"] = {"upload": {"href": f"{self.hub.address}/large/{row['oid']}"}}
        self._say(200, {"transfer": "basic", "objects": asked["objects"]})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo is not None and repo.gated and not self.known:
            self._say(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
            return
        commit = self._commit(repo, revision) if repo else None
        if repo is None or commit is None:
            return  # it is answered
        if path not in repo.commits[commit]:
            self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        file = repo.commits[commit][path]
        headers = {"ETag": f'"{_blob(file)}"', "X-Repo-Commit": commit}
        self._send(200, file, {"Content-Type": "application/octet-stream", **headers})

    def _say(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(answer).encode()
        more = {"X-Error-Message": answer["error"]} if "error" in answer else {}
        self._send(status, text, {"Content-Type": "application/json", **more, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _blob(content: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
