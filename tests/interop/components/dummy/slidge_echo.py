"""A network for slidge that is not there: everybody has two friends. What is said to one comes back, and "from my phone …" is as if the
user had written to the friend from the network's own application."""

from slidge import BaseGateway, BaseSession, FormField, LegacyContact, LegacyRoster, SearchResult


class Gateway(BaseGateway):
    COMPONENT_NAME = "The echo network"
    COMPONENT_TYPE = "echo"
    GROUPS = False
    SEARCH_FIELDS = [FormField(var="name", label="Name", required=True)]

    async def validate(self, user_jid, registration_form):
        return {"username": registration_form.get("username")}


class Session(BaseSession):
    async def login(self):
        self.contacts.user_legacy_id = self.user.legacy_module_data.get("username")
        return "Echoing"

    async def logout(self):
        pass

    async def on_search(self, form_values):
        contact = await self.contacts.by_legacy_id(form_values["name"].lower())
        fields = [FormField(var="name", label="Name"), FormField(var="jid", label="JID", type="jid-single")]
        return SearchResult(fields=fields, items=[{"name": contact.name, "jid": contact.jid.bare}])


class Roster(LegacyRoster):
    async def fill(self):
        for name in ("mercutio", "benvolio"):
            contact = await self.by_legacy_id(name)
            await contact.add_to_roster()  # slidge 0.4.2 leaves this to whoever fills the roster
            yield contact


class Contact(LegacyContact):
    async def update_info(self):
        self.name = self.legacy_id.capitalize()
        self.is_friend = True
        self.online("here")

    async def on_message(self, message):
        if message.body.startswith("from my phone "):
            self.send_text(message.body.removeprefix("from my phone "), carbon=True)
        else:
            self.send_text(f"echo of {message.body}")
        return message.body.replace(" ", "-")

    async def on_sticker(self, sticker):
        raise NotImplementedError

    async def on_friend_request(self, text=""):
        await self.accept_friend_request()
