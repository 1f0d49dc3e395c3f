"""Pages made from templates, in the language of whoever looks, with everything escaped that people or models wrote."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from markupsafe import Markup

from perdure.web.page import new_environment
from perdure.web.server import access, kpis, words
from perdure.web.server.access import Identity
from perdure.web.server.assets import address
from perdure.web.server.routing import FIELD, LANGUAGE
from perdure.web.server.secrets import form_token, new_secret
from perdure.web.server.services import Services
from perdure.web.server.shield import SAFE
from perdure.web.server.told import told

_TOLD = ("message", "trouble", "task_trouble", "how")
_YEAR_S = 365 * 24 * 3600


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page of the server.

    Args:
        request: What is answered.
        template: Its name in the folder `server`, without the ending.
        status: The HTTP status.
        **context: What the template shows.
    """
    services: Services = request.app.state.services
    identity: Identity = getattr(request.state, "identity", Identity())
    session = identity.session or new_secret()
    text = (
        _environment()
        .get_template(f"server/{template}.html.j2")
        .render(
            me=identity,
            here=request.url.path,
            again=request.url.path if request.method in SAFE else "/",
            form_token=form_token(session),
            field=FIELD,
            provider=services.provider.settings.name if services.provider else "",
            language=words.language(),
            languages={tag: words.LANGUAGES[tag] for tag in words.available()},
            **_spoken(context),
        )
    )
    answer = HTMLResponse(text, status_code=status)
    if not identity.session:  # a stranger's form needs a cookie that only this server can read
        set_cookie(answer, services, session, name=services.logins.visit_cookie)
    return answer


def _spoken(context: dict[str, Any]) -> dict[str, Any]:
    """What a page shows, with what lower rooms said of a failure in the language of the request."""
    found = {name: told(context[name]) for name in _TOLD if context.get(name)}
    problems = context.get("problems")
    return {**context, **found, **({"problems": [told(str(one)) for one in problems]} if problems else {})}


def fill(template: str, **context: Any) -> Markup:
    """A part of a page, made from any template of the web room."""
    return Markup(_environment().get_template(template).render(**context))  # noqa: S704 - it escapes what it shows


def set_language(answer: Response, services: Services, chosen: str) -> None:
    """Have a browser remember a language; forget it where none was chosen."""
    if chosen not in words.available():
        answer.delete_cookie(LANGUAGE)
        return
    secure = services.settings.secure
    # Lax: who comes by a link of another site shall read their language at once. It holds nothing secret.
    answer.set_cookie(LANGUAGE, chosen, max_age=_YEAR_S, httponly=True, secure=secure, samesite="lax", path="/")


def set_cookie(answer: Response, services: Services, secret: str, *, name: str = "") -> None:
    """Give a browser a secret that scripts and other sites cannot read: that of a login, or under another name."""
    answer.set_cookie(
        name or services.logins.cookie,
        secret,
        httponly=True,
        secure=services.settings.secure,
        samesite="strict",
        path="/",
    )


@cache
def _environment() -> Environment:
    made = new_environment()
    made.globals |= {"asset": address, "access": access}
    made.filters |= {"hundredths": words.hundredths, "moment": moment, "short": short, "told": told}
    made.filters |= {"entered": kpis.entered, "mean": kpis.mean, "signed": kpis.signed, "tenths": kpis.tenths}
    return made


def moment(given: str | float) -> Markup:
    """A time (ISO 8601, or seconds since 1970) as people read it, in UTC."""
    when = datetime.fromisoformat(given) if isinstance(given, str) else datetime.fromtimestamp(given, UTC)
    utc = when.astimezone(UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}">{}</time>').format(utc, words.moment(when))


def short(digest: str | None) -> str:
    """The first twelve digits of a hash."""
    return (digest or "")[:12]
