//! What a reload cannot change: it was settled when the process started.

use crate::{
    proxy,
    token::settings::{ConnectorKind, KeyManagerSettings},
};

use super::Settings;

/// The changed settings that need a restart; all others take effect with the reload.
pub fn restart_only(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut note = |differs: bool, field: &'static str| {
        if differs {
            changed.push(field);
        }
    };
    note(old.workers != new.workers, "workers");
    note(old.decision != new.decision, "decision");
    note(old.management != new.management, "management");
    note(old.admin != new.admin, "admin.listen");
    note(old.store != new.store, "store");
    note(old.shared != new.shared, "shared");
    note(old.cache.tokens != new.cache.tokens, "cache.tokens");
    note(old.cache.negative != new.cache.negative, "cache.negative");
    note(old.log.format != new.log.format, "log.format");
    note(old.log.level != new.log.level, "log.level");
    note(old.log.access_sample != new.log.access_sample, "log.access_sample");
    note(embedded(old) != embedded(new), "key_managers.listen");
    match (&old.proxy, &new.proxy) {
        (Some(old), Some(new)) => note_proxy(old, new, &mut note),
        (old, new) => note(old.is_some() != new.is_some(), "proxy"),
    }
    changed
}

fn note_proxy(old: &proxy::Settings, new: &proxy::Settings, note: &mut dyn FnMut(bool, &'static str)) {
    note(old.listen != new.listen, "proxy.listen");
    note(old.tls != new.tls, "proxy.tls");
    note(old.max_header_bytes != new.max_header_bytes, "proxy.max_header_bytes");
    note(old.max_headers != new.max_headers, "proxy.max_headers");
    note(old.max_uri != new.max_uri, "proxy.max_uri");
    note(old.max_body != new.max_body, "proxy.max_body");
    note(old.timeouts != new.timeouts, "proxy.timeouts");
    note(old.drain_delay != new.drain_delay, "proxy.drain_delay");
    note(old.grace != new.grace, "proxy.grace");
}

/// Where embedded providers listen, by their names.
fn embedded(settings: &Settings) -> Vec<(&str, Option<&str>)> {
    let is_embedded = |manager: &&KeyManagerSettings| manager.connector == ConnectorKind::Embedded;
    settings.key_managers.iter().filter(is_embedded).map(|m| (m.name.as_str(), m.listen.as_deref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse, quickstart};

    #[test]
    fn only_what_was_settled_at_start_is_named() {
        let old = quickstart().unwrap().0;
        let text = include_str!("../../config/quickstart.toml");
        for (from, to, expected) in [
            ("", "", &[][..]),
            ("requests = 5", "requests = 6", &[]),
            ("audience = [\"quickstart\"]", "audience = [\"other\"]", &[]),
            ("[proxy]", "realm = \"x\"\nstrip_headers = [\"X-A\"]\n[proxy]", &[]),
            ("[proxy]", "workers = 2\n[proxy]", &["workers"]),
            ("8080", "8081", &["proxy.listen"]),
            ("[proxy]", "[proxy]\ngrace = \"1s\"", &["proxy.grace"]),
            ("[proxy]", "[proxy]\ntimeouts = { idle = \"1s\" }", &["proxy.timeouts"]),
            ("9090", "9091", &["admin.listen"]),
            ("9000", "9001", &["key_managers.listen"]),
            (
                "[proxy]",
                "log = { format = \"text\" }\ncache = { tokens = \"1MiB\" }\n[proxy]",
                &["cache.tokens", "log.format"],
            ),
            ("[proxy]\nlisten = \"127.0.0.1:8080\"", "", &["proxy"]),
        ] {
            let new = parse(text.replace(from, to), Format::Toml, "f").map(|(settings, _)| settings);
            let new = new.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(restart_only(&old, &new), expected, "{to}");
        }
    }
}
