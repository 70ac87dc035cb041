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
