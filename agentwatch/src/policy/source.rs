//! The policy's files.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Code, Diagnostic, Problems};

/// Bytes of one policy file. Past it the file is refused.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Files of one policy. Past it the policy is refused.
pub const FILES_MAX: usize = 256;

/// One file of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path, for messages.
    pub name: Arc<str>,
    /// Its text.
    pub text: String,
}

/// A place in a file; line and column are counted from 1, the column and the width in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// First character.
    pub column: usize,
    /// Number of characters.
    pub width: usize,
}

/// Reads a policy file, or a folder of `.yaml` and `.yml` files in name order.
///
/// Names that begin with a dot are passed over, as are, with a warning, other files in the folder.
///
/// # Errors
/// Every file that cannot be read, is too large or is not UTF-8; a folder without any file to read.
pub fn read(path: &Path) -> Result<(Vec<Source>, Vec<Diagnostic>), Problems> {
    let mut warnings = Vec::new();
    let files = if path.is_dir() { files_of(path, &mut warnings)? } else { vec![path.to_owned()] };
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match read_file(&file) {
            Ok(source) => sources.push(source),
            Err(problem) => problems.push(*problem),
        }
    }
    if problems.is_empty() {
        return Ok((sources, warnings));
    }
    problems.extend(warnings);
    Err(Problems(problems))
}

/// SHA-256 of the files, in hexadecimal digits: what events call the policy by.
#[must_use]
pub fn hash(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update(source.text.as_bytes());
        // Files do not run into each other.
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files_of(folder: &Path, warnings: &mut Vec<Diagnostic>) -> Result<Vec<PathBuf>, Problems> {
    let name = folder.to_string_lossy();
    let problem = |code, message: String| Problems(vec![Diagnostic::of_file(code, &name, message)]);
    let unreadable =
        |error: std::io::Error| problem(Code::Unreadable, format!("cannot list the policy folder: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        } else {
            let message = "this is not read: only files that end in `.yaml` or `.yml` are part of a policy";
            warnings.push(Diagnostic::of_file(Code::FileIgnored, &path.to_string_lossy(), message));
        }
    }
    files.sort();
    warnings.sort_by(|a, b| a.file.cmp(&b.file));
    match files.len() {
        0 => {
            let message = "the policy folder has no file that ends in `.yaml` or `.yml`: write one, or run without a policy";
            Err(problem(Code::Unreadable, message.to_owned()))
        }
        1..=FILES_MAX => Ok(files),
        more => Err(problem(
            Code::TooMany,
            format!("the policy folder has {more} files, and a policy at most {FILES_MAX}: merge some"),
        )),
    }
}

fn read_file(path: &Path) -> Result<Source, Box<Diagnostic>> {
    let name = path.to_string_lossy();
    let problem = |code, message: String| Box::new(Diagnostic::of_file(code, &name, message));
    let unreadable =
        |error: std::io::Error| problem(Code::Unreadable, format!("cannot read the policy file: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message =
            format!("a policy file has at most {FILE_BYTES_MAX} bytes: split it into a folder of files");
        return Err(problem(Code::TooLarge, message));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|&&b| b == b'\n').count();
        let message = format!("line {} is not UTF-8: save the file as UTF-8", line + 1);
        problem(Code::NotUtf8, message)
    })?;
    Ok(Source { name: name.into(), text })
}
