"""What the commands work on: the configuration file named, and what it leads to."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec
from sqlalchemy import Engine

from carnet.canonical import check_addresses, check_networks
from carnet.database import opened_database
from carnet.durations import parse_duration
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import Choice, find_driver, meant_unit
from carnet.objectives import parse_objective
from carnet.wire.fields import Name, Seconds, UserId
from target_agent.config import TargetConfig, load
from target_agent.control import Operator
from target_agent.orders import Orders
from target_agent.records import Records


@dataclass(frozen=True)
class Local:
    """The Target on this machine."""

    path: Path

    @cached_property
    def config(self) -> TargetConfig:
        """The configuration; raises UsageError."""
        return load(self.path)

    @contextlib.contextmanager
    def database(self) -> Iterator[Engine]:
        """Open the database; raises UsageError."""
        with opened_database(self.config.database, "target_agent") as engine:
            yield engine

    def meant_unit(self) -> str | None:
        """Return what systemd starts the IKE daemon as that is driven; raises UsageError."""
        return meant_unit(self.config.drivers if self.path.exists() else Choice())

    def operator(self, engine: Engine, driver: Driver) -> Operator:
        """Return what ends tunnels at a command; `engine` is the database."""
        return Operator(self.config, driver, Records(engine), Orders(engine))


def make_driver(config: TargetConfig) -> Driver:
    """Return the driver of this machine's IKE daemon."""
    return find_driver(config.drivers)


pass_local = click.make_pass_decorator(Local)
json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")


class Parsed(click.ParamType[Any]):
    """An argument that a function takes apart, or raises ValueError for."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the function makes of the argument."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


def _parse_user(text: str) -> str:
    try:
        return msgspec.convert(text, UserId)
    except msgspec.ValidationError:
        raise ValueError(f"{text!r} is no user ID; write it like alice@office.") from None


def _parse_name(text: str) -> str:
    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError:
        raise ValueError(f"{text!r} is no name; write it like work or work.example.org.") from None


def _parse_address(text: str) -> str:
    try:
        check_addresses((text,))
    except ValueError as error:
        raise ValueError(f"{error}; write it like 198.51.100.2.") from None
    return text


def _parse_network(text: str) -> str:
    try:
        check_networks((text,))
    except ValueError as error:
        raise ValueError(f"{error}; write it like 10.20.0.0/16.") from None
    return text


def _parse_request_id(text: str) -> bytes:
    try:
        request_id = bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r} is no Request ID; it has 32 hexadecimal digits.") from None
    return request_id


USER = Parsed("user", _parse_user)


def _parse_lifetime(text: str) -> int:
    try:
        return msgspec.convert(parse_duration(text), Seconds)
    except msgspec.ValidationError:
        raise ValueError(f"{text!r} is longer than any tunnel may stand: 366 days.") from None


NAME = Parsed("name", _parse_name)
ADDRESS = Parsed("address", _parse_address)
NETWORK = Parsed("network", _parse_network)
OBJECTIVE = Parsed("objective", parse_objective)
LIFETIME = Parsed("duration", _parse_lifetime)
REQUEST_ID = Parsed("request-id", _parse_request_id)
