//! The control API: HTTP with JSON on two Unix sockets, and its client.
//!
//! The daemon's state belongs to one plain thread, the owner. The server ([`serve`]) has a thread of its
//! own and only translates: each call becomes a [`Request`] in the owner's [`Inbox`], and an owner that
//! does not answer within [`limits::OWNER`] makes it a 503. So nothing a client does can slow the owner
//! down by more than the answer that it asks for.
//!
//! Two doors: `control.sock` for root, and `declare.sock` for everybody, where a caller is who the kernel
//! says it is and never who its text says. A third, for spans by TCP, is there where it is asked for.

pub mod client;
mod failure;
pub mod intent;
pub mod limits;
mod load;
mod lock;
pub mod otlp;
mod peer;
pub mod policy;
mod request;
pub mod required;
mod routes;
pub mod selftest;
mod server;
mod service;
pub mod state;
mod tcp;
pub mod tool;
mod unheard;

pub use client::{Client, ClientError};
pub use lock::{RunError, RunLock};
pub use request::{Apply, Caller, Inbox, Launch, Mailbox, Member, Refusal, Reply, Request, mailbox, resolve};
pub use server::{Server, serve};
pub use tcp::listen as listen_to_spans;
pub use unheard::Word;

#[cfg(test)]
pub(crate) mod tests;
