"""A client whose socket is cut resumes its session (XEP-0198) and has missed nothing."""

import uuid

from common import DOMAIN, Client, main, register, within

RUN = uuid.uuid4().hex[:8]
ROMEO, JULIET = f"romeo-{RUN}", f"juliet-{RUN}"


async def story():
    await register(ROMEO, "montague")
    await register(JULIET, "capulet")
    romeo = await Client(f"{ROMEO}@{DOMAIN}/orchard", "montague").online()
    juliet = Client(f"{JULIET}@{DOMAIN}/balcony", "capulet", ["xep_0198"])
    enabled = juliet.expect("sm_enabled")
    await juliet.online()
    await within(enabled, "stream management")

    romeo.send_message(mto=juliet.boundjid.full, mbody="one", mtype="chat")
    await juliet.message("one")

    bound = juliet.boundjid.full
    for turn in range(3):
        lost = juliet.expect("disconnected")
        resumed = juliet.expect("session_resumed")
        juliet.transport.abort()
        await within(lost, "the loss of the connection")
        for number in range(5):
            romeo.send_message(mto=bound, mbody=f"turn {turn} line {number}", mtype="chat")
        juliet.go()
        await within(resumed, "the resumption")
        for number in range(5):
            message = await within(juliet.inbox.get(), f"line {number} of turn {turn}")
            assert message["body"] == f"turn {turn} line {number}", message
        assert juliet.boundjid.full == bound
    assert juliet.inbox.empty(), juliet.inbox

    juliet.send_message(mto=romeo.boundjid.full, mbody="still here", mtype="chat")
    await romeo.message("still here")
    await romeo.disconnect()
    await juliet.disconnect()


main(story)
