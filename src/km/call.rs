//! What a command asks the door: an operation, the parts of its path, a body from flags and files.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Error;
use crate::{keymanager::Sensitive, management::twin, secret::redacted};

/// A request to the door. Not `Debug`: its body may hold secrets.
pub(super) struct Call {
    /// The operation, by its name in the door's table.
    pub(super) operation: &'static str,
    /// What stands in the path, in order.
    pub(super) parts: Vec<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    /// Of a list: whether all of its pages are wanted.
    pub(super) whole: bool,
    /// Of a change that names some members: the operation that reads the others, which stay.
    pub(super) keeps: Option<&'static str>,
}

impl Call {
    pub(super) fn new<const N: usize>(operation: &'static str, parts: [String; N]) -> Self {
        Self { operation, parts: parts.into(), query: Vec::new(), body: None, whole: false, keeps: None }
    }

    pub(super) fn with(self, body: Body) -> Self {
        Self { body: Some(Value::Object(body.members)), ..self }
    }

    /// The same with a body, unless there is nothing in it.
    pub(super) fn with_any(self, body: Body) -> Self {
        if body.members.is_empty() { self } else { self.with(body) }
    }

    pub(super) fn ask(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }
}

/// A JSON object that is put together.
#[derive(Default)]
pub(super) struct Body {
    members: Map<String, Value>,
    /// Which members of objects within were given by flags.
    given: BTreeSet<String>,
}

impl Body {
    /// Begins with the object in `file`, or with nothing.
    pub(super) fn begin(inputs: &Inputs, file: Option<&Path>) -> Result<Self, Error> {
        let members = file.map(|file| inputs.object(file)).transpose()?.unwrap_or_default();
        Ok(Self { members, ..Self::default() })
    }

    /// Flags count more than the file.
    pub(super) fn put(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// A list, unless it is empty.
    pub(super) fn list(self, name: &str, items: Vec<String>) -> Self {
        let some = !items.is_empty();
        self.put(name, some.then_some(items))
    }

    /// A secret that a file holds.
    pub(super) fn secret(self, name: &str, inputs: &Inputs, file: Option<&Path>) -> Result<Self, Error> {
        let secret = file.map(|file| inputs.secret(file)).transpose()?;
        Ok(self.put(name, secret.map(|secret| secret.as_str().to_owned())))
    }

    /// A member of the object `within`, beside those that it has.
    pub(super) fn put_in(mut self, within: &str, name: &str, value: Option<impl Into<Value>>) -> Result<Self, Error> {
        let Some(value) = value else { return Ok(self) };
        let inner = self.members.entry(within).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(inner) = inner else {
            return Err(Error::Unreadable(format!("--from: {within} must be an object")));
        };
        inner.insert(name.to_owned(), value.into());
        self.given.insert(name.to_owned());
        Ok(self)
    }

    /// Members `NAME=VALUE` of the object `within`, none of which another flag has given.
    pub(super) fn pairs_in(self, within: &str, flag: &str, pairs: &[String]) -> Result<Self, Error> {
        pairs.iter().try_fold(self, |body, pair| {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| Error::Usage(format!("{flag}: each must be NAME=VALUE")))?;
            if body.given.contains(name) {
                return Err(Error::Usage(format!("{flag}: {name} is there twice")));
            }
            body.put_in(within, name, Some(value))
        })
    }
}

/// Files and standard input, which can be read once.
#[derive(Default)]
pub(super) struct Inputs {
    stdin_taken: Cell<bool>,
    /// What no error may say.
    secrets: RefCell<Vec<Zeroizing<String>>>,
}

impl Inputs {
    /// The text of a file, or of standard input (`-`).
    fn text(&self, file: &Path) -> Result<Zeroizing<String>, Error> {
        let unreadable = |why: &dyn ToString| Error::Unreadable(format!("{}: {}", file.display(), why.to_string()));
        let mut text = Zeroizing::new(String::new());
        let read = if file == Path::new("-") {
            if self.stdin_taken.replace(true) {
                return Err(Error::Usage("standard input (-) can be read for one thing only".into()));
            }
            io::stdin().take(MOST_INPUT + 1).read_to_string(&mut text)
        } else {
            File::open(file).and_then(|file| file.take(MOST_INPUT + 1).read_to_string(&mut text))
        };
        match read {
            Err(error) => Err(unreadable(&error)),
            Ok(length) if length as u64 > MOST_INPUT => Err(unreadable(&format!("holds more than {MOST_INPUT} bytes"))),
            Ok(_) => Ok(text),
        }
    }

    /// A secret of one line.
    pub(super) fn secret(&self, file: &Path) -> Result<Zeroizing<String>, Error> {
        let text = self.text(file)?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::Unreadable(format!("{}: is empty", file.display()))),
            secret => {
                self.hide(secret);
                Ok(Zeroizing::new(secret.to_owned()))
            }
        }
    }

    /// No error may say it.
    pub(super) fn hide(&self, secret: &str) {
        // What is shorter may be any word.
        if secret.len() >= SHORTEST_HIDDEN {
            self.secrets.borrow_mut().push(Zeroizing::new(secret.to_owned()));
        }
    }

    /// The error without the secrets that were sent, even where the door says them.
    pub(super) fn hidden(&self, error: Error) -> Error {
        let Error::Refused { status, text } = error else { return error };
        let text = redacted(&text, self.secrets.borrow().iter().map(|secret| secret.as_str()));
        Error::Refused { status, text }
    }

    /// A token: itself, `-` for standard input, `@FILE` for a file's.
    pub(super) fn token(&self, argument: &Sensitive) -> Result<String, Error> {
        let argument = argument.reveal();
        let file = if argument == "-" { Some("-") } else { argument.strip_prefix('@') };
        match file {
            None => {
                self.hide(argument);
                Ok(argument.to_owned())
            }
            Some(file) => self.secret(Path::new(file)).map(|token| token.as_str().to_owned()),
        }
    }

    /// A JSON object without twins, as the door wants it; an error quotes no value of it.
    fn object(&self, file: &Path) -> Result<Map<String, Value>, Error> {
        let text = self.text(file)?;
        let object = serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::Unreadable(format!("{}: is no JSON object: line {line} column {column}", file.display()))
        })?;
        match twin(text.as_bytes()) {
            Some(member) => Err(Error::Unreadable(format!("{}: {member} is there twice", file.display()))),
            None => Ok(object),
        }
    }
}

/// Bytes of a file that are read; the door takes no more either.
const MOST_INPUT: u64 = 256 << 10;
const SHORTEST_HIDDEN: usize = 6;
