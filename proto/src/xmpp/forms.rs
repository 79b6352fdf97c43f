//! Data forms: XEP-0004, version 2.13.2, with the `FORM_TYPE` of XEP-0068. Tables of results (`reported`, `item`) are not
//! spoken: nothing here searches.

use super::{Condition, Element, StanzaError, ns};
use crate::xml::Writer;

/// The most fields of a form that came in.
pub const FIELDS: usize = 128;
/// The most values of all its fields together.
pub const VALUES: usize = 1024;

/// What is wrong with a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `type`, or one that XEP-0004 does not know.
    #[error("a form of no known type")]
    Type,
    /// A field without `var`, or two with the same.
    #[error("a field without a name, or two with the same")]
    Var,
    /// More than [`FIELDS`] or [`VALUES`].
    #[error("too many fields or values")]
    TooMany,
    /// A value that its field's type does not allow.
    #[error("a value that its field does not allow")]
    Value,
}

impl From<Error> for StanzaError {
    fn from(error: Error) -> Self {
        let condition = match error {
            Error::Type | Error::Var => Condition::BadRequest,
            Error::TooMany => Condition::PolicyViolation,
            // XEP-0004 section 4.
            Error::Value => Condition::NotAcceptable,
        };
        Self::new(condition).text(error.to_string())
    }
}

macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])+ $variant,)+ }

        impl $name {
            /// The value of the attribute `type`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

names! {
    /// What a form is for (section 3.1).
    FormType {
        /// To be filled in.
        Form = "form",
        /// Filled in.
        Submit = "submit",
        /// Given up.
        Cancel = "cancel",
        /// Data that was asked for.
        Result = "result",
    }
}

names! {
    /// What a field holds (section 3.3).
    FieldType {
        /// Yes or no.
        Boolean = "boolean",
        /// Text to read.
        Fixed = "fixed",
        /// Comes back as it went out.
        Hidden = "hidden",
        /// Several addresses.
        JidMulti = "jid-multi",
        /// One address.
        JidSingle = "jid-single",
        /// Several of the options.
        ListMulti = "list-multi",
        /// One of the options.
        ListSingle = "list-single",
        /// Several lines.
        TextMulti = "text-multi",
        /// A line that is not shown while it is typed.
        TextPrivate = "text-private",
        /// A line: also what an unknown or missing type means.
        TextSingle = "text-single",
    }
}

/// One field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name; empty only for [`FieldType::Fixed`].
    pub var: String,
    /// `None`: not said, as in most forms but [`FormType::Form`].
    pub type_: Option<FieldType>,
    /// For people.
    pub label: Option<String>,
    /// Whether it must be filled in.
    pub required: bool,
    /// What it holds, or holds already.
    pub values: Vec<String>,
    /// What a list lets choose from: label and value.
    pub options: Vec<(String, String)>,
}

impl Field {
    /// A field without a type, label or value.
    #[must_use]
    pub fn new(var: &str) -> Self {
        Self {
            var: var.to_owned(),
            type_: None,
            label: None,
            required: false,
            values: Vec::new(),
            options: Vec::new(),
        }
    }

    /// The same with a type.
    #[must_use]
    pub fn type_(mut self, type_: FieldType) -> Self {
        self.type_ = Some(type_);
        self
    }

    /// The same with a label.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    /// The same, to be filled in.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The same with one more value.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The same with one more option.
    #[must_use]
    pub fn option(mut self, label: &str, value: &str) -> Self {
        self.options.push((label.to_owned(), value.to_owned()));
        self
    }

    /// The first value.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.values.first().map(String::as_str)
    }

    /// The value of a boolean field; no value is `false` (section 3.3).
    ///
    /// # Errors
    /// [`Error::Value`] if it is not one of `0`, `1`, `false`, `true`.
    pub fn boolean(&self) -> Result<bool, Error> {
        match self.values.as_slice() {
            [] => Ok(false),
            [one] => match one.as_str() {
                "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(Error::Value),
            },
            _ => Err(Error::Value),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("field", ns::DATA_FORMS);
        w.attr_opt("var", Some(self.var.as_str()).filter(|var| !var.is_empty()));
        w.attr_opt("type", self.type_.map(FieldType::name));
        w.attr_opt("label", self.label.as_deref());
        if self.required {
            w.start("required", ns::DATA_FORMS).end();
        }
        for value in &self.values {
            w.leaf("value", ns::DATA_FORMS, value);
        }
        for (label, value) in &self.options {
            w.start("option", ns::DATA_FORMS).attr("label", label);
            w.leaf("value", ns::DATA_FORMS, value);
            w.end();
        }
        w.end();
    }

    fn parse(element: &Element, room: &mut usize) -> Result<Self, Error> {
        let mut field = Self {
            type_: element.attr("type").map(|t| FieldType::from_name(t).unwrap_or(FieldType::TextSingle)),
            label: element.attr("label").map(ToOwned::to_owned),
            ..Self::new(element.attr("var").unwrap_or_default())
        };
        for child in element.children().filter(|c| c.ns() == ns::DATA_FORMS) {
            match child.name() {
                "value" => {
                    *room = room.checked_sub(1).ok_or(Error::TooMany)?;
                    field.values.push(child.text());
                }
                "option" => {
                    *room = room.checked_sub(1).ok_or(Error::TooMany)?;
                    let label = child.attr("label").unwrap_or_default().to_owned();
                    let value = child.child_text("value", ns::DATA_FORMS).unwrap_or_default();
                    field.options.push((label, value));
                }
                "required" => field.required = true,
                _ => {}
            }
        }
        if field.var.is_empty() && field.type_ != Some(FieldType::Fixed) {
            Err(Error::Var)
        } else {
            Ok(field)
        }
    }
}

/// A form, or the data of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What it is for.
    pub type_: FormType,
    /// For people.
    pub title: Option<String>,
    /// For people; may be several.
    pub instructions: Vec<String>,
    /// In the order in which they are shown.
    pub fields: Vec<Field>,
}

impl Form {
    /// A form whose fields are those of the registered `form_type` (XEP-0068).
    #[must_use]
    pub fn new(type_: FormType, form_type: &str) -> Self {
        let hidden = Field::new("FORM_TYPE").type_(FieldType::Hidden).value(form_type);
        Self { type_, title: None, instructions: Vec::new(), fields: vec![hidden] }
    }

    /// The same with one more field.
    #[must_use]
    pub fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// The same with a title.
    #[must_use]
    pub fn title(mut self, title: &str) -> Self {
        self.title = Some(title.to_owned());
        self
    }

    /// The same with one more line of instructions.
    #[must_use]
    pub fn instruct(mut self, text: &str) -> Self {
        self.instructions.push(text.to_owned());
        self
    }

    /// The field of this name.
    #[must_use]
    pub fn get(&self, var: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.var == var)
    }

    /// The first value of the field of this name.
    #[must_use]
    pub fn value(&self, var: &str) -> Option<&str> {
        self.get(var).and_then(Field::first)
    }

    /// The `FORM_TYPE`.
    #[must_use]
    pub fn form_type(&self) -> Option<&str> {
        self.value("FORM_TYPE")
    }

    /// Reads `<x xmlns='jabber:x:data'/>`. Elements that XEP-0004 does not know are ignored.
    ///
    /// # Errors
    /// [`Error`], which is a stanza error too.
    pub fn parse(x: &Element) -> Result<Self, Error> {
        let type_ = x.attr("type").and_then(FormType::from_name).ok_or(Error::Type)?;
        let mut form = Self {
            type_,
            title: x.child_text("title", ns::DATA_FORMS),
            instructions: Vec::new(),
            fields: Vec::new(),
        };
        let mut room = VALUES;
        for child in x.children().filter(|c| c.ns() == ns::DATA_FORMS) {
            match child.name() {
                "field" if form.fields.len() == FIELDS => return Err(Error::TooMany),
                "field" => {
                    let field = Field::parse(child, &mut room)?;
                    // At most FIELDS squared, so a scan will do.
                    if !field.var.is_empty() && form.get(&field.var).is_some() {
                        return Err(Error::Var);
                    }
                    form.fields.push(field);
                }
                "instructions" => {
                    room = room.checked_sub(1).ok_or(Error::TooMany)?;
                    form.instructions.push(child.text());
                }
                _ => {}
            }
        }
        Ok(form)
    }

    /// Writes `<x xmlns='jabber:x:data'/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("x", ns::DATA_FORMS).attr("type", self.type_.name());
        if let Some(title) = &self.title {
            w.leaf("title", ns::DATA_FORMS, title);
        }
        for text in &self.instructions {
            w.leaf("instructions", ns::DATA_FORMS, text);
        }
        for field in &self.fields {
            field.write(w);
        }
        w.end();
    }
}

#[cfg(test)]
mod tests;
