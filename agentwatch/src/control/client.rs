//! The client of the control API, for commands: one call a connection, and it waits for the answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::intent::{IntentBody, IntentCheckBody, IntentView, IntentsView};
use super::limits;
use super::policy::{AppliedView, ApplyBody, PolicyFile, PolicyView};
use super::selftest::SelfTestView;
use super::state::{DaemonView, ErrorView, LaunchBody, LaunchView, SessionsView, TreeView};
use super::tool::{ToolBody, ToolView};
use crate::exit;
use crate::paths::Paths;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens.
    #[error("the agentwatch daemon is not reachable at `{}`: start it with `agentwatch run`, or say where it is with `--run-dir` ({source})", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The socket is for others.
    #[error("no permission to use `{}`: run this as root, with `sudo` for example", socket.display())]
    NoPermission {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon listens and says nothing, or says that it cannot answer now.
    #[error("the agentwatch daemon at `{}` does not answer: see its log, and try again ({reason})", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// The daemon says no.
    #[error("{}", .0.error)]
    Refused(ErrorView),
    /// Something else than this version's daemon listens.
    #[error("what answers at `{}` does not speak this version's language: are `agentwatch` and the running daemon of the same version? ({reason})", socket.display())]
    Strange {
        /// The socket.
        socket: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// This process cannot make a call.
    #[error("cannot prepare a call to the agentwatch daemon: {0}")]
    Local(io::Error),
}

impl ClientError {
    /// The command's exit code: see the contract.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } | Self::Silent { .. } => exit::UNREACHABLE,
            Self::NoPermission { .. } => exit::NOT_ALLOWED,
            Self::Refused(view) => match view.code.as_str() {
                "bad_policy" => exit::BAD_POLICY,
                "not_root" | "out_of_sight" | "cannot_enforce" => exit::NOT_ALLOWED,
                "no_such_session" | "ambiguous_session" | "unknown_agent" | "bad_path" | "no_such_intent"
                | "which_session" | "bad_intent" => exit::USAGE,
                "not_in_session" | "not_yours" => exit::NOT_ALLOWED,
                "forbidden_plan" => exit::VIOLATION,
                _ => exit::FAILED,
            },
            Self::Strange { .. } | Self::Local(_) => exit::FAILED,
        }
    }
}

/// Calls the daemon whose sockets are in one folder.
#[derive(Clone, Debug)]
pub struct Client {
    control: PathBuf,
    declare: PathBuf,
    patience: Duration,
}

impl Client {
    /// A client; nothing is connected before a call.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self { control: paths.control_socket(), declare: paths.declare_socket(), patience: limits::CLIENT }
    }

    /// The daemon itself.
    ///
    /// # Errors
    /// See [`ClientError`]; so for every call.
    pub fn status(&self) -> Result<DaemonView, ClientError> {
        self.call(&self.control, Method::GET, "/v1/status", Bytes::new())
    }

    /// The policy in force.
    pub fn policy(&self) -> Result<PolicyView, ClientError> {
        self.call(&self.control, Method::GET, "/v1/policy", Bytes::new())
    }

    /// Has the daemon try whether what is forbidden is refused.
    pub fn self_test(&self) -> Result<SelfTestView, ClientError> {
        let patience = limits::CLIENT_SELF_TEST;
        self.call_within(patience, &self.control, Method::POST, "/v1/selftest", Bytes::new())
    }

    /// Brings a policy into force. Once this returns, everything is judged by it.
    pub fn apply(&self, files: Vec<PolicyFile>) -> Result<AppliedView, ClientError> {
        let body =
            serde_json::to_vec(&ApplyBody { files }).map_err(|error| ClientError::Local(error.into()))?;
        self.call_within(limits::CLIENT_APPLY, &self.control, Method::POST, "/v1/policy/apply", body.into())
    }

    /// The sessions on this host, with `all` ended ones too.
    pub fn sessions(&self, all: bool) -> Result<SessionsView, ClientError> {
        self.call(&self.control, Method::GET, &format!("/v1/sessions?all={all}"), Bytes::new())
    }

    /// One session with its processes; `session` is its id or a beginning of it that no other has.
    pub fn tree(&self, session: &str) -> Result<TreeView, ClientError> {
        let session = utf8_percent_encode(session, NON_ALPHANUMERIC);
        self.call(&self.control, Method::GET, &format!("/v1/sessions/{session}/tree"), Bytes::new())
    }

    /// Says what a session is about to do: of a session that it names as an operator, else of the caller's own.
    pub fn declare(&self, body: &IntentBody) -> Result<IntentView, ClientError> {
        let (socket, path) = match body.session {
            Some(_) => (&self.control, "/v1/intents/declare"),
            None => (&self.declare, "/v1/declare"),
        };
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Local(error.into()))?;
        self.call(socket, Method::POST, path, body.into())
    }

    /// What was declared, with `all` what is over too.
    pub fn intents(&self, all: bool) -> Result<IntentsView, ClientError> {
        self.call(&self.control, Method::GET, &format!("/v1/intents?all={all}"), Bytes::new())
    }

    /// One intent.
    pub fn intent(&self, id: &str) -> Result<IntentView, ClientError> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        self.call(&self.control, Method::GET, &format!("/v1/intents/{id}"), Bytes::new())
    }

    /// Has an intent count no longer.
    pub fn close_intent(&self, id: &str) -> Result<IntentView, ClientError> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        self.call(&self.control, Method::POST, &format!("/v1/intents/{id}/close"), Bytes::new())
    }

    /// Says whether what was done is what it should be.
    pub fn check_intent(&self, id: &str, body: &IntentCheckBody) -> Result<IntentView, ClientError> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Local(error.into()))?;
        self.call(&self.control, Method::POST, &format!("/v1/intents/{id}/check"), body.into())
    }

    /// Says what a harness's agent does. No hook waits longer for that.
    pub fn tool(&self, body: &ToolBody) -> Result<ToolView, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Local(error.into()))?;
        self.call_within(limits::CLIENT_TOOL, &self.declare, Method::POST, "/v1/tool", body.into())
    }

    /// Makes the calling process a session of an agent. Once this returns, everything that the process
    /// does belongs to the session.
    pub fn launch(&self, agent: &str) -> Result<LaunchView, ClientError> {
        let body = serde_json::to_vec(&LaunchBody { agent: agent.to_owned() })
            .map_err(|error| ClientError::Local(error.into()))?;
        self.call(&self.declare, Method::POST, "/v1/launch", body.into())
    }

    fn call<T: DeserializeOwned>(
        &self,
        socket: &Path,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        self.call_within(self.patience, socket, method, path, body)
    }

    fn call_within<T: DeserializeOwned>(
        &self,
        patience: Duration,
        socket: &Path,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let exchange = exchange(socket, method, path, body);
        let (status, body) = runtime
            .map_err(ClientError::Local)?
            .block_on(async { tokio::time::timeout(patience, exchange).await })
            .map_err(|_| ClientError::Silent {
                socket: socket.to_owned(),
                reason: format!("nothing came within {} s", patience.as_secs()),
            })??;
        read(socket, status, &body)
    }
}

/// Sends one request and takes its whole answer.
async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ClientError> {
    let strange = |error: &dyn std::error::Error| ClientError::Strange {
        socket: socket.to_owned(),
        reason: error.to_string(),
    };
    let stream = connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| strange(&error))?;
    // It ends with the runtime, and its errors come out of the request as well.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "agentwatch")
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| strange(&error))?;
    let response = sender.send_request(request).await.map_err(|error| {
        if error.is_parse() {
            return strange(&error);
        }
        ClientError::Silent { socket: socket.to_owned(), reason: error.to_string() }
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), limits::ANSWER_BYTES).collect().await;
    Ok((status, body.map_err(|error| strange(error.as_ref()))?.to_bytes()))
}

async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    loop {
        let error = match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match error.kind() {
            // Many others are before us. The call as a whole has its time.
            io::ErrorKind::WouldBlock => tokio::time::sleep(Duration::from_millis(5)).await,
            io::ErrorKind::PermissionDenied => {
                return Err(ClientError::NoPermission { socket: socket.to_owned() });
            }
            _ => return Err(ClientError::NotRunning { socket: socket.to_owned(), source: error }),
        }
    }
}

fn read<T: DeserializeOwned>(socket: &Path, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    let strange = |reason| ClientError::Strange { socket: socket.to_owned(), reason };
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| strange(error.to_string()));
    }
    match serde_json::from_slice::<ErrorView>(body) {
        Ok(view) if matches!(view.code.as_str(), "silent" | "busy") => {
            Err(ClientError::Silent { socket: socket.to_owned(), reason: view.error })
        }
        Ok(view) => Err(ClientError::Refused(view)),
        Err(_) if status == StatusCode::SERVICE_UNAVAILABLE => Err(ClientError::Silent {
            socket: socket.to_owned(),
            reason: "it has too many callers".to_owned(),
        }),
        Err(_) => Err(strange(format!("HTTP status {status}"))),
    }
}
