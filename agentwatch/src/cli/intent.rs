//! `agentwatch intent`: what sessions are said to be about to do, and what came of it.

mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use self::text::{list, show};
use super::print::{self, Format};
use crate::control::Client;
use crate::control::intent::{IntentBody, IntentCheckBody, IntentView};
use crate::event::Op;
use crate::exit;
use crate::paths::Paths;
use crate::policy::{self, Node, Source, Value};

/// Say what a session is about to do, see what was said and what came of it
#[derive(Clone, Debug, Args)]
pub struct IntentArgs {
    #[command(subcommand)]
    command: IntentCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum IntentCommand {
    Declare(Box<DeclareArgs>),
    List(ListArgs),
    Show(OneArgs),
    Close(OneArgs),
    Check(CheckArgs),
}

/// Say what a session is about to do: its events tell from then on whether they are that
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  sudo agentwatch intent declare --session coding-7f3k2q --task 'rotate the logs' \\
      --write /var/log/app --exec /usr/sbin/logrotate --expires 10m
  agentwatch intent declare --task 'run the tests' --run 'cargo test*'     inside a session
  agentwatch intent declare --file task.yaml
  sudo agentwatch intent declare --session coding-7f3k2q --binding --write /var/log/app
  agentwatch intent declare --plan plan.txt         lines such as `write /etc/app.conf`

Patterns are those of rules. A file is YAML or JSON with the same words, such as
  task: rotate the logs
  scope: {write: [/var/log/app], exec: [/usr/sbin/logrotate]}
  expires: 10m

Each step of a plan is judged by the policy in force, as `agentwatch policy explain` does it. Where it
refuses one, all that it refuses are named, and nothing is declared; else the steps are part of the scope.

With --binding the kernel refuses what the intent does not cover, from the moment at which this command
ends until the intent is over or closed. Only operators bind.

With --session it needs root outside of all sessions. Without, it is about the session that the
command itself is in, whatever user that has. What is declared never opens what the policy refuses.

Exit codes: 0 declared, 1 the daemon refused, 2 it cannot be used, 3 the policy refuses some of the plan,
5 the daemon is not reachable, 6 not for this session, or no permission.")]
pub struct DeclareArgs {
    /// The session, or a beginning of its id that no other has
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Read it from a file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What is to be reached, for people
    #[arg(long, value_name = "TEXT")]
    pub task: Option<String>,
    /// The prompt that led to it, or an id of that
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// When it is over: 10m, 1h30m, or a time; an hour without
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Read the steps that will be done from a file: `OP TARGET` a line. All are judged first
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Programs that will be started
    #[arg(long, value_name = "GLOB")]
    pub exec: Vec<String>,
    /// Command lines that will be run
    // `run` is the id of `--run-dir`, which all commands have.
    #[arg(long = "run", id = "run-glob", value_name = "GLOB")]
    pub run: Vec<String>,
    /// Files that will be read; where nothing is said of reading, it is not held against the intent
    #[arg(long, value_name = "GLOB")]
    pub read: Vec<String>,
    /// Files that will be written
    #[arg(long, value_name = "GLOB")]
    pub write: Vec<String>,
    /// Files that will be deleted
    #[arg(long, value_name = "GLOB")]
    pub delete: Vec<String>,
    /// Addresses that will be reached
    #[arg(long, value_name = "ADDRESS")]
    pub connect: Vec<String>,
    /// Addresses that will be listened at
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// Have the kernel refuse what it does not cover; only for operators
    #[arg(long)]
    pub binding: bool,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// List what was declared and counts now
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch intent list
  agentwatch intent list --all -o json | jq '.intents[] | select(.outside > 0)'

ALIGNED counts the events that an intent covered, OUTSIDE those that nothing in force covered while
it was the latest. CHECKS says how many failed, or else passed.

Needs root and a running daemon. Exit codes: 0 done, 5 the daemon is not reachable, 6 no permission.")]
pub struct ListArgs {
    /// Show what is over too
    #[arg(long)]
    pub all: bool,
    /// Only of this session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// One intent: `show` tells all of it, `close` has it count no longer
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch intent show int-7f3k2q
  agentwatch intent close int-7f3k2q

Needs root and a running daemon. Exit codes: 0 done, 2 no such intent, 5 the daemon is not reachable,
6 no permission.")]
pub struct OneArgs {
    /// Its id
    #[arg(value_name = "INTENT")]
    pub id: String,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Say whether what was done is what it should be, after somebody looked
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch intent check int-7f3k2q --passed
  agentwatch intent check int-7f3k2q --failed --note '3 rows are missing'
  make test && agentwatch intent check $ID --passed || agentwatch intent check $ID --failed

Each is an event (intent.checked) and counts in `agentwatch slo`; of one intent the latest 16 are shown.
What a process of the session itself says is told as the agent's word.

Needs root and a running daemon. Exit codes: 0 done, 2 no such intent, 5 the daemon is not reachable,
6 not for this session, or no permission.")]
pub struct CheckArgs {
    /// Its id
    #[arg(value_name = "INTENT")]
    pub id: String,
    /// It is what it should be
    #[arg(long, required_unless_present = "failed", conflicts_with = "failed")]
    pub passed: bool,
    /// It is not
    #[arg(long)]
    pub failed: bool,
    /// What was looked at, or what is wrong
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Why nothing is declared, where that is not the daemon's doing.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no intent.
    #[error("`{}` is no intent, such as `{{task: tidy up, scope: {{write: [/tmp/x]}}}}`: {problem}", path.display())]
    Text {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It is given twice.
    #[error("what `--file` says cannot be said by other options too: leave out {0}")]
    Twice(&'static str),
}

impl IntentError {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The daemon cannot be asked or refuses, or the answer cannot be written.
pub fn run(args: &IntentArgs, paths: &Paths) -> anyhow::Result<u8> {
    let client = Client::new(paths);
    match &args.command {
        IntentCommand::Declare(args) => {
            let view = client.declare(&body(args)?)?;
            let text = format!("{}\n", view.id);
            print_one(&view, args.output, text)?;
            if view.binding && !view.scope.contains_key(&Op::Connect) {
                eprintln!("{NO_CONNECTIONS}");
            }
        }
        IntentCommand::List(args) => {
            let mut view = client.intents(args.all)?;
            view.intents
                .retain(|one| args.session.as_ref().is_none_or(|wanted| one.session.starts_with(&**wanted)));
            let text = match args.output {
                Format::Json => print::json(&view, print::to_terminal())?,
                Format::Text => list(&view, args.all, print::terminal_width()),
            };
            print::print(&text)?;
        }
        IntentCommand::Show(args) => {
            let view = client.intent(&args.id)?;
            print_one(&view, args.output, show(&view))?;
        }
        IntentCommand::Close(args) => {
            let view = client.close_intent(&args.id)?;
            print_one(&view, args.output, show(&view))?;
        }
        IntentCommand::Check(args) => {
            let body = IntentCheckBody { passed: args.passed, note: args.note.clone() };
            let view = client.check_intent(&args.id, &body)?;
            print_one(&view, args.output, show(&view))?;
        }
    }
    Ok(exit::DONE)
}

/// Said of a binding intent where it is true, as few mean it.
const NO_CONNECTIONS: &str = "agentwatch: the intent does not speak of `connect`, so that its session opens no new connection, \
                              not even to the agent's model: where it needs one, declare it again with `--connect '*:443'` \
                              or the like";

fn print_one(view: &IntentView, format: Format, text: String) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => print::json(view, print::to_terminal())?,
        Format::Text => text,
    };
    Ok(print::print(&text)?)
}

fn body(args: &DeclareArgs) -> Result<IntentBody, IntentError> {
    let mut scope = BTreeMap::new();
    for (op, patterns) in [
        (Op::Exec, &args.exec),
        (Op::Run, &args.run),
        (Op::Read, &args.read),
        (Op::Write, &args.write),
        (Op::Delete, &args.delete),
        (Op::Connect, &args.connect),
        (Op::Listen, &args.listen),
    ] {
        if !patterns.is_empty() {
            scope.insert(op, patterns.clone());
        }
    }
    let plan = args.plan.as_deref().map(read_plan).transpose()?.unwrap_or_default();
    let Some(path) = &args.file else {
        return Ok(IntentBody {
            plan,
            session: args.session.clone(),
            task: args.task.clone(),
            prompt: args.prompt.clone(),
            expires: args.expires.clone(),
            scope,
            binding: args.binding,
            ..IntentBody::default()
        });
    };
    if !scope.is_empty() {
        return Err(IntentError::Twice("the patterns"));
    }
    let mut body = read_file(path)?;
    body.binding |= args.binding;
    if !plan.is_empty() && !body.plan.is_empty() {
        return Err(IntentError::Twice("--plan"));
    }
    body.plan.extend(plan);
    for (option, from_file, given) in [
        ("--session", &mut body.session, &args.session),
        ("--task", &mut body.task, &args.task),
        ("--prompt", &mut body.prompt, &args.prompt),
        ("--expires", &mut body.expires, &args.expires),
    ] {
        if given.is_some() && from_file.is_some() {
            return Err(IntentError::Twice(option));
        }
        if given.is_some() {
            from_file.clone_from(given);
        }
    }
    Ok(body)
}

/// Reads a plan: a step a line; lines that are empty or begin with `#` are none.
fn read_plan(path: &Path) -> Result<Vec<String>, IntentError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| IntentError::File { path: path.to_owned(), source })?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// Reads what is to be declared from a file.
///
/// # Errors
/// It cannot be read, or is no intent.
pub fn read_file(path: &Path) -> Result<IntentBody, IntentError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| IntentError::File { path: path.to_owned(), source })?;
    parse(&text).map_err(|problem| IntentError::Text { path: path.to_owned(), problem })
}

/// Reads JSON, or else YAML, in which every scalar is a text.
fn parse(text: &str) -> Result<IntentBody, String> {
    if text.trim_start().starts_with('{')
        && let Ok(body) = serde_json::from_str(text)
    {
        return Ok(body);
    }
    let source = Source { name: "intent".into(), text: text.to_owned() };
    let tree = policy::parse(&source).map_err(|problem| problem.message.to_string())?;
    let mut json = json_of(&tree);
    if let Some(binding) = json.get_mut("binding")
        && let Some(said) = binding.as_str().and_then(|text| text.parse::<bool>().ok())
    {
        *binding = Json::Bool(said);
    }
    serde_json::from_value(json).map_err(|error| error.to_string())
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Text(text) => Json::String(text.clone()),
        Value::List(nodes) => Json::Array(nodes.iter().map(|node| json_of(node)).collect()),
        Value::Map(entries) => {
            let entry = |(key, value): &(Rc<Node>, Rc<Node>)| {
                (key.text().unwrap_or_default().to_owned(), json_of(value))
            };
            Json::Object(entries.iter().map(entry).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_yaml_or_json() {
        let wanted = IntentBody {
            task: Some("rotate".into()),
            scope: [(Op::Write, vec!["/var/log/app".to_owned()])].into(),
            expires: Some("10m".into()),
            ..IntentBody::default()
        };
        let yaml = "task: rotate\nscope: {write: [/var/log/app]}\nexpires: 10m\n";
        let json = r#" {"task": "rotate", "scope": {"write": ["/var/log/app"]}, "expires": "10m"}"#;
        assert_eq!((parse(yaml), parse(json)), (Ok(wanted.clone()), Ok(wanted)));
        for (text, said) in [
            ("task: x\nscope: {write: [/a]}\nscop: 1\n", "unknown field `scop`"),
            ("scope: {writes: [/a]}\n", "unknown variant `writes`"),
            ("scope: [", "did not find"),
            ("", "invalid type"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(said), "{text}: {problem}");
        }
    }

    #[test]
    fn what_a_file_says_is_said_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "task: a\nscope: {write: [/a]}\n").unwrap();
        let of_file = DeclareArgs { file: Some(file.path().to_owned()), ..DeclareArgs::default() };
        assert_eq!(body(&of_file).unwrap().task.as_deref(), Some("a"));
        let more = DeclareArgs { expires: Some("1m".into()), ..of_file.clone() };
        assert_eq!(body(&more).unwrap().expires.as_deref(), Some("1m"));
        let plan = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(plan.path(), "# first\n\n write /a/b \nrun make all\n").unwrap();
        let planned = DeclareArgs { plan: Some(plan.path().to_owned()), ..of_file.clone() };
        assert_eq!(body(&planned).unwrap().plan, ["write /a/b", "run make all"]);
        for twice in [
            DeclareArgs { task: Some("b".into()), ..of_file.clone() },
            DeclareArgs { exec: vec!["/bin/sh".into()], ..of_file },
        ] {
            assert!(matches!(body(&twice), Err(IntentError::Twice(_))));
        }
    }
}
