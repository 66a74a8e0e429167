//! Any text as a path. What has a canonical form has one, and no way out of it.
#![no_main]

use tollgate::store::canonical;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(path) = canonical(text) else { return };
    assert!(path.starts_with('/'), "{text:?} {path:?}");
    assert!(!path.contains("//") && !path.contains(['\\', ';', '#', '\0', '\r', '\n']), "{text:?} {path:?}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{text:?} {path:?}");
    let lower = path.to_ascii_lowercase();
    for hidden in ["%2f", "%5c", "%2e", "%00", "%3b"] {
        assert!(!lower.contains(hidden), "{text:?} {path:?}");
    }
    assert_eq!(canonical(&path).as_deref(), Ok(&*path), "{text:?}");
});
