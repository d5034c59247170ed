"""A small OpenAI-compatible server on loopback: real HTTP for the real client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What a running server is and has been asked.

    `reply` takes the prompt and the number of the request, and returns the answer; or a pair of
    a status and a body, which is sent as it is.
    """

    reply: Callable[[str, int], Any]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def chat_server(reply: Callable[[str, int], Any], most: int = 50) -> Iterator[Served]:
    """Serve chat completions until the block ends; more than `most` requests are refused."""
    served, lock = Served(reply), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                served.requests.append(request)
                served.keys.append(self.headers.get("Authorization"))
                number = len(served.requests)
            if self.path != "/v1/chat/completions" or number > most:
                self._send(404, {"error": {"message": f"no {self.path}"}})
                return
            answer = served.reply(request["messages"][0]["content"], number)
            status, body = answer if isinstance(answer, tuple) else (200, completion(answer))
            self._send(status, body)

        def _send(self, status: int, body: Any) -> None:
            text = body if isinstance(body, str) else json.dumps(body)
            try:
                self.send_response(status)
                kind = "text/html" if text.startswith("<") else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # the client has gone

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Asked often whether to end: by default a server takes up to half a second for it.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str) -> dict[str, Any]:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
