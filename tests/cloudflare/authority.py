"""The certificate authority: kept in the state directory, so that it outlives a restart."""

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import trustme

type Certificate = Literal["good", "expired", "early", "another name", "unknown"]


def authority(state: Path) -> trustme.CA:
    """Return the CA of this state directory, made on first use; its certificate is `ca.pem` there."""
    certificate, key = state / "ca.pem", state / "ca.key"
    if certificate.exists() and key.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    made = trustme.CA(organization_name="Emulated Cloudflare")
    key.touch(mode=0o600)
    key.write_bytes(made.private_key_pem.bytes())
    certificate.write_bytes(made.cert_pem.bytes())
    return made


def server_context(ca: trustme.CA, identities: Iterable[object]) -> ssl.SSLContext:
    """Return a TLS 1.2 and 1.3 server context, HTTP/1.1, whose certificate names all `identities`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    ca.issue_cert(*map(str, identities)).configure_cert(context)
    return context


def present(
    context: ssl.SSLContext, ca: trustme.CA, identities: Iterable[object], which: Certificate
) -> None:
    """Show another certificate to whoever connects from now on (A15); `unknown` is of another authority."""
    names, now = tuple(map(str, identities)), datetime.now(UTC)
    past, future = now - timedelta(days=30), now + timedelta(days=30)
    match which:
        case "good":
            made = ca.issue_cert(*names)
        case "expired":
            made = ca.issue_cert(*names, not_before=past, not_after=now - timedelta(days=1))
        case "early":
            made = ca.issue_cert(*names, not_before=now + timedelta(days=1), not_after=future)
        case "another name":
            made = ca.issue_cert("another.test")
        case "unknown":
            made = trustme.CA().issue_cert(*names)
    made.configure_cert(context)
