"""An HTTP server that speaks what of Qdrant's REST interface a fleet uses, over the embedded form; and one in trouble."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

COLLECTION = 2  # which part of a path names it


class FakeServer:
    """Serves on a port of its own while in a ``with`` block. ``trouble``: an HTTP status, "hang", "close" or "junk"."""

    def __init__(self) -> None:
        from qdrant_client import QdrantClient

        self.client, self.lock = QdrantClient(":memory:"), threading.Lock()
        self.requests: list[tuple[str, dict[str, Any]]] = []  # (path, body)
        self.trouble: int | str | None = None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_method(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, result = fake.answer(self.command, self.path.partition("?")[0], json.loads(data) if data else {})
                if status == 0:
                    self.close_connection = True
                    return
                content = result if isinstance(result, bytes) else json.dumps(result).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        for method in ("GET", "PUT", "POST"):
            setattr(Handler, f"do_{method}", Handler.handle_method)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that has waited long enough hangs up
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and content of an answer; status 0: none."""
        if self.trouble == "hang":
            time.sleep(1.5)
            return 0, None
        with self.lock:
            self.requests.append((path, body))
            if self.trouble == "close":
                return 0, None
            if self.trouble == "junk":
                return 200, b"<html>"
            if isinstance(self.trouble, int):
                return self.trouble, {"status": {"error": "in trouble"}}
            try:
                result = self._result(method, path.split("/")[COLLECTION], path.split("/")[COLLECTION + 1 :], body)
            except ValueError as error:
                return 404, {"status": {"error": str(error)}}
        return 200, {"result": result, "status": "ok", "time": 0.0}

    def _result(self, method: str, name: str, rest: list[str], body: dict[str, Any]) -> Any:
        """Bodies are checked by the client's own models, as a server would check them."""
        from qdrant_client import models

        match method, rest:
            case "GET", ["exists"]:
                return {"exists": self.client.collection_exists(name)}
            case "GET", []:
                return self.client.get_collection(name).model_dump(mode="json")
            case "PUT", []:
                wanted = models.CreateCollection(**body)
                return self.client.create_collection(name, wanted.vectors, metadata=wanted.metadata)
            case "PUT", ["index"]:
                models.CreateFieldIndex(**body)
                return {"operation_id": 1, "status": "completed"}
            case "PUT", ["points"]:
                return self.client.upsert(name, models.PointsList(**body).points).model_dump(mode="json")
            case "POST", ["points", "delete"]:
                return self.client.delete(name, models.PointIdsList(**body)).model_dump(mode="json")
            case "POST", ["points", "count"]:
                return {"count": self.client.count(name).count}
            case "POST", ["points"]:
                asked = models.PointRequest(**body)
                records = self.client.retrieve(name, asked.ids, with_payload=asked.with_payload, with_vectors=asked.with_vector)
                return [record.model_dump(mode="json") for record in records]
            case "POST", ["points", "scroll"]:
                page = models.ScrollRequest(**body)
                records, offset = self.client.scroll(
                    name, scroll_filter=page.filter, limit=page.limit, offset=page.offset, with_payload=page.with_payload
                )
                return {"points": [record.model_dump(mode="json") for record in records], "next_page_offset": offset}
            case "POST", ["points", "query"]:
                query = models.QueryRequest(**body)
                return self.client.query_points(
                    name,
                    query=query.query,
                    using=query.using,
                    query_filter=query.filter,
                    limit=query.limit,
                    with_payload=query.with_payload,
                    with_vectors=query.with_vector,
                ).model_dump(mode="json")
        raise AssertionError(f"{method} {rest} is not expected")
