//! The spanned tree as a policy: every name resolved, every pattern read, all problems at once.

mod agents;
mod cases;
mod guards;
mod helpers;
mod hooks;
mod matches;
mod patterns;
mod resources;
mod rules;
mod values;
mod windows;

pub use self::values::seconds;

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{
    At, Code, Diagnostic, Node, Own, Place, Policy, Problems, Scope, Severity, Source, Users, Value, checks,
    keys, parse, read,
};

/// Agents of one policy. Past it the policy is refused.
pub const AGENTS_MAX: usize = 1024;
/// Patterns in all `match` of one policy: the kernel's automaton for them has room for about as many. Past
/// it the policy is refused.
pub const PATTERNS_MAX: usize = 4096;
/// Resources of one policy. Past it the policy is refused.
pub const RESOURCES_MAX: usize = 4096;
/// Windows of one policy: an address can have to be held against each. Past it the policy is refused.
pub const WINDOWS_MAX: usize = 32;
/// Rules of one policy: the kernel has 16 bits for a rule. Past it the policy is refused.
pub const RULES_MAX: usize = agentwatch_common::rules::RULES_MAX as usize;
/// Patterns in all rules and resources of one policy. Past it the policy is refused.
pub const RULE_PATTERNS_MAX: usize = 65_536;
/// Test cases of one policy. Past it the policy is refused.
pub const CASES_MAX: usize = 16_384;
/// Problems that are told of. Of more, only their number.
pub const PROBLEMS_MAX: usize = 1_000;

/// What a policy is read against.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The users of this host.
    pub users: &'a Users,
    /// Now, in nanoseconds since 1970: windows that have ended are warned of.
    pub now_ns: u64,
}

/// Reads a policy file, or a folder of them, as one policy; gives it with the warnings.
///
/// # Errors
/// All problems at once.
pub fn load(path: &Path, context: Context<'_>) -> Result<(Policy, Vec<Diagnostic>), Problems> {
    let (sources, mut warnings) = read(path)?;
    let (policy, more) = policy_of(sources, context).map_err(|mut problems| {
        problems.0.extend(warnings.clone());
        problems
    })?;
    warnings.extend(more);
    Ok((policy, warnings))
}

/// Reads a policy whose files were read; gives it with the warnings.
///
/// # Errors
/// All problems at once.
pub fn policy_of(sources: Vec<Source>, context: Context<'_>) -> Result<(Policy, Vec<Diagnostic>), Problems> {
    let mut reader = Reader::new(&sources, context);
    let trees: Vec<Option<Rc<Node>>> = sources
        .iter()
        .enumerate()
        .map(|(index, source)| {
            let tree = parse(source);
            tree.map_err(|problem| reader.keep(index, *problem)).ok()
        })
        .collect();
    let sections = reader.sections(&trees);
    let mut policy = reader.policy(sections);
    drop(trees);
    let (problems, is_whole) = reader.problems();
    policy.sources = sources.into();
    if !is_whole {
        return Err(Problems(problems));
    }
    let mut warnings = problems;
    warnings.extend(checks::warnings(&policy, context.now_ns));
    let file = |one: &Diagnostic| policy.sources.iter().position(|source| source.name == one.file);
    warnings.sort_by_key(|one| (file(one), one.place));
    Ok((policy, warnings))
}

/// Something with a name: its declaration.
#[derive(Clone, Copy)]
struct Item<'n> {
    source: usize,
    name: &'n str,
    place: Place,
    node: &'n Node,
}

/// The parts of all files.
#[derive(Default)]
struct Sections<'n> {
    resources: Vec<Item<'n>>,
    agents: Vec<Item<'n>>,
    windows: Vec<Item<'n>>,
    rules: Vec<(usize, &'n Node)>,
    hooks: Vec<(usize, &'n Node)>,
    cases: Vec<(usize, &'n Node)>,
}

/// Names of one kind, each with its index.
type Names = HashMap<String, usize>;

/// A key of a map with its value.
type KeyValue<'n> = (&'n str, Place, &'n Node);

/// Reads all files.
struct Reader<'a> {
    sources: &'a [Source],
    context: Context<'a>,
    /// The file that is being read.
    source: usize,
    resources: Names,
    /// For each resource, whether it has addresses and whether it has files.
    resource_has: Vec<(bool, bool)>,
    agents: Names,
    windows: Names,
    /// What rules without `unless` have there.
    nothing: Arc<Scope>,
    match_patterns: usize,
    rule_patterns: usize,
    problems: Vec<(usize, Diagnostic)>,
    /// Problems beyond those that are told of.
    untold: usize,
    /// Whether an error is among all of them.
    refused: bool,
}

impl<'a> Reader<'a> {
    fn new(sources: &'a [Source], context: Context<'a>) -> Self {
        Self {
            sources,
            context,
            source: 0,
            resources: Names::new(),
            resource_has: Vec::new(),
            agents: Names::new(),
            windows: Names::new(),
            nothing: Arc::default(),
            match_patterns: 0,
            rule_patterns: 0,
            problems: Vec::new(),
            untold: 0,
            refused: false,
        }
    }

    /// What each file declares. Names are known from here on, so that their order means nothing.
    fn sections<'n>(&mut self, trees: &'n [Option<Rc<Node>>]) -> Sections<'n> {
        let mut sections = Sections::default();
        for (index, tree) in trees.iter().enumerate() {
            if let Some(root) = tree {
                self.source = index;
                self.file(root, &mut sections);
            }
        }
        self.resources = self.declare(&mut sections.resources, "resource", RESOURCES_MAX);
        self.agents = self.declare(&mut sections.agents, "agent", AGENTS_MAX);
        self.windows = self.declare(&mut sections.windows, "window", WINDOWS_MAX);
        sections
    }

    fn file<'n>(&mut self, root: &'n Node, sections: &mut Sections<'n>) {
        if root.value == Value::Null {
            let help = Some("begin with `version: 1`".to_owned());
            self.report(Code::MissingKey, root.place, "the policy file is empty", help);
            return;
        }
        let entries = self.entries(root, "the policy");
        if matches!(root.value, Value::Map(_)) && !entries.iter().any(|(key, ..)| *key == "version") {
            let place = Place { line: 1, column: 1, width: 1 };
            let help = Some("add `version: 1` as the first line".to_owned());
            self.report(Code::MissingKey, place, "the policy does not say its version", help);
        }
        for (key, place, value) in entries {
            match key {
                "version" => self.version(value),
                "resources" => self.named(value, "`resources`", &mut sections.resources),
                "agents" => self.named(value, "`agents`", &mut sections.agents),
                "windows" => self.named(value, "`windows`", &mut sections.windows),
                "rules" => self.listed(value, "rules", &mut sections.rules, RULES_MAX),
                "hooks" => sections.hooks.push((self.source, value)),
                "tests" => self.listed(value, "tests", &mut sections.cases, CASES_MAX),
                _ => self.unknown_key(key, place, "a policy", &keys::TOP),
            }
        }
    }

    fn version(&mut self, node: &Node) {
        if node.text() != Some("1") {
            let help = Some("write `version: 1`".to_owned());
            let message = "this agentwatch reads version 1 of the policy";
            self.report(Code::WrongVersion, node.place, message, help);
        }
    }

    /// A map of names; nothing at all counts as an empty one.
    fn named<'n>(&mut self, node: &'n Node, what: &str, items: &mut Vec<Item<'n>>) {
        if node.value != Value::Null {
            let source = self.source;
            let entries = self.entries(node, what);
            items.extend(entries.into_iter().map(|(name, place, node)| Item { source, name, place, node }));
        }
    }

    /// A list of things without names; nothing at all counts as an empty one.
    fn listed<'n>(&mut self, node: &'n Node, what: &str, items: &mut Vec<(usize, &'n Node)>, max: usize) {
        match &node.value {
            Value::Null => {}
            Value::List(nodes) => {
                let room = max.saturating_sub(items.len());
                if let Some(extra) = nodes.get(room) {
                    let message = format!("a policy has at most {max} {what}: this is one more");
                    self.report(Code::TooMany, extra.place, message, None);
                }
                items.extend(nodes.iter().take(room).map(|node| (self.source, node.as_ref())));
            }
            _ => {
                let message = format!("`{what}` is a list, and this is {}", node.kind());
                let help = Some(format!("write each of the {what} with `- ` in front"));
                self.report(Code::WrongType, node.place, message, help);
            }
        }
    }

    /// Gives each name its index; removes those that repeat.
    fn declare(&mut self, items: &mut Vec<Item<'_>>, what: &str, max: usize) -> Names {
        let mut names = Names::new();
        let mut kept: Vec<Item<'_>> = Vec::new();
        for item in items.iter() {
            self.source = item.source;
            self.check_name(item.name, item.place, what);
            if let Some(first) = names.get(item.name).and_then(|&index| kept.get(index)) {
                let file = self.sources.get(first.source).map_or("policy", |source| &source.name);
                let message =
                    format!("the {what} `{}` is already declared at {file}:{}", item.name, first.place.line);
                self.report(Code::DuplicateName, item.place, message, Some("rename one of the two".into()));
            } else if kept.len() == max {
                let message = format!("a policy has at most {max} {what}s: this is one more");
                self.report(Code::TooMany, item.place, message, None);
                break;
            } else {
                names.insert(item.name.to_owned(), kept.len());
                kept.push(*item);
            }
        }
        *items = kept;
        names
    }

    fn policy(&mut self, sections: Sections<'_>) -> Policy {
        let resources = sections.resources.iter().map(|item| self.resource(item)).collect::<Vec<_>>();
        self.resource_has =
            resources.iter().map(|one| (!one.connect.is_empty(), !one.files.is_empty())).collect();
        let windows = sections.windows.iter().map(|item| self.window(item)).collect();
        let agents = sections.agents.iter().map(|item| self.agent(item)).collect();
        let rules = self.rules(&sections.rules);
        let cases =
            sections.cases.iter().filter_map(|(source, node)| self.case(*source, node, &rules)).collect();
        let required_hooks =
            sections.hooks.iter().flat_map(|(source, node)| self.hooks(*source, node)).collect();
        let (sources, own) = (Arc::default(), Own::default());
        Policy { sources, resources, agents, windows, rules, required_hooks, cases, own }
    }

    fn at(&self, place: Place) -> At {
        At { source: self.source, place }
    }

    fn keep(&mut self, source: usize, problem: Diagnostic) {
        if self.is_full() {
            return self.count(problem.code);
        }
        self.refused |= problem.code.severity() == Severity::Error;
        self.problems.push((source, problem));
    }

    fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    /// Counts a problem that is not told of.
    fn count(&mut self, code: Code) {
        self.refused |= code.severity() == Severity::Error;
        self.untold += 1;
    }

    /// All problems in the order of files and lines, and whether the policy can be used all the same.
    fn problems(self) -> (Vec<Diagnostic>, bool) {
        let mut problems = self.problems;
        problems.sort_by_key(|(source, problem)| (*source, problem.place));
        let mut problems: Vec<_> = problems.into_iter().map(|(_, problem)| problem).collect();
        if self.untold > 0 {
            let file = self.sources.first().map_or("policy", |source| &source.name);
            let code = if self.refused { Code::TooMany } else { Code::Untold };
            let message = format!("there are {} more problems: fix these first", self.untold);
            problems.push(Diagnostic::of_file(code, file, message));
        }
        (problems, !self.refused)
    }
}
