"""go-sendxmpp by direct TLS, with slixmpp at the other end."""

from common import main
from sendxmpp import chat

main(lambda: chat(direct=True))
