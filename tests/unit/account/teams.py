"""A box whose organisation's page answers beside the API."""

from typing import Any

import httpx

from entrypoint.account.registration import AccountWishes, ServiceToken
from tests.cloudflare.access import Access
from tests.cloudflare.config import TEAM_NAME
from tests.fakes.box import Box
from tests.fakes.http import API, DNS


def served(box: Box, access: Access, token: ServiceToken) -> Box:
    """Let the organisation's page answer beside the API."""
    api = box.site

    def site(request: httpx.Request) -> httpx.Response:
        if request.url.host != TEAM_NAME:
            return api(request)
        asked: Any = type("Asked", (), {"path": request.url.path, "headers": dict(request.headers)})
        made = access.answer(asked)
        return httpx.Response(made.status, content=made.body, headers=made.headers)

    box.http.sites[API] = site
    box.http.dns[DNS][TEAM_NAME] = [API]
    box.wishes = AccountWishes("lab", team=token)
    return box
