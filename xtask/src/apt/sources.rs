//! The machine's own apt sources, read to find its Debian mirror.
//!
//! Both formats are read: one line per source (`*.list`) and stanzas (`*.sources`). Third parties
//! use Debian's suite names too, so an entry counts only if it is not signed by a key of its own;
//! what we fetch from it is checked against Debian's keyring in any case.

use std::fs;
use std::path::{Path, PathBuf};

/// One place of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// Where Debian packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The archive itself.
    pub main: String,
    /// The archive of security updates, if the machine has one configured.
    pub security: Option<String>,
}

/// Debian releases whose entries tell of a mirror.
const CODENAMES: [&str; 8] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing"];

/// The Debian mirror that `etc` (`/etc/apt`) configures, if any.
pub fn configured(etc: &Path) -> Option<Mirror> {
    let entries: Vec<Entry> = files(etc).iter().flat_map(|file| read(file)).filter(is_debian).collect();
    let of = |wanted: fn(&str) -> bool| {
        let entry = entries.iter().find(|entry| entry.suites.iter().any(|suite| wanted(suite)))?;
        Some(entry.uri.clone())
    };
    Some(Mirror { main: of(is_main_suite)?, security: of(is_security_suite) })
}

fn files(etc: &Path) -> Vec<PathBuf> {
    let parts = fs::read_dir(etc.join("sources.list.d")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    files.sort();
    files.insert(0, etc.join("sources.list"));
    files
}

fn read(file: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("list") => text.lines().filter_map(parse_line).collect(),
        Some("sources") => text.split("\n\n").flat_map(parse_stanza).collect(),
        _ => Vec::new(),
    }
}

/// `deb [options] URI SUITE COMPONENT...`
fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// Fields `Types`, `URIs`, `Suites`, `Components`, `Signed-By`, `Enabled`; one entry for each URI.
fn parse_stanza(stanza: &str) -> Vec<Entry> {
    let field = |name: &str| field(stanza, name);
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let disabled = field("Enabled").is_some_and(|value| ["no", "false", "0"].contains(&value.trim()));
    if disabled || !words("Types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let entry = |uri| Entry {
        uri,
        suites: words("Suites"),
        components: words("Components"),
        signed_by: field("Signed-By").map(|value| value.trim().to_owned()),
    };
    words("URIs").into_iter().map(entry).collect()
}

/// A field's value with its continuation lines. Lines that start with `#` are comments.
fn field(stanza: &str, name: &str) -> Option<String> {
    let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
    let mut value = lines.by_ref().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })?;
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push('\n');
        value.push_str(line.trim());
    }
    Some(value)
}

fn is_debian(entry: &Entry) -> bool {
    let key_fits = entry.signed_by.as_ref().is_none_or(|key| key.contains("debian-archive"));
    let path_fits =
        entry.uri.trim_end_matches('/').rsplit('/').next().is_some_and(|last| last.contains("debian"));
    // An entry without a key of its own may still be a third party's: Debian's archive has a
    // folder of that name on every mirror.
    key_fits && (entry.signed_by.is_some() || path_fits) && entry.components.iter().any(|name| name == "main")
}

fn is_main_suite(suite: &str) -> bool {
    CODENAMES.contains(&suite)
}

fn is_security_suite(suite: &str) -> bool {
    suite.strip_suffix("-security").is_some_and(is_main_suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror_of(files: &[(&str, &str)]) -> Option<Mirror> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        configured(folder.path())
    }

    fn mirror(main: &str, security: Option<&str>) -> Option<Mirror> {
        Some(Mirror { main: main.into(), security: security.map(str::to_owned) })
    }

    #[test]
    fn lines_are_read() {
        let text = "# a comment\n\
            deb-src http://mirror.test/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k/vendor.gpg] https://vendor.test/apt bookworm main\n\
            deb [arch=amd64] http://mirror.test/debian/ bookworm main contrib # ours\n\
            deb http://mirror.test/debian-security bookworm-security main\n";
        assert_eq!(
            mirror_of(&[("sources.list", text)]),
            mirror("http://mirror.test/debian/", Some("http://mirror.test/debian-security"))
        );
    }

    #[test]
    fn stanzas_are_read() {
        let text = "Types: deb deb-src\n# http://old.test/debian\nURIs: http://mirror.test/debian\n\
            Suites: trixie trixie-updates\nComponents: main\nSigned-By: /k/debian-archive-keyring.gpg\n\n\
            Types: deb\nURIs:\n http://mirror.test/sec\nSuites: trixie-security\nComponents: main\n\
            Signed-By: /k/debian-archive-keyring.gpg\n";
        assert_eq!(
            mirror_of(&[("sources.list.d/debian.sources", text)]),
            mirror("http://mirror.test/debian", Some("http://mirror.test/sec"))
        );
    }

    #[test]
    fn third_parties_and_disabled_files_do_not_count() {
        let vendor = "Types: deb\nURIs: https://vendor.test/node\nSuites: nodistro\nComponents: main\n";
        let disabled =
            "Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\n";
        let files = [
            ("sources.list.d/a.sources", vendor),
            ("sources.list.d/b.sources", disabled),
            ("sources.list.d/c.list.disabled", "deb http://mirror.test/debian bookworm main\n"),
            ("sources.list", "deb https://vendor.test/linux bookworm main\n"),
        ];
        assert_eq!(mirror_of(&files), None);
    }

    #[test]
    fn ubuntu_has_no_debian_mirror() {
        assert_eq!(mirror_of(&[("sources.list", "deb http://mirror.test/ubuntu noble main\n")]), None);
    }
}
