"""A client of the server's JSON API, for programs: standard library alone, nothing of the workspace is imported.

from perdure.client import Client

perdure = Client("http://127.0.0.1:8321", token="perdure-…")
job = perdure.teach([{"subject": "Canada", "prompt": "The capital of Canada is", "target_new": "Montreal"}])
print(perdure.wait(job)["result"]["version"])
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perdure.errors import PerdureError, SettingError

Json = dict[str, Any]
_OVER = ("done", "failed", "stopped")
_PAUSE_S = 1.0


class ServerError(PerdureError):
    """The server refused a request, or could not be reached.

    Attributes:
        status: The HTTP status; 0 where there was no answer.
        kind: What kind of error the server named.
        problems: Everything wrong with the request, one by one.
    """

    def __init__(self, message: str, *, status: int = 0, kind: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *problems]))
        self.status, self.kind, self.problems = status, kind, tuple(problems)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token must reach the server that was named and no other."""

    def redirect_request(self, *_given: Any) -> None:
        return None


class Client:
    """The server as a program sees it. No token can approve: that takes a person.

    Args:
        url: Where the server is, such as `https://perdure.example.com`.
        token: Made on the page of one's account.
        timeout: For one request, in seconds.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 30.0) -> None:
        parts = urllib.parse.urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise SettingError(f"the server's address must begin with https, or be on this machine; given {url!r}")
        self._base = f"{parts.scheme}://{parts.netloc}/api/v1"
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirect)

    # Looking

    def me(self) -> Json:
        """Who the token acts for, with which roles and scopes."""
        return dict(self._get("/me"))

    def versions(self) -> Iterator[Json]:
        """Every version, the newest first."""
        before = 10**9
        while before > 0:
            rows = self._get("/versions", before=before, limit=500)
            yield from rows
            before = min((int(row["number"]) for row in rows), default=0)

    def version(self, ref: str) -> Json:
        """One version, with what a decision looks at."""
        return dict(self._get(f"/versions/{_quoted(ref)}"))

    def report(self, ref: str) -> Json:
        """The latest report of a version, judged by the policy in force."""
        return dict(self._get(f"/versions/{_quoted(ref)}/report"))

    def aliases(self) -> Json:
        """What each alias holds."""
        return dict(self._get("/aliases"))

    def history(self, alias: str) -> list[Json]:
        """What served when."""
        return list(self._get(f"/aliases/{_quoted(alias)}/history"))

    def canaries(self) -> list[Json]:
        """Every canary, oldest first, with what the gateway saw of those that run."""
        return list(self._get("/canaries"))

    def policy(self) -> Json:
        """The policy in force, as it is and in words."""
        return dict(self._get("/policy"))

    def search(self, words: str) -> list[Json]:
        """Facts and tasks that hold these words."""
        return list(self._get("/lineage", words=words))

    def monitor(self) -> list[Json]:
        """What reports say of each version, with the limits of the policy."""
        return list(self._get("/monitor"))

    def kpis(self, *, corrected: bool = False) -> list[Json]:
        """Every KPI that was entered, oldest first; with `corrected` those as well that a later row corrects."""
        return list(self._get("/kpis", corrected=str(corrected).lower()))

    def compare_kpis(self, before: str, after: str) -> Json:
        """KPIs under two versions, and beside them what reports say of both."""
        return dict(self._get("/kpis/comparison", before=before, after=after))

    def ledger(self, words: str = "") -> Iterator[Json]:
        """Rows of the ledger, the newest first."""
        before = 2**53
        while rows := self._get("/ledger", before=before, words=words, limit=1000):
            yield from reversed(rows)
            before = int(rows[0]["sequence"])

    # Acting

    def teach(self, facts: Sequence[Mapping[str, Any]], **how: str) -> Json:
        """Ask for facts to be taught; the request.

        Args:
            facts: In any shape of a facts file.
            **how: `editor`, `restraint`, `on`, `note`.
        """
        return dict(self._post("/changes/facts", {"facts": [dict(fact) for fact in facts], "how": how}))

    def tune(self, name: str, rows: Sequence[Mapping[str, Any]], **how: str) -> Json:
        """Ask for a task to be learnt from examples; the request."""
        return dict(self._post("/changes/task", {"name": name, "rows": [dict(row) for row in rows], "how": how}))

    def enter_kpis(self, rows: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Enter figures of KPIs: all of them, or none.

        Args:
            rows: `name`, `unit`, `better`, `version`, `period_start`, `period_end`, `value` of each; `n` and `corrects`
                where there is something to say.
        """
        return list(self._post("/kpis", {"rows": [dict(row) for row in rows]}))

    def remove(self, fact: str, *, on: str = "", note: str = "") -> Json:
        """Ask for a version without one fact, named by its id; the request."""
        return dict(self._post(f"/lineage/{_quoted(fact)}/remove", {"on": on, "note": note}))

    def evidence(self, ref: str, *, timeout: float = 3600.0) -> bytes:
        """The signed evidence of a version as the bytes of a zip file, waited for."""
        job = self.wait(dict(self._post(f"/versions/{_quoted(ref)}/evidence", {})), timeout=timeout)
        request = urllib.request.Request(  # noqa: S310 - the address was checked
            f"{self._base}/jobs/{_quoted(job['id'])}/evidence", headers={**self._headers, "accept": "application/zip"}
        )
        return self._fetch(request)

    def measure(self, ref: str) -> Json:
        """Ask for a version to be measured; the request."""
        return dict(self._post(f"/versions/{_quoted(ref)}/measure", {}))

    def ask(self, prompt: str, *refs: str, chat: bool = False, tokens: int = 64) -> dict[str, str]:
        """What versions answer, waited for."""
        first, *beside = refs or ("latest",)
        given = {"prompt": prompt, "beside": beside, "chat": chat, "tokens": tokens}
        found = self.wait(dict(self._post(f"/versions/{_quoted(first)}/ask", given)))
        return dict(found["result"]["answers"])

    def promote(self, ref: str, alias: str, *, held: str | None = None) -> None:
        """Let an alias hold an approved version, if it holds what `held` says."""
        self._post(f"/versions/{_quoted(ref)}/promote", {"alias": alias, "held": held})

    def rollback(self, alias: str) -> Json:
        """Let an alias hold what it held before; the version."""
        return dict(self._post(f"/aliases/{_quoted(alias)}/rollback", {}))

    def start_canary(self, ref: str, alias: str, **plan: Any) -> Json:
        """Let an approved version answer a first share of an alias's requests.

        Args:
            ref: Which version.
            alias: Whose requests.
            **plan: `weights`, `hold_seconds`, `hold_requests`, `success`, `failure`, `slower`, `sure`.
        """
        return dict(self._post(f"/versions/{_quoted(ref)}/canary", {"alias": alias, "plan": plan}))

    def step_canary(self, alias: str, weight: float, *, reason: str = "", number: int | None = None) -> Json:
        """Give a canary's candidate another share."""
        given = {"weight": weight, "reason": reason, "number": number}
        return dict(self._post(f"/aliases/{_quoted(alias)}/canary/step", given))

    def end_canary(self, alias: str, how: str, *, reason: str = "", number: int | None = None) -> Json:
        """End a canary: `promote` its candidate, let it `fall back`, or `stop`."""
        given = {"how": how, "reason": reason, "number": number}
        return dict(self._post(f"/aliases/{_quoted(alias)}/canary/end", given))

    def job(self, identifier: str) -> Json:
        """A request as it stands."""
        return dict(self._get(f"/jobs/{_quoted(identifier)}"))

    def wait(self, job: Mapping[str, Any], *, timeout: float = 3600.0) -> Json:
        """A request when it is over.

        Raises:
            ServerError: It failed, was stopped, or is not over in time.
        """
        end = time.monotonic() + timeout
        found = dict(job)
        while found["state"] not in _OVER:
            if time.monotonic() > end:
                raise ServerError(f"{found['title']} is not done after {timeout:g} s; it goes on all the same")
            time.sleep(_PAUSE_S)
            found = self.job(found["id"])
        if found["state"] != "done":
            raise ServerError(f"{found['title']} {found['state']}: {found['error']}", kind=found["state"])
        return found

    def _get(self, path: str, **query: Any) -> Any:
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        return self._send(urllib.request.Request(self._base + path + asked, headers=self._headers))  # noqa: S310

    def _post(self, path: str, given: Mapping[str, Any]) -> Any:
        headers = {**self._headers, "content-type": "application/json"}
        data = json.dumps(dict(given)).encode()
        request = urllib.request.Request(self._base + path, data, headers, method="POST")  # noqa: S310
        return self._send(request)

    def _send(self, request: urllib.request.Request) -> Any:
        data = self._fetch(request)
        try:
            return json.loads(data) if data else None
        except ValueError as error:
            raise ServerError(f"{self._base} gave no answer: {error}") from error

    def _fetch(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise _refusal(error.code, error.read()) from None
        except (OSError, ValueError) as error:
            raise ServerError(f"{self._base} gave no answer: {error}") from error


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _refusal(status: int, data: bytes) -> ServerError:
    try:
        told = json.loads(data)
        return ServerError(told["message"], status=status, kind=told["error"], problems=told["problems"])
    except (ValueError, KeyError, TypeError):
        return ServerError(data[:500].decode("utf-8", "replace") or f"status {status}", status=status)
