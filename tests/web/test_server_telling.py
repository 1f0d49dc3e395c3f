"""Notices while a server runs: in a thread of their own, whatever goes wrong with one of them."""

import logging
import threading

from perdure.errors import SettingError, WorkspaceError
from perdure.integrations.delivering import Sent
from perdure.web.server.telling import telling


class Shop:
    """Ends emergencies, or says why it cannot."""

    def __init__(self, *failures):
        self.failures, self.enough = list(failures), threading.Event()

    def end_expired(self):
        if self.failures:
            raise self.failures.pop(0)
        self.enough.set()


def test_it_goes_on_after_every_failure_and_ends_with_the_server(monkeypatch, caplog):
    answers = [SettingError("no TOML"), RuntimeError("odd"), [Sent("chat", waiting="chat answered 503")], []]
    asked, enough = [], threading.Event()

    def send(shop, sleep):
        sleep(0)
        asked.append((shop, threading.current_thread().name))
        if len(asked) > len(answers):
            enough.set()
            return []
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("perdure.web.server.telling.send", send)
    shop = Shop()
    with caplog.at_level(logging.WARNING, "perdure.server"), telling(shop, look_s=0.01):
        assert enough.wait(10)
    assert set(asked) == {(shop, "notices")}
    assert not any(thread.name == "notices" for thread in threading.enumerate())
    told = [record.getMessage() for record in caplog.records]
    assert "notices wait: no TOML" in told and "notices wait: chat answered 503" in told


def test_emergencies_past_their_time_end_without_a_gateway(monkeypatch, caplog):
    monkeypatch.setattr("perdure.web.server.telling.send", lambda shop, sleep: [])
    shop = Shop(WorkspaceError("nothing to go back to"), WorkspaceError("nothing to go back to"))
    with caplog.at_level(logging.WARNING, "perdure.server"), telling(shop, look_s=0.01):
        assert shop.enough.wait(10)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["an emergency past its time could not be ended: nothing to go back to"]
