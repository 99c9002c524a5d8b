//! The settings of harnesses: what is put into them, what is taken out, and how they were.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::{Harness, SettingsArgs, claude_code, codex, gemini};
use crate::cli::print;
use crate::exit;
use crate::output::escape::escape;

/// What follows the command of a hook that must not fail.
const REQUIRED: &str = " --required";
/// Seconds that the harness gives its hook. It takes less than one.
const SECONDS: u64 = 5;

impl Harness {
    /// What its hooks are called by.
    const fn command(self) -> &'static str {
        match self {
            Self::ClaudeCode => "agentwatch hook claude-code",
            Self::Codex => "agentwatch hook codex",
            Self::Gemini => "agentwatch hook gemini",
        }
    }

    /// What a policy calls it: see [`crate::policy::HARNESSES`].
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The events that are asked for, each with what it matches.
    fn events(self) -> Vec<(&'static str, Option<&'static str>)> {
        // Without a matcher Codex CLI and Gemini CLI call for every tool.
        let all = |events: &[&'static str]| events.iter().map(|event| (*event, None)).collect();
        match self {
            Self::ClaudeCode => {
                claude_code::EVENTS.into_iter().map(|(event, tools)| (event, tools.then_some("*"))).collect()
            }
            Self::Codex => all(&codex::EVENTS),
            Self::Gemini => all(&gemini::EVENTS),
        }
    }

    /// The time that a hook has, as the settings have it.
    const fn timeout(self) -> u64 {
        match self {
            Self::ClaudeCode | Self::Codex => SECONDS,
            Self::Gemini => SECONDS * 1000,
        }
    }

    /// Its user's settings.
    fn settings(self) -> anyhow::Result<PathBuf> {
        if let (Self::Codex, Some(folder)) = (self, std::env::var_os("CODEX_HOME")) {
            return Ok(PathBuf::from(folder).join("hooks.json"));
        }
        let home = std::env::var_os("HOME").context("HOME is not set: name the file with --settings")?;
        Ok(PathBuf::from(home).join(match self {
            Self::ClaudeCode => ".claude/settings.json",
            Self::Codex => ".codex/hooks.json",
            Self::Gemini => ".gemini/settings.json",
        }))
    }

    /// What is left to do once they are changed.
    const fn then(self) -> &'static str {
        match self {
            Self::Codex => "Codex CLI runs new hooks once its user has trusted them: see `/hooks` in it\n",
            Self::ClaudeCode | Self::Gemini => "",
        }
    }
}

/// Puts the hooks in; gives the exit code.
pub(super) fn install(args: &SettingsArgs) -> anyhow::Result<u8> {
    let code = change(args, |settings| with_hooks(args.harness, args.required, settings))?;
    if args.yes {
        print::print(args.harness.then())?;
    }
    Ok(code)
}

/// Takes them out.
pub(super) fn remove(args: &SettingsArgs) -> anyhow::Result<u8> {
    change(args, |settings| without_hooks(args.harness, settings))
}

fn change(args: &SettingsArgs, make: impl FnOnce(Value) -> Value) -> anyhow::Result<u8> {
    let path = match &args.settings {
        Some(path) => path.clone(),
        None => args.harness.settings()?,
    };
    let before = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    };
    let old: Value = match &before {
        Some(text) => serde_json::from_str(text)
            .with_context(|| format!("`{}` is no JSON, and was left as it is", path.display()))?,
        None => json!({}),
    };
    if !old.is_object() {
        bail!("`{}` is no JSON object, and was left as it is", path.display());
    }
    let new = make(old.clone());
    if new == old {
        print::print(&format!("nothing to do: `{}` is as it should be\n", escape(&path.to_string_lossy())))?;
        return Ok(exit::DONE);
    }
    let (old, new) = (pretty(&old)?, pretty(&new)?);
    print::print(&format!("{}\n{}", escape(&path.to_string_lossy()), difference(&old, &new)))?;
    if !args.yes {
        print::print("nothing was changed: --yes changes it\n")?;
        return Ok(exit::VIOLATION);
    }
    write(&path, before.as_deref(), &new)?;
    Ok(exit::DONE)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Whole or not at all; what was there is kept.
fn write(path: &Path, before: Option<&str>, new: &str) -> anyhow::Result<()> {
    let cannot = |what: &str| format!("cannot {what} `{}`", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| cannot("make the folder of"))?;
    if let Some(before) = before {
        let mut kept = path.as_os_str().to_owned();
        kept.push(".before-agentwatch");
        fs::write(&kept, before).with_context(|| cannot("keep what was in"))?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, new).with_context(|| cannot("write"))?;
    if let Ok(found) = fs::metadata(path) {
        fs::set_permissions(&partial, found.permissions()).with_context(|| cannot("write"))?;
    }
    fs::rename(&partial, path).with_context(|| cannot("write"))
}

fn is_own(harness: Harness, hook: &Value) -> bool {
    let command = hook.get("command").and_then(Value::as_str);
    command.is_some_and(|command| command.strip_suffix(REQUIRED).unwrap_or(command) == harness.command())
}

/// The settings with the hooks, each once.
fn with_hooks(harness: Harness, required: bool, settings: Value) -> Value {
    let mut settings = without_hooks(harness, settings);
    let Some(fields) = settings.as_object_mut() else { return settings };
    let hooks = fields.entry("hooks").or_insert_with(|| json!({}));
    let Some(hooks) = hooks.as_object_mut() else { return settings };
    let command = format!("{}{}", harness.command(), if required { REQUIRED } else { "" });
    for (event, matcher) in harness.events() {
        let hook = json!({"type": "command", "command": command, "timeout": harness.timeout()});
        let mut entry = json!({"hooks": [hook]});
        if let (Some(matcher), Some(entry)) = (matcher, entry.as_object_mut()) {
            entry.insert("matcher".to_owned(), json!(matcher));
        }
        if let Some(list) = hooks.entry(event).or_insert_with(|| json!([])).as_array_mut() {
            list.push(entry);
        }
    }
    settings
}

/// The settings without the hooks, and without what is empty then.
fn without_hooks(harness: Harness, mut settings: Value) -> Value {
    let Some(hooks) = settings.get_mut("hooks").and_then(Value::as_object_mut) else { return settings };
    for list in hooks.values_mut().filter_map(Value::as_array_mut) {
        for entry in list.iter_mut() {
            if let Some(own) = entry.get_mut("hooks").and_then(Value::as_array_mut) {
                own.retain(|hook| !is_own(harness, hook));
            }
        }
        list.retain(|entry| entry.get("hooks").and_then(Value::as_array).is_none_or(|own| !own.is_empty()));
    }
    hooks.retain(|_, list| list.as_array().is_none_or(|list| !list.is_empty()));
    if hooks.is_empty()
        && let Some(fields) = settings.as_object_mut()
    {
        let _: Option<Value> = Map::shift_remove(fields, "hooks");
    }
    settings
}

/// Lines that differ, each with its mark. What is common is left out but for a line around.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    let left = old.len().min(new.len()) - head;
    let tail =
        old.iter().rev().zip(new.iter().rev()).take(left).take_while(|(one, other)| one == other).count();
    let mut text = String::new();
    let mut show = |mark: char, lines: Option<&[&str]>| {
        for line in lines.into_iter().flatten() {
            text.push_str(&format!("{mark} {}\n", escape(line)));
        }
    };
    show(' ', head.checked_sub(1).and_then(|one| old.get(one..head)));
    show('-', old.get(head..old.len() - tail));
    show('+', new.get(head..new.len() - tail));
    show(' ', old.get(old.len() - tail..(old.len() - tail + 1).min(old.len())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(path: &Path, yes: bool) -> SettingsArgs {
        of(Harness::ClaudeCode, path, yes)
    }

    fn of(harness: Harness, path: &Path, yes: bool) -> SettingsArgs {
        SettingsArgs { harness, yes, required: false, settings: Some(path.to_owned()) }
    }

    #[test]
    fn each_harness_has_its_own_form() {
        let folder = tempfile::tempdir().unwrap();
        for (harness, tool, timeout) in
            [(Harness::Codex, "PreToolUse", 5), (Harness::Gemini, "BeforeTool", 5000)]
        {
            let path = folder.path().join(harness.command());
            let others = json!({"hooks": {tool: [{"hooks": [{"type": "command", "command": "mine"}]}], "disabled": ["x"]}});
            fs::write(&path, others.to_string()).unwrap();
            install(&of(harness, &path, true)).unwrap();
            let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let hook = json!({"type": "command", "command": harness.command(), "timeout": timeout});
            assert_eq!(written["hooks"][tool][1], json!({"hooks": [hook]}));
            assert_eq!(
                written["hooks"].as_object().unwrap().len(),
                harness.events().len() + 1,
                "and what is not an event"
            );
            remove(&of(harness, &path, true)).unwrap();
            let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(written, others);
        }
    }

    #[test]
    fn hooks_go_in_once_and_come_out_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/settings.json");
        assert_eq!(install(&args(&path, false)).unwrap(), exit::VIOLATION);
        assert!(!path.exists(), "it was only shown");
        assert_eq!(install(&args(&path, true)).unwrap(), exit::DONE);
        let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for (event, _) in claude_code::EVENTS {
            assert_eq!(written["hooks"][event][0]["hooks"][0]["command"], Harness::ClaudeCode.command());
        }
        assert_eq!(install(&args(&path, false)).unwrap(), exit::DONE, "nothing to do");
        install(&SettingsArgs { required: true, ..args(&path, true) }).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written.matches("hook claude-code --required").count(), claude_code::EVENTS.len());
        assert_eq!(written.matches("hook claude-code").count(), claude_code::EVENTS.len(), "each once");
        assert_eq!(remove(&args(&path, true)).unwrap(), exit::DONE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
    }

    #[test]
    fn what_others_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let own = json!({
            "model": "x",
            "env": {},
            "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "mine"}]}], "Stop": []},
        });
        fs::write(&path, own.to_string()).unwrap();
        install(&args(&path, true)).unwrap();
        let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(written["hooks"]["PreToolUse"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&written["model"], &written["hooks"]["PreToolUse"][0]),
            (&own["model"], &own["hooks"]["PreToolUse"][0])
        );
        let kept = fs::read_to_string(folder.path().join("settings.json.before-agentwatch")).unwrap();
        assert_eq!(kept, own.to_string());
        assert_eq!(
            written.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["model", "env", "hooks"],
            "their order"
        );
        remove(&args(&path, true)).unwrap();
        let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(written["hooks"]["PreToolUse"], own["hooks"]["PreToolUse"]);
        fs::write(&path, "{ // mine\n}").unwrap();
        assert!(install(&args(&path, true)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{ // mine\n}", "bad input costs nothing");
    }

    #[test]
    fn only_what_differs_is_shown() {
        assert_eq!(difference("{\n  a\n}\n", "{\n  a\n  b\n}\n"), "    a\n+   b\n  }\n");
    }
}
