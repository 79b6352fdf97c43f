"""Profanity in tmux, driven by its keys. Needs profanity and tmux.

Arguments: host, STARTTLS port, direct TLS port, domain. Exit code 77: not installed.
"""

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

HOST, PORT, DOMAIN = sys.argv[1], sys.argv[2], sys.argv[4]
PATIENCE = 30
RUN = uuid.uuid4().hex[:8]
for program in ("profanity", "tmux"):
    if shutil.which(program) is None:
        print(f"{program} is not installed (apt-get install profanity tmux)")
        sys.exit(77)

HOME = tempfile.mkdtemp(prefix="profanity-")
SOCKET = os.path.join(HOME, "tmux")


def tmux(*args):
    return subprocess.run(["tmux", "-S", SOCKET, *args], check=True, capture_output=True, text=True).stdout


class Profanity:
    """One profanity in one tmux session with a home of its own."""

    all = []

    def __init__(self, name):
        self.name = name
        Profanity.all.append(self)
        home = os.path.join(HOME, name)
        os.makedirs(os.path.join(home, ".config", "profanity"), exist_ok=True)
        env = f"HOME={home} XDG_CONFIG_HOME={home}/.config XDG_DATA_HOME={home}/.local/share LANG=C.UTF-8 TERM=screen"
        tmux("new-session", "-d", "-s", name, "-x", "150", "-y", "50", f"env {env} profanity")
        # Whatever the terminal is sent comes out here as well: that is the event to wait for. Open for both directions,
        # so that it never ends.
        out = os.path.join(home, f"out-{uuid.uuid4().hex}")
        os.mkfifo(out)
        self.out = os.open(out, os.O_RDWR)
        tmux("pipe-pane", "-t", name, f"exec cat > {out}")
        self.see("Profanity")

    def screen(self):
        return tmux("capture-pane", "-p", "-t", self.name)

    def type(self, text):
        tmux("send-keys", "-t", self.name, "-l", text)
        tmux("send-keys", "-t", self.name, "Enter")

    def see(self, *texts):
        """Waits until the screen shows one of these: it is read again whenever the terminal was sent something."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            screen = self.screen()
            for text in texts:
                if text in screen:
                    return text
            if select.select([self.out], [], [], max(0, deadline - time.monotonic()))[0]:
                os.read(self.out, 65536)
        others = "\n".join(other.screen() for other in Profanity.all if other is not self)
        sys.exit(f"{self.name} never saw {texts}; the screen is:\n{self.screen()}\nthe other one:\n{others}")

    def sees(self, text, seconds):
        """Whether the screen shows this within so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            if text in self.screen():
                return True
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            if select.select([self.out], [], [], rest)[0]:
                os.read(self.out, 65536)

    def enter(self, user, password, how):
        """Connects (how='/connect') or makes the account (how='/register'), trusting the certificate once asked."""
        if how == "/register":
            self.type(f"/register {user} {DOMAIN} port {PORT} tls trust")
            self.see("password", "Password", "Enter")
            self.type(password)
            self.see("confirm", "Confirm")
            self.type(password)
            self.see("egistration successful", "Registered", "successful")
            # Profanity 0.13 never authenticates on a connection after a registration: a bug of its own. Start it again.
            tmux("kill-session", "-t", self.name)
            Profanity.all.remove(self)
            return
        self.type(f"/connect {user}@{DOMAIN}/prof server {HOST} port {PORT} tls trust")
        self.see("Enter password", "password:")
        self.type(password)
        self.see("logged in successfully")


def run(story):
    """Plays a story and cleans up."""
    try:
        # The first session keeps tmux alive.
        tmux("new-session", "-d", "-s", "keeper", "cat")
        story()
        print("all as it should be")
    finally:
        subprocess.run(["tmux", "-S", SOCKET, "kill-server"], check=False, capture_output=True)
        shutil.rmtree(HOME, ignore_errors=True)
