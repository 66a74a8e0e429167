//! The strict front end before other people's vectors: Wycheproof and the JOSE cookbook.
//!
//! The vectors are no part of this repository: `TOLLGATE_VECTORS` names their folder, which holds `wycheproof/` and
//! `jose-cookbook/`. Without it nothing here is judged, and that is said aloud. With it the counts are printed, and
//! every result that differs from the vector's own must be in [`deviations`], with its reason.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cookbook;
mod deviations;
mod keys;
mod primitives;
mod tally;
mod wycheproof;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The folder of the vectors; none: the test is skipped, and says so.
fn vectors(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TOLLGATE_VECTORS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        aloud(&format!("SKIPPED {test}: TOLLGATE_VECTORS names no folder of test vectors"));
    }
    // A folder that is named must be there: a typo is not a reason to skip.
    folder.inspect(|folder| assert!(folder.is_dir(), "TOLLGATE_VECTORS: {} is no folder", folder.display()))
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Past the capture of test output: who runs the tests is to see it.
fn aloud(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
