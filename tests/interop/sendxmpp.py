"""go-sendxmpp, Debian's program to send messages from scripts, chats with slixmpp."""

import asyncio
import os
import shutil
import sys
import tempfile

from common import DOMAIN, HOST, PORT, TLS_PORT, Client, register, within

PROGRAM = shutil.which("go-sendxmpp")


async def sendxmpp(direct, user, *arguments, text=None):
    """Starts it as that user; `text` is what it reads."""
    port = TLS_PORT if direct else PORT
    options = ["--tls"] if direct else []
    child = await asyncio.create_subprocess_exec(
        # It takes any certificate, as the other clients here do.
        PROGRAM, "--no-tls-verify", "-u", f"{user}@{DOMAIN}", "-p", "montague", "-j", f"{HOST}:{port}",
        *options, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        # It wants a home, for its configuration and its keys.
        env={**os.environ, "HOME": tempfile.gettempdir()})
    child.stdin.write((text or "").encode())
    child.stdin.close()
    return child


async def chat(direct):
    """A message to slixmpp, and one from it."""
    if PROGRAM is None:
        print("needs go-sendxmpp")
        sys.exit(77)
    way = "direct" if direct else "starttls"
    romeo, juliet = f"sendxmpp-{way}-romeo", f"sendxmpp-{way}-juliet"
    await register(romeo, "montague")
    await register(juliet, "capulet")
    online = await Client(f"{juliet}@{DOMAIN}", "capulet").online()

    child = await sendxmpp(direct, romeo, f"{juliet}@{DOMAIN}", text="But soft, what light")
    said, _ = await within(child.communicate(), "the end of go-sendxmpp")
    if child.returncode != 0:
        raise SystemExit(f"go-sendxmpp failed: {said.decode()}")
    message = await online.message("But soft, what light")
    assert message["from"].bare == f"{romeo}@{DOMAIN}", message

    listener = await sendxmpp(direct, romeo, "--listen")
    # It may not be online yet: then the message waits for it.
    online.send_message(f"{romeo}@{DOMAIN}", "Good night, good night", mtype="chat")
    heard = b""
    while b"Good night, good night" not in heard:
        line = await within(listener.stdout.readline(), f"the message after {heard!r}")
        if not line:
            raise SystemExit(f"go-sendxmpp ended: {heard.decode()}")
        heard += line
    listener.terminate()
    await listener.wait()
    await online.disconnect()
