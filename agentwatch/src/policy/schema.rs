//! The form of the policy file as a JSON Schema, for editors.

/// A JSON Schema, draft 2020-12. It knows the form; the reader also knows what names and patterns mean.
pub const SCHEMA: &str = include_str!("schema.json");
