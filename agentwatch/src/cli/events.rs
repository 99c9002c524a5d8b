//! `agentwatch events`: the attribution log, from the past or followed.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::failure;
use crate::event::{Op, Verdict};
use crate::exit;
use crate::log::{Follower, Item, LATE_NS, Line, LogError, Reader, Start, Wake, format_time};
use crate::output::{Form, Style};
use crate::paths::Paths;
use crate::query::{
    Expr, Filter, KindName, SessionError, SessionName, SessionSearch, parse_op, parse_verdict, parse_when,
};

/// Events that following begins with.
const FOLLOWED_LINES: usize = 10;
/// Events that can be asked for by `--lines`: their numbers are kept in memory.
const LINES_MAX: i64 = 10_000_000;
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 64 * 1024;

/// Show the attribution log: what agents did on this host, from the past or as it happens
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  agentwatch events -f                                  as it happens
  agentwatch events --since 2h --verdict denied         what was refused in the last two hours
  agentwatch events --session coding-7f -n 50           the last 50 events of a session
  agentwatch events --op write,delete --since yesterday
  agentwatch events --kind net --where 'network.peer.port == 5432'
  agentwatch events --where 'file.path ~ \"/etc/**\" && process.uid != 0'
  agentwatch events -o json | jq -r 'select(.count > 100).file.path'

Several values of one filter are alternatives: repeat it, or put commas between them. Different
filters must all hold.

EXPR compares fields as `-o json` names them, with dots between the levels: == != < <= > >=, ~ and !~
for a glob, has(FIELD), a true-or-false FIELD alone, && || ! and parentheses. Text stands in quotes.

T is RFC 3339, a date, a local time (09:30), how long ago (10m, 2h, 3d), today or yesterday. The compact
form shows local times; set TZ=UTC for UTC.

Works while no daemon runs, too. Exit codes: 0 done, 1 failed, 2 usage, 5 there is no log, 6 no
permission to read it.")]
pub struct EventsArgs {
    /// Go on showing events as they are written; begins with the last 10
    #[arg(short, long)]
    pub follow: bool,
    /// Show only the last N events that are asked for
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=LINES_MAX))]
    pub lines: Option<u32>,
    /// Events of this agent
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub agent: Vec<String>,
    /// Events of this session; the beginning of its id is enough
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub session: Vec<String>,
    /// Events of this operation: exec, run, read, write, delete, connect, listen
    #[arg(long, value_name = "OP", value_delimiter = ',', value_parser = parse_op)]
    pub op: Vec<Op>,
    /// Events with this verdict: allowed, logged, would-deny, held, denied, killed
    #[arg(long, value_name = "VERDICT", value_delimiter = ',', value_parser = parse_verdict)]
    pub verdict: Vec<Verdict>,
    /// Events of this kind, such as file.rename, or of a group of kinds, such as net
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = KindName::parse)]
    pub kind: Vec<KindName>,
    /// Events of this time or later
    #[arg(long, value_name = "T", value_parser = when)]
    pub since: Option<u64>,
    /// Events of this time or earlier
    #[arg(long, value_name = "T", value_parser = when, conflicts_with = "follow")]
    pub until: Option<u64>,
    /// Events of which this is true
    #[arg(long = "where", value_name = "EXPR", value_parser = Expr::parse)]
    pub expr: Option<Expr>,
    /// compact: a line for people; json: the event as it is stored
    #[arg(short = 'o', long = "output", value_name = "FORM", value_parser = form, default_value = "compact")]
    pub output: Form,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The output cannot be written.
pub fn run(args: &EventsArgs, paths: &Paths) -> anyhow::Result<u8> {
    let failed = match show(args, &paths.state) {
        Ok(()) => return Ok(exit::DONE),
        Err(Stop::Closed) => return Ok(exit::DONE),
        Err(Stop::Failed(error)) => error,
    };
    let code = code_of(&failed);
    if code == exit::FAILED {
        return Err(failed);
    }
    let _ = failure::report(&failed);
    Ok(code)
}

/// The exit code where the log cannot be shown.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(LogError::Missing { .. }) => exit::UNREACHABLE,
        Some(error) if error.is_permission() => exit::NOT_ALLOWED,
        _ if error.is::<SessionError>() => exit::USAGE,
        _ => exit::FAILED,
    }
}

fn when(text: &str) -> Result<u64, String> {
    parse_when(text, &Zoned::now())
}

fn form(text: &str) -> Result<Form, String> {
    match text {
        "compact" => Ok(Form::Compact),
        "json" => Ok(Form::Json),
        "ocsf" => {
            Err("OCSF is not written yet: use json, which names fields as OpenTelemetry does".to_owned())
        }
        _ => Err("there are the forms compact and json".to_owned()),
    }
}

/// Why showing ended before the end.
enum Stop {
    /// Whoever read the output has enough.
    Closed,
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn show(args: &EventsArgs, state: &Path) -> Result<(), Stop> {
    let mut filter = filter(args);
    let since = args.since.map_or(Start::Oldest, Start::Time);
    settle_sessions(state, since.clone(), args.follow, &mut filter)?;
    let lines = match args.lines {
        Some(lines) => Some(usize::try_from(lines)?),
        None => (args.follow && args.since.is_none()).then_some(FOLLOWED_LINES),
    };
    let start = match lines {
        Some(lines) => Start::Seq(seq_of_last(state, &filter, lines)?),
        None => since,
    };
    // What happened up to then may have been written a little later.
    let end = args.until.map(|until| format_time(until.saturating_add(LATE_NS)));
    let mut source = Source::open(Reader::open(state, start)?, args.follow)?;
    let mut shown = Output::new(args.output);
    loop {
        while let Some(item) = source.next_item()? {
            if let Item::Line(line) = &item {
                if end.as_ref().is_some_and(|end| *line.head.time > **end) {
                    return shown.finish();
                }
                if !filter.matches(line) {
                    continue;
                }
            }
            shown.take(&item)?;
        }
        shown.finish()?;
        if !source.wait()? {
            return Ok(());
        }
    }
}

fn filter(args: &EventsArgs) -> Filter {
    Filter {
        agents: args.agent.clone(),
        sessions: args.session.iter().cloned().map(SessionName::Begins).collect(),
        ops: args.op.clone(),
        verdicts: args.verdict.clone(),
        kinds: args.kind.clone(),
        since: args.since.map(format_time),
        until: args.until.map(format_time),
        expr: args.expr.clone(),
    }
}

/// Looks up which sessions are meant. While the log is followed, one may still come.
fn settle_sessions(state: &Path, start: Start, follow: bool, filter: &mut Filter) -> Result<(), Stop> {
    let Some(mut search) = SessionSearch::new(filter) else { return Ok(()) };
    let mut reader = Reader::open(state, start)?;
    while let Some(item) = reader.next_item()? {
        if let Item::Line(line) = item {
            search.see(&line.head);
        }
    }
    Ok(search.settle(filter, follow)?)
}

/// Number of the event with which the last `lines` that are asked for begin: segment by segment from the
/// end, as the log may be large.
pub(crate) fn seq_of_last(state: &Path, filter: &Filter, lines: usize) -> Result<u64, LogError> {
    let mut first = None;
    let mut end = u64::MAX;
    let mut next = 1;
    let mut missing = lines;
    for segment in Reader::segments(state)?.into_iter().rev() {
        let mut last = VecDeque::new();
        let mut reader = Reader::open(state, Start::Seq(segment))?;
        while let Some(item) = reader.next_item()? {
            let Item::Line(line) = item else { continue };
            if line.head.seq >= end {
                break;
            }
            next = next.max(line.head.seq.saturating_add(1));
            if missing > 0 && filter.matches(&line) {
                last.push_back(line.head.seq);
                if last.len() > missing {
                    last.pop_front();
                }
            }
        }
        first = last.front().copied().or(first);
        missing -= last.len();
        end = segment;
        if missing == 0 {
            break;
        }
    }
    Ok(first.unwrap_or(next))
}

/// The log up to its present end, or on and on.
enum Source {
    Past(Reader),
    Followed(Follower),
}

impl Source {
    fn open(reader: Reader, follow: bool) -> Result<Self, LogError> {
        if follow { Follower::new(reader).map(Self::Followed) } else { Ok(Self::Past(reader)) }
    }

    fn next_item(&mut self) -> Result<Option<Item<'_>>, LogError> {
        match self {
            Self::Past(reader) => reader.next_item(),
            Self::Followed(follower) => follower.next_item(),
        }
    }

    /// Waits for more; says whether there can be any.
    fn wait(&mut self) -> Result<bool, LogError> {
        match self {
            Self::Past(_) => Ok(false),
            Self::Followed(follower) => {
                Ok(follower.wait(Some(io::stdout().as_fd()), None)? != Wake::OutputClosed)
            }
        }
    }
}

/// Writes events to the standard output, and what is wrong with the log to the standard error.
struct Output {
    style: Style,
    text: String,
    /// Bytes of the log that could not be read, and have not been told of.
    damaged: Option<Damaged>,
    /// Events of another version, that have not been told of.
    unreadable: u64,
}

struct Damaged {
    segment: PathBuf,
    offset: u64,
    bytes: u64,
}

impl Output {
    fn new(form: Form) -> Self {
        let terminal = io::stdout().is_terminal();
        let wanted = |name, plain: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| plain(&value));
        let plain = wanted("NO_COLOR", |value| !value.is_empty()) || wanted("TERM", |value| value == "dumb");
        let style = Style { form, terminal, colour: terminal && !plain, zone: TimeZone::system() };
        Self { style, text: String::new(), damaged: None, unreadable: 0 }
    }

    fn take(&mut self, item: &Item<'_>) -> Result<(), Stop> {
        match item {
            Item::Line(line) => self.event(line),
            Item::Damaged { segment, offset, bytes } => self.damaged(segment, *offset, *bytes),
            Item::Missing { first, last } => {
                self.write()?;
                tell(&format!("events {first} to {last} are missing from the log here"));
                Ok(())
            }
        }
    }

    fn event(&mut self, line: &Line<'_>) -> Result<(), Stop> {
        if self.damaged.is_some() {
            self.write()?;
        }
        let before = self.text.len();
        if self.style.show(line, &mut self.text).is_err() {
            self.text.truncate(before);
            self.unreadable += 1;
        }
        if self.text.len() < WRITE_BYTES {
            return Ok(());
        }
        self.write()
    }

    fn damaged(&mut self, segment: &Path, offset: u64, bytes: u64) -> Result<(), Stop> {
        if let Some(before) = &mut self.damaged
            && before.segment == segment
            && before.offset + before.bytes == offset
        {
            before.bytes += bytes;
            return Ok(());
        }
        self.write()?;
        self.damaged = Some(Damaged { segment: segment.to_owned(), offset, bytes });
        Ok(())
    }

    /// Writes what was gathered, then what is to be told.
    fn write(&mut self) -> Result<(), Stop> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(self.text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Stop::Closed),
            written => written?,
        }
        self.text.clear();
        if let Some(Damaged { segment, offset, bytes }) = self.damaged.take() {
            let segment = segment.display();
            tell(&format!("{bytes} bytes of `{segment}` from byte {offset} on are damaged and not shown"));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Stop> {
        self.write()?;
        let unreadable = std::mem::take(&mut self.unreadable);
        if unreadable > 0 {
            tell(&format!(
                "events that another version of agentwatch wrote are not shown ({unreadable} of them): `-o json` \
                 shows them"
            ));
        }
        Ok(())
    }
}

fn tell(sentence: &str) {
    // Nobody left to tell is no reason to stop.
    let _ = writeln!(io::stderr(), "agentwatch: {}", crate::output::escape::escape(sentence));
}
