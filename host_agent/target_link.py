"""The Host's side of the Host-Target link (steps 3 and 6)."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
)

from carnet.ending import MAX_ENDING
from carnet.link import read_at_most
from carnet.wire import cbor
from carnet.wire.control import (
    MAX_CONTROL,
    EndedTunnels,
    TunnelAnswer,
    TunnelRequest,
)
from carnet.wire.fault import WireError
from host_agent.config import TargetSection

RETRY_SECONDS = 5
"""For how long one request is passed on again and again; then its Client sends it again."""
_ATTEMPT_SECONDS = 10
_POLL_SECONDS = 60
_ENDED = (HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED, HTTPStatus.NOT_FOUND)
"""It ended; it ends as soon as the IKE daemon answers; it ended before."""


class TargetSilentError(Exception):
    """Target does not answer, or not now; `code` is a word for the Client."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@dataclass(frozen=True)
class TimedAnswer:
    """Target's answer, and what it says of its own steps (Server-Timing)."""

    answer: TunnelAnswer
    timing: str


class TargetLink:
    """One pool of TLS connections to all Targets."""

    def __init__(self, targets: Mapping[str, TargetSection], context: ssl.SSLContext) -> None:
        self.targets = targets
        self._context = context
        # Each Target is always being asked for tunnels that ended, beside the requests.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def knows(self, target: str) -> bool:
        """Tell whether there is a Target of that name."""
        return target in self.targets

    async def pass_on(self, target: str, request: TunnelRequest) -> TimedAnswer:
        """Send the user information until Target answers; raises TargetSilentError.

        Target answers the same Request ID with the same answer, so sending it again
        is safe.
        """
        attempts = AsyncRetrying(
            stop=stop_after_delay(RETRY_SECONDS),
            wait=wait_exponential_jitter(multiplier=0.1, max=2),
            retry=retry_if_exception_type(TargetSilentError),
            reraise=True,
        )
        return await attempts(self._ask, target, cbor.pack(request))

    async def ended(self, target: str, after: int) -> EndedTunnels:
        """Wait for tunnels that ended after that number; raises TargetSilentError."""
        status, body, _ = await self._call("GET", target, f"/v1/ended?after={after}", _POLL_SECONDS)
        if status != HTTPStatus.OK:
            raise TargetSilentError("target-not-ready", f"HTTP {status}")
        return _decode_ended(body)

    async def end(self, target: str, request_id: bytes) -> bool:
        """Have Target end a tunnel, if it still lives; raises TargetSilentError.

        Return whether Target has written that down; else a restart of it forgets why.
        """
        path = f"/v1/tunnels/{request_id.hex()}"
        status, _, _ = await self._call("DELETE", target, path, _ATTEMPT_SECONDS)
        if status not in (*_ENDED, HTTPStatus.SERVICE_UNAVAILABLE):
            raise TargetSilentError("target-not-ready", f"HTTP {status}")
        return status in _ENDED

    async def ending(self, target: str, request_id: bytes) -> bytes | None:
        """Return why a tunnel ended, signed by Target for the traveller; None if it lives.

        Raises TargetSilentError.
        """
        path = f"/v1/tunnels/{request_id.hex()}/ending"
        status, body, _ = await self._call("GET", target, path, _ATTEMPT_SECONDS)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK or len(body) > MAX_ENDING:
            raise TargetSilentError("target-not-ready", f"HTTP {status}")
        return body

    async def _ask(self, target: str, body: bytes) -> TimedAnswer:
        status, answer, headers = await self._call(
            "POST", target, "/v1/tunnels", _ATTEMPT_SECONDS, body
        )
        if status != HTTPStatus.OK:
            raise TargetSilentError("target-not-ready", f"HTTP {status}")
        return TimedAnswer(_decode_answer(answer), headers.get("Server-Timing", ""))

    async def _call(
        self, method: str, target: str, path: str, seconds: float, body: bytes | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        section = self.targets.get(target)
        if section is None:
            raise TargetSilentError("target-unreachable", f"{target} is configured no more")
        try:
            async with self._session.request(
                method,
                section.url + path,
                data=body,
                ssl=self._context,
                server_hostname=target,
                timeout=aiohttp.ClientTimeout(seconds),
                allow_redirects=False,
            ) as response:
                answer = await read_at_most(response.content, MAX_CONTROL)
                return response.status, answer, response.headers
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise TargetSilentError("target-unreachable", _reason(error)) from error


def _reason(error: Exception) -> str:
    """Say why there is no answer; of a connection that fails the library says what is in it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate does not hold ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        why = error.os_error.strerror or str(error.os_error)
        return f"no connection to {error.host}:{error.port} ({why})"
    return str(error) or "no answer in time"


def _decode_answer(body: bytes) -> TunnelAnswer:
    try:
        return cbor.unpack_union(body, TunnelAnswer, MAX_CONTROL)  # type: ignore[return-value]
    except WireError as error:
        raise TargetSilentError("target-not-ready", str(error)) from error


def _decode_ended(body: bytes) -> EndedTunnels:
    try:
        return cbor.unpack(body, EndedTunnels, MAX_CONTROL)
    except WireError as error:
        raise TargetSilentError("target-not-ready", str(error)) from error
