//! Names as text that loses nothing. A name on the disk is bytes, and a report is text: here each byte
//! that is not UTF-8 becomes a character of its own, out of a private range, and crosses the control
//! socket like any other. Tables and messages show such a byte in octal; JSON has the name as near
//! as text comes to it, and its bytes beside that.

use serde_json::{Map, Value};

/// Stands for the byte 0; those behind it for the others.
const FIRST: u32 = 0x10_FE00;

/// The byte that a character stands for.
pub fn byte_of(character: char) -> Option<u8> {
    u32::from(character).checked_sub(FIRST).and_then(|byte| u8::try_from(byte).ok())
}

fn stands_for(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A name as text.
pub fn text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match byte_of(character) {
                None => text.push(character),
                // A name that holds such a character itself is told from one that needs it.
                Some(_) => {
                    let mut bytes = [0; 4];
                    text.extend(character.encode_utf8(&mut bytes).bytes().map(stands_for));
                }
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stands_for));
    }
    text
}

/// The name again.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => name.push(byte),
            None => name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    name
}

/// Whether no character of `text` stands for a byte.
pub fn are_plain(text: &str) -> bool {
    !text.chars().any(|character| byte_of(character).is_some())
}

/// Makes plain text of every name in a report. Beside the field of one that is not UTF-8 comes a
/// field of the same name with `_bytes`: in hexadecimal; of several names a list, with `null` for
/// those that are UTF-8.
pub fn make_plain(report: &mut Value) {
    match report {
        Value::Object(fields) => {
            let mut beside = Map::new();
            for (key, value) in fields.iter_mut() {
                make_plain(value);
                if let Some(bytes) = take_bytes(value) {
                    beside.insert(format!("{key}_bytes"), bytes);
                }
            }
            fields.extend(beside);
        }
        Value::Array(values) => {
            values.iter_mut().filter(|value| !value.is_string()).for_each(make_plain)
        }
        _ => {}
    }
}

/// Leaves plain text in a field, and returns the bytes where that is not all.
fn take_bytes(value: &mut Value) -> Option<Value> {
    match value {
        Value::String(text) if !are_plain(text) => {
            let name = bytes(text);
            *text = String::from_utf8_lossy(&name).into_owned();
            let hex = || name.iter().map(|byte| format!("{byte:02x}")).collect();
            (text.as_bytes() != name).then(|| Value::String(hex()))
        }
        Value::Array(values) => {
            let found: Vec<_> = values.iter_mut().map(take_bytes).collect();
            let is_any = found.iter().any(Option::is_some);
            is_any.then(|| found.into_iter().map(Option::unwrap_or_default).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_byte_is_lost_on_the_way_through_text() {
        let own = stands_for(0x80).to_string();
        let names: [&[u8]; 6] =
            [b"", b"plain", "söhne".as_bytes(), b"a\xffb\xc3", b"\xf4\x8f\xb8", own.as_bytes()];
        for name in names {
            assert_eq!(bytes(&text(name)), name);
        }
        assert_eq!(text("söhne".as_bytes()), "söhne");
        assert_ne!(text(own.as_bytes()), text(b"\x80"), "told from what stands for a byte");
    }

    #[test]
    fn bytes_stand_beside_a_name_only_where_text_is_not_all_of_it() {
        let own = stands_for(0x80).to_string();
        let mut report = json!({ "files": [
            { "path": text(b"/m/a\xff"), "kind": "file" },
            { "path": "/m/b", "from": text(own.as_bytes()) },
            { "paths": ["/m/c", text(b"\xfe")] },
        ]});
        make_plain(&mut report);
        let plain = json!({ "files": [
            { "path": "/m/a\u{fffd}", "path_bytes": "2f6d2f61ff", "kind": "file" },
            { "path": "/m/b", "from": own },
            { "paths": ["/m/c", "\u{fffd}"], "paths_bytes": [null, "fe"] },
        ]});
        assert_eq!(report, plain);
    }
}
