//! The forms in which an event is shown.

pub mod compact;
pub mod escape;

use jiff::tz::TimeZone;

use crate::log::Line;

/// Forms of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A line for people.
    #[default]
    Compact,
    /// The JSON object as it is stored.
    Json,
}

/// How and for what events are shown.
#[derive(Clone, Debug)]
pub struct Style {
    /// The form.
    pub form: Form,
    /// They go to a terminal, which must not be made to obey them.
    pub terminal: bool,
    /// With colours. The compact form only.
    pub colour: bool,
    /// In which times are shown. The compact form only.
    pub zone: TimeZone,
}

impl Style {
    /// Adds an event to `text`, as exactly one line.
    ///
    /// # Errors
    /// The compact form of an event that this version does not know how to read.
    pub fn show(&self, line: &Line<'_>, text: &mut String) -> Result<(), serde_json::Error> {
        match self.form {
            Form::Compact => compact::show(&line.event()?, self, text),
            Form::Json if self.terminal => escape::escape_json(line.text, text),
            Form::Json => text.push_str(line.text),
        }
        text.push('\n');
        Ok(())
    }
}
