//! Every bound of the control API, with its reason and what happens past it.

use std::time::Duration;

/// Time that the owner of the state has for an answer. Past it the call fails with 503.
pub const OWNER: Duration = Duration::from_secs(1);
/// Requests that wait for the owner. More than all connections together never wait; past it, 503.
pub const WAITING_REQUESTS: usize = 256;
/// Time for the head of a request to arrive. Past it the connection is closed.
pub const HEAD: Duration = Duration::from_secs(5);
/// Time for the body of a request to arrive. Past it, 408.
pub const BODY: Duration = Duration::from_secs(5);
/// Time that a whole connection may last, slow readers of a large answer included. Past it it is closed.
pub const CONNECTION: Duration = Duration::from_secs(30);
/// Bytes of a request's head. Past it, 431.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of a request's body: what is declared is small. Past it, 413.
pub const BODY_BYTES: usize = 64 * 1024;
/// Bytes of a request's body that holds a policy: many times what the kernel's tables have room for. Past it, 413.
pub const POLICY_BYTES: usize = 16 * 1024 * 1024;
/// Time that the owner has to bring a policy into force: tens of thousands of patterns take seconds. Past it 503, and
/// the policy does not come into force any more.
pub const APPLY: Duration = Duration::from_secs(20);
/// Time for a self-test. A little more than [`crate::selftest::DEADLINE`], and less than a connection may last. Past it 503.
pub const SELF_TEST: Duration = Duration::from_secs(25);
/// Connections to `control.sock` at once. Past it the one that has been silent longest is closed.
pub const CONTROL_CONNECTIONS: usize = 64;
/// Connections to `declare.sock` at once, each of two descriptors. Past it as above.
pub const DECLARE_CONNECTIONS: usize = 128;
/// Connections of one user to `declare.sock` at once, so that none keeps the others out. Past it as above,
/// among that user's.
pub const DECLARE_CONNECTIONS_PER_USER: usize = 32;
/// Answers about sessions in the making or on their way at once: with 10,000 processes a tree takes some
/// 10 MB. Past it callers wait for [`LARGE_ANSWER_TURN`]. `status` is exempt.
pub const LARGE_ANSWERS: usize = 2;
/// Time that a caller waits for its turn at a large answer. Past it, 503.
pub const LARGE_ANSWER_TURN: Duration = Duration::from_secs(5);
/// Launches of one process at once and a second after that: it needs one. Past it, 429.
pub const LAUNCHES_PER_PROCESS: (u32, u32) = (8, 1);
/// Launches of one user at once and a second after that. Past it, 429.
pub const LAUNCHES_PER_USER: (u32, u32) = (256, 32);
/// What one process tells of tools at once and a second after that: a hook is a process of its own, and a relay in front of an
/// MCP server tells of all calls of that, twice of each. Past it, 429.
pub const TOOLS_PER_PROCESS: (u32, u32) = (256, 64);
/// The same of one user. Past it, 429.
pub const TOOLS_PER_USER: (u32, u32) = (1024, 256);
/// Refusals of one process's words that are told in the log at once and a second after that. Past it they are counted.
pub const REFUSALS_PER_PROCESS: (u32, u32) = (8, 1);
/// The same of one user.
pub const REFUSALS_PER_USER: (u32, u32) = (64, 4);
/// Connections to the receiver of spans at once. An exporter has one. Past it as above.
pub const OTLP_CONNECTIONS: usize = 32;
/// The same of one user. Past it as above, among that user's.
pub const OTLP_CONNECTIONS_PER_USER: usize = 8;
/// Bytes of a request with spans: 512 spans, which exporters send at once, of 4 KiB each. Past it, 413.
pub const SPANS_BYTES: usize = 2 * 1024 * 1024;
/// Requests with spans of one user at once and a second after that, whoever it is: for each the descriptors of sessions'
/// processes are looked through. Past it, 429.
pub const SENDERS_PER_USER: (u32, u32) = (128, 32);
/// Tool calls of one session by spans at once and a second after that; a request without any counts as one. Past it, 429.
pub const SPANS_PER_SESSION: (u32, u32) = (1024, 128);
/// When who sent too many spans may try again: a whole batch is allowed then.
pub const SPANS_AGAIN: Duration = Duration::from_secs(4);
/// Time that a request with spans waits for its turn at what is done on another thread. Past it, 503.
pub const ASIDE_TURN: Duration = Duration::from_secs(5);
/// Callers whose rate is remembered; who has been quiet is forgotten first. Past it newcomers get 429.
pub const RATED_CALLERS: usize = 4096;
/// Time that the client gives a whole call.
pub const CLIENT: Duration = Duration::from_secs(15);
/// Time that the client gives a whole call that brings a policy into force.
pub const CLIENT_APPLY: Duration = Duration::from_secs(25);
/// Time that the client gives what a harness's hook tells: its agent waits that long.
pub const CLIENT_TOOL: Duration = Duration::from_millis(800);
/// Time that the client gives a self-test.
pub const CLIENT_SELF_TEST: Duration = Duration::from_secs(28);
/// Bytes of an answer that the client takes.
pub const ANSWER_BYTES: usize = 256 * 1024 * 1024;
