//! The receiver of spans: `POST /v1/traces` of OTLP/HTTP, on an address of the loopback device.
//!
//! Anybody on this host can connect, so who sends is found out before a body is kept: by the socket at the other end and the
//! processes of sessions that hold it ([`tcp`]). All that takes time is done on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::failure::Failure;
use super::limits;
use super::request::{self, Caller, Refusal};
use super::service::{Call, read};
use super::tcp::{self, Holder};
use crate::otlp::{self, Export, Form, Packed, Refused};

/// The only path.
const TRACES: &str = "/v1/traces";
/// Paths of what else OTLP sends.
const OTHER_SIGNALS: [&str; 3] = ["/v1/metrics", "/v1/logs", "/v1development/profiles"];

/// Reads an address to receive spans at.
///
/// # Errors
/// It is none, or not of the loopback device.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "give an address and a port, such as 127.0.0.1:4318".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("spans are taken from this host alone, where the kernel says who sends them: give an address of the \
                    loopback device, such as 127.0.0.1:4318 or [::1]:4318"
            .to_owned());
    }
    if address.port() == 0 {
        return Err("senders must know the port: give one, such as 127.0.0.1:4318".to_owned());
    }
    Ok(address)
}

impl Call {
    /// Answers a call of the receiver.
    pub(super) async fn receive(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // What is refused before its form is known is answered in the one that people can read.
        let form = form(request.headers()).unwrap_or(Form::Json);
        match self.take_spans(request).await {
            Ok(refused) => answer(StatusCode::OK, otlp::taken(&refused, form), form),
            Err(failure) => {
                tracing::debug!(uid = self.peer.uid, %failure, "a call of the receiver of spans failed");
                failed(&failure, form)
            }
        }
    }

    async fn take_spans(&self, request: Request<Incoming>) -> Result<Refused, Failure> {
        let (parts, mut body) = request.into_parts();
        if OTHER_SIGNALS.contains(&parts.uri.path()) {
            return Err(Failure::OtherSignal);
        }
        if parts.uri.path() != TRACES {
            return Err(Failure::NotTraces);
        }
        if parts.method != Method::POST {
            return Err(Failure::OtherMethod(Method::POST));
        }
        let form = form(&parts.headers).ok_or(Failure::BadType)?;
        let is_packed = is_packed(&parts.headers)?;
        let claimed = parts.headers.get(CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok()?.parse().ok());
        if claimed.is_some_and(|bytes: u64| bytes > limits::SPANS_BYTES as u64) {
            return Err(Failure::TooLarge(limits::SPANS_BYTES));
        }
        let (caller, session) = match self.sender().await {
            Ok(sender) => sender,
            Err(failure) => {
                // Nothing of it is kept. Who has not sent all yet does not look for an answer.
                let _ = timeout(limits::BODY, discard(&mut body)).await;
                self.has_asked();
                return Err(failure);
            }
        };
        let body = read(body, claimed, limits::SPANS_BYTES).await?;
        self.has_asked();
        let export = self.decode(body, is_packed, form).await?;
        let count = export.spans.len().max(1);
        if !self.shared.spans.borrow_mut().allows(session, count, Instant::now()) {
            return Err(Failure::TooManySpans);
        }
        self.ask(|reply| request::Request::Spans { export: Box::new(export), caller, reply }).await
    }

    /// Who sends, with the number of its session.
    async fn sender(&self) -> Result<(Caller, u64), Failure> {
        let uid = self.peer.uid;
        if !self.shared.senders.borrow_mut().allows(uid.into(), 1, Instant::now()) {
            return Err(Failure::TooManySpans);
        }
        let ends = self.ends.ok_or(Refusal::UnknownSender)?;
        let socket = ends.other_socket().map_err(|error| Failure::NoPeer(error.to_string()))?;
        let members = self.ask(|reply| request::Request::Members { reply }).await?;
        let holders = match socket {
            Some(socket) => self.aside(move || tcp::holders(socket.inode, &members)).await?,
            None => Vec::new(),
        };
        let caller = |pid, start_ticks| Caller { pid, start_ticks, uid, by_control: false };
        match speaker(&holders) {
            Some(holder) => Ok((caller(Some(holder.pid), Some(holder.start_ticks)), holder.session)),
            None => {
                // The owner counts it, and refuses it.
                let (export, caller) = (Box::default(), caller(None, None));
                self.ask(|reply| request::Request::Spans { export, caller, reply }).await?;
                Err(Refusal::UnknownSender.into())
            }
        }
    }

    async fn decode(&self, body: Bytes, is_packed: bool, form: Form) -> Result<Export, Failure> {
        let decode = move || {
            let body = if is_packed { unpack(&body)?.into() } else { body };
            otlp::read(&body, form).map_err(Failure::BadSpans)
        };
        self.aside(decode).await?
    }

    /// Does something on another thread, one after the other.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = timeout(limits::ASIDE_TURN, Arc::clone(&self.shared.aside).acquire_owned()).await;
        let turn = turn.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|_| Failure::Busy)
    }
}

/// The one that speaks, of those that hold a socket: what two sessions hold speaks for neither.
fn speaker(holders: &[Holder]) -> Option<&Holder> {
    holders.first().filter(|first| holders.iter().all(|one| one.session == first.session))
}

/// Reads what comes and keeps nothing of it.
async fn discard(body: &mut Incoming) {
    let mut rest = Limited::new(body, limits::SPANS_BYTES);
    while matches!(rest.frame().await, Some(Ok(_))) {}
}

/// Whether a body is packed by gzip, which all receivers of OTLP take.
fn is_packed(headers: &HeaderMap) -> Result<bool, Failure> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(false) };
    match encoding.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => Err(Failure::Encoded),
    }
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Failure> {
    otlp::unpack(body, limits::SPANS_BYTES).map_err(|error| match error {
        Packed::TooLarge => Failure::TooLarge(limits::SPANS_BYTES),
        Packed::Broken(why) => Failure::BadSpans(why.to_string()),
    })
}

fn form(headers: &HeaderMap) -> Option<Form> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" => Some(Form::Protobuf),
        "application/json" => Some(Form::Json),
        _ => None,
    }
}

fn answer(status: StatusCode, body: Vec<u8>, form: Form) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = match form {
        Form::Protobuf => "application/x-protobuf",
        Form::Json => "application/json",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer that says why nothing was taken.
fn failed(failure: &Failure, form: Form) -> Response<Full<Bytes>> {
    let (status, _) = failure.status();
    let mut response = answer(status, otlp::failed(rpc_code(status), &failure.to_string(), form), form);
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        set(RETRY_AFTER, &limits::SPANS_AGAIN.as_secs().to_string());
    }
    if let Failure::OtherMethod(method) = failure {
        set(ALLOW, method.as_str());
    }
    response
}

/// The code of `google.rpc.Code` that is closest to a status of HTTP.
fn rpc_code(status: StatusCode) -> u8 {
    match status {
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 5,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => 12,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_server_error() => 13,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_device_is_listened_on() {
        for good in ["127.0.0.1:4318", "[::1]:4318", "127.8.8.8:1"] {
            assert_eq!(parse_address(good).unwrap().to_string(), good);
        }
        for (bad, said) in [
            ("0.0.0.0:4318", "loopback"),
            ("[::]:4318", "loopback"),
            ("10.0.0.1:4318", "loopback"),
            ("127.0.0.1:0", "the port"),
            ("127.0.0.1", "and a port"),
            ("localhost:4318", "and a port"),
            ("", "and a port"),
        ] {
            assert!(parse_address(bad).unwrap_err().contains(said), "{bad}");
        }
    }

    #[test]
    fn what_two_sessions_hold_speaks_for_neither() {
        let holder = |pid, session| Holder { pid, start_ticks: 1, session };
        assert_eq!(speaker(&[holder(10, 7), holder(11, 7)]), Some(&holder(10, 7)));
        assert_eq!(speaker(&[holder(10, 7), holder(11, 8)]), None);
        assert_eq!(speaker(&[]), None);
    }

    #[test]
    fn the_form_is_what_the_header_says() {
        let form = |text: &'static str| {
            form(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]))
        };
        assert_eq!(form("application/x-protobuf"), Some(Form::Protobuf));
        assert_eq!(form("Application/JSON; charset=utf-8"), Some(Form::Json));
        assert_eq!(form("text/plain"), None);
    }
}
