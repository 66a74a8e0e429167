//! `[tables]`: rows of APIs, applications, subscriptions and tiers in files of their own, one JSON object a line.
//!
//! Files are read line by line, once for each [`Pass`], and no line is kept: a million rows cost what they become.
//! A file that changes meanwhile is refused as a whole.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader, Read as _, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Settings, problems::Findings, rows};
use crate::{
    file,
    problem::{Place, Problem},
    store::{MOST_MISTAKES, Pass, Row, Source},
};

/// `[tables]`: rows that stand in files of their own, besides those of this file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TablesSettings {
    /// NDJSON files, relative to this file's folder; `*` and `?` in a file's name stand for any. Each line is a row:
    /// `{"api": {…}}`, `{"application": {…}}`, `{"subscription": {…}}` or `{"tier": {…}}`, with the fields of `[[apis]]` and so on.
    pub files: Vec<String>,
    /// The folder of the configuration.
    #[serde(skip)]
    pub(super) folder: PathBuf,
}

/// What tells one content of a file from another, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

/// The files that are there, each once, in order.
pub type Stamps = Vec<(PathBuf, Option<Stamp>)>;

impl TablesSettings {
    /// The files that are there now. One that is named and is not there has no stamp.
    pub fn stamps(&self) -> Stamps {
        let stamped = |path: PathBuf| {
            let stamp = fs::metadata(&path).ok().map(|data| Stamp::of(&data));
            (path, stamp)
        };
        self.paths().unwrap_or_default().into_iter().map(stamped).collect()
    }

    /// The folders in which files are looked for.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        self.files.iter().map(|file| folder_of(&self.folder.join(file))).collect()
    }

    /// All files, in the order of the settings, those of a pattern by name.
    fn paths(&self) -> Result<Vec<PathBuf>, Vec<Problem>> {
        let (mut paths, mut problems) = (Vec::new(), Vec::new());
        for (n, file) in self.files.iter().enumerate() {
            match matching(&self.folder.join(file)) {
                Ok(found) => paths.extend(found),
                Err(message) => problems.push(Problem::new(format!("tables.files[{n}]"), message)),
            }
        }
        let mut seen = BTreeSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        if paths.len() > MOST_FILES {
            problems.push(Problem::new("tables.files", format!("are more than {MOST_FILES}")));
        }
        if problems.is_empty() { Ok(paths) } else { Err(problems) }
    }
}

impl Stamp {
    fn of(data: &Metadata) -> Self {
        let inode = (data.dev(), data.ino());
        Self { inode, size: data.len(), modified: (data.mtime(), data.mtime_nsec()) }
    }
}

/// The folder of a file; `.` where none is said.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.into(),
        _ => ".".into(),
    }
}

/// The files that a path means.
fn matching(path: &Path) -> Result<Vec<PathBuf>, String> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Err("is no file's name".into()) };
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![path.into()]);
    }
    let pattern = glob::Pattern::new(name).map_err(|error| format!("is no pattern: {}", error.msg))?;
    let entries = fs::read_dir(folder_of(path)).map_err(|error| format!("its folder cannot be read: {error}"))?;
    let hidden = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let fits = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| pattern.matches_with(name, hidden))
    };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(fits).collect();
    found.sort();
    if found.is_empty() { Err("no file has such a name".into()) } else { Ok(found) }
}

/// The files of `[tables]`, open, as a source of rows.
#[derive(Debug)]
pub struct TableFiles<'s> {
    settings: &'s Settings,
    files: Vec<Open>,
    findings: TableFindings,
}

/// What was seen of the files while they were read.
#[derive(Debug, Default)]
pub struct TableFindings {
    /// Fail-open traps of their APIs, the first hundred.
    pub traps: Vec<Problem>,
    /// Those, and what makes every request be refused.
    pub warnings: Vec<Problem>,
    /// Which content was read.
    pub stamps: Stamps,
}

#[derive(Debug)]
struct Open {
    name: Arc<str>,
    file: File,
    stamp: Stamp,
}

impl<'s> TableFiles<'s> {
    /// Opens the files that the settings name.
    pub fn open(settings: &'s Settings) -> Result<Self, Vec<Problem>> {
        let mut all = Self { settings, files: Vec::new(), findings: TableFindings::default() };
        let mut problems = Vec::new();
        for path in settings.tables.paths()? {
            match Open::new(&path) {
                Ok(open) => {
                    all.findings.stamps.push((path, Some(open.stamp)));
                    all.files.push(open);
                }
                Err(error) => {
                    let message = format!("{}: cannot be read: {error}", path.display());
                    problems.push(Problem::new("tables.files", message));
                }
            }
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    /// What was seen, after all passes.
    pub fn into_findings(self) -> TableFindings {
        self.findings
    }
}

impl Source for TableFiles<'_> {
    fn read(&mut self, pass: Pass, take: &mut dyn FnMut(Row, &Place) -> bool) -> Vec<Problem> {
        let Self { settings, files, findings } = self;
        let lookup = |name: &str| std::env::var(name).ok();
        let mut problems = Vec::new();
        for open in &*files {
            let mut place = Place { file: Arc::clone(&open.name), line: 0 };
            let mut goes_on = true;
            let outcome = open.each_line(|number, line| {
                place.line = number;
                let mut wrong = |field: &str, message: &str| {
                    problems.push(Problem::new(field, message).at(place.clone()));
                    problems.len() < MOST_MISTAKES
                };
                let row = match line {
                    Ok(line) => match row_of(line, pass, &lookup) {
                        Some(row) => row,
                        None => return true,
                    },
                    // Told once, in the first pass.
                    Err(_) if pass != Pass::Tiers => return true,
                    Err(message) => Err(("line".into(), message.into())),
                };
                goes_on = match row {
                    Ok(row) => {
                        if let Row::Api(api) = &row {
                            findings.look_at(settings, api, &place);
                        }
                        take(row, &place)
                    }
                    Err((field, message)) => wrong(&field, &message),
                };
                goes_on
            });
            if let Err(error) = outcome {
                problems.push(Problem::new("line", format!("cannot be read: {error}")).at(place.clone()));
            }
            if pass == Pass::Subscriptions && goes_on && open.has_changed() {
                let message = "has changed while it was read; put another in its place, rather than writing to it";
                problems.push(Problem::new("file", message).at(place));
            }
            if !goes_on {
                break;
            }
        }
        problems
    }
}

/// The row of a line that is read in this pass, or the field that is wrong and why; none: it is not read now.
fn row_of(line: &[u8], pass: Pass, lookup: &dyn Fn(&str) -> Option<String>) -> Option<Result<Row, (String, String)>> {
    if line.trim_ascii().is_empty() {
        return None;
    }
    let known = rows::pass_of(line);
    if known.unwrap_or(Pass::Tiers) != pass {
        return None;
    }
    let Ok(text) = str::from_utf8(line) else { return Some(Err(("line".into(), "is not UTF-8 text".into()))) };
    let row = rows::row(text, lookup).map_err(|fault| {
        let field = fault.field().unwrap_or_else(|| format!("column {}", rows::column(text, &fault)));
        (field, fault.message.replace('\n', ", "))
    });
    match row {
        // Its kind is written with escapes: nobody does, and it would be read in the wrong pass.
        Ok(_) if known.is_none() => Some(Err(("line".into(), rows::FORM.into()))),
        row => Some(row),
    }
}

impl TableFindings {
    fn look_at(&mut self, settings: &Settings, api: &crate::store::settings::ApiSettings, place: &Place) {
        let keep = |kept: &mut Vec<Problem>, found: Findings| {
            let room = MOST_MISTAKES.saturating_sub(kept.len());
            kept.extend(found.0.into_iter().take(room).map(|problem| problem.at(place.clone())));
        };
        let mut traps = Findings::default();
        settings.traps_of_api("api", api, &mut traps);
        let mut warnings = Findings(traps.0.clone());
        settings.warnings_of_api("api", api, &mut warnings);
        keep(&mut self.traps, traps);
        keep(&mut self.warnings, warnings);
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let (file, metadata) = file::open(path)?;
        let stamp = Stamp::of(&metadata);
        Ok(Self { name: path.display().to_string().into(), file, stamp })
    }

    fn has_changed(&self) -> bool {
        self.file.metadata().map_or(true, |data| Stamp::of(&data) != self.stamp)
    }

    /// Hands out each line by its number, from 1, without its end; false ends it.
    fn each_line(&self, mut take: impl FnMut(u32, Result<&[u8], &'static str>) -> bool) -> io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        let mut reader = BufReader::with_capacity(BUFFER, file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            let ended = line.ends_with(b"\n");
            let text = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
            let text = if ended || line.len() as u64 <= MAX_LINE {
                Ok(text)
            } else {
                reader.skip_until(b'\n')?;
                Err(TOO_LONG)
            };
            if !take(number, text) {
                break;
            }
        }
        Ok(())
    }
}

const MOST_FILES: usize = 256;
/// An API of some ten thousand resources.
const MAX_LINE: u64 = 4 << 20;
const TOO_LONG: &str = "is longer than 4MiB";
const BUFFER: usize = 256 << 10;
