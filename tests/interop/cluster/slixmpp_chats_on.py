"""Two slixmpp clients chat through a load balancer while nodes behind it are killed, drained and added.

Each says something every now and then, and comes back when it is cut off (XEP-0198). Standard input: its end is the end of
the chat. Then everything must have come, in order, once; and no session may have been begun anew.
"""

import asyncio
import os
import sys
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from common import DOMAIN, Client, main, register, within  # noqa: E402

RUN = uuid.uuid4().hex[:8]
PACE = 0.3


class Chatter(Client):
    """A client that talks all the time."""

    def __init__(self, user, password):
        super().__init__(f"{user}@{DOMAIN}/cluster", password, ["xep_0198", "xep_0199", "xep_0359"])
        self.partner = None
        self.alive = False
        self.over = False
        self.said, self.heard = [], []
        self.ids, self.acked = [], set()
        self.cuts = self.resumed = self.anew = 0
        self.longest = 0
        self.log = []
        self.add_event_handler("session_start", self.begin)
        self.add_event_handler("session_resumed", self.resume)
        self.add_event_handler("disconnected", self.cut)
        self.add_event_handler("message", self.hear)
        self.add_event_handler("stanza_acked", lambda stanza: self.acked.add(stanza["id"]))

    def note(self, what):
        """What is told when something goes wrong."""
        sm = self.plugin["xep_0198"]
        self.log.append(f"{time.monotonic():.2f} {what} (handled {sm.handled}, acked {sm.last_ack}, "
                        f"unacked {len(sm.unacked_queue)})")

    async def begin(self, _event):
        self.anew += 1
        self.alive = True

    def resume(self, _event):
        self.resumed += 1
        self.note("resumed")
        # What slixmpp takes while it learns of the end of a connection goes nowhere, not even into its queue for XEP-0198.
        queued = {stanza["id"] for _, stanza in self.plugin["xep_0198"].unacked_queue}
        for number, sent in enumerate(self.ids):
            if sent not in self.acked and sent not in queued:
                self.note(f"{number} went nowhere")
                self.say(number)
        self.alive = True

    def say(self, number):
        message = self.make_message(mto=self.partner.boundjid.bare, mbody=str(number), mtype="chat")
        self.ids[number:number + 1] = [message["id"]]
        message.send()

    def cut(self, _event):
        self.alive = False
        self.note("cut")
        if not self.over:
            self.cuts += 1
            self.go()

    def hear(self, message):
        if message["type"] == "error":
            self.heard.append(str(message))
        elif message["body"]:
            number = int(message["body"])
            self.heard.append(number)
            self.note(f"heard {number}, {message['id']}, {message['stanza_id']['id']}")
            self.longest = max(self.longest, time.monotonic() - self.partner.said[number])

    async def ask_until(self, acked):
        """Asks for acknowledgements: what they are to cover may still be on its way into the queue of slixmpp."""
        while not acked.done():
            if self.alive:
                self.plugin["xep_0198"].request_ack()
            await asyncio.wait([acked], timeout=1)

    async def talk(self, end):
        while not end.is_set():
            if self.alive:
                self.said.append(time.monotonic())
                self.say(len(self.said) - 1)
            await asyncio.sleep(PACE)


def odd(heard, said):
    """What is wrong with what was heard; empty if nothing is."""
    missing = sorted(set(range(said)) - set(heard))
    twice = sorted({number for number in heard if heard.count(number) > 1})
    if missing or twice:
        return f"{missing} never came, {twice} came more than once"
    return "" if heard == list(range(said)) else f"not in order: {heard}"


async def story():
    await register(f"romeo-{RUN}", "montague")
    await register(f"juliet-{RUN}", "capulet")
    romeo, juliet = Chatter(f"romeo-{RUN}", "montague"), Chatter(f"juliet-{RUN}", "capulet")
    romeo.partner, juliet.partner = juliet, romeo
    for client in (romeo, juliet):
        enabled = client.expect("sm_enabled")
        acked = client.expect("stanza_acked", lambda stanza: stanza.name == "presence")
        await client.online()
        await within(enabled, "stream management")
        # Before the server has acknowledged something there is no session to resume for certain.
        await within(client.ask_until(acked), "the acknowledgement of the initial presence")
    print("ready", flush=True)

    end = asyncio.Event()

    async def wait():
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        end.set()

    await asyncio.gather(wait(), romeo.talk(end), juliet.talk(end))
    for _ in range(600):
        if len(romeo.heard) >= len(juliet.said) and len(juliet.heard) >= len(romeo.said):
            break
        await asyncio.sleep(0.1)
    for client in (romeo, juliet):
        print(f"{client.boundjid.user}: {len(client.said)} said, {client.cuts} times cut, {client.resumed} times resumed, "
              f"longest wait {client.longest:.1f} s")
    for client in (romeo, juliet):
        assert client.anew == 1, f"{client.boundjid} began {client.anew} sessions"
        wrong = odd(client.heard, len(client.partner.said))
        if wrong:
            for each in (client, client.partner):
                print(each.boundjid, *each.log, sep="\n")
        assert not wrong, f"{client.boundjid}: {wrong}"
        client.over = True
        await client.disconnect()


main(story)
