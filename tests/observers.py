"""An observer: asks a service at its Unix socket, as a monitoring system does."""

import json
import socket
from contextlib import closing
from http.client import HTTPConnection

from prometheus_client.parser import text_string_to_metric_families


class _UnixConnection(HTTPConnection):
    def __init__(self, path):
        super().__init__("observed", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(path, what):
    """Return the status and the body of the answer."""
    with closing(_UnixConnection(path)) as connection:
        connection.request("GET", what)
        response = connection.getresponse()
        return response.status, response.read().decode()


def ready(path):
    """Return whether the service says that it is ready, and what it says of each part."""
    status, body = ask(path, "/readyz")
    return status == 200, json.loads(body)


def metrics(path):
    """Return each sample: its value by its name and the values of its labels."""
    status, body = ask(path, "/metrics")
    assert status == 200
    return samples(body)


def samples(text):
    """Return the samples of an exposition."""
    return {
        (each.name, *each.labels.values()): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }
