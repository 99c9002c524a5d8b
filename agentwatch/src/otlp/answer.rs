//! What OTLP/HTTP wants to be answered, in the form of the request.

use serde_json::json;

use super::wire::Message;
use super::{Form, Refused};

/// `ExportTraceServiceResponse`: all was taken, but for what was refused.
#[must_use]
pub fn taken(refused: &Refused, form: Form) -> Vec<u8> {
    let why = refused.why.as_deref().unwrap_or_default();
    match form {
        Form::Protobuf if refused.count == 0 => Vec::new(),
        Form::Protobuf => {
            let partial = Message::default().number(1, refused.count).bytes(2, why.as_bytes()).finish();
            Message::default().bytes(1, &partial).finish()
        }
        Form::Json if refused.count == 0 => b"{}".to_vec(),
        Form::Json => {
            // Whole numbers of 64 bits are texts there.
            let count = refused.count.to_string();
            json!({"partialSuccess": {"rejectedSpans": count, "errorMessage": why}}).to_string().into_bytes()
        }
    }
}

/// `google.rpc.Status`: nothing was taken.
#[must_use]
pub fn failed(code: u8, sentence: &str, form: Form) -> Vec<u8> {
    match form {
        Form::Protobuf => Message::default().number(1, code.into()).bytes(2, sentence.as_bytes()).finish(),
        Form::Json => json!({"code": code, "message": sentence}).to_string().into_bytes(),
    }
}
