"""Small tasks for tests: made of words, read as rows of prompt and completion."""

from perdure.requests.tasks import Example, Message, Task

WORDS = ("river", "stone", "cloud", "bread", "lamp", "winter", "garden", "paper", "silver", "window", "market", "isle")


def example(prompt, answer, instruction=""):
    messages = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
    return Example(messages=messages, plain=True, instruction=instruction)


def task(name="upper", change=str.upper, count=12):
    rows = tuple(example(f"{word}:", change(word)) for word in WORDS[:count])
    return Task(name=name, instruction="", train=rows[:-4], validation=rows[-4:-2], test=rows[-2:])


UPPER = task()
FIRST = task("first", lambda word: word[0])
