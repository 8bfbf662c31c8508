"""Every workaround of the internals of Streamlit.

Each is a small guarded function: where a new version has changed what it relies on, one warning with its name is
logged, and the app goes on without it.
"""

import asyncio
import copy
import gc
import logging
import re
import signal
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

import streamlit as st
from starlette.requests import ClientDisconnect

LOG = logging.getLogger("handful")  # as in web.log, which uses this module
INTERNAL_CHANGED = (AttributeError, ImportError, LookupError, TypeError)

# What a request raises whose client leaves, or which is ended as the server stops: no error.
CLIENT_LEFT = (ConnectionError, ClientDisconnect, asyncio.CancelledError)
INVALID_REQUEST = "Invalid HTTP request received."  # logged by `refuse_once`
INVALID_TEXT = "Invalid UTF-8 sequence received from client."  # through a WebSocket; logged with a traceback
EXTENDED_FILE_NAME = re.compile(rb";\s*filename\*=[\w-]*'[^']*'([^;\s]*)", re.IGNORECASE)  # RFC 5987

P = ParamSpec("P")
T = TypeVar("T")
_warned: set[str] = set()


def warn_once(name: str, error: Exception) -> None:
    """Log that a patch has no effect any more, the first time that it fails."""
    if name not in _warned:
        _warned.add(name)
        LOG.warning("patch of Streamlit has no effect", extra={"patch": name, "error": repr(error)})


def guarded(patch: Callable[P, T]) -> Callable[P, T | None]:
    """Make a patch return None and warn once, instead of raising, where an internal has changed."""

    @wraps(patch)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return patch(*args, **kwargs)
        except INTERNAL_CHANGED as error:
            warn_once(patch.__name__, error)
            return None

    return call


@guarded
def share_upload_bytes() -> None:
    """Make copies of an `UploadedFile` share its bytes.

    Streamlit deep-copies every upload for each run of a page: a video would be in memory twice.
    """
    files = import_module("streamlit.runtime.uploaded_file_manager")

    def share(file: Any, memo: dict) -> Any:
        try:
            record = files.UploadedFileRec(file.file_id, file.name, file.type, file.getvalue())
            return files.UploadedFile(record, file._file_urls)
        except INTERNAL_CHANGED as error:
            warn_once("share_upload_bytes", error)
            del files.UploadedFile.__deepcopy__
            return copy.deepcopy(file, memo)

    files.UploadedFile.__deepcopy__ = share


@guarded
def uploaded_bytes(visit: str = "") -> int:
    """Return how many bytes of visitors' uploads Streamlit holds in memory, of all visits or of one."""
    files: Any = st.runtime.get_instance().uploaded_file_mgr
    visits = [visit] if visit else list(files.file_storage)
    return sum(len(record.data) for visit in visits for record in files.file_storage.get(visit, {}).copy().values())


@guarded
def session_id() -> str:
    """Return the visit for which this thread runs a page, or "" outside of one."""
    context = import_module("streamlit.runtime.scriptrunner").get_script_run_ctx(suppress_warning=True)
    return context.session_id if context else ""


@guarded
def expire_sessions() -> None:
    """Drop sessions that are past their time to live, and their files: Streamlit does so only when another one ends."""
    runtime: Any = st.runtime.get_instance()
    runtime._session_mgr._session_storage._cache.expire()


@guarded
def accept_extended_file_names() -> None:
    """Take a part of a form with `filename*=` alone as a file, too: Starlette's parser takes it as text.

    Forms must not have it, but urllib3 before version 2 sends names so that are not ASCII.
    """
    forms: Any = import_module("starlette.formparsers")
    parse = forms.parse_options_header

    def parse_header(value: bytes | str | None) -> tuple[bytes, dict[bytes, bytes]]:
        kind, options = parse(value)
        if isinstance(value, bytes) and (name := EXTENDED_FILE_NAME.search(value)):
            options.setdefault(b"filename", unquote_to_bytes(name[1]))
        return kind, options

    forms.parse_options_header = parse_header


@guarded
def read_less_at_once() -> None:
    """Read 32 KB of a connection at once, not 256: in tiny chunks, these take a third of a second, and all wait."""
    transport: Any = import_module("asyncio.selector_events")._SelectorSocketTransport
    if not isinstance(transport.max_size, int):
        raise TypeError("max_size")
    transport.max_size = 2**15


@guarded
def disable_nagle() -> None:
    """Set TCP_NODELAY on the listening socket, which those that it accepts inherit.

    On a kept-alive connection, a response body would otherwise wait 40 ms for the client's delayed ACK. asyncio sets it
    for sockets that were opened with IPPROTO_TCP; Streamlit opens its own without, and hands it to nobody.
    """
    sockets = [item for item in gc.get_objects() if type(item) is socket and item.fileno() >= 0]
    for item in sockets:
        if item.type == SOCK_STREAM and item.family in (AF_INET, AF_INET6):
            item.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


@guarded
def ask_nobody_for_address() -> None:
    """Keep Streamlit from asking amazonaws.com for the server's address, for each page of another site that connects.

    Without an answer, all visitors would wait for seconds meanwhile.
    """
    net_util: Any = import_module("streamlit.net_util")
    net_util.get_external_ip = wraps(net_util.get_external_ip)(lambda: None)


@guarded
def limit_head(seconds: float) -> None:
    """Close connections on which the head of a request does not come in time: uvicorn waits for it for ever."""
    for server in _servers():
        kind: Any = server.config.http_protocol_class

        class Protocol(kind):
            def connection_made(self, transport: asyncio.Transport) -> None:
                super().connection_made(transport)
                self.loop.call_later(seconds, self.close_without_head, None)

            def close_without_head(self, previous: Any) -> None:
                """Close unless there is a request, or was another one than `previous`; look again later."""
                if self.transport.is_closing() or self.transport.get_protocol() is not self:  # now of a WebSocket
                    return
                if self.cycle is previous and (self.cycle is None or self.cycle.response_complete):
                    self.transport.close()
                else:
                    self.loop.call_later(seconds, self.close_without_head, self.cycle)

        server.config.http_protocol_class = Protocol


@guarded
def refuse_once() -> None:
    """Answer a request that is no HTTP once, and log it in one line.

    Where only its body is none, uvicorn logs it beside the app, and fails if the app has answered it already.
    """
    answered_already = import_module("h11").LocalProtocolError
    for server in _servers():
        kind: Any = server.config.http_protocol_class

        class Protocol(kind):
            def send_400_response(self, message: str) -> None:
                if self.cycle is None or self.cycle.response_complete:  # otherwise the app logs it
                    LOG.info("refused", extra={"where": "server", "kind": "no HTTP"})
                try:
                    super().send_400_response(message)
                except answered_already:
                    self.transport.close()

        server.config.http_protocol_class = Protocol


@guarded
def limit_messages(max_bytes: int, max_unread: int) -> None:
    """End WebSockets on which a larger message comes, or of which more than `max_unread` bytes wait to be sent.

    Streamlit allows 200 MB for a message, and uvicorn any number of answers to pings that the client never reads.
    """
    for server in _servers():
        kind: Any = server.config.ws_protocol_class

        class Protocol(kind):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if self.transport.get_write_buffer_size() > max_unread:
                    self.transport.abort()

        server.config.ws_protocol_class, server.config.ws_max_size = Protocol, max_bytes


@guarded
def clear_forged_values() -> None:
    """Take the value of a widget that is of another type, or cannot be read, as none.

    No browser sends such a value, and each would be logged with a traceback.
    """
    module: Any = import_module("streamlit.runtime.state.session_state")
    get_value = getattr(module.WStates.__getitem__, "__wrapped__", module.WStates.__getitem__)

    @wraps(get_value)
    def get_checked(states: Any, key: str) -> Any:
        state, kind = None, None
        try:
            state, expected = states.states.get(key), states.widget_metadata.get(key)
            kind = state.value.WhichOneof("value") if isinstance(state, module.Serialized) else None
            if kind and expected and kind != expected.value_type:
                state.value.ClearField(kind)
        except INTERNAL_CHANGED as error:
            warn_once("clear_forged_values", error)
        try:
            return get_value(states, key)
        except (AttributeError, IndexError, RecursionError, TypeError, ValueError):  # such as JSON that is none
            if not (state and kind):
                raise
            state.value.ClearField(kind)
            return get_value(states, key)

    module.WStates.__getitem__ = get_checked


@guarded
def limit_shutdown(seconds: int) -> None:
    """End requests that take longer when the server is told to stop: uvicorn would wait for the slowest upload."""
    for server in _servers():
        server.config.timeout_graceful_shutdown = seconds


@guarded
def obey_signals() -> None:
    """Make the process end in order and with status 0, also if it is told twice.

    uvicorn would end it by the signal that it has obeyed, and at a second Ctrl-C skip the end of `lifespan`.
    """
    for server in _servers():

        def stop(*_: object, server: Any = server) -> None:
            server.should_exit = True

        for number in import_module("uvicorn.server").HANDLED_SIGNALS:
            if signal.getsignal(number) == server.handle_exit:
                signal.signal(number, stop)


def _servers() -> list[Any]:
    """Return uvicorn's servers, which Streamlit hands to nobody."""
    kind = import_module("uvicorn").Server
    return [item for item in gc.get_objects() if type(item) is kind]


@guarded
def redirect_logs(handler: logging.Handler) -> None:
    """Send the warnings and errors of Streamlit and uvicorn to a handler, and nothing else.

    Only of unhandled errors with the traceback. By filters, which Streamlit leaves alone: it sets handlers and levels
    anew whenever its config.toml changes.
    """

    def redirect(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, CLIENT_LEFT):
            LOG.info("client left", extra={"error": type(error).__name__})
        elif record.msg == INVALID_TEXT:
            LOG.info("refused", extra={"where": "server", "kind": "no page message"})
        elif record.levelno >= logging.WARNING and record.msg != INVALID_REQUEST:  # below, with visitors' addresses
            handler.handle(record)
        return False

    def redirect_line(record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.error, record.exc_info = repr(record.exc_info[1]), None
        return redirect(record)

    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).filters = [redirect]
    loggers: Any = import_module("streamlit.logger")
    set_up = getattr(loggers.setup_formatter, "__wrapped__", loggers.setup_formatter)
    # Streamlit names its loggers after their modules: where this one is gone, so is the logger.
    unhandled = import_module("streamlit.error_util").__name__

    @wraps(set_up)
    def set_up_redirected(logger: logging.Logger) -> None:
        set_up(logger)
        if logger.name.startswith("streamlit"):
            logger.filters = [redirect if logger.name == unhandled else redirect_line]

    loggers.setup_formatter = set_up_redirected  # for those to come
    loggers.update_formatter()
