"""biboumi (Debian) between our users and an IRC server (ngircd): a channel is joined and talked in both ways, people are written to, and
who goes offline leaves. In the environment: COMPONENT_PORT, COMPONENT_SECRET."""

import asyncio
import os
import shutil
import sys
import tempfile
import uuid

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from common import DOMAIN, PATIENCE, Client, main, register, within  # noqa: E402

GATEWAY = f"irc.{DOMAIN}"
RUN = uuid.uuid4().hex[:6]
# Every address of 127.0.0.0/8 is this machine: one of its own has the usual port free.
IRC = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() % 254 + 1}"

if not (shutil.which("biboumi") and os.path.exists("/usr/sbin/ngircd")):
    print("needs biboumi and ngircd")
    raise SystemExit(77)

NGIRCD = """[Global]
Name = irc.test
Info = test
Listen = {irc}
Ports = 6667
[Options]
DNS = no
Ident = no
PAM = no
[Limits]
MaxNickLength = 30
"""
BIBOUMI = """hostname={gateway}
password={secret}
xmpp_server_ip=127.0.0.1
port={port}
db_name={folder}/biboumi.sqlite
log_level=0
log_file={folder}/biboumi.log
"""


class Irc:
    """An IRC client of a few words."""

    @classmethod
    async def connect(cls, nick):
        self = cls()
        for _ in range(100):
            try:
                self.reader, self.writer = await asyncio.open_connection(IRC, 6667)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)
        self.say(f"NICK {nick}")
        self.say(f"USER {nick} 0 * :{nick}")
        await self.until(" 001 ")
        return self

    def say(self, line):
        self.writer.write(f"{line}\r\n".encode())

    async def until(self, part):
        async def search():
            while line := (await self.reader.readline()).decode():
                if line.startswith("PING"):
                    self.say("PONG" + line[4:].rstrip())
                if part in line:
                    return line
            raise SystemExit("the IRC server has closed the connection")
        return await within(search(), f"{part!r} from IRC")


async def story():
    folder = tempfile.mkdtemp()
    with open(f"{folder}/ngircd.conf", "w", encoding="utf-8") as file:
        file.write(NGIRCD.format(irc=IRC))
    with open(f"{folder}/biboumi.cfg", "w", encoding="utf-8") as file:
        file.write(BIBOUMI.format(gateway=GATEWAY, secret=os.environ["COMPONENT_SECRET"],
                                  port=os.environ["COMPONENT_PORT"], folder=folder))
    quiet = asyncio.subprocess.DEVNULL
    started = [await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet) for command in
               (["/usr/sbin/ngircd", "-n", "-f", f"{folder}/ngircd.conf"], ["biboumi", f"{folder}/biboumi.cfg"])]
    try:
        await play()
    except BaseException:
        with open(f"{folder}/biboumi.log", encoding="utf-8") as file:
            print(file.read())
        raise
    finally:
        for process in started:
            process.terminate()
            await process.wait()
        shutil.rmtree(folder)


async def play():
    romeo_name, juliet_name = f"romeo-{RUN}", f"juliet-{RUN}"
    for name in (romeo_name, juliet_name):
        await register(name, "montague")
    plugins = ["xep_0030", "xep_0045", "xep_0050", "xep_0199"]
    romeo = await Client(f"{romeo_name}@{DOMAIN}/orchard", "montague", plugins).online()
    juliet = await Client(f"{juliet_name}@{DOMAIN}/balcony", "montague", plugins).online()

    # The server lists the gateway, and the gateway says what it is.
    items = await romeo.plugin["xep_0030"].get_items(jid=DOMAIN)
    assert any(item[0] == GATEWAY for item in items["disco_items"]["items"]), items
    for _ in range(100):
        try:
            info = await romeo.plugin["xep_0030"].get_info(jid=GATEWAY, timeout=PATIENCE)
            break
        except Exception:  # pylint: disable=broad-except
            await asyncio.sleep(0.2)  # biboumi has not connected yet
    identities = {(identity[0], identity[1]) for identity in info["disco_info"]["identities"]}
    assert ("conference", "irc") in identities, info
    await romeo.plugin["xep_0199"].ping(GATEWAY)

    # A channel, both ways, by two of our users and somebody on IRC.
    mercutio = await Irc.connect(f"mercutio{RUN}")
    mercutio.say("JOIN #verona")
    await mercutio.until("366")
    room = f"#verona%{IRC}@{GATEWAY}"
    for client, nick in ((romeo, f"romeo{RUN}"), (juliet, f"juliet{RUN}")):
        joined = client.plugin["xep_0045"].join_muc_wait(room, nick, timeout=PATIENCE)
        await within(joined, f"{nick} in the channel")
        await mercutio.until(f":{nick}!")
    heard = [client.expect("groupchat_message", lambda m: m["body"] == "a plague") for client in (romeo, juliet)]
    mercutio.say("PRIVMSG #verona :a plague")
    for future in heard:
        message = await within(future, "what was said on IRC")
        assert message["from"].full == f"{room}/mercutio{RUN}", message
    also = juliet.expect("groupchat_message", lambda m: m["body"] == "peace, peace")
    romeo.send_message(mto=room, mbody="peace, peace", mtype="groupchat")
    await mercutio.until(f":romeo{RUN}!")
    await within(also, "what romeo said, through IRC")

    # Many lines keep their order; IRC servers want them slowly.
    for number in range(5):
        juliet.send_message(mto=room, mbody=f"line {number}", mtype="groupchat")
    for number in range(5):
        await mercutio.until(f":line {number}")

    # Somebody alone.
    romeo.send_message(mto=f"mercutio{RUN}%{IRC}@{GATEWAY}", mbody="a word", mtype="chat")
    await mercutio.until(":a word")
    mercutio.say(f"PRIVMSG romeo{RUN} :and a blow")
    message = await romeo.message("and a blow")
    assert message["type"] == "chat" and message["from"].domain == GATEWAY, message

    # Commands (XEP-0050) of the gateway work.
    commands = await romeo.plugin["xep_0050"].get_commands(GATEWAY)
    assert any(item[1] == "ping" for item in commands["disco_items"]["items"]), commands

    # He leaves by ending his session: the gateway learns of it as any contact with directed presence does.
    await romeo.disconnect()
    await mercutio.until(f":romeo{RUN}!")
    left = juliet.expect("groupchat_presence", lambda p: p["type"] == "unavailable" and "110" in str(p))
    juliet.send_presence(pto=f"{room}/juliet{RUN}", ptype="unavailable")
    await within(left, "the end of juliet's stay")
    await juliet.disconnect()


main(story)
