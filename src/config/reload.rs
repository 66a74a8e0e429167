//! What a reload cannot change: it was settled when the process started.

use crate::{management::ManagementSettings, proxy};

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
    note(old.admin != new.admin, "admin.listen");
    note(old.store != new.store, "store");
    match (&old.shared, &new.shared) {
        (Some(old), Some(new)) => note(!old.is_same_place(new), "shared"),
        (old, new) => note(old.is_some() != new.is_some(), "shared"),
    }
    note(old.cache.tokens != new.cache.tokens, "cache.tokens");
    note(old.cache.negative != new.cache.negative, "cache.negative");
    note(old.log.format != new.log.format, "log.format");
    match (&old.proxy, &new.proxy) {
        (Some(old), Some(new)) => note_proxy(old, new, &mut note),
        (old, new) => note(old.is_some() != new.is_some(), "proxy"),
    }
    match (&old.management, &new.management) {
        (Some(old), Some(new)) => note_management(old, new, &mut note),
        (old, new) => note(old.is_some() != new.is_some(), "management"),
    }
    changed
}

fn note_proxy(old: &proxy::Settings, new: &proxy::Settings, note: &mut dyn FnMut(bool, &'static str)) {
    note(old.listen != new.listen, "proxy.listen");
    // Other files, or renewed ones, are read with the reload; TLS itself comes and goes with the listener.
    note(old.tls.is_some() != new.tls.is_some(), "proxy.tls");
}

fn note_management(old: &ManagementSettings, new: &ManagementSettings, note: &mut dyn FnMut(bool, &'static str)) {
    // As at the proxy.
    note(old.tls.is_some() != new.tls.is_some(), "management.tls");
    let but_tls = |door: &ManagementSettings| ManagementSettings { tls: None, ..door.clone() };
    note(but_tls(old) != but_tls(new), "management");
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
            ("[proxy]", "store.path = \"/a\"\n[proxy]", &["store"]),
            ("8080", "8081", &["proxy.listen"]),
            ("[proxy]", "[proxy]\ngrace = \"1s\"", &[]),
            ("[proxy]", "[proxy]\ntimeouts = { idle = \"1s\" }", &[]),
            ("[proxy]", "[proxy]\ntls = { cert = \"c\", key = \"k\" }", &["proxy.tls"]),
            ("9090", "9091", &["admin.listen"]),
            (
                "[proxy]",
                "log = { format = \"text\" }\ncache = { tokens = \"1MiB\" }\n[proxy]",
                &["cache.tokens", "log.format"],
            ),
            ("[proxy]\nlisten = \"127.0.0.1:8080\"", "", &["proxy"]),
            ("[proxy]", "shared.redis = \"redis://h\"\n[proxy]", &["shared"]),
        ] {
            let new = parse(text.replace(from, to), Format::Toml, "f").map(|(settings, _)| settings);
            let new = new.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(restart_only(&old, &new), expected, "{to}");
        }
    }

    #[test]
    fn the_management_door_takes_new_certificates_and_nothing_else() {
        let door = |more: &str| {
            let text = format!("[management]\nlisten = \"127.0.0.1:9443\"\nbootstrap_key_file = \"k\"\n{more}");
            parse(&text, Format::Toml, "f").unwrap_or_else(|error| panic!("{error}")).0
        };
        let tls = |cert: &str| door(&format!("tls = {{ cert = \"{cert}\", key = \"k\" }}"));
        assert_eq!(restart_only(&tls("a"), &tls("b")), [""; 0]);
        assert_eq!(restart_only(&door(""), &tls("a")), ["management.tls"]);
        assert_eq!(restart_only(&tls("a"), &door("")), ["management.tls"]);
        assert_eq!(restart_only(&door(""), &door("key_managers = [\"x\"]")), ["management"]);
        assert_eq!(restart_only(&door(""), &Settings::default()), ["management"]);
    }
}
