"""slidge (0.4.2) with a network of our own (dummy/slidge_echo.py): a user registers with the gateway from an ordinary client, gets contacts
into the roster and their presence, talks to one, and finds what was said elsewhere in copies and in the archive. In the environment:
COMPONENT_PORT, COMPONENT_SECRET, SLIDGE: the python that has slidge."""

import asyncio
import os
import shutil
import sys
import tempfile
import uuid
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from common import DOMAIN, PATIENCE, Client, main, register, within  # noqa: E402

GATEWAY = f"slidge.{DOMAIN}"
ROMEO = f"romeo-{uuid.uuid4().hex[:6]}"

if not os.path.exists(os.environ.get("SLIDGE", "")):
    print("needs slidge: run `cargo xtask test`")
    raise SystemExit(77)


async def story():
    folder = tempfile.mkdtemp()
    environment = {**os.environ, "PYTHONPATH": f"{HERE}/dummy", "SLIDGE_CONF_DIR": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    with open(f"{folder}/log", "wb") as log:
        process = await asyncio.create_subprocess_exec(
            os.environ["SLIDGE"], "-m", "slidge", "--legacy-module", "slidge_echo", "--jid", GATEWAY,
            "--secret", os.environ["COMPONENT_SECRET"], "--server", "127.0.0.1", "--port", os.environ["COMPONENT_PORT"],
            "--home-dir", folder, "--user-jid-validator", f".*@{DOMAIN}", "--no-upload-path", folder,
            "--no-upload-url-prefix", "http://127.0.0.1/none", "--debug",
            env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        await play()
    except BaseException:
        with open(f"{folder}/log", encoding="utf-8") as file:
            print(file.read()[-60_000:])
        raise
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            # slidge ends by an exception out of its handler of the signal, which asyncio may swallow.
            process.kill()
            await process.wait()
        shutil.rmtree(folder)


async def play():
    await register(ROMEO, "montague")
    plugins = ["xep_0030", "xep_0050", "xep_0077", "xep_0280", "xep_0313"]
    romeo = await Client(f"{ROMEO}@{DOMAIN}/orchard", "montague", plugins).online()
    await romeo.plugin["xep_0280"].enable()

    # What it is. slidge takes a moment to start.
    for _ in range(100):
        try:
            info = await romeo.plugin["xep_0030"].get_info(jid=GATEWAY, timeout=PATIENCE)
            break
        except Exception:  # pylint: disable=broad-except
            await asyncio.sleep(0.3)
    identities = {(identity[0], identity[1]) for identity in info["disco_info"]["identities"]}
    assert ("gateway", "echo") in identities, info

    # Registration (XEP-0077, XEP-0100): the form, then the gateway is a contact.
    friends = {f"mercutio@{GATEWAY}": "Mercutio", f"benvolio@{GATEWAY}": "Benvolio"}
    seen = {jid: romeo.expect("presence_available", lambda p, jid=jid: p["from"].bare == jid) for jid in friends}
    form = await romeo.plugin["xep_0077"].get_registration(jid=GATEWAY, timeout=PATIENCE)
    assert form["register"]["instructions"], form
    iq = romeo.make_iq_set(ito=GATEWAY)
    iq["register"]["username"] = "romeo"
    iq["register"]["password"] = "anything"
    await iq.send(timeout=PATIENCE)

    # Contacts come by the roster privilege, subscribed both ways, and show themselves.
    def has(jid):
        return jid in romeo.client_roster and romeo.client_roster[jid]["subscription"] == "both"
    for jid in [GATEWAY, *friends]:
        while not has(jid):
            await within(romeo.expect("roster_update"), f"{jid} in the roster")
    for jid, name in friends.items():
        await within(seen[jid], f"the presence of {jid}")
        assert romeo.client_roster[jid]["name"] == name, romeo.client_roster[jid]

    # From a name to an address: jabber:iq:gateway (XEP-0100 section 4.9).
    asked = romeo.make_iq_get(queryxmlns="jabber:iq:gateway", ito=GATEWAY)
    answer = await asked.send(timeout=PATIENCE)
    assert "<prompt" in str(answer), answer
    asked = romeo.make_iq_set(ito=GATEWAY)
    query = ElementTree.fromstring("<query xmlns='jabber:iq:gateway'><prompt>Benvolio</prompt></query>")
    asked.xml.append(query)
    answer = await asked.send(timeout=PATIENCE)
    assert f"benvolio@{GATEWAY}" in str(answer), answer

    # Both ways.
    mercutio = f"mercutio@{GATEWAY}"
    romeo.send_message(mto=mercutio, mbody="good morrow", mtype="chat")
    message = await romeo.message("echo of good morrow")
    assert message["from"].bare == mercutio, message

    # Said from the network's own application: a message in the user's name, copied and archived.
    copied = romeo.expect("carbon_sent", lambda m: m["carbon_sent"]["body"] == "a plague")
    romeo.send_message(mto=mercutio, mbody="from my phone a plague", mtype="chat")
    copy = (await within(copied, "a carbon"))["carbon_sent"]
    assert copy["to"].bare == mercutio and copy["from"].bare == romeo.boundjid.bare, copy
    archive = await romeo.plugin["xep_0313"].retrieve(with_jid=mercutio)
    bodies = [result["mam_result"]["forwarded"]["stanza"]["body"] for result in archive["mam"]["results"]]
    assert bodies == ["good morrow", "echo of good morrow", "from my phone a plague", "a plague"], bodies

    # Presence to the gateway: gone and back, and its contacts are there again.
    await romeo.disconnect()
    romeo = Client(f"{ROMEO}@{DOMAIN}/orchard", "montague", plugins)
    back = romeo.expect("presence_available", lambda p: p["from"].bare == mercutio)
    await romeo.online()
    await within(back, "mercutio's presence after a new login")

    # Commands, and the end.
    commands = await romeo.plugin["xep_0050"].get_commands(GATEWAY, timeout=PATIENCE)
    assert len(commands["disco_items"]["items"]) > 0, commands
    await romeo.plugin["xep_0077"].cancel_registration(jid=GATEWAY, timeout=PATIENCE)
    await romeo.disconnect()


main(story)
