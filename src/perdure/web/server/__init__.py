"""The workspace in a browser: accounts, pages, a JSON API, and a worker that carries out what is asked there."""

from perdure.web.server.app import create_app
from perdure.web.server.services import Services
from perdure.web.server.settings import ServerSettings

__all__ = ["ServerSettings", "Services", "create_app"]
