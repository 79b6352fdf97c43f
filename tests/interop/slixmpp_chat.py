"""Two accounts made in-band, subscribed to each other, chatting; carbons on a second device; the archive in pages."""

import uuid

from common import DOMAIN, Client, main, register, within

RUN = uuid.uuid4().hex[:8]
ROMEO, JULIET = f"romeo-{RUN}", f"juliet-{RUN}"


async def story():
    await register(ROMEO, "montague")
    await register(JULIET, "capulet")

    romeo = await Client(f"{ROMEO}@{DOMAIN}/orchard", "montague", ["xep_0199"]).online()
    juliet = await Client(f"{JULIET}@{DOMAIN}/balcony", "capulet", ["xep_0313", "xep_0280"], direct=True).online()

    # Each sees the other once both have agreed; slixmpp agrees by itself and asks back.
    seen = juliet.expect("got_online", lambda p: p["from"].bare == romeo.boundjid.bare)
    seen_too = romeo.expect("got_online", lambda p: p["from"].bare == juliet.boundjid.bare)
    romeo.send_presence_subscription(pto=juliet.boundjid.bare)
    await within(seen, "romeo's presence at juliet's")
    await within(seen_too, "juliet's presence at romeo's")
    while romeo.client_roster[juliet.boundjid.bare]["subscription"] != "both":
        await within(romeo.expect("roster_update"), "the mutual subscription in romeo's roster")

    # Her second device gets copies of both directions.
    phone = Client(f"{JULIET}@{DOMAIN}/phone", "capulet", ["xep_0280"])
    phone.send_presence = lambda *a, **k: Client.make_presence(phone, *a, **k).send()
    received = phone.expect("carbon_received")
    sent = phone.expect("carbon_sent")
    await phone.online()
    await phone["xep_0280"].enable()

    romeo.send_message(mto=juliet.boundjid.full, mbody="wherefore art thou", mtype="chat")
    assert (await juliet.message("wherefore art thou"))["from"].full == romeo.boundjid.full
    copy = await within(received, "a carbon of what she received")
    assert copy["carbon_received"]["body"] == "wherefore art thou", copy
    juliet.send_message(mto=romeo.boundjid.full, mbody="o gentle romeo", mtype="chat")
    await romeo.message("o gentle romeo")
    copy = await within(sent, "a carbon of what she sent")
    assert copy["carbon_sent"]["body"] == "o gentle romeo", copy

    await within(romeo["xep_0199"].ping(DOMAIN), "a pong")

    # Her archive, in pages of four; ids do not repeat.
    for number in range(10):
        romeo.send_message(mto=juliet.boundjid.bare, mbody=f"line {number}", mtype="chat")
    await juliet.message("line 9")
    bodies, ids, after = [], [], None
    for _page in range(10):
        rsm = {"max": "4"} if after is None else {"max": "4", "after": after}
        answer = await juliet["xep_0313"].retrieve(rsm=rsm)
        for result in answer["mam"]["results"]:
            bodies.append(result["mam_result"]["forwarded"]["stanza"]["body"])
            ids.append(result["mam_result"]["id"])
        after = answer["mam_fin"]["rsm"]["last"]
        if answer["mam_fin"]["complete"] in (True, "true", "1"):
            break
    assert bodies == ["wherefore art thou", "o gentle romeo"] + [f"line {n}" for n in range(10)], bodies
    assert len(set(ids)) == len(ids) == 12, ids

    for client in (romeo, juliet, phone):
        await client.disconnect()


main(story)
