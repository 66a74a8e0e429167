//! Fields of HTTP/1.1 as bytes (RFC 9112 section 5), and lists in them.

use http::{HeaderMap, header};

/// Writes fields but those that say where the body ends; tells whether there was a length.
pub fn write_fields(into: &mut Vec<u8>, fields: &HeaderMap) -> bool {
    let mut said_length = false;
    for (name, value) in fields {
        if name == header::CONTENT_LENGTH {
            said_length = true;
        } else if name != header::TRANSFER_ENCODING {
            write_field(into, name.as_str(), value.as_bytes());
        }
    }
    said_length
}

/// The members of a list such as `Connection`'s (RFC 9110 section 5.6.1); empty ones too.
pub fn members(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether `list` has a member, in whatever case.
pub fn lists(list: &[u8], member: &str) -> bool {
    members(list).any(|listed| listed.eq_ignore_ascii_case(member.as_bytes()))
}

/// Writes one field.
pub fn write_field(into: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        into.extend_from_slice(part);
    }
}
