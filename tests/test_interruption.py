"""Interruptions are noticed, and never hang."""

import os
import signal
import subprocess
import sys
import time

LOOKS = """
import os, signal, time
from itmbench import interruption

def stop(number, frame):
    try:
        interruption._stop(number, frame)
    except KeyboardInterrupt:
        pass

with interruption.watched(signal.SIGTERM):
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        interruption.arrived()
    os._exit(7 if interruption.arrived() else 8)
"""

IN_DESTRUCTORS = """
import os, signal
from itmbench import interruption

class Ends:
    def __init__(self, error): self.error = error
    def __del__(self):
        if self.error: raise self.error
        os.kill(os.getpid(), signal.SIGTERM)

with interruption.watched(signal.SIGTERM):
    Ends(ValueError("shown"))
    Ends(None)
    os._exit(7 if interruption.arrived() else 8)
"""


def test_a_signal_that_comes_in_a_destructor_is_noticed_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", IN_DESTRUCTORS], capture_output=True, text=True)
    assert done.returncode == 7
    assert "ValueError: shown" in done.stderr and "KeyboardInterrupt" not in done.stderr


def test_a_signal_that_comes_while_the_flag_is_read_does_not_hang() -> None:
    """The handler runs between any two lines of the main thread, so neither may hold a lock."""
    process = subprocess.Popen([sys.executable, "-c", LOOKS], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        until = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < until:
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.0002)
        assert process.wait(5) == 7
    finally:
        process.kill()
