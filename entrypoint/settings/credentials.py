"""How the credentials of an account are written. No error repeats a value."""

import re

from pydantic import SecretStr

from entrypoint.settings.forms import Form
from entrypoint.warp.team import token_in


def _license(text: str) -> SecretStr:
    # Some have three groups of eight, some four: the API is the judge of that (warp-api 3).
    if not re.fullmatch(r"[A-Za-z0-9-]{8,64}", text := text.strip()):
        raise ValueError("not a licence key")
    return SecretStr(text)


def _team_token(text: str) -> SecretStr:
    found = token_in(text)
    if found is None:
        raise ValueError("no token in it")
    return SecretStr(found)


def _organisation(text: str) -> str:
    if not re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", text := text.lower()):
        raise ValueError("not an organisation's name")
    return text


def _header(text: str) -> str:
    if not re.fullmatch(r"[!-~]{8,256}", text := text.strip()):
        raise ValueError("not 8 to 256 printable characters without blanks")
    return text


LICENSE = Form(_license, "letters, digits and dashes")
TEAM_TOKEN = Form(_team_token, "a token or a com.cloudflare.warp:// link")
ORGANISATION = Form(_organisation, "the part before .cloudflareaccess.com")
CLIENT = Form(_header, "the service token's Client ID")
CLIENT_SECRET = Form(lambda text: SecretStr(_header(text)), "the service token's Client Secret")
