"""When requests may be sent: mostly on a clock of our own, so that hours pass in no time and every wait is exact."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from wandb_server import faults
from wandb_server.faults import RateLimit

from wandbsync.errors import Stopped
from wandbsync.sources.api import budget as module
from wandbsync.sources.api.budget import CAP, CAUTION, PATIENCE, Budget

NOON = "Mon, 01 Jan 2024 12:00:00 GMT"


class Clock:
    """Time passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Exact(random.Random):
    """No jitter: the middle of the range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def random(self) -> float:
        return 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget(clock=clock, sleep=clock.sleep, jitter=Exact())


def send(budget: Budget, status: int = 200, **headers: object) -> float:
    """One request that is answered at once; when it was sent."""
    with budget.slot("p"):
        sent = budget.clock()
        budget.saw(status, {name.replace("_", "-"): str(value) for name, value in headers.items()})
    return sent


def limits(limit: object, remaining: object, reset: object) -> dict[str, object]:
    return {"RateLimit_Limit": limit, "RateLimit_Remaining": remaining, "RateLimit_Reset": reset}


def test_without_limits_nothing_waits(budget: Budget) -> None:
    assert {send(budget) for _ in range(100)} == {1000.0}
    assert {send(budget, status) for status in (200, 400, 404, 500, 502)} == {1000.0}
    assert budget.waited == 0
    assert budget.quiet_until <= 1000.0


@pytest.mark.parametrize(
    ("headers", "quiet"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"Retry-After": "7", "RateLimit-Reset": "50", "RateLimit-Remaining": "0"}, 7),
        ({"RateLimit-Limit": "10", "RateLimit-Remaining": "0", "RateLimit-Reset": "50"}, 50),
        ({"RateLimit-Reset": "50"}, 50),
        ({"Retry-After": "soon", "RateLimit-Reset": "50"}, 50),
        ({"Retry-After": "-5"}, 1),
        ({"Retry-After": "0"}, 1),
        ({}, 1),
        # The clock of this machine is not asked: it is years away from the server's.
        ({"Date": NOON, "Retry-After": "Mon, 01 Jan 2024 12:00:09 GMT"}, 9),
        ({"Date": "Mon, 01 Jan 2024 13:00:00 +0100", "Retry-After": "Mon, 01 Jan 2024 12:00:09 GMT"}, 9),
        ({"Date": NOON, "Retry-After": "Mon, 01 Jan 2024 11:00:00 GMT"}, 1),
        ({"Date": NOON, "RateLimit-Reset": "1704110430"}, 30),  # the time of day, as some servers have it
    ],
)
def test_a_refusal_is_followed_by_quiet(headers: dict[str, str], quiet: float, budget: Budget, clock: Clock) -> None:
    with budget.slot("p"):
        budget.saw(429, headers)
    assert budget.quiet_until == pytest.approx(1000 + quiet)
    assert send(budget) == pytest.approx(1000 + max(quiet, CAUTION))
    assert budget.waited == pytest.approx(max(quiet, CAUTION))


def test_a_date_alone_is_taken_by_our_clock(budget: Budget) -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    send(budget, 429, Retry_After=later)
    assert 90 < budget.quiet_until - 1000 <= 100


@pytest.mark.parametrize(
    "text", ["Mon, 99 Foo 2024", "1e9", "nan", "inf", "٣", "Mon, 01 Jan 99999 12:00:00 GMT", "7, 8"]
)
def test_headers_that_make_no_sense_are_as_if_absent(text: str, budget: Budget) -> None:
    send(budget, 429, Retry_After=text, RateLimit_Reset="x", RateLimit_Remaining="many", Date="noon")
    assert budget.quiet_until == pytest.approx(1001)


def test_refusals_in_a_row_double_the_quiet_up_to_a_minute(budget: Budget) -> None:
    quiets = []
    for _ in range(9):
        sent = send(budget, 429)
        quiets.append(budget.quiet_until - sent)
    assert quiets == pytest.approx([1, 2, 4, 8, 16, 32, CAP, CAP, CAP])
    send(budget)
    sent = send(budget, 429)
    assert budget.quiet_until - sent == pytest.approx(1)


def test_refusals_of_the_same_moment_count_as_one(budget: Budget) -> None:
    for _ in range(5):  # all of them were sent before the first answer came
        budget.saw(429, {})
    assert budget.quiet_until == pytest.approx(1001)
    budget.saw(429, {"Retry-After": "30"})
    assert budget.quiet_until == pytest.approx(1030)
    budget.saw(429, {"Retry-After": "3"})
    assert budget.quiet_until == pytest.approx(1030)


def test_jitter_is_never_early_and_never_much(clock: Clock) -> None:
    for seed in range(50):
        budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(seed))
        budget.saw(429, {"Retry-After": "5"})
        assert 5 <= budget.quiet_until - clock.now <= 5.5
        budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(seed))
        budget.saw(429, {})
        assert 0.5 <= budget.quiet_until - clock.now <= 1.65
        assert 0.25 <= budget.back_off(1) <= 0.75
        assert 30 <= budget.back_off(50) <= 90


def test_a_server_in_maintenance_is_left_alone(budget: Budget) -> None:
    send(budget, 503, Retry_After=20)
    assert send(budget) == pytest.approx(1020)


def test_nothing_left_waits_for_the_reset(budget: Budget) -> None:
    send(budget, **limits(100, 0, 40))
    assert budget.waited == 0
    assert send(budget) == pytest.approx(1040)
    assert budget.waited == pytest.approx(40)


def test_a_reset_of_zero_is_less_than_a_second_away_but_not_now(budget: Budget) -> None:
    send(budget, **limits(100, 0, 0))
    assert send(budget) == pytest.approx(1001)


def test_plenty_is_not_spread(budget: Budget) -> None:
    assert [send(budget, **limits(100, left, 60)) for left in (99, 80, 60, 50)] == [1000.0] * 4


def test_little_is_spread_over_the_time_until_the_reset(budget: Budget, clock: Clock) -> None:
    sent = []
    for left in range(10, -1, -1):  # a fixed window: nothing comes back before its end
        with budget.slot("p"):
            sent.append(clock.now)
            until = {
                "RateLimit-Reset": str(1060 - clock.now),
                "RateLimit-Remaining": str(left),
                "RateLimit-Limit": "100",
            }
            budget.saw(200, until)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert min(gaps) >= 5.9
    assert sent[-1] <= 1060
    assert send(budget) >= 1060  # the window is over: as usual again


def test_the_last_of_a_long_time_can_still_be_had(budget: Budget) -> None:
    send(budget, **limits(1000, 3, 3600))
    assert budget.quiet_until == pytest.approx(1060)
    assert send(budget, **limits(1000, 2, 3540)) == pytest.approx(1060)
    assert send(budget, **limits(1000, 0, 3480)) == pytest.approx(1120)
    assert budget.quiet_until == pytest.approx(4600)


def test_little_without_a_limit(budget: Budget) -> None:
    send(budget, RateLimit_Remaining=50, RateLimit_Reset=10)
    assert send(budget, RateLimit_Remaining=5, RateLimit_Reset=10) == 1000
    assert send(budget) == pytest.approx(1002)


def test_what_is_over_does_not_hold_back(budget: Budget, clock: Clock) -> None:
    send(budget, **limits(100, 2, 60))
    clock.now += 61
    assert [send(budget), send(budget), send(budget)] == [1061.0] * 3


def test_an_answer_that_was_overtaken_is_old_news(budget: Budget, clock: Clock) -> None:
    send(budget, **limits(10, 9, 50))
    with budget.slot("a"), budget.slot("b"):  # numbers 2 and 3
        budget.saw(200, {"RateLimit-Limit": "10", "RateLimit-Remaining": "1", "RateLimit-Reset": "50"})
        budget._mine.number = 2
        budget.saw(200, {"RateLimit-Limit": "10", "RateLimit-Remaining": "8", "RateLimit-Reset": "50"})
    assert send(budget, **limits(10, 8, 50)) == pytest.approx(1050)  # one left, for all the time
    assert send(budget) == pytest.approx(1050)  # and this one was sent after that


@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize("latency", [0.0, 0.02, 0.3])
@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (5, 20), (50, 5), (50, 100), (2, 3), (0.2, 10)])
def test_a_limit_that_is_announced_is_not_run_into(
    rate: float, burst: int, latency: float, retry_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(faults, "time", SimpleNamespace(monotonic=clock))
    limit = RateLimit("*", rate, burst, retry_after=retry_after)
    budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(1))
    served, asked = 0, 0
    while served < 300:
        with budget.slot("p"):
            asked += 1
            allowed, headers = limit.take()
            clock.now += latency
            budget.saw(200 if allowed else 429, headers)
            served += allowed
    seconds = clock.now - 1000
    assert limit.refused <= 3
    assert asked <= burst + rate * seconds + limit.refused
    ideal = max((300 - burst) / rate, 300 * latency)
    assert seconds <= 2 * ideal + 5  # and what is permitted is used


@pytest.mark.parametrize("wanted", [None, "1"])
def test_a_limit_that_is_not_announced_is_run_into_seldom(wanted: str | None) -> None:
    clock = Clock()
    budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(1))
    tokens, at, refused, served = 5.0, clock.now, 0, 0
    while served < 300:
        with budget.slot("p"):
            tokens, at = min(5.0, tokens + (clock.now - at) * 5), clock.now
            allowed = tokens >= 1
            tokens -= allowed
            clock.now += 0.01
            budget.saw(200 if allowed else 429, {"Retry-After": wanted} if wanted and not allowed else {})
            served, refused = served + allowed, refused + (not allowed)
    assert refused <= 300 / 15
    assert clock.now - 1000 <= 2 * 300 / 5


@pytest.mark.parametrize("wanted", [None, "1"])
def test_a_storm_is_soon_forgotten(wanted: str | None) -> None:
    clock = Clock()
    budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(1))
    sent = itertools.count(1)
    served = 0
    while served < 100:
        with budget.slot("p"):
            refused = clock.now < 1010 and next(sent) % 3 == 0
            clock.now += 0.005
            budget.saw(429 if refused else 200, {"Retry-After": wanted} if wanted and refused else {})
            served += not refused
    assert clock.now - 1000 <= 10 + 12


def test_a_third_refused_at_random_does_not_grow_without_bounds() -> None:
    clock, chance = Clock(), random.Random(7)
    budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(1))
    refused = served = 0
    while served < 300:
        with budget.slot("p"):
            bad = chance.random() < 1 / 3
            budget.saw(429 if bad else 200, {"Retry-After": "1"} if bad else {})
            served, refused = served + (not bad), refused + bad
    assert refused <= clock.now - 1000 <= 4 * refused


# With threads, on the real clock


def under_way(budget: Budget, project: str, count: list[int], most: list[int], gate: threading.Event) -> None:
    with budget.slot(project):
        budget.saw(200, {})
        count[0] += 1
        most[0] = max(most[0], count[0])
        gate.wait(5)
        count[0] -= 1


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()


def begin(threads: list[threading.Thread], call: object, *args: object) -> None:
    thread = threading.Thread(target=call, args=args, daemon=True)  # type: ignore[arg-type]
    threads.append(thread)
    thread.start()


def until(true: object) -> None:
    """Wait for something that is to come about in another thread."""
    deadline = time.monotonic() + 10
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("in_flight", [1, 3])
def test_as_many_of_a_project_are_under_way_as_may_be(in_flight: int, threads: list[threading.Thread]) -> None:
    budget, gate = Budget(in_flight=in_flight), threading.Event()
    count, most, other = [0], [0], [0]
    for _ in range(6):
        begin(threads, under_way, budget, "p", count, most, gate)
    until(lambda: count[0] == in_flight)
    begin(threads, under_way, budget, "other", other, [0], gate)
    until(lambda: other[0] == 1)  # a project waits for its own requests only
    gate.set()
    for thread in threads:
        thread.join(10)
    assert most[0] == in_flight


def test_files_are_downloaded_so_many_at_a_time_whatever_the_limit(threads: list[threading.Thread]) -> None:
    budget, gate, count, most = Budget(downloads=2), threading.Event(), [0], [0]
    budget.saw(429, {"Retry-After": "1000"})

    def load() -> None:
        with budget.download():
            count[0] += 1
            most[0] = max(most[0], count[0])
            gate.wait(5)
            count[0] -= 1

    for _ in range(5):
        begin(threads, load)
    until(lambda: count[0] == 2)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert most[0] == 2


def test_the_first_request_goes_alone_and_the_others_learn_from_it(threads: list[threading.Thread]) -> None:
    budget, sent, hold, over = Budget(), [], threading.Event(), threading.Event()

    def ask(number: int) -> None:
        with contextlib.suppress(Stopped), budget.slot(str(number)):
            sent.append(number)
            if len(sent) == 1:
                hold.wait(5)
                budget.saw(200, {"RateLimit-Limit": "4", "RateLimit-Remaining": "3", "RateLimit-Reset": "1000"})
            else:
                over.wait(5)

    for number in range(8):
        begin(threads, ask, number)
    until(lambda: sent)
    time.sleep(0.05)
    assert len(sent) == 1
    hold.set()
    until(lambda: len(sent) == 4)
    time.sleep(0.05)
    assert len(sent) == 4  # three were left, so three were sent
    budget.stop()
    over.set()


def test_a_request_that_hangs_does_not_hold_up_the_others_for_ever(
    threads: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    assert PATIENCE > 1
    budget, sent, hold = Budget(), [], threading.Event()

    def ask(number: int) -> None:
        with contextlib.suppress(Stopped), budget.slot(str(number)):
            sent.append(number)
            hold.wait(5)

    for number in range(3):
        begin(threads, ask, number)
    until(lambda: len(sent) == 3)
    hold.set()


def test_after_a_quiet_they_do_not_all_come_at_once(threads: list[threading.Thread]) -> None:
    budget, sent = Budget(), []
    with budget.slot("x"):
        budget.saw(429, {"Retry-After": "0.2"})
    ended = budget.quiet_until

    def ask(number: int) -> None:
        with contextlib.suppress(Stopped), budget.slot(str(number)):
            sent.append(time.monotonic())

    for number in range(4):
        begin(threads, ask, number)
    until(lambda: len(sent) == 2)
    budget.stop()
    assert ended <= sent[0]
    assert sent[1] - sent[0] >= CAUTION * 0.9


def test_a_lost_answer_does_not_stop_the_rest(budget: Budget) -> None:
    for _ in range(3):
        with pytest.raises(ConnectionError), budget.slot("p"):
            raise ConnectionError  # nothing was seen
    assert send(budget) == 1000


def test_stop_wakes_all_who_wait_and_all_who_come(threads: list[threading.Thread]) -> None:
    budget, called, stopped = Budget(downloads=0), [], []
    with budget.slot("p"):
        budget.saw(429, {"Retry-After": "1000"})
    budget.at_stop(lambda: called.append(1))

    def wait(how: object) -> None:
        with pytest.raises(Stopped):
            how()  # type: ignore[operator]
        stopped.append(1)

    for how in (
        lambda: budget.slot("p").__enter__(),
        lambda: budget.download().__enter__(),
        lambda: budget.pause(1000),
    ):
        begin(threads, wait, how)
    time.sleep(0.05)
    assert not stopped
    budget.stop()
    until(lambda: len(stopped) == 3)
    assert called == [1]
    for how in (lambda: budget.slot("p").__enter__(), lambda: budget.pause(1), budget.check):
        with pytest.raises(Stopped) as caught:
            how()
        assert caught.value.exit_code == 130
    assert budget.stopped


def test_stop_may_come_while_the_same_thread_holds_the_lock(budget: Budget) -> None:
    with budget._changed:  # as a signal does, in the main thread
        budget.stop()


def test_a_pause_is_only_for_who_takes_it(budget: Budget, clock: Clock) -> None:
    budget.pause(10)
    assert clock.now == 1010
    assert budget.waited == 0
    assert send(budget) == 1010


def test_time_that_several_wait_counts_once(threads: list[threading.Thread]) -> None:
    budget = Budget()
    with budget.slot("x"):
        budget.saw(429, {"Retry-After": "0.2"})
    began = time.monotonic()

    def ask(number: int) -> None:
        with contextlib.suppress(Stopped), budget.slot(str(number)):
            budget.saw(200, {})

    for number in range(3):
        begin(threads, ask, number)
    for thread in threads:
        thread.join(10)
    assert 0.2 <= budget.waited <= time.monotonic() - began + 0.01
