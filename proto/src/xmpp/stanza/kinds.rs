//! The three kinds of stanza and their types (RFC 6120 section 8.2, RFC 6121 sections 4.7.1 and 5.2.2).

/// Which stanza it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `<message/>`: push.
    Message,
    /// `<presence/>`: publish and subscribe.
    Presence,
    /// `<iq/>`: request and response.
    Iq,
}

/// The type of a message; one that is unknown counts as normal (RFC 6121 section 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// A message outside of a conversation.
    Normal,
    /// Part of a conversation between two.
    Chat,
    /// An alert that expects no reply and no storage.
    Headline,
    /// Part of a conversation in a room.
    Groupchat,
    /// An error about a message.
    Error,
}

/// The type of a presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PresenceType {
    /// No type: the sender is there.
    Available,
    /// The sender is gone.
    Unavailable,
    /// Asks to see the recipient's presence.
    Subscribe,
    /// Allows the recipient to see the sender's presence.
    Subscribed,
    /// Wants to see the recipient's presence no longer.
    Unsubscribe,
    /// Refuses, or allows no longer.
    Unsubscribed,
    /// Asks for the current presence.
    Probe,
    /// An error about a presence.
    Error,
}

/// The type of an IQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IqType {
    /// Asks for something.
    Get,
    /// Changes something.
    Set,
    /// Answers with success.
    Result,
    /// Answers with an error.
    Error,
}

/// Kind and type of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// A message.
    Message(MessageType),
    /// A presence.
    Presence(PresenceType),
    /// An IQ.
    Iq(IqType),
}

impl Kind {
    /// The name of the element.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }

    /// The kind that this element is.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "message" => Some(Self::Message),
            "presence" => Some(Self::Presence),
            "iq" => Some(Self::Iq),
            _ => None,
        }
    }
}

impl Type {
    /// Reads a `type` attribute; `None` if this kind of stanza can't have it.
    #[must_use]
    pub fn parse(kind: Kind, type_: Option<&str>) -> Option<Self> {
        Some(match (kind, type_) {
            (Kind::Message, Some("chat")) => Self::Message(MessageType::Chat),
            (Kind::Message, Some("groupchat")) => Self::Message(MessageType::Groupchat),
            (Kind::Message, Some("headline")) => Self::Message(MessageType::Headline),
            (Kind::Message, Some("error")) => Self::Message(MessageType::Error),
            (Kind::Message, _) => Self::Message(MessageType::Normal),
            (Kind::Presence, None) => Self::Presence(PresenceType::Available),
            (Kind::Presence, Some("unavailable")) => Self::Presence(PresenceType::Unavailable),
            (Kind::Presence, Some("subscribe")) => Self::Presence(PresenceType::Subscribe),
            (Kind::Presence, Some("subscribed")) => Self::Presence(PresenceType::Subscribed),
            (Kind::Presence, Some("unsubscribe")) => Self::Presence(PresenceType::Unsubscribe),
            (Kind::Presence, Some("unsubscribed")) => Self::Presence(PresenceType::Unsubscribed),
            (Kind::Presence, Some("probe")) => Self::Presence(PresenceType::Probe),
            (Kind::Presence, Some("error")) => Self::Presence(PresenceType::Error),
            (Kind::Iq, Some("get")) => Self::Iq(IqType::Get),
            (Kind::Iq, Some("set")) => Self::Iq(IqType::Set),
            (Kind::Iq, Some("result")) => Self::Iq(IqType::Result),
            (Kind::Iq, Some("error")) => Self::Iq(IqType::Error),
            _ => return None,
        })
    }

    /// The `type` attribute to write; none for what its absence means.
    #[must_use]
    pub const fn attribute(self) -> Option<&'static str> {
        Some(match self {
            Self::Message(MessageType::Normal) | Self::Presence(PresenceType::Available) => return None,
            Self::Message(MessageType::Chat) => "chat",
            Self::Message(MessageType::Headline) => "headline",
            Self::Message(MessageType::Groupchat) => "groupchat",
            Self::Presence(PresenceType::Unavailable) => "unavailable",
            Self::Presence(PresenceType::Subscribe) => "subscribe",
            Self::Presence(PresenceType::Subscribed) => "subscribed",
            Self::Presence(PresenceType::Unsubscribe) => "unsubscribe",
            Self::Presence(PresenceType::Unsubscribed) => "unsubscribed",
            Self::Presence(PresenceType::Probe) => "probe",
            Self::Iq(IqType::Get) => "get",
            Self::Iq(IqType::Set) => "set",
            Self::Iq(IqType::Result) => "result",
            Self::Message(MessageType::Error)
            | Self::Presence(PresenceType::Error)
            | Self::Iq(IqType::Error) => "error",
        })
    }

    /// Message, presence or IQ.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Message(_) => Kind::Message,
            Self::Presence(_) => Kind::Presence,
            Self::Iq(_) => Kind::Iq,
        }
    }

    /// The same kind with type `error`.
    #[must_use]
    pub const fn to_error(self) -> Self {
        match self {
            Self::Message(_) => Self::Message(MessageType::Error),
            Self::Presence(_) => Self::Presence(PresenceType::Error),
            Self::Iq(_) => Self::Iq(IqType::Error),
        }
    }

    /// Whether the type is `error`.
    #[must_use]
    pub fn is_error(self) -> bool {
        self == self.to_error()
    }

    /// Whether it may be answered with an error: never an error with an error, nor a result
    /// (RFC 6120 section 8.3.1).
    #[must_use]
    pub fn is_answerable(self) -> bool {
        !self.is_error() && self != Self::Iq(IqType::Result)
    }
}

impl From<MessageType> for Type {
    fn from(type_: MessageType) -> Self {
        Self::Message(type_)
    }
}

impl From<PresenceType> for Type {
    fn from(type_: PresenceType) -> Self {
        Self::Presence(type_)
    }
}

impl From<IqType> for Type {
    fn from(type_: IqType) -> Self {
        Self::Iq(type_)
    }
}
