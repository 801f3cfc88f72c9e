"""Resident memory for each stored row: an input of two numbers, loaded in transactions of 10,000 rows."""

from common import SCALE, Client, server, transact

ROWS = int(2_000_000 * SCALE)


def main() -> None:
    """Prints a line."""
    with server(2) as running:
        client = Client(running.port)
        client.call("register", program=".decl pair(x: number, y: number)\n.input pair")
        before = running.resident_mb()
        for start in range(0, ROWS, 10_000):
            client.call(
                "transact", **transact("pair", [[row, row * 7] for row in range(start, start + 10_000)])
            )
        client.call("transact", changes=[], wait="visible")
        after = running.resident_mb()
    each = (after - before) * 2**20 / ROWS
    print(f"{ROWS:,} rows of two numbers: {each:.0f} bytes a row resident ({after:.0f} MB in all)")


if __name__ == "__main__":
    main()
