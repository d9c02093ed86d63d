"""What a Target's log is told, and what its metrics count, of one request after the other."""

from prometheus_client import generate_latest
from structlog.contextvars import get_contextvars

from tests.observers import samples
from tests.target.conftest import end_of


def test_whatever_is_logged_while_a_request_is_answered_names_it(with_agent, ask, driver):
    """Also by who knows nothing of requests: the driver, on a thread of its own."""
    named = []
    driver.before_install = lambda: named.append(get_contextvars())

    async def body(agent):
        statements = [ask(), ask()]
        answered = [await agent.answer(statement, "office") for statement in statements]
        assert not get_contextvars()
        return [{"request_id": each.request_id.hex()} for each in answered]

    assert with_agent(body) == named


def test_what_there_is_none_of_yet_is_shown_as_nothing(with_agent):
    """An alarm on a series that is not there never rings."""

    async def body(agent):
        return samples(generate_latest(agent.metrics.registry).decode())

    seen = with_agent(body)
    for name in (
        ("carnet_target_tunnels", "esp", "established"),
        ("carnet_target_tunnels", "native", "ending"),
        ("carnet_target_background_failures_total", "orders"),
        ("carnet_target_background_failures_total", "tunnels"),
        ("carnet_target_database_errors_total",),
    ):
        assert seen[name] == 0


def test_each_outcome_is_counted_and_addresses_come_back(with_agent, ask, driver):
    async def body(agent):
        statement = ask(request_id=bytes(16))
        for _ in range(2):
            await agent.answer(statement, "office")
        await agent.answer(ask(user_id="bob@office"), "office")
        driver.running = False
        await agent.answer(ask(), "office")
        driver.running = True
        await agent.end(bytes(16), "revoked")
        await end_of(agent)
        return samples(generate_latest(agent.metrics.registry).decode())

    seen = with_agent(body)
    counted = {key[1]: value for key, value in seen.items() if key[0].endswith("requests_total")}
    assert counted == {"granted": 1, "repeated": 1, "unknown-user": 1, "deferred": 1}
    assert seen["carnet_target_virtual_addresses", "4", "taken"] == 0
    assert seen["carnet_target_virtual_addresses", "4", "free"] == 6
