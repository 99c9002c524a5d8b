//! A scripted model server: plays Anthropic's Messages API, OpenAI's Responses API and the Gemini API on loopback, so that real
//! agents work offline.
//!
//! A [`Script`] lists the assistant's turns, and those of sub-agents. Which turn a request gets follows from the request alone (how
//! many turns of the assistant it already carries), so that a client that tries again gets the same answer.
//! What clients asked, with the results of the tools they ran, goes to a record file, one JSON object a line.

mod answer;
mod anthropic;
mod gemini;
mod http;
mod openai;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the model says, turn by turn. After the last one it repeats that one's text without tools.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The assistant's turns, in order.
    pub turns: Vec<Turn>,
    /// The turns of conversations whose first message holds a text: those of sub-agents.
    #[serde(default)]
    pub agents: BTreeMap<String, Vec<Turn>>,
}

/// One turn of the assistant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// What it says.
    #[serde(default)]
    pub text: String,
    /// Tools that it calls, all in this turn.
    #[serde(default)]
    pub tools: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool's name, such as `Bash`.
    pub name: String,
    /// Its parameters.
    pub input: Value,
}

impl Script {
    /// Reads a script from a JSON file.
    ///
    /// # Errors
    /// If it cannot be read, or is not a script.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read(path).with_context(|| format!("cannot read the script `{}`", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "`{}` is not a script: it needs `{{\"turns\": [{{\"text\", \"tools\"}}]}}`",
                path.display()
            )
        })
    }
}

/// The id that the tool call number `tool` of turn number `turn` gets, both from 0.
#[must_use]
pub fn tool_use_id(turn: usize, tool: usize) -> String {
    format!("toolu_aw_{turn:02}_{tool:02}")
}

/// The same in the conversation of a sub-agent, by the number of its text in [`Script::agents`].
#[must_use]
pub fn tool_use_id_of(agent: usize, turn: usize, tool: usize) -> String {
    format!("{}_s{agent}", tool_use_id(turn, tool))
}

/// A request as it is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// HTTP method.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// The turn that it got; absent where it was no turn of the conversation (a title, a count of tokens).
    pub turn: Option<usize>,
    /// Names of the tools that the client offered.
    pub tools: Vec<String>,
    /// Results of tools in its last message.
    pub tool_results: Vec<ToolResult>,
    /// Texts beside them, such as what hooks have to say.
    pub texts: Vec<String>,
}

impl Recorded {
    fn of(request: &http::Request) -> Self {
        Self { method: request.method.clone(), path: request.path.clone(), ..Self::default() }
    }
}

/// What a tool gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// Id of the call: [`tool_use_id`].
    pub tool_use_id: String,
    /// Whether the client said that it failed.
    pub is_error: bool,
    /// Its text.
    pub text: String,
}

/// A running server. It stops when dropped.
pub struct ModelServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// Starts a server on `port` of 127.0.0.1 (0 for a free one), which appends what it is asked to `record`.
    ///
    /// # Errors
    /// If the port is taken or the record file cannot be written.
    pub fn start(script: Script, record: &Path, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}: is another server there?"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let file = OpenOptions::new().create(true).append(true).open(record);
        let file = file.with_context(|| format!("cannot write the record `{}`", record.display()))?;
        let shared = Arc::new(Shared { script, record: Mutex::new(file) });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Ok(Self { address, stop, accepting: Some(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the APIs begin: what `ANTHROPIC_BASE_URL` must be.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for ever: the server runs until the process is ended.
    pub fn wait(mut self) {
        if let Some(accepting) = self.accepting.take() {
            // A panic of the server's thread has been printed already.
            let _ = accepting.join();
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            self.stop.store(true, Ordering::SeqCst);
            // Wakes `accept`; if even that fails the thread ends with the process.
            if TcpStream::connect(self.address).is_ok() {
                let _ = accepting.join();
            }
        }
    }
}

/// Reads what a server recorded.
///
/// # Errors
/// If the file cannot be read, or a line of it is no [`Recorded`].
pub fn read_record(path: &Path) -> Result<Vec<Recorded>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the record `{}`", path.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a record: {line}")))
        .collect()
}

struct Shared {
    script: Script,
    record: Mutex<File>,
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        match http::read_request(stream) {
            Ok(Some(request)) => {
                let (response, recorded) = answer::answer(&self.script, &request);
                let written = self.write_record(&recorded);
                if let Err(error) = written.and_then(|()| http::write_response(stream, &response)) {
                    eprintln!("aw-model: {error:#}");
                }
            }
            // Somebody connected and left.
            Ok(None) => {}
            Err(error) => eprintln!("aw-model: a request was not understood: {error:#}"),
        }
    }

    fn write_record(&self, recorded: &Recorded) -> Result<()> {
        let mut line = serde_json::to_string(recorded).context("the record cannot be written as JSON")?;
        line.push('\n');
        let mut file = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).context("cannot write the record file")
    }
}
