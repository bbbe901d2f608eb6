"""What is wrong, in nine kinds, each with a sentence and a remedy. Pure; the monitor and doctor share it."""

from dataclasses import dataclass
from enum import Enum

from entrypoint.health.verdict import CLOCK_TOLERANCE, clock_sentence

HANDSHAKE_CLOCK = 86400.0
"""Seconds ahead at which a clock poisons handshakes: the edge refuses all later ones that look older."""


class Cause(Enum):
    """A kind of trouble; the value is what to do about it."""

    UPLINK_GONE = "check the server's network: `ip route` and `ip address`"
    PROVIDER_DNS = "set DNS_ADDRESSES to resolvers that this server can reach"
    UDP_BLOCKED = (
        "allow outbound UDP in the server's and the provider's firewall; "
        "else try WARP_ENDPOINTS=162.159.192.1:500,162.159.192.1:1701,162.159.192.1:4500"
    )
    WIREGUARD_BLOCKED = (
        "try WARP_RESERVED=off, then WARP_ENDPOINTS with other addresses and ports, e.g. 188.114.96.1:854"
    )
    RESERVED_FILTERED = "set WARP_RESERVED=off"
    CLOCK_WRONG = "set it on the host: timedatectl set-ntp true"
    KEY_REFUSED = "run `ss-warp account rotate-key`, then restart"
    CERTIFICATE = (
        "TLS is inspected on the way (Zero Trust Gateway) or the clock is wrong: "
        "set HEALTH_CA_FILE to the organisation's CA"
    )
    ACCOUNT_GONE = "wait: ss-warp registers a new account once the API has confirmed it"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause and the sentence that names it."""

    cause: Cause
    sentence: str

    @property
    def blocked(self) -> bool:
        """Whether the cause lies outside and only a person can remove it."""
        return self.cause in {
            Cause.UPLINK_GONE,
            Cause.UDP_BLOCKED,
            Cause.WIREGUARD_BLOCKED,
            Cause.CLOCK_WRONG,
            Cause.KEY_REFUSED,
        }

    def __str__(self) -> str:
        return f"{self.sentence} ({self.cause.value})"


@dataclass(frozen=True, slots=True)
class Outside:
    """What this machine reaches without the tunnel; None was not tried.

    `refused` is the system's word for a datagram to the endpoint that was refused at once.
    """

    uplink: bool = True
    udp: bool | None = None
    """Whether a resolver answered over UDP."""
    tcp: bool | None = None
    """Whether a resolver answered over TCP."""
    web: bool | None = None
    """Whether the trace page answered over HTTPS."""
    refused: str = ""
    offset: float | None = None
    """Cloudflare's clock minus ours, in seconds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a tunnel that is silent or degraded."""

    outside: Outside = Outside()
    handshake: bool = False
    """Whether the peer answered a handshake since the outage began."""
    ports_tried: int = 1
    ports: int = 1
    reserved: bool = False
    answers: bool = False
    """Whether something, DNS at least, answers through the tunnel."""
    certificate: str = ""
    account: str = ""
    """What the API says is wrong with the account."""
    key_refused: bool = False
    unresolved: str = ""
    """A name of an endpoint that no resolver knows."""
    offset: float | None = None


def diagnose(seen: Evidence, *, strict_clock: bool = False) -> Diagnosis | None:
    """Return the most specific cause that the evidence shows, None if it shows none."""
    outside = seen.outside
    if not outside.uplink:
        return Diagnosis(Cause.UPLINK_GONE, "this server has no route to the internet")
    if seen.account:
        return Diagnosis(Cause.ACCOUNT_GONE, seen.account)
    if seen.key_refused:
        return Diagnosis(Cause.KEY_REFUSED, "Cloudflare has another key for this device")
    offset = seen.offset if seen.offset is not None else outside.offset
    limit = CLOCK_TOLERANCE if strict_clock else HANDSHAKE_CLOCK
    if offset is not None and abs(offset) > limit:
        return Diagnosis(Cause.CLOCK_WRONG, clock_sentence(offset))
    if seen.certificate:
        return Diagnosis(Cause.CERTIFICATE, f"the trace page does not load: {seen.certificate}")
    if seen.answers:
        return None
    if outside.refused:
        return Diagnosis(Cause.UDP_BLOCKED, f"UDP to Cloudflare is refused: {outside.refused}")
    if seen.handshake:
        if seen.reserved:
            sentence = "handshakes are answered, but packets with the reserved bytes are not"
            return Diagnosis(Cause.RESERVED_FILTERED, sentence)
        return None  # an edge that lost its mind: the ladder finds another
    if outside.udp is None:
        return None
    if outside.udp:
        ports = (
            "every port" if seen.ports_tried >= seen.ports else f"{seen.ports_tried} of {seen.ports} ports"
        )
        return Diagnosis(
            Cause.WIREGUARD_BLOCKED,
            f"WireGuard is blocked: handshakes to {ports} stay unanswered while DNS outside answers",
        )
    if seen.unresolved and outside.web:
        return Diagnosis(
            Cause.PROVIDER_DNS, f"no resolver answers outside the tunnel: cannot resolve {seen.unresolved}"
        )
    if outside.tcp or outside.web:
        return Diagnosis(Cause.UDP_BLOCKED, "UDP is blocked: TCP is answered outside the tunnel, UDP is not")
    return Diagnosis(Cause.UPLINK_GONE, "neither WireGuard nor DNS is answered outside the tunnel")
