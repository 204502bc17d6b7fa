"""What stands in front of an S3 server, as a process of its own; the standard library alone."""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Front(BaseHTTPRequestHandler):
    """Hands requests on as they are, signature and all, and puts right the status of the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: int

    def forward(self, part: float = 1.0) -> None:
        """Hand one request on; answer with all of the content, or with its first part only."""
        answer, content = self.hand_on()
        self.answer(answer, content, part)

    def hand_on(self) -> tuple[HTTPResponse, bytes]:
        """Hand one request on; return the answer and its content."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        return answer, content

    def answer(self, answer: HTTPResponse, content: bytes, part: float = 1.0) -> None:
        """Answer with all of the content, or with its first part only."""
        partial = answer.status == 200 and answer.getheader("Content-Range")
        self.send_response_only(206 if partial else answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content[: int(len(content) * part)])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - http.server's names


if __name__ == "__main__":
    Front.upstream = int(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Front).serve_forever()
