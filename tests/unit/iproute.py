"""What stands for `ip` in a test."""

from carnet.ipsec import programs


def stand_in(monkeypatch, ip):
    """Have `ip` of that signature, carnet.ipsec.iproute.ip's, called and not the program."""

    def run(argv, said="", **_):
        assert argv[0] == "ip", argv
        return ip(*argv[1:], said=said)

    monkeypatch.setattr(programs, "run", run)
