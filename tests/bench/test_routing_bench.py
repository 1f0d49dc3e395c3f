"""The benchmark of routing counts what is sent where."""

from bench.routing import sent

from perdure.requests.tasks import Example, Message, Task
from perdure.tuning.grouping import Groups
from perdure.tuning.routing import Router
from perdure.tuning.similarity import TfidfEncoder

INSTRUCTION = "Compose a haiku about the given season."


def test_requests_are_counted_with_and_without_their_instruction():
    def example(season):
        asked = Message(role="user", content=f"{INSTRUCTION}\n\n{season}")
        return Example(messages=(asked, Message(role="assistant", content="...")), instruction=INSTRUCTION)

    test = tuple(example(season) for season in ("autumn", "spring", "winter"))
    task = Task(name="haiku", instruction=INSTRUCTION, train=test, validation=(), test=test)
    groups = Groups(TfidfEncoder.fitted())
    groups.join("haiku", [INSTRUCTION])
    whole, bare = sent(Router(groups.encoder, {"g1": [[INSTRUCTION]]}, threshold=0.5), groups, task, 2)
    assert dict(whole) == {"own": 2}
    assert dict(bare) == {"fallback": 2}
