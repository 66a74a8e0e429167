//! From a file to [`Settings`], with places for mistakes.
//!
//! Syntax and type mistakes are told at once, with line and column. Mistakes of meaning come from the
//! settings' owners as [`Problem`]s; [`Document::explain`] gives them file and line. No message holds
//! a configured value.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::Deserialize as _;

use crate::problem::Problem;

use super::{
    Settings,
    expand::expand,
    format::Format,
    tree::{Fault, Node},
};

/// A configuration's text, kept to tell where in it a field stands. Prints its name only.
pub struct Document {
    name: String,
    format: Format,
    text: String,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{name}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than anyone's configuration.
    #[error("{name}: is larger than 64MiB")]
    TooLarge {
        /// The file.
        name: String,
    },
    /// The file is not UTF-8.
    #[error("{name}: is not UTF-8 text")]
    Encoding {
        /// The file.
        name: String,
    },
    /// The extension names no format.
    #[error("{name}: a configuration's name ends in .toml, .yaml, .yml or .json")]
    Extension {
        /// The file.
        name: String,
    },
    /// The first mistake of syntax or type.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// All mistakes of meaning.
    #[error("{}", lines(.0))]
    Meaning(Vec<LocatedProblem>),
}

/// A mistake of syntax or type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The field's path, where it is in a field.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// A mistake of meaning and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedProblem {
    /// The file.
    pub file: String,
    /// Line of the field, or of the table it is missing from.
    pub line: usize,
    /// The mistake.
    pub problem: Problem,
}

/// Reads and understands a configuration file; its extension names the format. What it means is not
/// judged yet: ask [`Settings::problems`] and the parts' constructors, and [`Document::explain`] the answers.
pub fn load(path: &Path) -> Result<(Settings, Document), Error> {
    let name = path.display().to_string();
    let Some(format) = Format::of(path) else { return Err(Error::Extension { name }) };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(source) = read {
        return Err(Error::Unreadable { name, source });
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { name });
    }
    let Ok(text) = String::from_utf8(bytes) else { return Err(Error::Encoding { name }) };
    let (mut settings, document) = parse(text, format, name)?;
    if !settings.tables.files.is_empty() {
        settings.tables.folder = path.parent().map(Path::to_owned).unwrap_or_default();
    }
    Ok((settings, document))
}

/// Understands a configuration's text; `name` is for messages.
pub fn parse(text: impl Into<String>, format: Format, name: impl Into<String>) -> Result<(Settings, Document), Error> {
    parse_with(text.into(), format, name.into(), &|variable| std::env::var(variable).ok())
}

/// The built-in copy of `config/quickstart.toml`.
pub fn quickstart() -> Result<(Settings, Document), Error> {
    parse(QUICKSTART, Format::Toml, "quickstart.toml (built in)")
}

/// `parse` with the environment as an argument.
pub(super) fn parse_with(
    text: String,
    format: Format,
    name: String,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(Settings, Document), Error> {
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let document = Document { name, format, text };
    let settings = document.settings(lookup).map_err(|fault| document.mistake(fault))?;
    Ok((settings, document))
}

impl Document {
    /// The line of the field at `path` (`apis[0].context`), or of the nearest table around it.
    pub fn locate(&self, path: &str) -> Option<usize> {
        Some(self.line_of(&self.tree().ok()?, path))
    }

    /// Mistakes of meaning with file and line, each once, in the file's order.
    pub fn explain(&self, problems: Vec<Problem>) -> Error {
        let tree = self.tree().ok();
        let line = |problem: &Problem| tree.as_ref().map_or(1, |tree| self.line_of(tree, &problem.field));
        let locate = |problem: Problem| match &problem.place {
            Some(place) => LocatedProblem { file: place.file.to_string(), line: place.line as usize, problem },
            None => LocatedProblem { file: self.name.clone(), line: line(&problem), problem },
        };
        let mut located: Vec<_> = problems.into_iter().map(locate).collect();
        // This file's first, then the others in the order they were read.
        let mut files: Vec<String> = vec![self.name.clone()];
        for located in &located {
            if !files.contains(&located.file) {
                files.push(located.file.clone());
            }
        }
        located.sort_by_key(|located| (files.iter().position(|file| *file == located.file), located.line));
        let mut kept: Vec<LocatedProblem> = Vec::with_capacity(located.len());
        for problem in located {
            if !kept.iter().rev().take_while(|other| other.line == problem.line).any(|other| *other == problem) {
                kept.push(problem);
            }
        }
        Error::Meaning(kept)
    }

    fn settings(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Fault> {
        let mut tree = self.tree()?;
        expand(&mut tree, lookup)?;
        Settings::deserialize(tree)
    }

    fn tree(&self) -> Result<Node<'_>, Fault> {
        self.format.read(&self.text)
    }

    fn line_of(&self, tree: &Node<'_>, path: &str) -> usize {
        self.format.place(&self.text, tree.locate(path)).0
    }

    fn mistake(&self, fault: Fault) -> Mistake {
        let (line, column) = self.format.place(&self.text, fault.at.unwrap_or(0));
        Mistake { file: self.name.clone(), line, column, field: fault.field(), message: fault.message }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, field, message } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if let Some(field) = field {
            write!(f, "{field}: ")?;
        }
        // A parser's words may have lines; ours have one.
        f.write_str(&message.replace('\n', ", "))
    }
}

impl fmt::Display for LocatedProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

fn lines(problems: &[LocatedProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

const MAX_BYTES: u64 = 64 << 20;
const QUICKSTART: &str = include_str!("../../config/quickstart.toml");
