//! `${NAME}` in strings: replaced once by the environment's value, never looked at again.

use std::borrow::Cow;

use super::tree::{Fault, Node, Value};

/// Expands every string of the tree; `lookup` gives a variable's value.
pub(super) fn expand(node: &mut Node<'_>, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(), Fault> {
    match &mut node.value {
        Value::Text(text) if text.contains("${") => {
            *text = Cow::Owned(expanded(text, lookup).map_err(|message| Fault::at(node.at, message))?);
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, lookup).map_err(|fault| fault.within_item(index))?;
            }
        }
        Value::Table(entries) => {
            for (key, value) in entries {
                expand(value, lookup).map_err(|fault| fault.within(&key.name))?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn expanded(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        // What is no name is not repeated: it may be part of a secret.
        let (name, after) = after.split_once('}').filter(|(name, _)| is_name(name)).ok_or(MALFORMED)?;
        let value = lookup(name).ok_or_else(|| format!("environment variable {name} is not set"))?;
        out.push_str(before);
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

const MALFORMED: &str = "\"${\" begins a variable such as ${NAME}; write \"$${\" for the characters themselves";

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "NESTED" => Some("${A}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_expanded_once() {
        for (text, expected) in [
            ("${A}", "one"),
            ("x${A}y${A}z", "xoneyonez"),
            ("${NESTED}", "${A}"),
            ("${EMPTY}", ""),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("^op_[a-z]+$", "^op_[a-z]+$"),
            ("$A {A} $", "$A {A} $"),
            ("é${A}é", "éoneé"),
        ] {
            assert_eq!(expanded(text, &lookup).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unset_and_malformed_are_refused() {
        assert_eq!(expanded("${MISSING}", &lookup), Err("environment variable MISSING is not set".into()));
        for text in ["${", "${}", "${A", "${hunter2 }", "${1A}", "${A:-x}", "${${A}}"] {
            assert_eq!(expanded(text, &lookup), Err(MALFORMED.into()), "{text}");
        }
    }
}
