"""The JSON API beside the pages, one file for each kind of work."""

from perdure.web.server.api import acting, reading

ALL = (reading.routes, acting.routes)
