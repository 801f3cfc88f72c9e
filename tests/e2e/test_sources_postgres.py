"""Tables of a real PostgreSQL server, followed by logical replication.

Skipped where there is no server to run; `.ci/postgresql` installs one where it may.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from .cluster import Cluster
from .postgres import Missing, Postgres
from .sources import on_one_shape, on_some_shapes, source, until
from .wire import Contents, Refused, Subscription, Wire

pytestmark = pytest.mark.timeout(240)
_names = itertools.count(1)
TEXTS = ["a", "b", "a text of some length", "ü, \"'\\\n", "null"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres()
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.close()


@pytest.fixture
def client(cluster: Cluster, postgres: Postgres) -> Iterator[Wire]:
    """A client of the last process; what it leaves attached is detached."""
    client = cluster.open("msgpack", cluster.processes - 1)
    yield client
    for each in client.call("status")["sources"]:
        client.call("detach", name=each["name"])


class Shop:
    """Three tables, one for each kind of relation, and what is followed of them."""

    PROGRAM = """
    .decl item(id: number, name: symbol, price: float, ok: bool) upsert(id)
    .input item
    .decl tag(item: number, tag: symbol)
    .input tag
    .decl visit(who: symbol, n: unsigned) raw
    .input visit
    .decl tagged(name: symbol, tag: symbol)
    .output tagged
    tagged(n, t) :- item(i, n, _, _), tag(i, t).
    """

    def __init__(self, postgres: Postgres, client: Wire, rng: random.Random) -> None:
        self.postgres, self.client, self.rng = postgres, client, rng
        self.name = f"shop{next(_names)}"
        self.program = self.PROGRAM
        postgres.execute(
            f"CREATE SCHEMA {self.name}",
            f"SET search_path = {self.name}",
            'CREATE TABLE item (id int PRIMARY KEY, "the name" text, price numeric, other text, ok bool)',
            "CREATE TABLE tag (item int, tag text, PRIMARY KEY (item, tag))",
            "ALTER TABLE tag REPLICA IDENTITY FULL",
            "CREATE TABLE visit (who text, n bigint)",
            "ALTER TABLE visit REPLICA IDENTITY FULL",
        )

    def attach(self, **more: Any) -> None:
        tables = [
            {
                "table": f"{self.name}.item",
                "relation": "item",
                "columns": {"name": "the name"},
                "null": {"name": "nameless", "price": "-1", "ok": "false"},
            },
            {"table": f"{self.name}.tag", "relation": "tag"},
            {"table": f"{self.name}.visit", "relation": "visit"},
        ]
        described = {"kind": "postgres", "dsn": self.postgres.dsn, "tables": tables, **more}
        self.client.call("attach", name=self.name, source=described)

    def change(self, cursor: Any, count: int) -> None:
        """Make random changes; rows are touched again and again, also within a transaction."""
        rng = self.rng
        cursor.execute(f"SET search_path = {self.name}")
        for _ in range(count):
            number, text = (
                rng.randrange(12),
                rng.choice(["a", "b", "a text of some length", "ü, \"'\\\n", "null"]),
            )
            price = rng.choice([None, rng.randrange(400) / 4])
            statement = rng.choice(
                [
                    (
                        "INSERT INTO item VALUES (%s, %s, %s, 'x', %s) ON CONFLICT (id) DO NOTHING",
                        (number, rng.choice([None, text]), price, rng.choice([True, False, None])),
                    ),
                    ('UPDATE item SET "the name" = %s, price = %s WHERE id = %s', (text, price, number)),
                    ("UPDATE item SET id = id + 100 WHERE id = %s", (number,)),
                    ("DELETE FROM item WHERE id %% 100 = %s", (number,)),
                    ("INSERT INTO tag VALUES (%s, %s) ON CONFLICT DO NOTHING", (number, text)),
                    ("DELETE FROM tag WHERE item = %s", (number,)),
                    ("UPDATE tag SET tag = tag || '!' WHERE item = %s AND tag = %s", (number, text)),
                    ("INSERT INTO visit VALUES (%s, %s), (%s, %s)", (text, number, text, number)),
                    (
                        "DELETE FROM visit WHERE ctid IN (SELECT ctid FROM visit WHERE n = %s LIMIT 1)",
                        (number,),
                    ),
                    ("UPDATE visit SET n = n + 1 WHERE who = %s", (text,)),
                ]
            )
            cursor.execute("SAVEPOINT statement")
            try:
                cursor.execute(*statement)
            except psycopg2.errors.UniqueViolation:
                cursor.execute("ROLLBACK TO statement")

    def transactions(self, count: int) -> None:
        """Random transactions, some of which are rolled back, all of them or a part."""
        connection = self.postgres.connect()
        for _ in range(count):
            with connection.cursor() as cursor:
                self.change(cursor, self.rng.randrange(1, 8))
                if self.rng.random() < 0.3:
                    cursor.execute("SAVEPOINT here")
                    self.change(cursor, 3)
                    cursor.execute("ROLLBACK TO here")
            if self.rng.random() < 0.15:
                connection.rollback()
            else:
                connection.commit()
        connection.close()

    def contents(self) -> dict[str, Contents]:
        """What the relations should contain."""
        queries = {
            "item": "SELECT id, coalesce(\"the name\", 'nameless'), coalesce(price, -1)::float8, "
            f"coalesce(ok, false) FROM {self.name}.item",
            "tag": f"SELECT item, tag FROM {self.name}.tag",
            "visit": f"SELECT who, n FROM {self.name}.visit",
            "tagged": "SELECT DISTINCT coalesce(\"the name\", 'nameless'), tag "
            f"FROM {self.name}.item JOIN {self.name}.tag ON item = id",
        }
        return {relation: Counter(self.postgres.rows(query)) for relation, query in queries.items()}

    def check(self, *subscriptions: Subscription) -> None:
        """Wait until every relation is what its table is."""
        contents = self.contents()
        for subscription in subscriptions:
            subscription.until_equal(contents[subscription.relation])
        for relation in contents:
            if not any(each.relation == relation for each in subscriptions):
                self.client.subscribe(relation).until_equal(contents[relation])


@pytest.fixture
def shop(postgres: Postgres, client: Wire, rng: random.Random) -> Shop:
    shop = Shop(postgres, client, rng)
    client.register(shop.program)
    return shop


def slots(postgres: Postgres) -> list[str]:
    return [name for (name,) in postgres.rows("SELECT slot_name FROM pg_replication_slots")]


@on_some_shapes
def test_relations_are_what_the_tables_are(shop: Shop, client: Wire) -> None:
    shop.transactions(20)
    shop.attach()
    follower = [client.subscribe(relation) for relation in ("item", "visit", "tagged")]
    shop.check(*follower)
    shop.transactions(60)
    shop.check(*follower)
    # The position is known once a message of the stream, and not only the copy, has been taken.
    status = until(
        client,
        shop.name,
        lambda status: status["lag_bytes"] == 0 and status["partitions"][0]["position"] is not None,
    )
    assert (status["kind"], status["state"], status.get("error")) == ("postgres", "running", None)
    (partition,) = status["partitions"]
    assert partition["partition"] == f"dataflow_{shop.name}"
    assert int(partition["position"].replace("/", ""), 16) > 0


@on_some_shapes
def test_changes_made_during_the_copy_are_not_lost_and_not_made_twice(shop: Shop, client: Wire) -> None:
    shop.postgres.execute(
        f"INSERT INTO {shop.name}.item "
        "SELECT 1000 + n, 'name ' || n, n, 'x', true FROM generate_series(1, 20000) n",
        f"INSERT INTO {shop.name}.visit SELECT 'who ' || n, n FROM generate_series(1, 20000) n",
    )
    # Small pieces, each waited for: the copy takes a while, in which the tables change.
    shop.attach(queue_bytes=1)
    shop.transactions(30)
    shop.postgres.execute(f"UPDATE {shop.name}.item SET price = price + 1 WHERE id % 3 = 0")
    shop.check()


@on_some_shapes
@pytest.mark.parametrize("mode", ["read", "subscribe"])
def test_nobody_sees_a_part_of_a_transaction(
    cluster: Cluster, client: Wire, postgres: Postgres, rng: random.Random, mode: str
) -> None:
    name = f"bank{next(_names)}"
    postgres.execute(
        f"CREATE TABLE {name} (id int PRIMARY KEY, amount int)",
        f"CREATE TABLE {name}_note (id int PRIMARY KEY)",
        f"INSERT INTO {name} SELECT n, 100 FROM generate_series(0, 9) n",
    )
    client.register(
        ".decl account(id: number, amount: number) upsert(id)\n.input account\n"
        ".decl note(id: number) upsert(id)\n.input note\n"
        ".decl torn(id: number)\n.output torn\ntorn(n) :- note(n), !account(n, _).\n"
        "torn(n) :- account(n, _), n > 999, !note(n).\n"
    )
    tables = [{"table": name, "relation": "account"}, {"table": f"{name}_note", "relation": "note"}]
    client.call("attach", name=name, source={"kind": "postgres", "dsn": postgres.dsn, "tables": tables})
    until(client, name, lambda status: status["state"] == "running")
    watcher = cluster.open("ndjson", 0)
    account, torn = watcher.subscribe("account"), watcher.subscribe("torn")
    seen = 0

    def money(contents: Contents) -> int:
        return sum(amount * copies for (_, amount), copies in contents.items())

    account.until_equal(Counter({(number, 100): 1 for number in range(10)}))
    step = len(account.steps)

    def transfer() -> None:
        connection = postgres.connect()
        for turn in range(60):
            with connection, connection.cursor() as cursor:
                for _ in range(rng.randrange(1, 6)):
                    one, other = rng.sample(range(10), 2)
                    cursor.execute(f"UPDATE {name} SET amount = amount - 7 WHERE id = %s", [one])
                    cursor.execute(f"UPDATE {name} SET amount = amount + 7 WHERE id = %s", [other])
                # An account of this number and a note of it come and go together.
                cursor.execute(f"INSERT INTO {name} VALUES (%s, 0)", [1000 + turn])
                cursor.execute(f"INSERT INTO {name}_note VALUES (%s)", [1000 + turn])
        with connection, connection.cursor() as cursor:
            cursor.execute(f"UPDATE {name} SET id = -1 WHERE id = 0")
        connection.close()

    writer = threading.Thread(target=transfer)
    writer.start()
    contents: Contents = Counter({(number, 100): 1 for number in range(10)})
    done = False
    while not done:
        if mode == "read":
            now = watcher.read("account")
            assert money(now) == 1000
            done = any(number == -1 for number, _ in now)
            continue
        watcher.pump()
        for each in account.steps[step:]:
            for row, copies in each.changes.items():
                contents[row] += copies
            contents = +contents
            assert money(contents) == 1000, f"a part of a transaction at time {each.time}"
            seen += 1
        step = len(account.steps)
        done = any(number == -1 for number, _ in contents)
    writer.join()
    assert not torn.contents
    assert mode == "read" or seen > 1


@on_some_shapes
def test_truncate_empties_a_relation_within_its_transaction(shop: Shop, client: Wire) -> None:
    shop.transactions(15)
    shop.postgres.execute(f"INSERT INTO {shop.name}.visit VALUES ('twice', 1), ('twice', 1)")
    shop.attach()
    visit, item = client.subscribe("visit"), client.subscribe("item")
    shop.check(visit, item)
    steps = len(visit.steps)
    shop.postgres.execute(
        f"INSERT INTO {shop.name}.visit VALUES ('before', 1)",
        f"TRUNCATE {shop.name}.visit, {shop.name}.item",
        f"INSERT INTO {shop.name}.visit VALUES ('after', 2)",
    )
    shop.check(visit, item)
    assert visit.contents == Counter({("after", 2): 1})
    assert len(visit.steps) == steps + 1, "it is one step"
    shop.transactions(10)
    shop.check(visit, item)


@on_some_shapes
def test_a_connection_that_is_killed_is_made_again(shop: Shop, client: Wire) -> None:
    shop.attach()
    visit = client.subscribe("visit")
    shop.check(visit)
    for _ in range(4):
        writer = threading.Thread(target=shop.transactions, args=(25,))
        writer.start()
        shop.postgres.rows(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
            f"WHERE slot_name = 'dataflow_{shop.name}' AND active_pid IS NOT NULL"
        )
        writer.join()
    shop.check(visit)
    # A multiset shows what is taken twice; the snapshot of the subscription was the only one.
    assert sum(step.snapshot for step in visit.steps) == 1


@on_one_shape
def test_a_server_that_is_restarted_is_followed_on(shop: Shop, client: Wire) -> None:
    shop.attach()
    visit = client.subscribe("visit")
    shop.transactions(10)
    shop.check(visit)
    rows = until(client, shop.name, lambda status: status["state"] == "running")["rows"]
    shop.postgres.stop("immediate")
    status = until(client, shop.name, lambda status: status["state"] == "failed")
    assert status["error"].startswith("PostgreSQL: ") and status["retry_seconds"] > 0
    shop.postgres.start()
    shop.transactions(10)
    shop.check(visit)
    status = until(client, shop.name, lambda status: status["state"] == "running")
    assert status["rows"] >= rows, "nothing was copied again"


@on_one_shape
def test_a_slot_that_is_gone_means_another_copy(shop: Shop, client: Wire) -> None:
    shop.transactions(10)
    shop.attach()
    visit = client.subscribe("visit")
    shop.check(visit)
    shop.postgres.stop()
    state = next((shop.postgres.directory / "data" / "pg_replslot").glob(f"dataflow_{shop.name}"))
    for file in state.iterdir():
        file.unlink()
    state.rmdir()
    shop.postgres.start()
    shop.transactions(10)
    shop.check(visit)


@on_some_shapes
def test_detaching_leaves_nothing_on_the_server(shop: Shop, client: Wire) -> None:
    shop.transactions(10)
    shop.attach()
    shop.check()
    contents = shop.contents()
    assert f"dataflow_{shop.name}" in slots(shop.postgres)
    assert client.call("detach", name=shop.name).keys() == {"time"}
    assert source(client, shop.name) is None
    assert f"dataflow_{shop.name}" not in slots(shop.postgres)
    publications = shop.postgres.rows("SELECT pubname FROM pg_publication")
    assert (f"dataflow_{shop.name}",) not in publications
    shop.postgres.execute(f"DELETE FROM {shop.name}.visit")
    assert client.read("visit") == contents["visit"], "rows stay as they were"
    # Attached again, relations become what the tables are now.
    shop.attach()
    shop.check()


@on_one_shape
def test_detaching_waits_until_the_server_sees_that_nobody_follows(shop: Shop, client: Wire) -> None:
    shop.transactions(5)
    shop.attach()
    shop.check()
    # The rows are there before the slot is followed.
    slot = f"slot_name = 'dataflow_{shop.name}' AND state = 'streaming'"
    following = (
        f"SELECT pid FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid WHERE {slot}"
    )
    while not (found := shop.postgres.rows(following)):
        pass
    [(process,)] = found
    os.kill(process, signal.SIGSTOP)
    try:
        asked = client.start("detach", name=shop.name)
        others = "query LIKE 'SELECT active_pid%' AND pid <> pg_backend_pid()"
        asking = f"SELECT 1 FROM pg_stat_activity WHERE {others}"
        while not shop.postgres.rows(asking):
            pass
    finally:
        os.kill(process, signal.SIGCONT)
    assert client.finish(asked).keys() == {"time"}
    assert f"dataflow_{shop.name}" not in slots(shop.postgres)


@on_one_shape
def test_a_server_that_stands_still_holds_nobody_up_when_its_source_is_detached(
    shop: Shop, client: Wire, cluster: Cluster
) -> None:
    server = shop.postgres
    held = server.connect()
    with contextlib.closing(held), held.cursor() as cursor:
        # The slot isn't created before this transaction ends.
        cursor.execute("SELECT pg_current_xact_id()")
        shop.attach()
        while not server.rows("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%'"):
            pass
        os.kill(server.process, signal.SIGSTOP)
        try:
            asked = client.start("detach", name=shop.name)
            other = cluster.open()
            other.register(".decl other(x: number)\n.input other")
            assert other.read("other") == Counter()
        finally:
            os.kill(server.process, signal.SIGCONT)
        assert client.finish(asked).keys() == {"time"}
    assert f"dataflow_{shop.name}" not in slots(server)


@on_one_shape
def test_a_slot_that_was_left_is_taken_over_and_one_in_use_is_not(shop: Shop, client: Wire) -> None:
    shop.postgres.rows("SELECT pg_create_logical_replication_slot('left_over', 'pgoutput')")
    shop.transactions(5)
    shop.attach(slot="left_over")
    shop.check()
    other = Shop(shop.postgres, client, shop.rng)
    other.attach(slot="left_over")
    status = until(client, other.name, lambda status: status["state"] == "failed")
    assert status["error"].startswith("slot 'left_over' is in use by the server's process")
    client.call("detach", name=other.name)
    shop.transactions(5)
    shop.check()


def test_tables_are_copied_anew_in_the_next_generation(postgres: Postgres, rng: random.Random) -> None:
    cluster = Cluster(2, 1)
    try:
        client = cluster.open("msgpack")
        shop = Shop(postgres, client, rng)
        client.register(shop.program)
        shop.transactions(20)
        shop.attach()
        shop.check()
        # The source lives on with its process; it ends with it, and its slot is left on the server.
        for victim in (1, 0):
            history = client.info["history"]
            cluster.kill_member(victim)
            shop.transactions(10)
            cluster.close_clients()
            cluster.restart(victim)
            cluster.wait_formed(history)
            client = shop.client = cluster.open("msgpack")
            client.register(shop.program)
            assert (source(client, shop.name) is None) == (victim == 0)
            if victim == 0:
                assert f"dataflow_{shop.name}" in slots(postgres)
                shop.attach()
            shop.check()
            shop.transactions(10)
            shop.check()
        client.call("detach", name=shop.name)
        assert f"dataflow_{shop.name}" not in slots(postgres)
        assert cluster.stop() == [0, 0]
    finally:
        cluster.kill()
        print(cluster.report())


@on_one_shape
def test_a_row_that_does_not_fit_is_named_and_stops_or_is_left_out(client: Wire, postgres: Postgres) -> None:
    name = f"misfit{next(_names)}"
    postgres.execute(
        f"CREATE TABLE {name} (id int PRIMARY KEY, n numeric)",
        f"INSERT INTO {name} VALUES (1, 1), (2, 2.5), (3, NULL)",
    )
    client.register(".decl misfit(id: number, n: number) upsert(id)\n.input misfit")
    tables = [{"table": name, "relation": "misfit"}]
    described = {"kind": "postgres", "dsn": postgres.dsn, "tables": tables}
    client.call("attach", name=name, source=described)
    status = until(client, name, lambda status: status["state"] == "failed")
    assert status["error"] == f'table public.{name}, column "n": "2.5" is not a number (64 bits, signed)'
    client.call("detach", name=name)
    client.call("attach", name=name, source={**described, "on_bad": "skip"})
    until(client, name, lambda status: status["state"] == "running" and status["bad_rows"] == 2)
    misfit = client.subscribe("misfit")
    misfit.until_equal(Counter({(1, 1): 1}))
    postgres.execute(f"INSERT INTO {name} VALUES (4, 4.5), (5, 5)", f"UPDATE {name} SET n = 2 WHERE id = 2")
    misfit.until_equal(Counter({(1, 1): 1, (5, 5): 1, (2, 2): 1}))
    status = until(client, name, lambda status: status["bad_rows"] == 3)
    assert status["bad_row"].endswith('column "n": "4.5" is not a number (64 bits, signed)')
    # What fitted and does no longer, goes.
    postgres.execute(f"UPDATE {name} SET n = 5.5 WHERE id = 5")
    misfit.until_equal(Counter({(1, 1): 1, (2, 2): 1}))


@on_one_shape
@pytest.mark.parametrize(
    ("table", "declared", "error"),
    [
        ("", "r(a: number)", "no table public.{name}"),
        ("(a int)", "r(a: number, b: number) raw", "table public.{name} has no column 'b'"),
        (
            "(a int PRIMARY KEY)",
            "r(a: number)",
            "table public.{name} does not send the old row of an update or delete, which relation 'r' needs: "
            'ALTER TABLE "public"."{name}" REPLICA IDENTITY FULL, or declare the relation upsert(a)',
        ),
        (
            "(a int, b int, PRIMARY KEY (a, b))",
            "r(a: number, b: number) upsert(a)",
            "relation 'r' is keyed by (a), table public.{name} by (a, b): they must have the same key",
        ),
    ],
)
def test_a_table_that_cannot_be_followed_says_why(
    client: Wire, postgres: Postgres, table: str, declared: str, error: str
) -> None:
    name = f"table{next(_names)}"
    if table:
        postgres.execute(f"CREATE TABLE {name} {table}")
    client.register(f".decl {declared}\n.input r")
    described = {"kind": "postgres", "dsn": postgres.dsn, "tables": [{"table": name, "relation": "r"}]}
    client.call("attach", name=name, source=described)
    status = until(client, name, lambda status: status["state"] == "failed")
    assert status["error"] == error.format(name=name)
    assert client.call("detach", name=name).keys() == {"time"}


@on_one_shape
def test_a_server_that_is_not_there_is_tried_again_and_detaching_does_not_hang(client: Wire) -> None:
    client.register(".decl r(a: number) raw\n.input r")
    described = {"kind": "postgres", "dsn": "host=/nowhere", "tables": [{"table": "t", "relation": "r"}]}
    client.call("attach", name="nowhere", source=described)
    until(client, "nowhere", lambda status: status.get("retry_seconds", 0) > 0.1)
    left = client.call("detach", name="nowhere")["left"]
    assert len(left) == 1 and left[0].startswith("slot 'dataflow_nowhere' may be left")


@on_one_shape
def test_the_same_table_twice_is_refused(client: Wire, postgres: Postgres) -> None:
    tables = [{"table": "t", "relation": "r"}, {"table": "public.t", "relation": "s"}]
    with pytest.raises(Refused, match="field `tables`: table \\('public', 't'\\) stands there twice"):
        client.call("attach", name="x", source={"kind": "postgres", "dsn": postgres.dsn, "tables": tables})
