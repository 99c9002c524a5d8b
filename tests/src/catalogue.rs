//! The catalogue of ways round (`docs/catalogue.md`) is whole, and names tests and limits that there are.

use std::fs;
use std::path::{Path, PathBuf};

use agentwatch::matcher::CommandGlob;

/// All cases: a letter, and the numbers that it has.
const CASES: [(char, &[u32]); 6] = [
    ('A', &[1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 20]),
    ('B', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24]),
    ('C', &[1, 2, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
    ('D', &[1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21]),
    ('E', &[1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]),
    ('F', &[1, 2, 4, 5, 7, 8]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Texts of all Rust files below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(text(&path));
        }
    }
    all
}

/// Case and last column of each row.
fn rows(catalogue: &str) -> Vec<(&str, &str)> {
    let cells = catalogue.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, case, _, stands, _] = cells.as_slice() else { return None };
        case.chars().nth(1).filter(char::is_ascii_digit).map(|_| (*case, *stands))
    });
    cells.collect()
}

#[test]
fn every_case_is_there_once_and_in_order() {
    let catalogue = text(&root().join("docs/catalogue.md"));
    let told: Vec<&str> = rows(&catalogue).into_iter().map(|(case, _)| case).collect();
    let of = |letter: char, numbers: &[u32]| -> Vec<String> {
        numbers.iter().map(|number| format!("{letter}{number:02}")).collect()
    };
    let all: Vec<String> = CASES.iter().flat_map(|(letter, numbers)| of(*letter, numbers)).collect();
    assert_eq!(told, all);
}

#[test]
fn every_case_has_a_test_that_exists_or_a_limit_that_is_stated() {
    let catalogue = text(&root().join("docs/catalogue.md"));
    let limits = text(&root().join("docs/limits.md"));
    let units: String =
        [sources(&root().join("agentwatch/src")), sources(&root().join("tests/src"))].concat().concat();
    for (case, stands) in rows(&catalogue) {
        let names: Vec<&str> = stands
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.contains(':') && !name.contains('/'))
            .collect();
        for name in &names {
            let found = match name.rsplit_once("::") {
                Some((file, name)) => {
                    let live =
                        text(&root().join("tests/live").join(file.replace("::", "/")).with_extension("rs"));
                    live.contains(&format!("#[test]\nfn {name}("))
                        || live.contains(&format!("\n    {name}: ["))
                }
                None => name.strip_prefix("unit:").is_some_and(|name| units.contains(&format!("fn {name}("))),
            };
            assert!(found, "{case}: there is no test `{name}`");
        }
        let (limited, later) = (stands.contains("limit"), stands.contains("later"));
        assert!(!names.is_empty() || limited || later, "{case}: {stands}");
        assert_eq!(limits.contains(case), limited, "{case}: catalogue.md and limits.md do not say the same");
    }
}

/// A12: rules on command lines are for messages. What else than its pattern does the same is known.
#[test]
fn spellings_of_command_lines_match_or_are_known_not_to() {
    let (yes, no) = (true, false);
    for (pattern, spellings) in [
        (
            "terraform *destroy*",
            &[
                ("terraform destroy", yes),
                ("terraform -chdir=x destroy", yes),
                ("terraform destroy -auto-approve", yes),
                ("terraform apply -destroy", yes),
                ("terraform plan -destroy -out=x", yes),
                ("terraform apply x", no),
                ("tofu destroy", no),
            ][..],
        ),
        (
            "kubectl *delete*",
            &[
                ("kubectl delete pod x", yes),
                ("kubectl --context p delete ns x", yes),
                ("kubectl -n p delete -f x", yes),
                ("kubectl replace --force -f x", no),
                ("kubectl drain x", no),
            ],
        ),
        (
            "rm {*-*r*,*--recursive*}",
            &[
                ("rm -rf /srv", yes),
                ("rm -fr /srv", yes),
                ("rm -r -f /srv", yes),
                ("rm -f -r /srv", yes),
                ("rm --recursive --force /srv", yes),
                ("rm --force --recursive /srv", yes),
                ("rm /srv -rf", yes),
                ("rm -R /tmp", no),
                ("rm -f /tmp", no),
                ("find /srv -delete", no),
            ],
        ),
        (
            "git *push*{ -f, --force, +}*",
            &[
                ("git push -f", yes),
                ("git push --force origin x", yes),
                ("git push --force-with-lease", yes),
                ("git push origin +x", yes),
                ("git -C x push origin x --force", yes),
                ("git push origin x", no),
                ("git push -uf origin x", no),
                ("git x", no),
            ],
        ),
    ] {
        let glob = CommandGlob::parse(pattern).unwrap();
        for (spelling, matches) in spellings {
            assert_eq!(glob.matches(spelling.as_bytes()), *matches, "{pattern}: {spelling}");
        }
    }
}
