"""go-sendxmpp by STARTTLS, with slixmpp at the other end."""

from common import main
from sendxmpp import chat

main(lambda: chat(direct=False))
