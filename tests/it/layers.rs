//! Lower modules never use upper ones: reads the `use crate::` lines of `src` and every `crate::` path.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Layer of each module, from the ground up. Within one layer: only the pairs of `SIDEWAYS`.
const LAYERS: [(&str, u8); 28] = [
    ("problem", 0),
    ("units", 0),
    ("file", 0),
    ("secret", 0),
    ("telemetry", 0),
    ("net", 0),
    ("store", 1),
    ("token", 2),
    ("throttle", 2),
    ("authz", 3),
    ("keymanager", 3),
    ("authserver", 3),
    ("proxy", 4),
    ("decision", 4),
    ("management", 4),
    ("admin", 4),
    ("webhook", 4),
    ("connectors", 4),
    ("sync", 4),
    ("main", 5),
    ("lib", 5),
    ("cli", 5),
    ("explain", 5),
    ("health", 5),
    ("km", 5),
    ("quickstart", 5),
    ("app", 5),
    ("config", 5),
];

/// Ground stands in an order of its own: problem, units, file < secret < telemetry < net.
const GROUND: [&str; 6] = ["problem", "units", "file", "secret", "telemetry", "net"];

#[test]
fn lower_modules_never_use_upper_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let files = rust_files(&root);
    assert!(files.len() > 10, "the sources were not found");
    for file in files {
        let from = module_of(&root, &file);
        let Some(own) = layer(&from) else {
            wrong.push(format!("{}: module {from} is in no layer", file.display()));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for used in used_modules(&without_tests(&text)) {
            let allowed =
                used == from || own == 5 || layer(&used).is_some_and(|of| of < own) || below_in_ground(&used, &from);
            if !allowed {
                wrong.push(format!("{} ({from}) uses {used}", file.strip_prefix(&root).unwrap_or(&file).display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn below_in_ground(used: &str, from: &str) -> bool {
    let place = |name: &str| GROUND.iter().position(|ground| *ground == name);
    matches!((place(used), place(from)), (Some(used), Some(from)) if used < from)
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut all: Vec<PathBuf> = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
    all.extend(folders.iter().flat_map(|folder| rust_files(folder)));
    all
}

/// First part of a file's path below `src`.
fn module_of(root: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(root).unwrap_or(file);
    let first = relative.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

/// Unit tests may stand on anything.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// Modules named right after `crate::`, also in braces; comments do not count.
fn used_modules(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|l| [l, "\n"]).collect();
    let mut all = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro and `tollgate_crate::` are something else.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => all.extend(top_names(list)),
            None => all.push(name(rest)),
        }
    }
    all.retain(|name| name.starts_with(|c: char| c.is_lowercase()));
    all
}

/// Names at the top level of a braced list.
fn top_names(list: &str) -> Vec<String> {
    let (mut depth, mut all, mut start) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                all.push(name(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    all
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn names_are_read_from_every_form() {
    let text = "use crate::{\n    net::{Now, Clock},\n    store::Api,\n    Thing,\n};\n// crate::app\nfn f() { crate::authz::g() }";
    assert_eq!(used_modules(text), ["net", "store", "authz"]);
}
