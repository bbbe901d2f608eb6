"""Encryption methods, passwords and users (SIP004, SIP022)."""

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

MINIMUM_PASSWORD = 16
"""Characters in a 2017 method's password, which can be guessed offline from one recorded packet."""


@dataclass(frozen=True, slots=True)
class Method:
    """An AEAD method with a `key` of that many bytes; edition 2022 takes a raw key, 2017 any password."""

    name: str
    key: int
    edition: int
    several_users: bool = False

    def __str__(self) -> str:
        return self.name


METHODS = {
    method.name: method
    for method in (
        Method("2022-blake3-aes-128-gcm", 16, 2022, several_users=True),
        Method("2022-blake3-aes-256-gcm", 32, 2022, several_users=True),
        # SIP022 defines no identity header for XChaCha, hence a single user.
        Method("2022-blake3-chacha20-poly1305", 32, 2022),
        Method("aes-128-gcm", 16, 2017),
        Method("aes-256-gcm", 32, 2017),
        Method("chacha20-ietf-poly1305", 32, 2017),
    )
}


# A 2022 method takes a key, not a password: base64 of exactly the method's key length.
def password_problem(method: Method, password: str) -> str:
    """Return what is wrong with a password or key, without repeating it; empty if it is valid."""
    if method.edition == 2017:
        if len(password) < MINIMUM_PASSWORD:
            return f"too short: {len(password)} characters, {method} needs {MINIMUM_PASSWORD}"
        return ""
    try:
        length = len(b64decode(password, validate=True))
    except (binascii.Error, ValueError):
        return f"not base64: {method} needs base64 of {method.key} bytes"
    # Given missing padding or stray bits, some clients decode a different key.
    if length == method.key and b64encode(b64decode(password)).decode() != password:
        return f"not canonical base64: {method} needs base64 of {method.key} bytes"
    return "" if length == method.key else f"{length} bytes, {method} needs base64 of {method.key}"


def generated_password(method: Method) -> str:
    import secrets  # 15 ms of hashlib for the one start that needs it

    return b64encode(secrets.token_bytes(method.key)).decode()


VERSION = 1


@dataclass(frozen=True, slots=True)
class User:
    """A user and their key (base64)."""

    name: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestedUser:
    """A user from the settings; a missing key is generated and saved."""

    name: str
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What clients need besides host and port; `users` is empty if all share the password."""

    method: Method
    password: str = field(repr=False)
    users: tuple[User, ...] = ()

    def client_password(self, user: User | None = None) -> str:
        """Return what the client enters: `password`, or `password:key` for a user (SIP022 3.1.3)."""
        # The server's key first: it encrypts the header that names the user.
        return f"{self.password}:{user.key}" if user else self.password


@dataclass(frozen=True, slots=True)
class MethodKeys:
    """What was generated for one method; `users` are names and keys."""

    password: str | None = field(default=None, repr=False)
    users: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def as_json(self) -> dict[str, object]:
        return {"password": self.password, "users": dict(self.users)}

    @classmethod
    def from_json(cls, content: object) -> "MethodKeys":
        """Raise ValueError if the object is not ours."""
        match content:
            case {"password": str() | None as password, "users": dict() as users}:
                if all(isinstance(key, str) for key in users.values()):
                    return cls(password, tuple(users.items()))
        raise ValueError(f"not a shadowsocks.json of version {VERSION}")


@dataclass(frozen=True, slots=True)
class SavedKeys:
    """The content of shadowsocks.json: what was generated, last and for each method.

    Older versions read and write only `last`. `shown`: the first-run block was printed.
    """

    last: MethodKeys = MethodKeys()
    methods: tuple[tuple[str, MethodKeys], ...] = ()
    shown: bool = False

    @property
    def texts(self) -> frozenset[str]:
        """Every saved password and key."""
        every = [self.last, *(keys for _, keys in self.methods)]
        users = [key for keys in every for _, key in keys.users]
        return frozenset([*users, *(keys.password for keys in every if keys.password)])

    def to_json(self) -> bytes:
        methods = {name: keys.as_json() for name, keys in self.methods}
        content = {"version": VERSION, **self.last.as_json(), "methods": methods, "shown": self.shown}
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> "SavedKeys":
        """Parse the file; raise ValueError if it is not ours."""
        match json.loads(content):
            case {"version": 1, **more}:
                methods = more.get("methods", {})
                if isinstance(methods, dict):
                    saved = tuple((name, MethodKeys.from_json(keys)) for name, keys in methods.items())
                    return cls(MethodKeys.from_json(more), saved, more.get("shown", True) is not False)
        raise ValueError(f"not a shadowsocks.json of version {VERSION}")


def credentials(
    method: Method, password: str | None, users: Iterable[RequestedUser], saved: SavedKeys
) -> tuple[Credentials, SavedKeys]:
    """Fill in missing keys: the method's own, else any saved one that suits it, else a new one.

    The second value is what to save if its `texts` differ from those of `saved`.
    """
    nothing, methods = MethodKeys(), dict(saved.methods)
    if saved.last not in (nothing, *methods.values()):
        # Kept under no name, so that a user who changes the method and back finds the old password.
        methods[""] = saved.last  # written by an older version, for a method that it did not save
    own = methods.get(method.name, nothing)
    sources = (own, *methods.values())

    def suitable(keys: Iterable[str | None]) -> str:
        # A key of another method is reused if it fits, so that a change of method keeps as many links as it
        # can.
        good = (key for key in keys if key and not password_problem(method, key))
        return next(good, None) or generated_password(method)

    keys, filled = dict(own.users), []
    for user in users:
        if not user.key:
            keys[user.name] = suitable(dict(source.users).get(user.name) for source in sources)
        filled.append(User(user.name, user.key or keys[user.name]))
    server = own.password if password else suitable(source.password for source in sources)
    now = MethodKeys(server, tuple(keys.items()))
    if now != nothing:
        methods[method.name] = now
    if methods.get("") == now:
        del methods[""]
    last = saved.last if now == nothing else now
    found = Credentials(method, password or server or "", tuple(filled))
    return found, SavedKeys(last, tuple(methods.items()), saved.shown)


def parse_users(text: str) -> tuple[RequestedUser, ...]:
    """Parse `name[:key],…`; raise ValueError, never repeating a key."""
    users = []
    items = [item for item in re.split(r"[,\n]", text) if item.strip()]
    for position, item in enumerate(items, start=1):
        name, colon, key = (part.strip() for part in item.partition(":"))
        # A name becomes part of links and configurations. A key taken for a name would end up in logs.
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            raise ValueError(f"user {position} needs a name of letters, digits, - _ .")
        if colon and not key:
            raise ValueError(f'user "{name}" has a colon but no key')
        users.append(RequestedUser(name, key or None))
    if not users:
        raise ValueError("no users")
    # Two users with one key could not be distinguished on the wire.
    for kind, values in (
        ("name", [user.name for user in users]),
        ("key", [user.key for user in users if user.key]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"two users have the same {kind}")
    return tuple(users)
