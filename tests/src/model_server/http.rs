//! As much of HTTP/1.1 as a client on loopback needs: one request a connection, bodies with a length.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request's body: a long conversation with its tools is about 1 MiB.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// How long a client may be silent. Under emulation a client may need seconds.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A request.
pub struct Request {
    /// Method.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// Body.
    pub body: Vec<u8>,
}

/// An answer.
pub struct Response {
    /// Status.
    pub status: u16,
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

/// Reads one request; none where the client closed the connection without a word.
pub fn read_request(mut stream: &TcpStream) -> Result<Option<Request>> {
    stream.set_read_timeout(Some(SILENCE_MAX)).context("no deadline can be set")?;
    let mut bytes = Vec::new();
    let (head, length, head_len) = loop {
        if let Some(head) = parse_head(&bytes)? {
            break head;
        }
        ensure!(bytes.len() < HEAD_BYTES_MAX, "its head is longer than {HEAD_BYTES_MAX} bytes");
        if read_some(&mut stream, &mut bytes)? == 0 {
            ensure!(bytes.is_empty(), "it ended inside its head");
            return Ok(None);
        }
    };
    ensure!(length <= BODY_BYTES_MAX, "its body of {length} bytes is longer than {BODY_BYTES_MAX}");
    while bytes.len() < head_len + length {
        ensure!(read_some(&mut stream, &mut bytes)? > 0, "it ended inside its body");
    }
    let body = bytes.get(head_len..head_len + length).unwrap_or_default().to_vec();
    Ok(Some(Request { body, ..head }))
}

fn read_some(stream: &mut &TcpStream, bytes: &mut Vec<u8>) -> Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let count = stream.read(&mut chunk).context("the connection broke")?;
    bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count)
}

/// The request without its body, the body's length, the head's length; none while bytes are missing.
fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_len) = parsed.parse(bytes).context("its head is not HTTP/1.1")?
    else {
        return Ok(None);
    };
    let mut length = 0;
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).context("its content-length is no text")?;
            length = text.trim().parse().with_context(|| format!("its content-length is `{text}`"))?;
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("its body has no length: this server reads only bodies with content-length");
        }
    }
    let method = parsed.method.unwrap_or_default().to_owned();
    let path = parsed.path.unwrap_or_default().to_owned();
    Ok(Some((Request { method, path, body: Vec::new() }, length, head_len)))
}

/// Writes the answer; the connection ends with it.
pub fn write_response(mut stream: &TcpStream, response: &Response) -> Result<()> {
    let Response { status, content_type, body } = response;
    let head = format!(
        "HTTP/1.1 {status} scripted\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).context("the client left before the answer")?;
    stream.write_all(body.as_bytes()).context("the client left inside the answer")
}
