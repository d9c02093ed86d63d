"""Answers of bytes that we write, for whoever has shown nothing that would earn him more."""

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter


class FixedAnswer(web.StreamResponse):
    """A status, a body, mostly none, and the end of the connection: the same bytes each time.

    The library would write its name, its clock and the asker's HTTP version into an
    answer, and a sentence of its own for each kind of error.
    """

    def __init__(
        self, status: HTTPStatus, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        super().__init__(status=status)
        self.force_close()
        fields = {**(headers or {}), "Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.raw = "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii") + body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the whole answer, whatever was asked."""
        await request.writer.write(self.raw)
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing more: all is written."""
