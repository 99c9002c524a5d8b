//! What an intent says that will be done, and whether an event is that.

use std::collections::BTreeMap;

use crate::{
    event::{Event, Kind, Op},
    policy::{
        self, AddressPattern, Context, Entry, PastOperation, PastTarget, Policy, SINKS, Scope, Source,
        TERMINALS, Target, Users, What, operations_of,
    },
};

/// What an intent's scope is written as: patterns by operation.
pub type Stated = BTreeMap<Op, Vec<String>>;

/// Patterns of one scope, those of its resources included: each event of the session is held against all of them. Past
/// it the scope is refused.
pub const PATTERNS_MAX: usize = 64;
/// What an entry that names a resource begins with.
const RESOURCE: &str = "resource:";

/// Why a scope cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// It says nothing.
    #[error(
        "the scope names nothing: say what is about to be used, such as {{\"write\": [\"/home/dev/work\"]}}"
    )]
    Empty,
    /// It says too much.
    #[error(
        "the scope has {0} patterns, and {PATTERNS_MAX} are the most: name folders, or what they have in common"
    )]
    TooMany(usize),
    /// A pattern cannot be read.
    #[error("the scope cannot be used: {0}")]
    Bad(String),
    /// The kernel tells addresses and no names.
    #[error(
        "the scope names the host `{0}`: what is done is known by addresses, so write those, such as `192.0.2.0/24:443`"
    )]
    Name(String),
}

/// Reads a scope as a rule's map is read. Gives it also as it is written where resources, which are those of the policy in
/// force, are what they stand for.
///
/// # Errors
/// See [`ScopeError`].
pub fn read(stated: &Stated, policy: &Policy) -> Result<(Stated, Scope), ScopeError> {
    let stated: Stated = stated.iter().map(|(op, patterns)| (*op, resolved(*op, patterns, policy))).collect();
    match stated.values().map(Vec::len).sum() {
        0 => return Err(ScopeError::Empty),
        count if count > PATTERNS_MAX => return Err(ScopeError::TooMany(count)),
        _ => {}
    }
    let read = policy_of(&stated).map_err(|problem| named(&stated, problem))?;
    let rule = read.rules.first().ok_or(ScopeError::Empty)?;
    if let Some(name) = read.names_in(&rule.scope).next() {
        return Err(ScopeError::Name(name.to_string()));
    }
    let mut scope = Scope::clone(&rule.scope);
    // Who could not reach the daemon any more could not say what comes next.
    let open = policy.own.open_sockets.iter().cloned().map(AddressPattern::of_paths);
    scope.connect.extend(open.map(|pattern| Entry { at: rule.at, what: What::Pattern(pattern) }));
    Ok((stated, scope))
}

/// A policy with this scope: JSON is YAML, so that one reader knows all patterns.
fn policy_of(stated: &Stated) -> Result<Policy, String> {
    let json = serde_json::to_string(stated).map_err(|error| error.to_string())?;
    let text = format!("version: 1\nrules:\n  - name: intent\n    allow: {json}\n");
    let source = Source { name: "scope".into(), text };
    let read = policy::policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 });
    read.map(|(policy, _)| policy).map_err(|problems| {
        problems.0.first().map_or_else(String::new, |problem| problem.message.to_string())
    })
}

/// A problem with the pattern that has it.
fn named(stated: &Stated, problem: String) -> ScopeError {
    let mut patterns = stated.iter().flat_map(|(op, patterns)| patterns.iter().map(|one| (*op, one)));
    let found = patterns.find_map(|(op, pattern)| {
        let problem = policy_of(&Stated::from([(op, vec![pattern.clone()])])).err()?;
        Some(format!("`{pattern}` for {}: {problem}", op.name()))
    });
    ScopeError::Bad(found.unwrap_or(problem))
}

/// The patterns, with those of a resource in the place of its name. A name that there is not stays, and is no pattern.
fn resolved(op: Op, patterns: &[String], policy: &Policy) -> Vec<String> {
    let of_resource = |name: &str| {
        let resource = policy.resources.iter().find(|one| one.name == name)?;
        Some(match op {
            Op::Connect | Op::Listen => resource.connect.iter().map(|one| one.text().to_owned()).collect(),
            _ => resource.files.iter().map(|one| one.text().to_owned()).collect::<Vec<_>>(),
        })
    };
    let resolve = |pattern: &String| match pattern.strip_prefix(RESOURCE).and_then(of_resource) {
        Some(patterns) => patterns,
        None => vec![pattern.clone()],
    };
    patterns.iter().flat_map(resolve).collect()
}

/// What an event is to an intent: its operations, as far as they are held against what was said.
#[derive(Debug)]
pub struct Acts(Vec<PastOperation>);

impl Acts {
    /// Nothing where the event is no operation.
    pub fn of(event: &Event) -> Option<Self> {
        let mut operations = operations_of(event);
        operations.retain(|one| one.is_asked_for() && !(event.kind == Kind::FileOpen && is_sink(one)));
        if event.kind == Kind::FileRename {
            // Whether something was at the other place, and is gone by it, is not known.
            operations.truncate(2);
        }
        if operations.is_empty() { None } else { Some(Self(operations)) }
    }

    /// Whether a scope covers all of it.
    ///
    /// Reading is held against a scope only where that says what is read: no program runs without reading. The start of a
    /// program is covered by its path or by its command line.
    pub fn are_within(&self, scope: &Scope) -> bool {
        let is_start = |one: &&PastOperation| matches!(one.op, Op::Exec | Op::Run);
        let mut starts = self.0.iter().filter(is_start).peekable();
        let is_covered = |one: &PastOperation| scope.has(one.op) && covers(scope, one);
        let started = starts.peek().is_none() || starts.any(is_covered);
        let optional = |op: Op| op == Op::Read && !scope.has(op);
        let mut others = self.0.iter().filter(|one| !is_start(one));
        started && others.all(|one| optional(one.op) || covers(scope, one))
    }
}

/// Whether nothing is kept of what is written there: no program is held to its terminal, nor to `/dev/null`.
fn is_sink(operation: &PastOperation) -> bool {
    let PastTarget::Whole(Target::Path(path)) = &operation.target else { return false };
    let below = path.strip_prefix(TERMINALS.as_bytes());
    let is_one = below.is_some_and(|rest| rest.starts_with(b"/"))
        || SINKS.iter().any(|sink| sink.as_bytes() == path.as_slice());
    is_one && matches!(operation.op, Op::Write | Op::Delete)
}

fn covers(scope: &Scope, operation: &PastOperation) -> bool {
    let target = match &operation.target {
        PastTarget::Whole(Target::Address(address)) => Target::Address(address.canonical(operation.op)),
        PastTarget::Whole(target) => target.clone(),
        // What is not known whole is not known to be covered.
        PastTarget::Partial(_) => return false,
    };
    // A scope that was read has no resources: they stand in it as patterns.
    scope.hit(&Policy::default(), &policy::Operation { op: operation.op, target }).is_some()
}
