"""Runs a command on a pseudo-terminal and keeps what an emulator of one shows, byte for byte as it was written.

screen.py COLUMNS LINES PROGRAM ARGUMENT…

Reads orders from stdin, one a line, and answers each with one line of JSON: {"lines": […], "code": …}. Lines are those that
scrolled off the top and those on the screen; the code is null while the command runs.

until TEXT    waits for TEXT to stand on the screen, or above it
signal NAME   sends SIGNAME to the command
type TEXT     types TEXT, with ^C for the control character and \\n for a line end
end           waits for the command's end
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte

LIMIT = 120  # seconds; whoever has not shown it by then hangs


class Terminal:
    def __init__(self, columns, lines, command):
        self.screen = pyte.HistoryScreen(columns, lines, history=5000)
        self.stream = pyte.ByteStream(self.screen)
        self.code = None
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # The size is there before the command looks.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execvp(command[0], command)

    def pump(self, seconds):
        """Takes in what is written within this time; False once there is nothing more to come."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            read = os.read(self.master, 65536)
        except OSError:
            read = b""
        self.stream.feed(read)
        return bool(read)

    def lines(self):
        """A line that was wrapped at the right edge is one line."""
        columns = self.screen.columns
        above = ["".join(row[x].data for x in range(columns)) for row in self.screen.history.top]
        lines = [""]
        for row in above + self.screen.display:
            lines[-1] += row.rstrip()
            if not row[columns - 1].strip():
                lines.append("")
        return lines

    def end(self):
        while self.pump(LIMIT):
            pass
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)

    def until(self, text):
        started = time.monotonic()
        while not any(text in line for line in self.lines()):
            if time.monotonic() - started > LIMIT:
                return
            if not self.pump(0.5):
                self.end()
                return
        self.settle()

    def settle(self):
        """What is painted in one piece may arrive in several: takes in what follows at once."""
        started = time.monotonic()
        while time.monotonic() - started < 1:
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if not ready or not self.pump(0):
                return


def main():
    terminal = Terminal(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    for order in sys.stdin:
        word, _, rest = order.rstrip("\n").partition(" ")
        if word == "until":
            terminal.until(rest)
        elif word == "signal":
            os.kill(terminal.pid, getattr(signal, "SIG" + rest))
        elif word == "type":
            os.write(terminal.master, rest.replace("^C", "\x03").replace("\\n", "\n").encode())
        elif word == "end":
            terminal.end()
        print(json.dumps({"lines": terminal.lines(), "code": terminal.code}), flush=True)
    if terminal.code is None:
        os.kill(terminal.pid, signal.SIGKILL)


main()
