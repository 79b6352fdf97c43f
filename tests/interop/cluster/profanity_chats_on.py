"""Two Profanities chat through a load balancer while nodes behind it are killed, drained and added.

For each line of standard input each says something to the other, as soon as it can, and `checked` is printed. The end of
standard input is the end.
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from terminal import DOMAIN, RUN, Profanity, run  # noqa: E402

PATIENCE = 45


def say(speaker, listener, text):
    """People say it again when nothing comes back and they see that they were cut off: what Profanity writes into a connection
    that is just ending it does not send again. What was said without a cut has to come."""
    begun = time.monotonic()
    speaker.type("/clear")
    while time.monotonic() < begun + PATIENCE:
        speaker.type(text)
        if listener.sees(text, 8):
            return time.monotonic() - begun
        if not any(speaker.sees(cut, 0) for cut in ("not currently connected", "Lost connection")):
            listener.see(text)
            return time.monotonic() - begun
        speaker.type("/clear")
    sys.exit(f"{listener.name} never saw {text!r}:\n{listener.screen()}\n{speaker.name}:\n{speaker.screen()}")


def story():
    users = {"romeo": "montague", "juliet": "capulet"}
    for user, password in users.items():
        Profanity(user).enter(f"{user}-{RUN}", password, "/register")
    both = [Profanity(user) for user in users]
    for profanity in both:
        profanity.type("/reconnect 1")
        profanity.enter(f"{profanity.name}-{RUN}", users[profanity.name], "/connect")
    romeo, juliet = both
    romeo.type(f"/msg juliet-{RUN}@{DOMAIN} one")
    juliet.type(f"/msg romeo-{RUN}@{DOMAIN} two")
    juliet.see("one")
    romeo.see("two")
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        one = say(romeo, juliet, f"line {number} to juliet")
        other = say(juliet, romeo, f"line {number} to romeo")
        print(f"checked after {line.strip()}: {one:.1f} s, {other:.1f} s", flush=True)


run(story)
