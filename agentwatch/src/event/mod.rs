//! The event as users see it: one JSON object a line of the attribution log.
//!
//! Names follow OpenTelemetry's semantic conventions where one exists. This module is pure data; it
//! knows neither the kernel's records (`decode`) nor where events are kept (`log`).

pub mod bytes;
mod cause;
mod model;
mod said;
pub mod time;
mod words;

pub use bytes::ObservedText;
pub use cause::Cause;
pub use model::*;
pub use said::*;
pub use words::*;
