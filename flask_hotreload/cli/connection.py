"""The connection to a service: one request each, proxies and certificates as the environment says.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` name proxies. Certificates are those that the system trusts, or
``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name, and also those of ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProxyError,
    SSLError,
    TimeoutError,
)

from flask_hotreload.cli.events import Event, events
from flask_hotreload.cli.outcome import TIMED_OUT, UNREACHABLE, USAGE, Broken, Failure, Unreachable
from flask_hotreload.remote_control import USER_AGENT

EVENTS = "text/event-stream"
#: Seconds to connect.
CONNECT = 10.0
#: Seconds without a word, on a connection that has something to say every few seconds.
SILENCE = 30.0


class Answer(NamedTuple):
    """``value``: decoded JSON."""

    status: int
    value: Any

    @property
    def problem(self) -> str:
        """What a problem document says."""
        detail = self.value.get("detail") if isinstance(self.value, dict) else None
        return str(detail or f"status {self.status}")


@dataclass
class Connection:
    """To the service at ``url``. ``token`` goes with what is asked under ``prefix``, and nowhere else."""

    url: str
    prefix: str = "/_reload"
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise Failure(USAGE, f"--url must be like https://host:8000, not {self.url!r}")
        if parts.username is not None:
            raise Failure(USAGE, "leave user and password out of --url: the service asks for a token only")
        self._pool = _pool(parts.scheme, parts.hostname)
        self._headers = {"User-Agent": USER_AGENT + _version()}

    def control(self, method: str, route: str = "", body: object = None, *, seconds: float = SILENCE) -> Answer:
        """Ask a control route. Raise :class:`Failure`."""
        with self._asked(method, self.prefix + route, body, self._authorized(), seconds) as response:
            return self._answer(response)

    def follow(self, route: str, body: object, *, seconds: float) -> Iterator[Event | Answer]:
        """Ask a control route for its events; the answer is the last. ``seconds``: of silence."""
        headers = {**self._authorized(), "Accept": f"{EVENTS}, application/json"}
        with self._asked("POST", self.prefix + route, body, headers, seconds) as response:
            if not response.headers.get("Content-Type", "").startswith(EVENTS):
                yield self._answer(response)
                return
            for event in events(self._chunks(response)):
                if event.name == "report":
                    yield _answer_of(event)
                    return
                yield event
        raise Broken("the connection ended before the reload did")

    def call(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str]) -> Answer:
        """Ask the application itself, without the token."""
        with self._asked(method, path, body, headers, SILENCE) as response:
            return self._answer(response)

    def _authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}

    def _asked(self, method: str, path: str, body: object, headers: Mapping[str, str], seconds: float) -> _Closing:
        sent = {"Accept": "application/json", **self._headers, **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            response = self._pool.request(
                method,
                self.url + path,
                body=None if body is None else msgspec.json.encode(body),
                headers=sent,
                timeout=urllib3.Timeout(connect=min(CONNECT, seconds), read=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, LocationParseError) as error:
            raise self._explained(error) from None
        return _Closing(response)

    def _answer(self, response: urllib3.BaseHTTPResponse) -> Answer:
        content = b"".join(self._chunks(response))
        status = response.status
        if 300 <= status < 400:
            target = response.headers.get("Location", "somewhere else")
            raise Failure(USAGE, f"{self.url} redirects to {target}: give --url as it is there")
        if status == 204:
            return Answer(status, None)
        try:
            return Answer(status, msgspec.json.decode(content))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        if status == 200 and not content:
            raise Broken(f"the connection to {self.url} broke before the answer")
        if status in (502, 503, 504):
            raise Broken(f"{self.url}: a proxy answers {status} in the place of the service")
        if status >= 500:
            raise Failure(UNREACHABLE, f"{self.url} answers {status}, and not as this service would: see its log")
        raise Failure(
            USAGE,
            f"{self.url} answers {status}, and not as this service would: is --url right, and is --prefix, for the "
            f"control routes ({self.prefix}), or --path, for an API?",
        )

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body as it comes in."""
        try:
            if getattr(response, "chunked", False):
                yield from response.stream()
            else:
                while chunk := response.read1(65536):
                    yield chunk
        except (HTTPError, OSError) as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> Failure:
        """What a failure of the library means, without anything in it that may be secret."""
        cause = error.original_error if isinstance(error, ProxyError) else error
        if isinstance(cause, (NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
            via = "the proxy of " if isinstance(error, ProxyError) else ""
            return Unreachable(f"{via}{self.url} cannot be reached: {_reason(cause)}")
        if isinstance(cause, SSLError):
            return Failure(
                UNREACHABLE,
                f"{self.url}: {_reason(cause)}. SSL_CERT_FILE may name the authorities to trust",
            )
        if isinstance(cause, LocationParseError):
            return Failure(USAGE, f"{self.url!r} is no URL")
        if isinstance(cause, TimeoutError):
            return Silent(f"{self.url} has been silent for too long")
        return Broken(f"the connection to {self.url} broke: {_reason(cause)}")


class Silent(Broken):
    """The connection may still be there, but nothing comes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = TIMED_OUT


class _Closing:
    """The response for a ``with`` block. The connection is closed after it: each request has its own."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> urllib3.BaseHTTPResponse:
        return self._response

    def __exit__(self, *error: object) -> None:
        self._response.close()


def _answer_of(event: Event) -> Answer:
    """A problem document has a number for its status, a report has a word."""
    told = event.data.get("status")
    return Answer(told if isinstance(told, int) else 200, event.data)


def _reason(error: BaseException) -> str:
    """The innermost reason that an operating system or a library gives."""
    while True:
        inner = (
            error.__cause__ or error.__context__ or next((a for a in error.args if isinstance(a, Exception)), None)
        )
        if inner is None:
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    proxies = {} if proxy_bypass(host) else getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    options: dict[str, Any] = {"ssl_context": _trust()} if scheme == "https" else {}
    if not proxy:
        return urllib3.PoolManager(**options)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


def _trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):
            try:
                context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
            except OSError as error:
                raise Failure(USAGE, f"{variable} names {path}, which cannot be read: {error.strerror}") from None
    return context


def _version() -> str:
    try:
        return metadata.version("flask-hotreload")
    except metadata.PackageNotFoundError:
        return "0"
