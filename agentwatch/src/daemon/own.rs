//! agentwatch's own files and sockets: no session changes the one or uses the other.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    kernel::PIN_ROOT,
    matcher::{GlobError, PathGlob},
    paths::Paths,
    policy::{Canary, Own, exact, literal},
    selftest,
};

/// Those of a daemon with these folders and this policy. The socket for declarations is open to everybody.
///
/// # Errors
/// A path that cannot be a pattern: it is not UTF-8, or too long.
pub fn own(paths: &Paths, policy: Option<&Path>) -> io::Result<Own> {
    let program = std::env::current_exe().ok();
    let files = [Some(Path::new(PIN_ROOT)), Some(&paths.state), Some(&paths.run), policy, program.as_deref()];
    let files = names(&files.into_iter().flatten().collect::<Vec<_>>())?;
    let mut folders: Vec<PathBuf> =
        files.iter().flat_map(|file| file.ancestors().skip(1)).map(Path::to_owned).collect();
    folders.sort();
    folders.dedup();
    folders.retain(|folder| folder.parent().is_some());
    let sockets = names(&[&paths.control_socket()])?;
    let open_sockets = names(&[&paths.declare_socket()])?;
    Ok(Own {
        files: patterns(&files, literal)?,
        folders: patterns(&folders, exact)?,
        sockets: patterns(&sockets, literal)?,
        open_sockets: patterns(&open_sockets, literal)?,
        canary: canary(paths)?,
    })
}

/// What the self-test is about: folders of its own in either of the daemon's, and the daemon's program.
fn canary(paths: &Paths) -> io::Result<Canary> {
    let folders = names(&selftest::folders(paths).each_ref().map(PathBuf::as_path))?;
    let program = std::env::current_exe().ok();
    let program =
        program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    // An update has removed the file: the running program keeps its name.
    let program = program.map(|name| name.trim_end_matches(" (deleted)").to_owned());
    Ok(Canary { folders: patterns(&folders, literal)?, program: program.unwrap_or_default() })
}

fn patterns(
    paths: &[PathBuf],
    pattern: fn(&Path) -> Result<PathGlob, GlobError>,
) -> io::Result<Vec<PathGlob>> {
    paths.iter().map(|path| pattern(path).map_err(|problem| refused(path, &problem))).collect()
}

/// The names that paths are given by, and those that they have in the kernel's eyes.
fn names(paths: &[&Path]) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = Vec::new();
    for path in paths {
        names.push(std::path::absolute(path)?);
        // What is not there yet has no other name; its folder may have one.
        names.extend(path.canonicalize().ok());
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        names.extend(folder.zip(path.file_name()).map(|(folder, name)| folder.join(name)));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn refused(path: &Path, problem: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!(
        "agentwatch cannot protect its own `{}` from sessions ({problem}): use a shorter path of UTF-8 text without `.` \
         and `..`",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_known_by_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        let link = real.join("link");
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink(real.join("real"), &link).unwrap();
        let paths = Paths { state: link.join("state"), run: real.join("run") };
        let own = own(&paths, Some(&link)).unwrap();
        let covers = |globs: &[PathGlob], path: &Path| {
            globs.iter().any(|glob| glob.matches(path.to_str().unwrap().as_bytes()))
        };
        for path in ["link", "link/state/log/x", "real/state/log", "real/policy.yaml", "run/daemon.lock"] {
            assert!(covers(&own.files, &real.join(path)), "{path}");
        }
        for path in [Path::new("/sys/fs/bpf/agentwatch/x/links/y"), &std::env::current_exe().unwrap()] {
            assert!(covers(&own.files, path), "{}", path.display());
        }
        assert!(!covers(&own.files, &real) && !covers(&own.files, Path::new("/sys/fs/bpf/other")));
        for folder in [real.as_path(), Path::new("/sys/fs/bpf"), Path::new("/sys")] {
            assert!(covers(&own.folders, folder), "{}", folder.display());
            assert!(!covers(&own.folders, &folder.join("other")), "{}", folder.display());
        }
        assert!(!covers(&own.folders, Path::new("/")));
        assert!(covers(&own.sockets, &real.join("run/control.sock")));
        assert!(!covers(&own.sockets, &real.join("run/declare.sock")));
        assert!(covers(&own.open_sockets, &real.join("run/declare.sock")));
        assert!(!covers(&own.open_sockets, &real.join("run/control.sock")));
    }
}
