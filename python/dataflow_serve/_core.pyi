from typing import final

__all__ = [
    "LIMITS",
    "TUNABLES",
    "Attach",
    "Attached",
    "Csv",
    "Detach",
    "Explain",
    "Fallen",
    "Feed",
    "Formed",
    "Host",
    "Intake",
    "Ndjson",
    "PgOutput",
    "Piece",
    "Register",
    "Registered",
    "Stopped",
    "Unattached",
    "Unregistered",
    "__version__",
]

__version__: str
LIMITS: str
TUNABLES: list[str]

@final
class Formed:
    @property
    def generation(self) -> int: ...

@final
class Fallen:
    @property
    def generation(self) -> int: ...
    @property
    def why(self) -> str: ...

@final
class Register:
    @property
    def ticket(self) -> int: ...
    @property
    def program(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def statistics(self) -> str: ...

@final
class Explain:
    @property
    def ticket(self) -> int: ...
    @property
    def relation(self) -> str: ...
    @property
    def plan(self) -> str: ...
    @property
    def analysis(self) -> str | None: ...

@final
class Registered:
    @property
    def version(self) -> int: ...
    @property
    def module(self) -> str: ...

@final
class Unregistered:
    @property
    def version(self) -> int: ...
    @property
    def modules(self) -> list[str]: ...
    @property
    def relations(self) -> list[int]: ...

@final
class Attach:
    @property
    def ticket(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...

@final
class Attached:
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...

@final
class Unattached:
    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...

@final
class Detach:
    @property
    def ticket(self) -> int: ...
    @property
    def name(self) -> str: ...

@final
class Csv:
    def __new__(
        cls,
        target: str,
        delimiter: str,
        skip: bool,
        *,
        order: tuple[list[int], int] | None = None,
        null: tuple[str, list[str | None]] | None = None,
    ) -> Csv: ...
    @staticmethod
    def first(data: bytes, delimiter: str, last: bool) -> tuple[list[str], int] | None: ...

@final
class Ndjson:
    def __new__(cls, target: str, skip: bool) -> Ndjson: ...

@final
class Piece:
    @property
    def consumed(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def bad_rows(self) -> int: ...
    @property
    def bad(self) -> list[tuple[int, str | None, str]]: ...

@final
class PgOutput:
    def __new__(cls, tables: str, skip: bool, limit_bytes: int) -> PgOutput: ...
    def reset(self) -> None: ...

@final
class Feed:
    @property
    def worker(self) -> int: ...
    @property
    def has_room(self) -> bool: ...
    @property
    def ended(self) -> tuple[str, str] | None: ...
    @property
    def progress(self) -> dict[str, int]: ...
    def csv(self, form: Csv, data: bytes, last: bool) -> Piece | None: ...
    def ndjson(self, form: Ndjson, data: bytes, last: bool) -> Piece | None: ...
    def clear(self, targets: list[str]) -> bool: ...
    def pgoutput(
        self, decoder: PgOutput, messages: list[bytes]
    ) -> tuple[int, int | None, int, str | None]: ...
    def close(self) -> None: ...

@final
class Intake:
    def feed(self, limit_bytes: int) -> Feed: ...
    def wait(self, seconds: float) -> None: ...
    def ring(self) -> None: ...

@final
class Stopped:
    @property
    def alone(self) -> bool: ...
    @property
    def failure(self) -> str | None: ...

@final
class Host:
    def __new__(cls, config: str) -> Host: ...
    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def event_fd(self) -> int: ...
    @property
    def formed(self) -> bool: ...
    def drain(
        self,
    ) -> list[
        Formed
        | Fallen
        | Register
        | Explain
        | Registered
        | Unregistered
        | Attach
        | Attached
        | Unattached
        | Detach
        | Stopped
    ]: ...
    def respond(self, ticket: int, plan: str) -> None: ...
    def explain(self, ticket: int, tree: str) -> None: ...
    def accept(self, ticket: int, source: str) -> None: ...
    def detached(self, ticket: int, time: int, left: list[str]) -> None: ...
    def attach(self, name: str, source: str) -> None: ...
    def post_source(self, name: str, report: str | None) -> None: ...
    def intake(self, generation: int) -> Intake: ...
    def reject(
        self,
        ticket: int,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        position: tuple[int, int] | None = None,
        retry: bool = False,
    ) -> None: ...
    def set_access(self, access: str) -> None: ...
    def set_certificate(self, tls: str) -> None: ...
    def shutdown(self) -> None: ...
    def join(self, timeout: float) -> Stopped | None: ...
