//! Why a call fails, and the answer that says so.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::limits;
use super::peer::PeerError;
use super::request::Refusal;
use super::state::ErrorView;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the control socket is for root only: use `sudo`")]
    NotRoot,
    #[error("there is nothing at this path: `GET /v1/openapi.json` on control.sock describes all there is")]
    NoSuchPath,
    #[error(
        "this path is on the other socket: control.sock answers questions, declare.sock takes declarations"
    )]
    OtherSocket,
    #[error("this path takes only {0}")]
    OtherMethod(hyper::Method),
    #[error("the query is not understood: `all=true` or `all=false` may be asked for, and nothing else")]
    BadQuery,
    #[error("the name in the path is not percent-encoded UTF-8")]
    BadPath,
    #[error("the body must be JSON such as {example}: {problem}")]
    BadBody { example: &'static str, problem: String },
    #[error("the body is larger than {} KiB", .0 / 1024)]
    TooLarge(usize),
    #[error("the body did not arrive within {} s", limits::BODY.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    BrokenBody,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("too many launches or declarations at once by this process or user: try again in a second")]
    TooMany,
    #[error(
        "only traces are taken here: switch the rest off by `OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none`"
    )]
    OtherSignal,
    #[error("there is nothing at this path: spans are taken by `POST /v1/traces`")]
    NotTraces,
    #[error("spans are taken as `application/x-protobuf` or `application/json`")]
    BadType,
    #[error(
        "spans are taken as they are, or packed by gzip: set `OTEL_EXPORTER_OTLP_COMPRESSION` to `none` or `gzip`"
    )]
    Encoded,
    #[error("this is no ExportTraceServiceRequest: {0}")]
    BadSpans(String),
    #[error("too many spans at once: try again in {} s", limits::SPANS_AGAIN.as_secs())]
    TooManySpans,
    #[error("the kernel does not say who is at the other end of the connection: {0}")]
    NoPeer(String),
    #[error("too many large answers are on their way: try again in a second")]
    Busy,
    #[error("the daemon did not answer within {} s: it is overloaded or ending; try again, and see its log if this lasts", .0.as_secs())]
    Silent(Duration),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the answer cannot be written as JSON: {0}")]
    Unwritable(serde_json::Error),
}

impl Failure {
    /// HTTP status, and the word for programs.
    pub(super) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotRoot => (StatusCode::FORBIDDEN, "not_root"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::OtherSocket => (StatusCode::NOT_FOUND, "other_socket"),
            Self::OtherMethod(_) => (StatusCode::METHOD_NOT_ALLOWED, "other_method"),
            Self::BadQuery => (StatusCode::BAD_REQUEST, "bad_query"),
            Self::BadPath => (StatusCode::BAD_REQUEST, "bad_path"),
            Self::BadBody { .. } | Self::BrokenBody => (StatusCode::BAD_REQUEST, "bad_body"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Self::Peer(PeerError::OutOfSight) => (StatusCode::FORBIDDEN, "out_of_sight"),
            Self::Peer(PeerError::Changed(_)) => (StatusCode::CONFLICT, "caller_changed"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many_launches"),
            Self::OtherSignal => (StatusCode::NOT_FOUND, "other_signal"),
            Self::NotTraces => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::BadType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_type"),
            Self::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded"),
            Self::BadSpans(_) => (StatusCode::BAD_REQUEST, "bad_spans"),
            Self::TooManySpans => (StatusCode::TOO_MANY_REQUESTS, "too_many_spans"),
            Self::NoPeer(_) => (StatusCode::INTERNAL_SERVER_ERROR, "no_peer"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Silent(_) => (StatusCode::SERVICE_UNAVAILABLE, "silent"),
            Self::Refused(refusal) => match refusal {
                Refusal::NoSuchSession(_) => (StatusCode::NOT_FOUND, "no_such_session"),
                Refusal::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous_session"),
                Refusal::UnknownAgent { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unknown_agent"),
                Refusal::ProcessGone(_) => (StatusCode::CONFLICT, "process_gone"),
                Refusal::NotInSession => (StatusCode::FORBIDDEN, "not_in_session"),
                Refusal::UnknownSender => (StatusCode::FORBIDDEN, "unknown_sender"),
                Refusal::NotBinding => (StatusCode::FORBIDDEN, "not_binding"),
                Refusal::NotYours { .. } | Refusal::NotYourIntent { .. } => {
                    (StatusCode::FORBIDDEN, "not_yours")
                }
                Refusal::WhichSession => (StatusCode::UNPROCESSABLE_ENTITY, "which_session"),
                Refusal::SessionOver(_) => (StatusCode::CONFLICT, "session_over"),
                Refusal::BadIntent(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_intent"),
                Refusal::ForbiddenPlan(_) => (StatusCode::UNPROCESSABLE_ENTITY, "forbidden_plan"),
                Refusal::TooManyIntents(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_intents"),
                Refusal::NoSuchIntent(_) => (StatusCode::NOT_FOUND, "no_such_intent"),
                Refusal::BadPolicy(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_policy"),
                Refusal::CannotEnforce(_) => (StatusCode::UNPROCESSABLE_ENTITY, "cannot_enforce"),
                Refusal::Unable(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unable"),
            },
            Self::Unwritable(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unwritable"),
        }
    }

    /// The answer that says so.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let (status, code) = self.status();
        let view = ErrorView { error: self.to_string(), code: code.to_owned() };
        // A struct of two texts is always JSON.
        let mut response = json(status, serde_json::to_vec(&view).unwrap_or_default());
        if let Self::OtherMethod(method) = self
            && let Ok(allowed) = HeaderValue::from_str(method.as_str())
        {
            response.headers_mut().insert(ALLOW, allowed);
        }
        response
    }
}

pub(super) fn json(status: StatusCode, mut body: Vec<u8>) -> Response<Full<Bytes>> {
    body.push(b'\n');
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
