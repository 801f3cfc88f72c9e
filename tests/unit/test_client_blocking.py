"""The blocking client: the same conversation from a thread that knows nothing of trio."""

import gc
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from dataflow_serve.client import BlockingClient, Client, Step
from dataflow_serve.errors import BusyError, ConnectionClosed, IncorrectError, NotFoundError
from dataflow_serve.protocol import (
    Changes,
    Column,
    Ended,
    ErrorBody,
    Ping,
    Pong,
    Read,
    Rows,
    Subscribe,
    Transact,
    Transacted,
    Unsubscribe,
)
from tests.unit.scripted_server import KNOWS, ScriptedServer, opened

Script = Callable[[ScriptedServer], Awaitable[None]]

AB, CD = ("a", "b"), ("c", "d")


def connected(script: Script, on_close: Callable[[], object] | None = None) -> BlockingClient:
    """A blocking client whose server follows ``script``, in the client's own thread."""

    @asynccontextmanager
    async def with_script() -> AsyncIterator[Client]:
        async with opened() as (client, server, _), trio.open_nursery() as nursery:
            nursery.start_soon(script, server)
            yield client

    return BlockingClient(with_script, on_close)


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dataflow-client"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    for thread in client_threads():
        thread.join()


def press_ctrl_c() -> None:
    """A real signal: only that wakes a main thread that waits."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a terminal's program does at Ctrl-C; one started in the background of a script may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def silent(server: ScriptedServer) -> None:
    """Says nothing after hello."""


async def with_rows(server: ScriptedServer) -> None:
    """Answers one read."""
    assert await server.expect(Read) == Read("knows", limit=11)
    await server.reply(Rows(KNOWS, [AB], 7))


def test_requests_return_what_the_server_says() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(Transact)
        await server.reply(Transacted(20))
        await server.expect(Read)
        await server.refuse("not-found", "no relation reach")

    with connected(script) as db:
        assert db.info.workers == 2
        assert db.transact(knows=[AB]) == Transacted(20)
        with pytest.raises(NotFoundError, match="no relation reach"):
            db["reach"].rows()


def test_failing_to_connect_fails_the_call_and_leaves_no_thread() -> None:
    @asynccontextmanager
    async def refused() -> AsyncIterator[Client]:
        async with opened() as (client, _, _):
            if client.connected:
                raise BusyError("too many clients")
            yield client

    with pytest.raises(BusyError, match="too many clients"):
        BlockingClient(refused)
    for thread in client_threads():
        thread.join()


def test_pipelined_transactions_give_something_to_ask_later() -> None:
    async def script(server: ScriptedServer) -> None:
        for time in range(3):
            await server.expect(Transact)
            await server.reply(Transacted(time))

    with connected(script) as db:
        pendings = [db.transact(knows=[AB], wait=False) for _ in range(3)]
        assert [pending.result().time for pending in pendings] == [0, 1, 2]
        assert all(pending.done() for pending in pendings)


def test_a_relation_shows_its_rows_and_their_time() -> None:
    with connected(with_rows) as db:
        assert repr(db["knows"]) == "knows(x: symbol, y: symbol), 1 row at time 7\nx  y\na  b"
    with connected(with_rows) as db:
        html = db["knows"]._repr_html_()
        assert html is not None
        assert "<td>b</td>" in html


def test_showing_a_relation_never_raises() -> None:
    db = connected(silent)
    db.close()
    assert repr(db["knows"]) == "<relation 'knows': the client is closed>"
    assert db["knows"]._repr_html_() is None


def test_steps_are_iterated_until_the_subscription_ends() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.subscription()
        await server.send(
            Changes(1, 10, [(AB, 1)], snapshot=True),
            Changes(1, 11, [(CD, 1)]),
            Ended(1, ErrorBody("not-found", "unregistered")),
        )

    seen = []
    with connected(script) as db, db["knows"].subscribe() as live:
        assert live.columns == KNOWS
        with pytest.raises(NotFoundError, match="unregistered"):
            for step in live:
                seen.append(step)
        assert live.time == 11
        assert list(live) == []
    assert seen == [Step(10, [(AB, 1)], snapshot=True), Step(11, [(CD, 1)])]


def test_leaving_the_block_unsubscribes() -> None:
    left = threading.Event()

    async def script(server: ScriptedServer) -> None:
        await server.subscription()
        await server.expect(Unsubscribe)
        left.set()

    with connected(script) as db:
        with db["knows"].subscribe():
            pass
        assert left.wait(60)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_interrupts_a_wait_and_loses_no_step() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.subscription()
        await server.send(Changes(1, 10, [(AB, 1)], snapshot=True, more=True))
        await server.expect(Transact)
        press_ctrl_c()
        await server.reply(Transacted(11))
        await server.expect(Ping)
        await server.send((server.last_id, Pong(1)), Changes(1, 10, [(CD, 1)], snapshot=True))

    with connected(script) as db, db["knows"].subscribe() as live:
        with pytest.raises(KeyboardInterrupt):
            db.transact(knows=[CD], wait=False)
            live.receive()
        assert db.ping() == 1
        assert live.receive() == Step(10, [(AB, 1), (CD, 1)], snapshot=True)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_the_connection_usable() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(Read)
        press_ctrl_c()
        await server.expect(Ping)
        await server.reply(Pong(3))

    with connected(script) as db:
        with pytest.raises(KeyboardInterrupt):
            db.read("knows")
        assert db.ping() == 3


def test_many_threads_share_a_client() -> None:
    async def script(server: ScriptedServer) -> None:
        for time in range(40):
            await server.expect(Ping)
            await server.reply(Pong(time))

    times: list[int] = []
    with connected(script) as db:
        threads = [
            threading.Thread(target=lambda: times.extend(db.ping() for _ in range(10))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(times) == list(range(40))


def test_closing_twice_is_fine_and_calls_back_once() -> None:
    closed: list[str] = []
    db = connected(silent, on_close=lambda: closed.append("closed"))
    db.close()
    db.close()
    assert closed == ["closed"]
    with pytest.raises(ConnectionClosed, match="the client is closed"):
        db.ping()


def test_a_client_that_nobody_refers_to_ends_its_thread() -> None:
    closed = threading.Event()
    db = connected(silent, on_close=closed.set)
    threads = client_threads()
    assert threads
    del db
    gc.collect()
    assert closed.wait(60)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_a_failing_block_does_not_wait_for_answers() -> None:
    with pytest.raises(KeyError), connected(silent) as db:
        db.transact(knows=[AB], wait=False)
        raise KeyError("mine")


def test_loading_a_file_shows_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("dataflow_serve._core", reason="the extension reads files")
    path = tmp_path / "knows.csv"
    path.write_text("x,y\n" + "a,b\n" * 25)

    async def script(server: ScriptedServer) -> None:
        assert await server.expect(Read) == Read("knows", limit=0)
        await server.reply(Rows(KNOWS, [], 3))
        for time, wait in enumerate([None, None, "visible"]):
            assert (await server.expect(Transact)).wait == wait
            await server.reply(Transacted(time))

    with connected(script) as db:
        loaded = db.load(path, into="knows", batch_rows=10, progress=True)
    assert (loaded.rows, loaded.time) == (25, 2)
    assert "loading knows" in capsys.readouterr().err


def test_a_bad_row_of_a_file_names_its_place(tmp_path: Path) -> None:
    pytest.importorskip("dataflow_serve._core", reason="the extension reads files")
    path = tmp_path / "ages.csv"
    path.write_text("ann,7\nbob,old\n")

    async def script(server: ScriptedServer) -> None:
        await server.expect(Read)
        await server.reply(Rows((Column("name", "symbol"), Column("age", "number")), [], 3))

    with (
        connected(script) as db,
        pytest.raises(IncorrectError, match=r"ages\.csv, line 2, column 'age': 'old'"),
    ):
        db.load(path, into="age")


def test_rows_are_taken_in_the_callers_thread() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(Read)
        await server.reply(Rows((Column("n", "number"),), [], 3))
        await server.expect(Transact)
        await server.reply(Transacted(4))

    taken_in = set()

    def rows() -> Iterator[tuple[int]]:
        for n in range(3):
            taken_in.add(threading.current_thread())
            yield (n,)

    with connected(script) as db:
        db.load(rows(), into="n")
    assert taken_in == {threading.current_thread()}


def test_subscribe_passes_its_wishes_on() -> None:
    asked: list[Subscribe] = []

    async def script(server: ScriptedServer) -> None:
        asked.append(await server.subscription())

    with connected(script) as db, db.subscribe("knows", progress=True, snapshot=False, where={"x": "a"}):
        pass
    assert asked == [Subscribe("knows", snapshot=False, progress=True, where={"x": "a"})]
