from typing import final

__all__ = [
    "LIMITS",
    "TUNABLES",
    "Explain",
    "Formed",
    "Host",
    "Register",
    "Registered",
    "Stopped",
    "Unregistered",
    "__version__",
]

__version__: str
LIMITS: str
TUNABLES: list[str]

@final
class Formed: ...

@final
class Register:
    @property
    def ticket(self) -> int: ...
    @property
    def program(self) -> str: ...
    @property
    def name(self) -> str | None: ...

@final
class Explain:
    @property
    def ticket(self) -> int: ...
    @property
    def relation(self) -> str: ...
    @property
    def plan(self) -> str: ...

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
    def drain(self) -> list[Formed | Register | Explain | Registered | Unregistered | Stopped]: ...
    def respond(self, ticket: int, plan: str) -> None: ...
    def explain(self, ticket: int, tree: str) -> None: ...
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
