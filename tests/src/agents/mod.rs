//! The real agents of the live tests: installed on the host by npm, run in a guest against [`crate::model_server`].

pub mod claude;
pub mod codex;
pub mod gemini;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Name of the platform in npm's packages.
#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "linux-x64";
/// Name of the platform in npm's packages.
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "linux-arm64";

/// A package of npm, in one version: a live test must not change because somebody published something.
struct Package {
    /// Its name, without the platform.
    name: &'static str,
    version: &'static str,
    /// What of it is of no use here, below its own folder or that of its platform.
    superfluous: &'static [&'static str],
}

/// What is installed.
const PACKAGES: [Package; 4] = [claude::PACKAGE, codex::PACKAGE, gemini::PACKAGE, gemini::NODE];

/// Installs the agents into `dir`, unless these versions are there. Needs npm and its registry; says on standard error what
/// it does.
///
/// # Errors
/// If npm is missing or fails, or gives no program for this platform.
pub fn install(dir: &Path) -> Result<()> {
    let names = PACKAGES.map(|package| format!("{}@{}", package.name(), package.version));
    if is_installed(dir) {
        eprintln!("{} are in `{}` already", names.join(", "), dir.display());
        return Ok(());
    }
    eprintln!("installing {} with npm into `{}`: about 300 MB to fetch", names.join(", "), dir.display());
    let parent = dir.parent().context("a folder below the root is needed for agents")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    // Whole or not at all: an interrupted installation leaves nothing that looks like one.
    let new = tempfile::Builder::new().prefix("agents-").tempdir_in(parent).context("no temporary folder")?;
    let status = Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"])
        .arg("--prefix")
        .arg(new.path())
        .args(&names)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start npm: `apt-get install npm` brings it")?;
    ensure!(status.success(), "npm ended with {status}: its messages are above");
    for package in &PACKAGES {
        package.make_smaller(new.path())?;
    }
    ensure!(is_installed(new.path()), "npm gave not all of {} for {PLATFORM}", names.join(", "));
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove `{}`", dir.display()))?;
    }
    fs::rename(new.keep(), dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    Ok(())
}

fn is_installed(dir: &Path) -> bool {
    let programs = [claude::program(dir), codex::program(dir)].into_iter().chain(gemini::programs(dir));
    PACKAGES.iter().all(|package| package.is_installed(dir)) && programs.into_iter().all(|one| one.is_file())
}

impl Package {
    /// What it is called in the registry.
    fn name(&self) -> String {
        self.name.replace("PLATFORM", PLATFORM)
    }

    /// Its folder.
    fn folder(&self, dir: &Path) -> PathBuf {
        dir.join("node_modules").join(self.name())
    }

    /// The folder of what npm brought for this platform with it.
    fn of_platform(&self, dir: &Path) -> PathBuf {
        dir.join("node_modules").join(format!("{}-{PLATFORM}", self.name()))
    }

    fn is_installed(&self, dir: &Path) -> bool {
        let manifest = fs::read(self.folder(dir).join("package.json")).ok();
        let manifest: Option<serde_json::Value> =
            manifest.and_then(|text| serde_json::from_slice(&text).ok());
        let version = manifest.as_ref().and_then(|manifest| manifest.get("version")?.as_str());
        version == Some(self.version)
    }

    fn make_smaller(&self, dir: &Path) -> Result<()> {
        for name in self.superfluous {
            for place in [self.folder(dir).join(name), self.of_platform(dir).join(name)] {
                if place.is_dir() {
                    fs::remove_dir_all(&place)
                        .with_context(|| format!("cannot remove `{}`", place.display()))?;
                }
            }
        }
        Ok(())
    }
}
