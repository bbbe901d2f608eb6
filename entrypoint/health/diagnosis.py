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
        "leave WIREGUARD_IMPLEMENTATION, WARP_JUNK and WARP_RESERVED at auto (only userspace sends junk); "
        "else try WARP_ENDPOINTS with other addresses and ports, e.g. 188.114.96.1:854"
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
    """One cause and the sentence that names it; `special` is a remedy that suits this case better."""

    cause: Cause
    sentence: str
    special: str = ""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self.special or self.cause.value

    @property
    def blocked(self) -> bool:
        """Whether the cause lies outside and only a person can remove it."""
        return self.cause not in {Cause.CERTIFICATE, Cause.ACCOUNT_GONE}

    def __str__(self) -> str:
        return f"{self.sentence} ({self.remedy})"


@dataclass(frozen=True, slots=True)
class Outside:
    """What this machine reaches without the tunnel; None was not tried.

    `rejected` says which datagram to the edge was rejected on the way, and how.
    """

    uplink: bool = True
    udp: bool | None = None
    """Whether a resolver answered over UDP."""
    web: bool | None = None
    """Whether the trace page answered over HTTPS, with a good certificate or not."""
    rejected: str = ""
    offset: float | None = None
    """Cloudflare's clock minus ours, in seconds."""
    misdated: str = ""
    """Why the certificate of the trace page is not valid at this time."""


@dataclass(frozen=True, slots=True)
class AccountCheck:
    """What the API said about the account `at` that time, in seconds since 1970; 0: it was not asked.

    `trouble` is what is wrong with the account, `unknown` why the API could not say. Neither: it is in order.
    """

    at: float = 0.0
    trouble: Diagnosis | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a tunnel that is silent or degraded."""

    outside: Outside = Outside()
    handshake: bool = False
    """Whether the peer answered a handshake since the outage began."""
    ports_tried: int = 1
    ports: int = 1
    reserved: bool = False
    proven: bool = False
    """Whether the tunnel has answered in this run, with the same reserved bytes."""
    answers: bool = False
    """Whether something, DNS at least, answers through the tunnel."""
    certificate: str = ""
    misdated: bool = False
    """Whether the certificate is good, but not at this time."""
    account: AccountCheck | None = None
    """What the API has said about the account since the tunnel last answered."""
    unresolved: str = ""
    """A name of an endpoint that no resolver knows."""
    offset: float | None = None
    """Cloudflare's clock minus ours, in seconds."""


def diagnose(seen: Evidence, *, strict_clock: bool = False) -> Diagnosis | None:
    """Return the most specific cause that the evidence shows, None if it shows none."""
    outside = seen.outside
    if not outside.uplink:
        return Diagnosis(Cause.UPLINK_GONE, "this server has no route to the internet")
    if seen.account and seen.account.trouble:
        return seen.account.trouble
    limit = CLOCK_TOLERANCE if strict_clock else HANDSHAKE_CLOCK
    if seen.offset is not None and abs(seen.offset) > limit:
        return Diagnosis(Cause.CLOCK_WRONG, clock_sentence(seen.offset))
    if misdated := outside.misdated or (seen.misdated and seen.certificate):
        return Diagnosis(Cause.CLOCK_WRONG, f"the clock is wrong, judging by Cloudflare's page: {misdated}")
    if seen.certificate:
        return Diagnosis(Cause.CERTIFICATE, f"the trace page does not load: {seen.certificate}")
    if seen.answers:
        return None
    if outside.rejected:
        return Diagnosis(Cause.UDP_BLOCKED, outside.rejected)
    if seen.handshake:
        if seen.reserved and not seen.proven:
            sentence = "handshakes are answered, but packets with the reserved bytes are not"
            return Diagnosis(Cause.RESERVED_FILTERED, sentence)
        return None  # the edge is at fault: the ladder finds another
    if outside.udp is None:
        return None
    if outside.udp:
        if seen.account is None:
            return None  # a deleted device looks the same until the API has been asked
        ports = (
            "every port" if seen.ports_tried >= seen.ports else f"{seen.ports_tried} of {seen.ports} ports"
        )
        return Diagnosis(
            Cause.WIREGUARD_BLOCKED,
            f"WireGuard is blocked: no handshake to {ports} is answered, but DNS outside the tunnel is"
            + (
                f"; the account could not be verified: {seen.account.unknown}" if seen.account.unknown else ""
            ),
        )
    if seen.unresolved and outside.web:
        return unresolvable(seen.unresolved)
    if outside.web:
        return Diagnosis(Cause.UDP_BLOCKED, "UDP is blocked: TCP is answered outside the tunnel, UDP is not")
    return Diagnosis(Cause.UPLINK_GONE, "nothing is answered outside the tunnel, by UDP or TCP")


def unresolvable(name: str) -> Diagnosis:
    """Return the diagnosis for an endpoint's name while no resolver answers."""
    return Diagnosis(Cause.PROVIDER_DNS, f"no resolver answers outside the tunnel: cannot resolve {name}")
