//! apt with a configuration of our own: the machine's lists and sources are left as they are.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::cache::Lock;
use crate::cmd::{self, say};
use crate::paths;
pub use sources::Mirror;

/// The release that the guests run.
pub const GUEST_RELEASE: &str = "bookworm";
/// Suites that hold kernels, besides the guests' own.
const BACKPORTS: [&str; 2] = ["bookworm-backports", "trixie-backports"];
/// Debian's keys; from the package `debian-archive-keyring`.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// A shell script that tells the mirror it falls back on.
const DEBOOTSTRAP: &str = "/usr/sbin/debootstrap";
/// How long fetched lists serve before they are fetched again.
const LISTS_SERVE: Duration = Duration::from_secs(6 * 3600);

/// A private apt: its own sources, lists and cache.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Debian as the guests need it: their release, and the backports with the newer kernels.
    ///
    /// # Errors
    /// If no Debian mirror is known, or its lists cannot be fetched.
    pub fn guest() -> Result<Self> {
        Self::open("guest", &lines(&mirror()?, GUEST_RELEASE, &BACKPORTS))
    }

    /// Debian as this machine has it, with its backports, to install from.
    ///
    /// # Errors
    /// As [`Apt::guest`].
    pub fn host(codename: &str) -> Result<Self> {
        Self::open("host", &lines(&mirror()?, codename, &[&format!("{codename}-backports")]))
    }

    fn open(name: &str, sources: &str) -> Result<Self> {
        let apt = Self { folder: paths::cache_dir(&format!("apt/{name}"))? };
        let _lock = Lock::take(&apt.folder.join("lock"), "package lists")?;
        for folder in ["lists/partial", "cache/archives/partial", "empty"] {
            paths::make_dir(&apt.folder.join(folder))?;
        }
        let same = fs::read_to_string(apt.sources()).is_ok_and(|text| text == sources);
        if !same || !apt.is_fresh() {
            write(&apt.sources(), sources)?;
            apt.fetch_lists()?;
        }
        Ok(apt)
    }

    /// The file that lists the sources.
    pub fn sources(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("fetched")
    }

    fn is_fresh(&self) -> bool {
        let fetched = fs::metadata(self.stamp()).and_then(|data| data.modified());
        fetched.is_ok_and(|when| SystemTime::now().duration_since(when).is_ok_and(|age| age < LISTS_SERVE))
    }

    fn fetch_lists(&self) -> Result<()> {
        say("apt: fetching Debian's package lists");
        cmd::retry("fetching Debian's package lists", || {
            let mut update = self.with_options(cmd::command("apt-get")?);
            // Without this a list that cannot be fetched is only a warning.
            cmd::quiet(update.args(["-o", "APT::Update::Error-Mode=any", "-qq", "update"]))
        })?;
        write(&self.stamp(), "")
    }

    /// Adds the options that make apt ours, and keep it from the machine's configuration.
    pub fn with_options(&self, mut command: Command) -> Command {
        let mut option = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::Etc::SourceList", &self.sources());
        option("Dir::Etc::SourceParts", &self.folder.join("empty"));
        option("Dir::State::Lists", &self.folder.join("lists"));
        option("Dir::Cache", &self.folder.join("cache"));
        option("Acquire::Languages", Path::new("none"));
        option("Acquire::Retries", Path::new("3"));
        // The cache may lie in a home folder, which apt's own user cannot enter.
        option("APT::Sandbox::User", Path::new("root"));
        command
    }

    /// The versions of packages, newest first, as (package, version); unknown packages are left out.
    ///
    /// # Errors
    /// If apt fails.
    pub fn versions(&self, packages: &[String]) -> Result<Vec<(String, String)>> {
        let mut madison = self.with_options(cmd::command("apt-cache")?);
        let text = cmd::read(madison.arg("madison").args(packages))?;
        Ok(parse_versions(&text))
    }

    /// Names of packages that start so, including some that are only spoken of.
    ///
    /// # Errors
    /// If apt fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = self.with_options(cmd::command("apt-cache")?);
        let text = cmd::read(names.args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads packages (`name=version`) and unpacks them into a folder, without installing.
    ///
    /// # Errors
    /// If they cannot be had.
    pub fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let debs =
            tempfile::tempdir_in(&self.folder).context("cannot make a folder for downloads in the cache")?;
        let names = packages.join(" ");
        say(&format!("apt: downloading {names}"));
        cmd::retry(&format!("downloading {names}"), || {
            let mut download = self.with_options(cmd::command("apt-get")?);
            cmd::watched(download.args(["-q", "download"]).args(packages).current_dir(debs.path()))
        })?;
        paths::make_dir(folder)?;
        for deb in fs::read_dir(debs.path()).context("cannot list the downloaded packages")? {
            let deb = deb.context("cannot list the downloaded packages")?;
            cmd::quiet(cmd::command("dpkg-deb")?.arg("-x").arg(deb.path()).arg(folder))?;
        }
        Ok(())
    }
}

/// Debian's mirror: `$AGENTWATCH_DEBIAN_MIRROR`, else the machine's own, else the one that
/// debootstrap falls back on.
///
/// # Errors
/// If there is none of them.
pub fn mirror() -> Result<Mirror> {
    if let Some(main) = std::env::var("AGENTWATCH_DEBIAN_MIRROR").ok().filter(|value| !value.is_empty()) {
        return Ok(Mirror { main, security: None });
    }
    if let Some(mirror) = sources::configured(Path::new("/etc/apt")) {
        return Ok(mirror);
    }
    match debootstrap_default(&fs::read_to_string(DEBOOTSTRAP).unwrap_or_default()) {
        Some(main) => Ok(Mirror { main, security: None }),
        None => bail!(
            "no Debian mirror is known: this machine's apt sources name none, and {DEBOOTSTRAP} does not either. \
             Set AGENTWATCH_DEBIAN_MIRROR to the address of one"
        ),
    }
}

/// The mirror in debootstrap's text, if it is Debian's: other distributions may put in their own.
fn debootstrap_default(script: &str) -> Option<String> {
    let line = script.lines().find_map(|line| line.strip_prefix("DEF_MIRROR="))?;
    let address = line.trim().trim_matches('"');
    address.trim_end_matches('/').ends_with("/debian").then(|| address.to_owned())
}

fn lines(mirror: &Mirror, codename: &str, more: &[&str]) -> String {
    let line = |uri: &str, suite: &str| format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n");
    let mut text = line(&mirror.main, codename);
    text.extend(mirror.security.iter().map(|uri| line(uri, &format!("{codename}-security"))));
    text.extend(more.iter().map(|suite| line(&mirror.main, suite)));
    text
}

/// Lines of ` package | version | source`.
fn parse_versions(text: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let mut columns = line.split('|').map(|column| column.trim().to_owned());
        Some((columns.next()?, columns.next()?))
    };
    text.lines().filter(|line| line.contains("Packages")).filter_map(parse).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_madison() {
        let text = "  rust-src | 1.95.0+dfsg1-2 | http://m.test/debian trixie-backports/main amd64 Packages\n\
                    linux | 6.1.1-1 | http://m.test/debian bookworm/main Sources\n";
        assert_eq!(parse_versions(text), [("rust-src".to_owned(), "1.95.0+dfsg1-2".to_owned())]);
    }

    #[test]
    fn the_last_resort_is_debootstrap() {
        let script =
            "DEBUG=\nDEF_MIRROR=\"http://m.test/debian\"\nDEF_HTTPS_MIRROR=\"https://m.test/debian\"\n";
        assert_eq!(debootstrap_default(script).as_deref(), Some("http://m.test/debian"));
        assert_eq!(debootstrap_default("DEF_MIRROR=\"http://m.test/ubuntu\"\n"), None);
        assert_eq!(debootstrap_default(""), None);
    }

    #[test]
    fn the_security_archive_is_used_where_there_is_one() {
        let mirror = Mirror { main: "http://m.test/d".into(), security: Some("http://m.test/s".into()) };
        let text = lines(&mirror, "bookworm", &["bookworm-backports"]);
        let tails: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("] ").map(|(_, tail)| tail)).collect();
        assert_eq!(
            tails,
            [
                "http://m.test/d bookworm main",
                "http://m.test/s bookworm-security main",
                "http://m.test/d bookworm-backports main"
            ]
        );
    }
}
