"""Profanity in tmux, driven by its keys, chats with a slixmpp-free peer: a second Profanity."""

from terminal import DOMAIN, RUN, Profanity, run


def story():
    romeo_jid, juliet_jid = f"romeo-{RUN}@{DOMAIN}", f"juliet-{RUN}@{DOMAIN}"
    Profanity("romeo").enter(f"romeo-{RUN}", "montague", "/register")
    Profanity("juliet").enter(f"juliet-{RUN}", "capulet", "/register")
    romeo, juliet = Profanity("romeo"), Profanity("juliet")
    romeo.enter(f"romeo-{RUN}", "montague", "/connect")
    juliet.enter(f"juliet-{RUN}", "capulet", "/connect")

    romeo.type(f"/sub request {juliet_jid}")
    juliet.see("authorization request")
    juliet.type(f"/sub allow {romeo_jid}")
    romeo.see("ccepted your", "has been accepted", "now subscribed", "Subscription", "uthorization")

    romeo.type(f"/msg {juliet_jid} But soft, what light")
    juliet.type(f"/msg {romeo_jid}")
    juliet.see("But soft, what light")
    juliet.type("Good night, good night")
    romeo.see("Good night, good night")


run(story)
