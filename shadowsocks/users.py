"""Who may connect: the server's password, users with keys of their own, and what is kept of them.

`shadowsocks.json` keeps what was generated, so that links stay valid. Reading and writing the file is
the caller's.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from shadowsocks.method import Method, generated_password, password_problem

VERSION = 1


@dataclass(frozen=True, slots=True)
class User:
    """A user with a key of their own (base64)."""

    name: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A user as asked for: without a key, one is generated and kept."""

    name: str
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What clients need besides host and port. Without users the password alone lets in."""

    method: Method
    password: str = field(repr=False)
    users: tuple[User, ...] = ()

    def client_password(self, user: User | None = None) -> str:
        """Return what the client types: `password`, or `password:key` for a user (SIP022 3.1.3)."""
        return f"{self.password}:{user.key}" if user else self.password


@dataclass(frozen=True, slots=True)
class Kept:
    """The content of shadowsocks.json: what was generated; `users` are name and key."""

    password: str | None = field(default=None, repr=False)
    users: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def to_json(self) -> bytes:
        """Return the file's content."""
        content = {"version": VERSION, "password": self.password, "users": dict(self.users)}
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> "Kept":
        """Read the file's content; raise ValueError when it is not one of ours."""
        match json.loads(content):
            case {"version": 1, "password": str() | None as password, "users": dict() as users}:
                if all(isinstance(key, str) for key in users.values()):
                    return cls(password, tuple(users.items()))
        raise ValueError(f"not a shadowsocks.json of version {VERSION}")


def credentials(
    method: Method, password: str | None, users: Iterable[Wanted], kept: Kept
) -> tuple[Credentials, Kept]:
    """Fill in what is not given from `kept`; what is not there or does not suit the method is generated.

    The second value is what must be kept from now on; it equals `kept` when nothing was generated.
    """

    def suitable(key: str | None) -> str:
        return key if key and not password_problem(method, key) else generated_password(method)

    keys = dict(kept.users)
    filled = []
    for user in users:
        if not user.key:
            keys[user.name] = suitable(keys.get(user.name))
        filled.append(User(user.name, user.key or keys[user.name]))
    own = kept.password if password else suitable(kept.password)
    return Credentials(method, password or own or "", tuple(filled)), Kept(own, tuple(keys.items()))


def parse_users(text: str) -> tuple[Wanted, ...]:
    """Read `name[:key],…`; raise ValueError with what is wrong, keys never repeated."""
    users = []
    for position, item in enumerate(text.split(","), start=1):
        name, colon, key = (part.strip() for part in item.partition(":"))
        if not name or not name.isprintable() or len(name) > 64:
            raise ValueError(f"user {position} has no name")
        if colon and not key:
            raise ValueError(f'user "{name}" has a colon but no key')
        users.append(Wanted(name, key or None))
    for kind, values in (
        ("name", [user.name for user in users]),
        ("key", [user.key for user in users if user.key]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"two users have one {kind}")
    return tuple(users)
