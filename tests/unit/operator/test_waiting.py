"""Who is visited next: due keys only, one visit of a key at a time, namespaces in turn."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from enginewright_operator.shell.waiting import Key, Taken, Waiting


def key(namespace: str, name: object) -> Key:
    return Key("OptimizedModel", namespace, str(name))


def take(waiting: Waiting, now: float) -> Key:
    found = waiting.take(now)
    assert isinstance(found, Taken)
    return found.key


def test_a_namespace_with_thousands_of_due_models_holds_another_up_by_one_visit() -> None:
    waiting = Waiting()
    for number in range(5_000):
        waiting.add(key("crowd", number), 0.0)
    assert take(waiting, 1.0).namespace == "crowd"
    waiting.add(key("alone", "model"), 1.0)
    taken = [take(waiting, 2.0), take(waiting, 2.0)]
    assert key("alone", "model") in taken


def test_namespaces_take_turns_and_within_one_the_oldest_comes_first() -> None:
    waiting = Waiting()
    for number, namespace in enumerate("aaabbc"):
        waiting.add(key(namespace, number), float(number))
    order = [take(waiting, 10.0) for _ in range(6)]
    assert "".join(each.namespace for each in order) == "abcaba"
    assert [each.name for each in order if each.namespace == "a"] == ["0", "1", "2"]


def test_what_comes_while_its_key_is_visited_waits_for_the_end_of_that_visit() -> None:
    waiting, one, other = Waiting(), key("n", 1), key("n", 2)
    waiting.add(one, 0.0)
    assert take(waiting, 0.0) == one
    waiting.add(one, 1.0)
    waiting.add(other, 1.5)
    assert take(waiting, 2.0) == other
    assert waiting.take(2.0) is None and waiting.due(one) == 1.0
    waiting.done(one)
    found = waiting.take(3.0)
    assert found == Taken(one, 2.0)


def test_what_is_not_due_says_how_long_that_takes() -> None:
    waiting = Waiting()
    assert waiting.take(0.0) is None and waiting.first_due is None
    waiting.add(key("n", "m"), 5.0)
    assert waiting.take(2.0) == 3.0
    assert waiting.add(key("n", "m"), 6.0) is False, "the earlier request counts"
    assert waiting.add(key("n", "m"), 4.0) is True
    assert waiting.take(2.0) == 2.0 and waiting.first_due == 4.0


class Plainly:
    """The same without any cleverness: what may be taken, by looking at everything."""

    def __init__(self) -> None:
        self.due: dict[Key, float] = {}
        self.busy: set[Key] = set()

    def may_be_taken(self, now: float) -> set[Key]:
        return {each for each, due in self.due.items() if due <= now and each not in self.busy}


@given(st.integers(0, 2**32 - 1))
def test_it_takes_what_may_be_taken_and_forgets_nothing(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - not a secret
    waiting, plain, now = Waiting(), Plainly(), 0.0
    keys = [key(namespace, name) for namespace in "abc" for name in range(4)]
    for _ in range(300):
        now += draw.choice([0.0, 0.5, 1.0])
        match draw.randrange(3):
            case 0:
                asked, due = draw.choice(keys), now + draw.choice([0.0, 0.0, 1.0, 30.0])
                waiting.add(asked, due)
                plain.due[asked] = min(due, plain.due.get(asked, due))
            case 1 if plain.busy:
                ended = draw.choice(sorted(plain.busy))
                waiting.done(ended)
                plain.busy.discard(ended)
            case _:
                found = waiting.take(now)
                if isinstance(found, Taken):
                    assert found.key in plain.may_be_taken(now)
                    assert found.late_seconds == now - plain.due.pop(found.key)
                    plain.busy.add(found.key)
                else:
                    assert not plain.may_be_taken(now)
        assert len(waiting) == len(plain.due)
        assert waiting.first_due == min(plain.due.values(), default=None)
