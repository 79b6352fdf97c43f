"""What the slixmpp scripts share. Arguments: host, STARTTLS port, direct TLS port, domain."""

import asyncio
import logging
import ssl
import sys

import slixmpp

HOST, PORT, TLS_PORT, DOMAIN = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
PATIENCE = 20
logging.basicConfig(level=logging.WARNING)


class Client(slixmpp.ClientXMPP):
    """A client whose events can be awaited, with any certificate accepted."""

    def __init__(self, jid, password, plugins=(), direct=False, presence=True):
        super().__init__(jid, password)
        self.ready = asyncio.get_event_loop().create_future()
        self.inbox = asyncio.Queue()
        self.direct = direct
        self.presence = presence
        for plugin in plugins:
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("message", self.inbox.put_nowait)
        self.add_event_handler("failed_auth", lambda _: self.give_up("login refused"))

    def get_ssl_context(self):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def give_up(self, why):
        if not self.ready.done():
            self.ready.set_exception(RuntimeError(why))

    async def started(self, _event):
        await self.get_roster()
        if self.presence:
            self.send_presence()
        if not self.ready.done():
            self.ready.set_result(None)

    def go(self):
        """Starts to connect to the server under test, whatever DNS says."""
        if self.direct:
            self.enable_direct_tls = True
            self.enable_starttls = False
            return self.connect(HOST, TLS_PORT)
        self.enable_direct_tls = False
        return self.connect(HOST, PORT)

    async def online(self):
        self.go()
        await within(self.ready, f"session of {self.boundjid}")
        return self

    async def message(self, body):
        """The next message with this body."""
        async def search():
            while True:
                message = await self.inbox.get()
                if message["body"] == body:
                    return message
        return await within(search(), f"message {body!r} to {self.boundjid}")

    def expect(self, event, matches=lambda _: True):
        """A future for the next event of that name that matches."""
        future = asyncio.get_event_loop().create_future()

        def handler(data):
            if not future.done() and matches(data):
                future.set_result(data)
        self.add_event_handler(event, handler)
        return future


async def within(awaitable, what):
    """Waits, but not for ever; the time is only used up by a failure."""
    try:
        return await asyncio.wait_for(awaitable, PATIENCE)
    except asyncio.TimeoutError:
        raise SystemExit(f"waited in vain for {what}") from None


async def register(user, password):
    """Makes an account by XEP-0077."""
    client = Client(f"{user}@{DOMAIN}", password, ["xep_0077"])
    client["xep_0077"].force_registration = True
    done = asyncio.get_event_loop().create_future()

    async def fill(form):
        iq = client.Iq()
        iq["type"] = "set"
        iq["register"]["username"] = user
        iq["register"]["password"] = password
        try:
            await iq.send()
            done.set_result(None)
        except Exception as error:  # pylint: disable=broad-except
            done.set_exception(error)

    client.add_event_handler("register", fill)
    client.go()
    await within(done, f"registration of {user}")
    await within(client.ready, f"first login of {user}")
    await client.disconnect()


def main(story):
    """Runs a story and says so."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(story())
    print("all as it should be")
