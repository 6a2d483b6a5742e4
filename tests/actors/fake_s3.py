"""An object store in memory that speaks enough of S3 for pyarrow: list, head, ranged get, put, multipart upload."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Store:
    """Objects by path (`bucket/key`), and what was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.puts: list[str] = []
        self.port = 0
        self.refuses = False
        self.failing = 0
        """So many of the next requests fail, in a way that Arrow does not try again itself."""

    def uri(self, path: str) -> str:
        """For pyarrow: this server, with a password that must not be told anyone."""
        return f"s3://user:password@{path}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"


@contextmanager
def fake_s3() -> Iterator[Store]:
    """The store, served on a free port of this host."""
    store = Store()

    class Handler(_Handler):
        objects = store

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    objects: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return unquote(parts.path).strip("/"), query

    def _answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        if self.objects.refuses:
            code, body = 403, b""
        elif self.objects.failing:
            self.objects.failing -= 1
            code, body = 400, b"<Error><Code>OutOfOrder</Code><Message>not now</Message></Error>"
        self.send_response(code)
        length = {} if "Content_Length" in headers else {"Content_Length": str(len(body))}
        for name, value in ({"ETag": '"0"'} | length | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return content
        stream, plain = io.BytesIO(content), b""
        while size := int(stream.readline().split(b";")[0], 16):
            plain += stream.read(size)
            stream.readline()
        return plain

    def do_HEAD(self) -> None:
        """Size of an object."""
        path, _ = self._asked()
        found = self.objects.objects.get(path)
        if found is None:
            self._answer(200 if "/" not in path else 404)
            return
        self._answer(200, Content_Length=str(len(found)), Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")

    def do_GET(self) -> None:
        """An object or a range of it; or the list of a bucket."""
        path, query = self._asked()
        if "/" not in path:
            self._list(path, query)
        elif path not in self.objects.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            content = self.objects.objects[path]
            asked = self.headers.get("Range")
            if asked is None:
                self._answer(200, content)
                return
            first, last = (int(text) for text in asked.removeprefix("bytes=").split("-"))
            last = min(last, len(content) - 1)
            self._answer(206, content[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(content)}")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys = [
            path.removeprefix(f"{bucket}/") for path in sorted(self.objects.objects) if path.startswith(f"{bucket}/")
        ]
        keys = [key for key in keys if key.startswith(prefix)]
        folders = set()
        if delimiter:
            deep = [key for key in keys if delimiter in key[len(prefix) :]]
            folders = {prefix + key[len(prefix) :].split(delimiter)[0] + delimiter for key in deep}
            keys = [key for key in keys if key not in deep]
        shown = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects.objects[f'{bucket}/{key}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        for name in sorted(folders):
            shown += f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
        head = f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        body = f"<ListBucketResult>{head}{shown}</ListBucketResult>"
        self._answer(200, body.encode(), Content_Type="application/xml")

    def do_PUT(self) -> None:
        """An object, or a piece of one."""
        path, query = self._asked()
        if "uploadId" in query:
            self.objects.uploads[query["uploadId"]][int(query["partNumber"])] = self._body()
        else:
            self.objects.objects[path] = self._body()
            self.objects.puts.append(path)
        self._answer(200)

    def do_POST(self) -> None:
        """Begin or end a multipart upload."""
        path, query = self._asked()
        self._body()
        if "uploads" in query:
            name = uuid.uuid4().hex
            self.objects.uploads[name] = {}
            body = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, body.encode(), Content_Type="application/xml")
            return
        pieces = self.objects.uploads.pop(query["uploadId"])
        self.objects.objects[path] = b"".join(pieces[number] for number in sorted(pieces))
        self.objects.puts.append(path)
        body = b"<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>"
        self._answer(200, body, Content_Type="application/xml")

    def do_DELETE(self) -> None:
        """Forget an object or an upload."""
        path, query = self._asked()
        if "uploadId" in query:
            self.objects.uploads.pop(query["uploadId"], None)
        else:
            self.objects.objects.pop(path, None)
        self._answer(204)
