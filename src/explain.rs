//! `tollgate explain`: a request's verdict, step by step, for whoever wants to know why.
//!
//! Prints what a token says of itself, never the token nor any part of its text.

use std::{
    fmt::Write,
    fs,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use http::{HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use serde::Serialize;

use crate::{
    app::Question,
    authz::{Explanation, Outcome},
    net::Fields,
};

/// What the command line says.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 when the request would be granted, 1 when it would be refused or could not be judged."
)]
pub(crate) struct Arguments {
    /// The configuration file: .toml, .yaml or .json.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The request's verb.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The request's path as sent, with its query if it has one.
    #[arg(long, value_name = "PATH")]
    path: String,
    /// The host it asks for.
    #[arg(long, default_value = "")]
    host: String,
    /// File of the token to bring as `Authorization: Bearer`; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A header field, `Name: value`; may be given several times.
    #[arg(long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The client's address.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// Ask no key manager: only keys by hand, in the record and of embedded providers count. Without it they are
    /// asked for keys and about opaque tokens, as `serve` does.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Arguments {
    /// The request, or what is wrong with the arguments; values of fields are not told, since they may be secrets.
    pub(crate) fn question(&self) -> Result<Question, String> {
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|_| "--method: is no verb")?;
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (&*self.path, None),
        };
        let mut headers = Fields::default();
        for (n, field) in self.headers.iter().enumerate() {
            let (name, value) = header(field).ok_or_else(|| format!("--header {}: is not `Name: value`", n + 1))?;
            headers.push(&name, &value);
        }
        if let Some(file) = &self.token_file {
            let token = token(file).map_err(|error| format!("--token-file: {error}"))?;
            let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
            let mut value = value.map_err(|_| "--token-file: holds what no header field can carry")?;
            value.set_sensitive(true);
            headers.push(&AUTHORIZATION, &value);
        }
        Ok(Question { method, host: host(&self.host), path: path.to_owned(), query, headers, client: self.client })
    }
}

/// Lower case, without port and trailing dot, as a door gives it to the engine.
fn host(text: &str) -> String {
    let end = if text.starts_with('[') { text.find(']').map(|at| at + 1) } else { text.find(':') };
    let host = &text[..end.unwrap_or(text.len())];
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn header(field: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = field.split_once(':')?;
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

fn token(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().take(MAX_FILE).read_to_string(&mut text)?;
        return Ok(text);
    }
    let mut text = String::new();
    fs::File::open(file)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// The explanation as text.
pub(crate) fn text(question: &Question, explanation: &Explanation, caveats: &[String]) -> String {
    let mut out = format!("{} {}\n\n", question.method, clean(&question.path));
    for passage in &explanation.steps {
        let _ = writeln!(out, "  {:<13} {:<8} {}", passage.step, word(passage.outcome), clean(&passage.note));
    }
    let _ = match &explanation.refusal {
        None => writeln!(out, "\ngranted"),
        Some(answer) => {
            writeln!(out, "\n{} {} ({}): {}", answer.status, answer.code, answer.reason, answer.message)
        }
    };
    if let Some(remedy) = &explanation.remedy {
        let _ = writeln!(out, "to pass: {}", clean(remedy));
    }
    for caveat in caveats {
        let _ = writeln!(out, "note: {caveat}");
    }
    out
}

/// The explanation as JSON: that of [`Explanation`], with the request and what has to be known besides.
pub(crate) fn json(question: &Question, explanation: &Explanation, caveats: &[String]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Told<'a> {
        method: &'a str,
        host: &'a str,
        path: &'a str,
        #[serde(flatten)]
        explanation: &'a Explanation,
        notes: &'a [String],
    }
    let Question { method, host, path, .. } = question;
    let told = Told { method: method.as_str(), host, path, explanation, notes: caveats };
    serde_json::to_string_pretty(&told).map(|text| text + "\n")
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Granted => "ok",
        Outcome::Refused => "REFUSED",
        Outcome::Failed => "FAILED",
    }
}

/// Strangers' words never steer a terminal, nor what is read of them: what ends a line, or turns its direction, is escaped.
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(c.escape_unicode());
            }
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Bytes of a token file that are read; a longer token is refused anyway.
const MAX_FILE: u64 = 1 << 20;
