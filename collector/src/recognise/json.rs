//! A look into JSON texts without reading all of them: arguments, results and metadata that producers write as one
//! attribute. Nothing is allocated, nothing recurses; a text that was cut off still gives what stands before the cut.

/// The member of an object at a path of keys, as it stands in the text: texts without their quotes (escapes stay),
/// everything else as JSON. `None` if it is not there, null, or what leads there is no object.
pub(super) fn member<'a>(text: &'a [u8], path: &[Vec<u8>]) -> Option<&'a [u8]> {
    let mut at = text;
    for key in path {
        at = value_of(at, key)?;
    }
    match at {
        b"null" | b"" => None,
        [b'"', inner @ .., b'"'] => Some(inner),
        other => Some(other),
    }
}

/// The value of a key of an object, with its quotes if it is a text.
fn value_of<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut rest = trim(text).strip_prefix(b"{")?;
    loop {
        rest = trim(rest);
        let end = string_end(rest)?;
        let found = rest.get(1..end - 1)? == key;
        rest = trim(rest.get(end..)?).strip_prefix(b":")?;
        rest = trim(rest);
        let end = value_end(rest)?;
        if found {
            return rest.get(..end);
        }
        rest = trim(rest.get(end..)?).strip_prefix(b",")?;
    }
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// Where a text that begins here ends, behind its closing quote.
fn string_end(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where a value that begins here ends.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match text.get(at) {
            Some(b'"') => at += string_end(text.get(at..)?)?,
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') if depth == 0 => return Some(at),
            Some(_) => at += 1,
            // A number or a word may stand at the end of what was cut off; then nobody knows whether it is whole.
            None => return None,
        }
        if depth == 0 && matches!(text.get(at - 1), Some(b'"' | b'}' | b']')) {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Vec<Vec<u8>> {
        path.split('.').map(|key| key.as_bytes().to_vec()).collect()
    }

    #[test]
    fn members_are_found_as_a_parser_finds_them() {
        let text = r#" {"a": {"x" : [1, {"b": 2}], "b": "two \" }"}, "b": -1.5e3 , "c":null,"d":{},"e":"","f":true } "#;
        let cases = [
            ("a.b", Some(r#"two \" }"#)),
            ("a.x", Some(r#"[1, {"b": 2}]"#)),
            ("b", Some("-1.5e3")),
            ("c", None),
            ("d", Some("{}")),
            ("d.x", None),
            ("e", Some("")),
            ("f", Some("true")),
            ("g", None),
            ("b.a", None),
        ];
        for (at, expect) in cases {
            assert_eq!(member(text.as_bytes(), &path(at)), expect.map(str::as_bytes), "{at}");
        }
    }

    #[test]
    fn every_cut_gives_the_member_or_nothing() {
        let text = br#"{"a":[{"b":"x\\"}],"name":"search","n":12}"#;
        let (mut names, mut numbers) = (0, 0);
        for end in 0..=text.len() {
            let name = member(&text[..end], &path("name"));
            assert!(name.is_none_or(|name| name == b"search"), "{end}");
            let number = member(&text[..end], &path("n"));
            assert!(number.is_none_or(|number| number == b"12"), "{end}");
            names += usize::from(name.is_some());
            numbers += usize::from(number.is_some());
        }
        assert_eq!((names, numbers), (9, 1));
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let mut text = b"{\"a\":".to_vec();
        text.extend(std::iter::repeat_n(b'[', 1 << 20));
        assert_eq!(member(&text, &path("b")), None);
    }
}
