//! The attack suite: one row per case of the attack list, by its id, over HTTP/1.1 and HTTP/2.
//!
//! A row has one or more inputs, each a [`Case`] whose name starts with the id. Rows of the sections kept
//! here as whole lists must run or say what they wait for.

mod peers;
mod section_01;
mod section_02;
mod section_03;
mod section_04;
mod section_06;
mod section_07;
mod section_08;
mod section_09;
mod section_10;
mod section_11;
mod section_12;
mod section_14;
mod section_15;

use std::collections::BTreeSet;

use crate::support::{Backend, Case, Config, Form, Gate, Idp, Token, World, check_all, world};

/// One section of the list.
struct Section {
    /// Its table, run by `run_section`.
    cases: fn(&'static World) -> Vec<Case>,
    /// Rows that are tests of their own, with where they are.
    tests: &'static [(&'static str, &'static str)],
    /// Rows that cannot run yet, with the part that they wait for, and rows that do not apply, with why.
    waits: &'static [(&'static str, &'static str)],
}

const SECTIONS: &[Section] = &[
    section_01::SECTION,
    section_02::SECTION,
    section_03::SECTION,
    section_04::SECTION,
    section_06::SECTION,
    section_07::SECTION,
    section_08::SECTION,
    section_09::SECTION,
    section_10::SECTION,
    section_11::SECTION,
    section_12::SECTION,
    section_14::SECTION,
    section_15::SECTION,
];

/// Sections whose every row must be here: letter, first and last number.
const COMPLETE: &[(&str, u8, u8)] = &[
    ("T", 1, 44),
    ("C", 1, 22),
    ("K", 1, 17),
    ("O", 1, 22),
    ("I", 1, 12),
    ("U", 1, 21),
    ("A", 1, 16),
    ("G", 1, 13),
    ("R", 1, 5),
    ("X", 1, 15),
];

#[test]
fn every_row_of_the_complete_sections_runs_or_waits() {
    let world = world(Form::Wso2);
    let (mut run, mut wait) = (BTreeSet::new(), BTreeSet::new());
    for section in SECTIONS {
        run.extend((section.cases)(world).iter().map(|case| id_of(&case.name).to_owned()));
        run.extend(section.tests.iter().map(|(id, _)| (*id).to_owned()));
        wait.extend(section.waits.iter().filter(|(_, reason)| !reason.is_empty()).map(|(id, _)| (*id).to_owned()));
    }
    let twice: Vec<_> = run.intersection(&wait).collect();
    println!("{} rows run, {} wait or do not apply: {wait:?}", run.len(), wait.len());
    let all =
        COMPLETE.iter().flat_map(|(letter, first, last)| (*first..=*last).map(move |n| format!("{letter}{n:02}")));
    let missing: Vec<_> = all.filter(|id| !run.contains(id) && !wait.contains(id)).collect();
    assert!(missing.is_empty(), "neither run nor waiting: {missing:?}");
    assert!(twice.is_empty(), "both run and waiting: {twice:?}");
}

/// A test that was renamed, or is gone, leaves its row to nobody.
#[test]
fn every_test_that_a_row_names_is_in_the_sources() {
    let sources = sources();
    let (mut unknown, mut found) = (Vec::new(), 0);
    for (id, tests) in SECTIONS.iter().flat_map(|section| section.tests) {
        let named: Vec<&str> =
            tests.split(|c: char| !(c.is_alphanumeric() || "_:…".contains(c))).filter_map(name).collect();
        found += named.len();
        if named.is_empty() && !tests.starts_with("every table") {
            unknown.push(format!("{id}: {tests}"));
        }
        let is_gone = |name: &&&str| !sources.iter().any(|source| source.has(name));
        unknown.extend(named.iter().filter(is_gone).map(|name| format!("{id}: {name}")));
    }
    assert!(unknown.is_empty() && found > 50, "{found} names, of which there are no more: {unknown:#?}");
    let renamed = "throttle::refused_requests_count_nowhere_else";
    assert!(!sources.iter().any(|source| source.has(renamed)), "a name that is not there is not found");
}

/// A word that names a test or a module of them: a path, or of three parts at least.
fn name(word: &str) -> Option<&str> {
    let word = word.trim_end_matches(':');
    (word.contains("::") || word.matches('_').count() > 1).then_some(word)
}

/// A file of ours, by its path without the ending.
struct Source {
    path: Vec<String>,
    text: String,
}

impl Source {
    /// Whether this has a test or module of that name; `…` ends a name that is cut.
    fn has(&self, name: &str) -> bool {
        let (module, name) = name.rsplit_once("::").unwrap_or(("", name));
        let is_within = module.split("::").all(|part| part.is_empty() || self.path.iter().any(|it| it == part));
        let declared = match name.strip_suffix('…') {
            Some(begin) => self.text.contains(&format!("fn {begin}")),
            None => [format!("fn {name}("), format!("mod {name}")].iter().any(|it| self.text.contains(it)),
        };
        is_within && (declared || self.path.last().is_some_and(|stem| stem == name))
    }
}

fn sources() -> Vec<Source> {
    let (mut folders, mut sources) = (vec!["src".into(), "tests/it".into()], Vec::new());
    while let Some(folder) = folders.pop() {
        let folder: std::path::PathBuf = folder;
        for entry in std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if path.extension().is_none() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text =
                    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
                let path = path.with_extension("");
                let path = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                sources.push(Source { path, text });
            }
        }
    }
    sources
}

/// Runs a section's table.
fn run_section(section: &Section) {
    let world = world(Form::Wso2);
    let cases = (section.cases)(world);
    check_all(&world.gate, &world.backends(), world.form, &cases);
}

/// `T01` of `T01 alg none`.
fn id_of(name: &str) -> &str {
    name.split(' ').next().unwrap_or_default()
}

/// A gate with the Orders API alone, before one provider.
fn orders_gate(idp: &Idp, upstream: &Backend) -> Gate {
    Gate::start(|ports| Config::orders(idp, &upstream.url()).text(ports))
}

/// A case that brings `token` to an item of the Orders API.
fn bring(name: impl Into<String>, expect: crate::support::Expect, token: impl Into<String>) -> Case {
    let token = token.into();
    Case::new(name, expect, move || crate::support::Request::get("/orders/v1/items/{m}").bearer(&token))
}

/// A good token of the key manager with the strict profile.
fn strict(world: &World) -> Token {
    Token::of(&world.strict, "shop-web").header("typ", "at+jwt")
}
