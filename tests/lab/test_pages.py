"""What a process is given at once, where each page by itself would take long."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMANDS = """
import mmap, os, resource
from lab.pages import Footprint

def child(what):
    if os.fork() == 0:
        what()
        os._exit(0)
    os.wait()

memory = mmap.mmap(-1, 300 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

def write():
    for page in range(300):
        memory[page * mmap.PAGESIZE] = 1

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def first():
    write()
    footprint.note()

def next_one():
    if {follows}:
        footprint.follow()
    before = faults()
    write()
    print(faults() - before, flush=True)

write()
footprint = Footprint()
child(first)
child(next_one)
"""


def run(program, *, code=0):
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_a_command_has_the_pages_of_the_one_before_without_asking_for_each():
    assert int(run(COMMANDS.format(follows=False))) >= 300
    assert int(run(COMMANDS.format(follows=True))) < 30


SETTLED = """
import os, sys
from lab.pages import settle

kept, before = list(range(100_000)), os.getpid()
settle()
assert kept == list(range(100_000)) and os.getppid() == before
print("settled", flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("", 0)]
)
def test_a_process_that_has_settled_has_what_it_had_and_ends_as_it_does(end, code):
    assert run(SETTLED.format(end=end), code=code) == "settled\n"


def test_what_has_settled_ends_with_the_process_that_it_was():
    program = SETTLED.format(end="os.kill(os.getppid(), 9); sys.stdin.read(); print('still here')")
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.wait()
        # It would go on, if it were there.
        process.stdin.close()
        assert process.stdout.read() == b"settled\n"
