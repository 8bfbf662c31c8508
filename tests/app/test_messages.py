"""What a visitor may send to pages over the WebSocket, on a running server."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from benchmarks.app_server import run_app
from web.messages import KINDS, MAX_FILE_NAMES, MAX_MESSAGES, MAX_UNREAD_BYTES, MAX_WIDGETS, parse

BINARY, CONTINUATION, PING = 2, 0, 9
OWN = BackMsg.DESCRIPTOR.oneofs_by_name["type"].fields


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def server(log) -> Iterator[str]:
    with run_app(log) as address:
        yield address


@pytest.fixture
def new_lines(server, log) -> Callable[[], list[dict]]:
    """A function that returns what has been logged since the test began: nothing but JSON."""
    start = len(log.read_bytes())

    def read() -> list[dict]:
        time.sleep(0.3)  # for more lines than the expected ones
        return [json.loads(line) for line in log.read_bytes()[start:].decode().splitlines()]

    return read


def visit(server: str, **options) -> ClientConnection:
    return connect(server.replace("http", "ws") + "/_stcore/stream", max_size=None, **options)


def rerun(page: str = "", query: str = "") -> BackMsg:
    message = BackMsg()
    message.rerun_script.page_name, message.rerun_script.query_string = page, query
    return message


def answers(connection: ClientConnection) -> list[ForwardMsg]:
    """Return the messages of a page up to the end of its run."""
    messages = [ForwardMsg()]
    while messages[-1].WhichOneof("type") != "script_finished":
        messages.append(ForwardMsg.FromString(connection.recv(timeout=20)))
    return messages


def widget_id(messages: list[ForwardMsg], kind: str) -> str:
    elements = [message.delta.new_element for message in messages if message.WhichOneof("type") == "delta"]
    return next(getattr(one, kind).id for one in elements if one.WhichOneof("type") == kind)


def has_error(messages: list[ForwardMsg]) -> bool:
    return any(message.delta.new_element.WhichOneof("type") == "exception" for message in messages)


def names(count: int) -> BackMsg:
    message = BackMsg()
    message.file_urls_request.file_names.extend(count * [""])
    return message


def widgets(count: int) -> BackMsg:
    message = BackMsg()
    for _ in range(count):
        message.rerun_script.widget_states.widgets.add()
    return message


def test_ordinary_messages_pass():
    for message in (rerun("pictures"), names(MAX_FILE_NAMES), widgets(MAX_WIDGETS), BackMsg()):
        assert parse(message.SerializeToString()) == message


@pytest.mark.parametrize(
    "data",
    ["text", b"\xff", names(MAX_FILE_NAMES + 1).SerializeToString(), widgets(MAX_WIDGETS + 1).SerializeToString()],
    ids=["text", "no message", "too many files", "too many widgets"],
)
def test_what_no_page_sends_ends_the_connection_and_is_one_line(server, new_lines, data):
    with visit(server) as connection:
        connection.send(data)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
    assert closed.value.rcvd.code == 1008
    [line] = new_lines()
    assert (line["event"], line["where"], line["kind"]) == ("refused", "server", "no page message")


def test_messages_for_developers_are_ignored(server, new_lines):
    with visit(server) as connection:
        for kind in {field.name for field in OWN} - KINDS:
            connection.send(BackMsg(**{kind: True}).SerializeToString())
        connection.send(BackMsg(app_heartbeat=True).SerializeToString())
        assert ForwardMsg.FromString(connection.recv(timeout=10)).WhichOneof("type") == "heartbeat_ack"
    assert not new_lines()


def test_a_flood_of_messages_ends_the_connection(server, new_lines):
    with open_socket(server) as connection, suppress(ConnectionError):  # of what was not read
        connection.sendall((10 * MAX_MESSAGES) * frame(BINARY, rerun().SerializeToString()))
        while connection.recv(65536):
            pass
    assert [line["kind"] for line in new_lines()] == ["no page message"]


def test_an_origin_that_is_none_is_refused_in_one_line(server, new_lines):
    with pytest.raises(Exception, match="HTTP 403"), visit(server, origin="http://[x"):
        pass
    assert len(new_lines()) == 1


@pytest.mark.parametrize(
    ("page", "kind", "value"),
    [
        ("samples", "pagination", {"string_value": "x"}),
        ("samples", "button_group", {"int_value": 3}),
        ("samples", "text_input", {"bytes_value": b"\xff"}),
        *(("", "bidi_component", {"json_value": text}) for text in ("", "{", "[" * 100_000, '{"settings": {"a": 1}}')),
        *(("pictures", "bidi_component", {"json_value": f'{{"head": {head}}}'}) for head in ("null", '"x"', "[1]")),
        ("pictures", "bidi_component", {"json_value": '{"head": {"id": "a", "text": "\\ud800"}}'}),
        ("pictures", "bidi_component", {"json_value": '{"head": {"id": [], "text": 5}}'}),
    ],
)
def test_forged_values_of_widgets_raise_nothing(server, new_lines, page, kind, value):
    with visit(server) as connection:
        connection.send(rerun(page).SerializeToString())
        message = rerun(page)
        widget = message.rerun_script.widget_states.widgets.add(id=widget_id(answers(connection), kind))
        for field, content in value.items():
            setattr(widget, field, content)
        connection.send(message.SerializeToString())
        assert not has_error(answers(connection))
    assert not [line for line in new_lines() if "exc_info" in line]


def test_ids_with_line_breaks_make_no_lines_of_their_own(server, new_lines):
    message = BackMsg()
    message.backend_operation_request.request_id = '\n\x1b[31m{"event": "forged"}'
    with visit(server) as connection:
        connection.send(message.SerializeToString())
        connection.recv(timeout=10)
    [line] = new_lines()
    assert line["level"] == "WARNING"
    assert "Rejecting backend operation request" in line["event"]


def open_socket(server: str) -> socket.socket:
    """Return a connection whose handshake is done, with which frames of any kind can be sent."""
    host, _, port = server.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(
        b"GET /_stcore/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert connection.recv(4096).startswith(b"HTTP/1.1 101")
    return connection


def frame(kind: int, payload: bytes, last: bool = True) -> bytes:
    """Return a WebSocket frame of a client, masked with zeros."""
    size = struct.pack(">BQ", 128 | 127, len(payload)) if len(payload) > 125 else bytes([128 | len(payload)])
    return bytes([128 * last | kind]) + size + bytes(4) + payload


def send_until_closed(connection: socket.socket, *frames: bytes) -> int:
    """Send the frames, the last of them again and again. Returns the bytes that were sent before the end, or 200 MB."""
    sent = 0
    with connection:
        for data in (*frames, *200 * frames[-1:]):
            try:
                connection.sendall(data)
            except OSError:
                break
            sent += len(data)
    return sent


def test_a_message_without_an_end_is_not_collected(server):
    """Streamlit allows 200 MB, on each of any number of connections."""
    part = bytes(1_000_000)
    sent = send_until_closed(
        open_socket(server), frame(BINARY, part, last=False), frame(CONTINUATION, part, last=False)
    )
    assert sent < 20_000_000


def test_answers_to_pings_that_are_not_read_are_not_collected(server):
    connection = open_socket(server)
    assert send_until_closed(connection, 8000 * frame(PING, bytes(125))) < MAX_UNREAD_BYTES + 30_000_000
