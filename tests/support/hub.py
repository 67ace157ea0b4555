"""A local server with the part of the hub's interface that is used here.

It keeps repositories in memory, creates them and takes commits. A client finds
it by `HF_ENDPOINT`, which huggingface_hub reads when it is imported. Large
files are uploaded like small ones, in the commit itself.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

TOKEN = "hf_abc"
COMMIT = "0123456789" * 4


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        status, headers, content = self.server.respond(
            path, body, self.headers.get("Authorization")
        )
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_):
        pass


class Repository:
    def __init__(self, private=False, **files):
        self.private = private
        self.files = {".gitattributes": b"", **files}
        self.commits = 0


class Hub(http.server.ThreadingHTTPServer):
    """The server. `repositories` is `{name: Repository}`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories = {}
        self.refused = None  # pattern of addresses, and the status to answer
        threading.Thread(target=self.serve_forever, args=[0.02]).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def respond(self, path, body, authorization):
        if self.refused and re.search(self.refused[0], path):
            return failure(self.refused[1], "refused by the test")
        if is_write(path) and authorization != f"Bearer {TOKEN}":
            return failure(403, "You don't have the required permissions")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return answer({"errors": [], "warnings": []})
        if path.startswith("/api/models/"):
            organisation, name, *rest = path.split("/")[3:]
            return self.api(f"{organisation}/{name}", rest, body)
        return failure(404, f"no such address: {path}")

    def create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return failure(409, "exists", {"url": f"{self.url}/{name}"})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.repositories[name] = Repository(bool(private))
        return answer({"url": f"{self.url}/{name}"})

    def api(self, name, rest, body):
        if name not in self.repositories:
            return failure(404, "RepoNotFound", code="RepoNotFound")
        repository = self.repositories[name]
        match rest:
            case [] | ["revision", _]:
                return answer(self.info(name))
            case ["tree", *_]:
                return answer(
                    [
                        {"type": "file", "path": path, **described(content)}
                        for path, content in repository.files.items()
                    ]
                )
            case ["preupload", _]:
                files = json.loads(body)["files"]
                return answer(
                    {
                        "files": [
                            {
                                "path": file["path"],
                                "uploadMode": "regular",
                                "shouldIgnore": False,
                            }
                            for file in files
                        ]
                    }
                )
            case ["commit", _]:
                return self.commit(name, body)
        return failure(404, f"no such address: {rest}")

    def info(self, name):
        repository = self.repositories[name]
        return {
            "id": name,
            "sha": COMMIT,
            "private": repository.private,
            "siblings": [{"rfilename": path} for path in repository.files],
        }

    def commit(self, name, body):
        repository = self.repositories[name]
        repository.commits += 1
        for line in body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                content = base64.b64decode(value["content"])
                repository.files[value["path"]] = content
            elif part["key"] == "deletedFile":
                del repository.files[value["path"]]
        return answer(
            {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"{self.url}/{name}/commit/{COMMIT}",
            }
        )


def is_write(path):
    return path.startswith("/api/") and ("create" in path or "commit" in path)


def described(content):
    return {"size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def answer(content):
    headers = {"Content-Type": "application/json"}
    return 200, headers, json.dumps(content).encode()


def failure(status, text, extra=None, code=None):
    headers = {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}
    if code:
        headers["X-Error-Code"] = code
    content = {"error": text, **(extra or {})}
    return status, headers, json.dumps(content).encode()
