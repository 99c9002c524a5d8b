//! The `agents` part of a policy, and the refusal of whatever this version does not enforce yet.

use std::collections::HashMap;
use std::path::Path;

use super::{AgentSpec, Match, Mode, Origin, Users};
use crate::matcher::{CgroupGlob, CommandGlob, GlobError, PathGlob};
use crate::policy::{Code, Diagnostic, Node, Place, Problems, Severity, Source, Value, parse, read};

/// Agents of one policy. Past it the policy is refused.
pub const AGENTS_MAX: usize = 1024;
/// Entries in all `match` of one policy. Past it the policy is refused.
pub const PATTERNS_MAX: usize = 4096;

const TOP_KEYS: [&str; 5] = ["version", "agents", "resources", "windows", "rules"];
const AGENT_KEYS: [&str; 6] = ["owner", "match", "mode", "default", "guards", "breakers"];
const MATCH_KEYS: [&str; 5] = ["exec", "run", "unit", "cgroup", "user"];
/// Bytes of an agent's name.
const NAME_BYTES_MAX: usize = 64;

/// Reads the agents of a policy file, or of a folder of them; gives them with the warnings.
///
/// # Errors
/// All problems at once.
pub fn load(path: &Path, users: &Users) -> Result<(Vec<AgentSpec>, Vec<Diagnostic>), Problems> {
    let (sources, mut warnings) = read(path)?;
    let (agents, more) = agents_of(&sources, users)?;
    warnings.extend(more);
    Ok((agents, warnings))
}

/// The agents of a policy whose files were read; gives them with the warnings.
///
/// # Errors
/// All problems at once.
pub fn agents_of(sources: &[Source], users: &Users) -> Result<(Vec<AgentSpec>, Vec<Diagnostic>), Problems> {
    let mut problems = Vec::new();
    let mut agents: Vec<AgentSpec> = Vec::new();
    let mut declared: HashMap<String, (String, usize)> = HashMap::new();
    for source in sources {
        let mut reader = Reader { source, users, problems: Vec::new(), patterns: 0 };
        match parse(source) {
            Err(problem) => reader.problems.push(*problem),
            Ok(root) => {
                for (name, place, agent) in reader.file(&root) {
                    if let Some((file, line)) = declared.get(&name) {
                        let message = format!("the agent `{name}` is already declared at {file}:{line}");
                        reader.report(
                            Code::DuplicateAgent,
                            place,
                            message,
                            Some("rename one of the two".into()),
                        );
                        continue;
                    }
                    declared.insert(name, (source.name.to_string(), place.line));
                    agents.push(agent);
                }
            }
        }
        reader.problems.sort_by_key(|problem| problem.place);
        problems.extend(reader.problems);
    }
    let patterns: usize = agents.iter().map(|agent| agent.matches.len()).sum();
    if agents.len() > AGENTS_MAX || patterns > PATTERNS_MAX {
        let message = format!(
            "the policy has {} agents with {patterns} patterns, and can have {AGENTS_MAX} with {PATTERNS_MAX}",
            agents.len()
        );
        let file = sources.first().map_or("policy", |source| &source.name);
        problems.push(Diagnostic::of_file(Code::TooMany, file, message));
    }
    if problems.iter().any(|problem| problem.code.severity() == Severity::Error) {
        return Err(Problems(problems));
    }
    Ok((agents, problems))
}

/// Reads one file.
struct Reader<'a> {
    source: &'a Source,
    users: &'a Users,
    problems: Vec<Diagnostic>,
    patterns: usize,
}

/// A key of a map with its value.
type Entry<'n> = (&'n str, Place, &'n Node);

impl Reader<'_> {
    fn report(&mut self, code: Code, place: Place, message: impl Into<String>, help: Option<String>) {
        let mut problem = Diagnostic::new(code, self.source, place, message);
        problem.help = help;
        self.problems.push(problem);
    }

    fn file(&mut self, root: &Node) -> Vec<(String, Place, AgentSpec)> {
        if root.value == Value::Null {
            let help = Some("begin with `version: 1`".to_owned());
            self.report(Code::MissingKey, root.place, "the policy file is empty", help);
            return Vec::new();
        }
        let mut agents = Vec::new();
        let entries = self.entries(root, "the policy");
        if matches!(root.value, Value::Map(_)) && !entries.iter().any(|(key, ..)| *key == "version") {
            let place = Place { line: 1, column: 1, width: 1 };
            let help = Some("add `version: 1` as the first line".to_owned());
            self.report(Code::MissingKey, place, "the policy does not say its version", help);
        }
        for (key, place, value) in entries {
            match key {
                "version" => self.version(value),
                "agents" => {
                    for (name, place, node) in self.entries(value, "`agents`") {
                        let agent = self.agent(name, place, node);
                        agents.push((name.to_owned(), place, agent));
                    }
                }
                "resources" | "windows" | "rules" => self.not_yet(key, place),
                _ => self.unknown_key(key, place, "a policy", &TOP_KEYS),
            }
        }
        agents
    }

    fn version(&mut self, node: &Node) {
        if node.text() != Some("1") {
            let help = Some("write `version: 1`".to_owned());
            self.report(
                Code::WrongVersion,
                node.place,
                "this agentwatch reads version 1 of the policy",
                help,
            );
        }
    }

    fn agent(&mut self, name: &str, place: Place, node: &Node) -> AgentSpec {
        self.check_name(name, place);
        let mut agent = AgentSpec {
            name: name.to_owned(),
            title: None,
            owner: None,
            matches: Vec::new(),
            mode: Mode::Observe,
            origin: Origin::Policy,
        };
        let entries = if node.value == Value::Null {
            Vec::new()
        } else {
            self.entries(node, &format!("the agent `{name}`"))
        };
        for (key, place, value) in entries {
            match key {
                "owner" => {
                    agent.owner =
                        self.text(value, "an owner is a text, such as an address").map(str::to_owned)
                }
                "match" => agent.matches = self.matches(value),
                "mode" => agent.mode = self.mode(value),
                "default" | "guards" | "breakers" => self.not_yet(key, place),
                _ => self.unknown_key(key, place, &format!("the agent `{name}`"), &AGENT_KEYS),
            }
        }
        if agent.owner.is_none() {
            let help = Some("add `owner:`, one human who answers for it".to_owned());
            self.report(Code::NoOwner, place, format!("the agent `{name}` has no owner"), help);
        }
        agent
    }

    fn check_name(&mut self, name: &str, place: Place) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !begins_well || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
            let message = format!("`{name}` is no name for an agent");
            let help = format!(
                "use letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}, a letter or digit first"
            );
            self.report(Code::BadName, place, message, Some(help));
        }
    }

    fn mode(&mut self, node: &Node) -> Mode {
        let Some(word) = self.text(node, "a mode is a word: observe") else { return Mode::Observe };
        let word = word.to_owned();
        match Mode::ALL.into_iter().find(|mode| mode.as_str() == word) {
            Some(Mode::Observe) => {}
            Some(mode) => {
                let message = format!("this version does not enforce the mode `{}` yet", mode.as_str());
                let help = Some("write `observe`, or leave `mode` out".to_owned());
                self.report(Code::NotEnforcedYet, node.place, message, help);
            }
            None => {
                let help = did_you_mean(&word, Mode::ALL.iter().map(|mode| mode.as_str()));
                self.report(Code::UnknownMode, node.place, format!("there is no mode `{word}`"), help);
            }
        }
        Mode::Observe
    }

    fn matches(&mut self, node: &Node) -> Vec<Match> {
        let Value::List(items) = &node.value else {
            let help = Some("write `- exec: [\"**/name\"]` below it".to_owned());
            let message = format!("`match` is a list of entries, and this is {}", node.kind());
            self.report(Code::WrongType, node.place, message, help);
            return Vec::new();
        };
        let mut matches = Vec::new();
        for item in items {
            let entries = self.entries(item, "an entry of `match`");
            if let [_, (key, place, _), ..] = entries.as_slice() {
                let message = "an entry of `match` has one key: entries are alternatives to each other";
                let help = Some(format!("put `- ` before `{key}`, so that it is an entry of its own"));
                self.report(Code::WrongType, *place, message, help);
            }
            for (key, place, value) in entries {
                if MATCH_KEYS.contains(&key) {
                    matches.extend(self.patterns(key, value));
                } else {
                    self.unknown_key(key, place, "an entry of `match`", &MATCH_KEYS);
                }
            }
        }
        matches
    }

    fn patterns(&mut self, key: &str, node: &Node) -> Vec<Match> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => {
                let help = node.text().map(|text| format!("write `{key}: [\"{text}\"]`"));
                let message = format!("`{key}` is a list, and this is {}", node.kind());
                self.report(Code::WrongType, node.place, message, help);
                return Vec::new();
            }
        };
        if items.is_empty() {
            let help = Some("write what it should match, or remove it".to_owned());
            self.report(Code::EmptyList, node.place, format!("`{key}` is empty and matches nothing"), help);
        }
        let mut matches = Vec::new();
        for item in items {
            self.patterns += 1;
            if self.patterns > PATTERNS_MAX {
                let message = format!("a policy has at most {PATTERNS_MAX} patterns: this is one more");
                self.report(Code::TooMany, item.place, message, None);
                break;
            }
            let Some(text) = self.text(item, "a pattern is a text") else { continue };
            let text = text.to_owned();
            matches.extend(self.pattern(key, &text, item));
        }
        matches
    }

    fn pattern(&mut self, key: &str, text: &str, node: &Node) -> Option<Match> {
        let parsed = match key {
            "exec" => PathGlob::parse(text).map(Match::Exec),
            "run" => CommandGlob::parse(text).map(Match::Run),
            "unit" => CgroupGlob::unit(text).map(Match::Unit),
            "cgroup" => CgroupGlob::parse(text).map(Match::Cgroup),
            _ => return self.user(text, node),
        };
        match parsed {
            Ok(found) => {
                if key == "run" {
                    self.warn_of_path(text, node);
                }
                Some(found)
            }
            Err(error) => {
                let place = self.inside(node, text, &error);
                let help = match key {
                    "exec" | "cgroup" if !text.contains('/') && !text.is_empty() => {
                        Some(format!("did you mean `**/{text}`?"))
                    }
                    _ => None,
                };
                self.report(Code::BadPattern, place, error.to_string(), help);
                None
            }
        }
    }

    fn user(&mut self, text: &str, node: &Node) -> Option<Match> {
        if let Some(uid) = self.users.uid(text) {
            return Some(Match::User { name: text.to_owned(), uid });
        }
        let help = did_you_mean(text, self.users.names())
            .or_else(|| Some("create the user, or give its number".to_owned()));
        self.report(Code::UnknownUser, node.place, format!("there is no user `{text}` in /etc/passwd"), help);
        None
    }

    /// The first word of a command line is a base name: a path there never matches.
    fn warn_of_path(&mut self, text: &str, node: &Node) {
        let word = text.split([' ', '*', '?', '[', '{']).next().unwrap_or_default();
        if let Some((_, name)) = word.rsplit_once('/') {
            let help = Some(format!("write `{name}` there, or use `exec` for the path"));
            let message = "this never matches: a command line begins with the program's base name";
            self.report(Code::NeverMatches, node.place, message, help);
        }
    }

    /// The place in the file of an error in a pattern.
    fn inside(&self, node: &Node, text: &str, error: &GlobError) -> Place {
        let line = self.source.text.lines().nth(node.place.line.saturating_sub(1)).unwrap_or_default();
        let rest: String = line.chars().skip(node.place.column - 1).collect();
        let quotes = usize::from(rest.starts_with(['"', '\'']));
        let before = text.get(..error.offset).unwrap_or(text);
        let as_written = rest.chars().skip(quotes).collect::<String>().starts_with(text);
        if !as_written {
            return node.place;
        }
        Place { line: node.place.line, column: node.place.column + quotes + before.chars().count(), width: 1 }
    }

    fn text<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        if node.text().is_none() {
            self.report(
                Code::WrongType,
                node.place,
                format!("{expected}, and this is {}", node.kind()),
                None,
            );
        }
        node.text()
    }

    /// The entries of a map, each key once.
    fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Vec<Entry<'n>> {
        let Value::Map(all) = &node.value else {
            let message = format!("{what} is a map of keys and values, and this is {}", node.kind());
            self.report(Code::WrongType, node.place, message, None);
            return Vec::new();
        };
        let mut entries: Vec<Entry<'n>> = Vec::new();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (key, value) in all {
            let Some(name) = self.text(key, "a key is a text") else { continue };
            if let Some(line) = lines.get(name) {
                let message = format!("the key `{name}` is already at line {line}");
                let help = Some("merge the two".to_owned());
                self.report(Code::DuplicateKey, key.place, message, help);
                continue;
            }
            lines.insert(name, key.place.line);
            entries.push((name, key.place, value));
        }
        entries
    }

    fn unknown_key(&mut self, key: &str, place: Place, whose: &str, known: &[&str]) {
        let help = did_you_mean(key, known.iter().copied())
            .or_else(|| Some(format!("the keys here are {}", known.join(", "))));
        self.report(Code::UnknownKey, place, format!("{whose} has no key `{key}`"), help);
    }

    fn not_yet(&mut self, key: &str, place: Place) {
        let message = format!("this version does not enforce `{key}` yet, and does not pretend to");
        let help = Some(format!("remove `{key}`: this version observes only"));
        self.report(Code::NotEnforcedYet, place, message, help);
    }
}

/// The likeliest of the known words, as a question.
fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let near = known.map(|candidate| (distance(candidate), candidate)).min()?;
    let (distance, candidate) = near;
    (distance <= 1 + candidate.len() / 4).then(|| format!("did you mean `{candidate}`?"))
}
